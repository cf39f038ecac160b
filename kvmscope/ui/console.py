"""What commands answered: the scrollback of the ``:`` command line."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from kvmscope.ui.line_panel import LinePanel, Row, Span, plain
from kvmscope.ui.view import View

__all__ = ["ConsolePanel"]

_KEPT = 5000


class ConsolePanel(LinePanel):
    """Commands and their answers, newest at the end."""

    KIND: ClassVar[str] = "console"
    TITLE: ClassVar[str] = "Console"
    HELP: ClassVar[str] = "Answers of the command line (:)."

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[Row] = deque(maxlen=_KEPT)

    def say(self, command: str, lines: tuple[str, ...], style: str = "value") -> None:
        """Add a command with its answer and show the end."""
        if command:
            self._lines.append(Row((Span(" : ", "accent"), Span(command, "value"))))
        for line in lines:
            self._lines.append(Row((Span(f"   {line}", style),)))
        self.top = len(self._lines)
        self.redraw()

    def text(self) -> str:
        """All of it, for tests and copying."""
        return "\n".join(plain(list(self._lines)))

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        if not self._lines:
            return [Row((Span(" Type : and a command; help lists them.", "dim"),))]
        return list(self._lines)
