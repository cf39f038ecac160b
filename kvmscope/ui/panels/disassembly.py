"""The disassembly panel."""

from __future__ import annotations

from kvmscope.ui.line_panel import LinePanel, Row
from kvmscope.ui.render.disassembly import disassembly_rows, place_window, scroll_window
from kvmscope.ui.render.reader import symbols_of
from kvmscope.ui.view import View

__all__ = ["DisassemblyPanel"]


class DisassemblyPanel(LinePanel):
    """Instructions around RIP or the address looked at."""

    KIND = "disassembly"
    TITLE = "Disassembly"
    HELP = (
        "The code around the next instruction, and what that will touch.\n"
        "▶ is the next instruction, ● a breakpoint; an arrow leads from the branch about to execute to its target.\n"
        "The last line says whether the branch is taken, and what the instruction reads or writes.\n"
        "b sets a breakpoint on the row, u runs to it, Enter shows it in the source, Home returns to the present."
    )

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self._anchor: int | None = None
        self._held_at: tuple[int, int | None, int] | None = None

    def _position(self, view: View) -> tuple[int, int | None, int]:
        return view.snapshot.cpu.pc, view.focus.code, view.snapshot.cpu.mode

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        if self._anchor is None or self._held_at != self._position(view):
            # Not while the user has scrolled and nothing moved since.
            self._held_at = None
            self._anchor = place_window(view, self._anchor, height)
        return disassembly_rows(view, width, height, self._anchor)

    def scroll_lines(self, lines: int) -> None:
        if self.view is None or self._anchor is None or not lines:
            return
        self._anchor = scroll_window(self.view, self._anchor, lines)
        self._held_at = self._position(self.view)
        self.redraw()

    def edge_reached(self, direction: int) -> None:
        """Home and End go back to the present instruction."""
        if self.view is None:
            return
        self._anchor = None
        self._held_at = None
        self.redraw()

    def subtitle(self, view: View) -> str:
        at = view.focus.code if view.focus.code is not None else view.snapshot.cpu.pc
        return symbols_of(view.image).words(at).strip("<>") or f"{at:x}"
