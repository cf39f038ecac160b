"""The memory panel."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from kvmscope.ui.line_panel import LinePanel, Row
from kvmscope.ui.render.memory import Target, bytes_per_row, memory_rows, memory_target, place_memory, row_digits
from kvmscope.ui.render.telescope import telescope_rows, word_size
from kvmscope.ui.view import Space, View

__all__ = ["MemoryPanel"]


class MemoryPanel(LinePanel):
    """Bytes and text, or pointers, at an address or where a register points."""

    KIND = "memory"
    TITLE = "Memory"
    HELP = (
        "Bytes and text, or pointers, at an address or where a register points.\n"
        "g goes to an address or label, m on a register follows it, Home returns.\n"
        "a switches between bytes and pointers with what they lead to.\n"
        "·· is not mapped, ▒▒ is mapped but no RAM (a device is never read).\n"
        "Changed digits are underlined, their row begins with ▸. Enter edits the byte under the cursor."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "a", "telescope", "Pointers", show=False, id="memory.telescope", tooltip="Bytes, or pointers and where to"
        ),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self.telescope = False
        self._anchor: int | None = None
        self._held: Target | None = None

    def _per_row(self, view: View, width: int, target: Target) -> int:
        return word_size(view) if self.telescope else bytes_per_row(width, row_digits(target.address))

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        target = memory_target(view)
        per_row = self._per_row(view, width, target)
        if self._anchor is None or self._held != target or self._anchor % per_row:
            self._held = None
            self._anchor = place_memory(target.address, self._anchor, per_row, height)
        draw = telescope_rows if self.telescope else memory_rows
        return draw(view, width, height, self._anchor, target)

    def scroll_lines(self, lines: int) -> None:
        if self.view is None or self._anchor is None:
            return
        target = memory_target(self.view)
        per_row = self._per_row(self.view, self.size.width, target)
        top = (1 << 52) if target.space is Space.PHYSICAL else (1 << 64)
        if self.view.snapshot.cpu.mode != 64 and target.space is Space.LINEAR:
            top = 1 << 32
        self._anchor = max(0, min(self._anchor + lines * per_row, top - per_row))
        self._held = target
        self.redraw()

    def edge_reached(self, direction: int) -> None:
        """Home and End go back to the address looked at."""
        self._anchor = None
        self._held = None
        self.redraw()

    def action_telescope(self) -> None:
        """Bytes, or pointers and what they lead to."""
        self.telescope = not self.telescope
        self._anchor = None
        self.redraw()

    def subtitle(self, view: View) -> str:
        words = memory_target(view).title + (" pointers" if self.telescope else "")
        return words + (" · changes only in part known" if view.delta.memory_truncated else "")
