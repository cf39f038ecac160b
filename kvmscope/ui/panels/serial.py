"""The serial panel."""

from __future__ import annotations

from kvmscope.ui.line_panel import LinePanel, Row
from kvmscope.ui.render.serial import serial_rows, visible_lines
from kvmscope.ui.view import View

__all__ = ["SerialPanel"]


class SerialPanel(LinePanel):
    """Text of the serial port and the debug console, the newest at the bottom."""

    KIND = "serial"
    TITLE = "Serial"
    HELP = (
        "What the guest wrote to its serial port and debug console.\n"
        "Control characters and bytes beyond ASCII are shown, never obeyed. ▸ marks what the last command wrote.\n"
        "The window follows the end; End returns to it."
    )

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self.back = 0
        """Lines between the end of the text and the end of the window."""

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        return serial_rows(view, width, height, self.back)

    def scroll_lines(self, lines: int) -> None:
        if self.view is None:
            return
        wanted = max(0, self.back - lines)
        height, width = self.window_height, max(1, self.size.width - 1)
        text = self.view.snapshot.serial or self.view.snapshot.debugcon
        # As far as there is text to fill the window with.
        there = len(visible_lines(text, width, height + wanted))
        self.back = max(0, min(wanted, there - height))
        self.redraw()

    def edge_reached(self, direction: int) -> None:
        if direction > 0:
            self.back = 0
            self.redraw()
        else:
            text = self.view.snapshot.serial if self.view is not None else b""
            self.scroll_lines(-len(text) - 1)

    def subtitle(self, view: View) -> str:
        size = len(view.snapshot.serial) + len(view.snapshot.debugcon)
        words = f"{size} byte{'' if size == 1 else 's'}" if size else ""
        return f"{words} · {self.back} lines below" if self.back else words
