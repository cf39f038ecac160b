"""The paging panel."""

from __future__ import annotations

from textual.geometry import Region

from kvmscope.ui.line_panel import Key, Kind, LinePanel, Row
from kvmscope.ui.render.paging_tree import path_of, tree_rows
from kvmscope.ui.render.paging_walk import walk_of, walk_rows, walk_target
from kvmscope.ui.render.reader import Reader
from kvmscope.ui.render.text import BLANK
from kvmscope.ui.view import View
from kvmscope.x86.paging import paging_mode

__all__ = ["PagingPanel"]


class PagingPanel(LinePanel):
    """One address walked, then the tables as a tree."""

    KIND = "paging"
    TITLE = "Paging"
    HELP = (
        "The walk of one address, why accesses to it would fault, and the live tables as a tree.\n"
        "The address is that of the last page fault, else RIP; p on any address walks it.\n"
        "Digits behind ✗ are the error code, brackets mark the access that did fault.\n"
        "P RW US are upper case when set; rwxu are the rights that all levels leave together.\n"
        "Enter on a table opens or closes it."
    )

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self._turned: frozenset[str] = frozenset()
        self._path: tuple[str, ...] = ()

    @property
    def opened(self) -> frozenset[str]:
        """Tables drawn open: those of the walk, and what the user opened, without what the user closed."""
        return frozenset(self._path) ^ self._turned

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        reader = Reader(view)
        target = walk_target(view)
        walked = walk_of(reader, target.linear)
        rows = walk_rows(reader, width, target, walked)
        path = path_of(walked)
        if path != self._path:
            # What stood open stays open; only the walk's own tables change.
            self._turned = (self.opened - set(self._path)) - set(path)
            self._path = path
        return [*rows, BLANK, *tree_rows(reader, width, self.opened)] if reader.paged else rows

    def activate(self, key: Key, region: Region) -> None:
        if key.kind is Kind.FOLD:
            self._turned ^= {str(key.value)}
            self.redraw()
        else:
            super().activate(key, region)

    def subtitle(self, view: View) -> str:
        cpu = view.snapshot.cpu
        mode = paging_mode(cpu.cr0, cpu.cr4, cpu.efer)
        return f"{mode.value} CR3 {cpu.cr3:x}" if mode.value != "none" else "off"
