"""The one-line input at the bottom: gdb's words, go to, find, and values edited in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

__all__ = ["CommandLine", "LineCancelled", "LineEntered"]

_KEPT = 200


@dataclass
class LineEntered(Message):
    """A line was entered; ``purpose`` is what `CommandLine.ask` was given."""

    purpose: str
    text: str


@dataclass
class LineCancelled(Message):
    """Escape."""

    purpose: str


class CommandLine(Input):
    """Hidden until asked; the prompt is the border's title."""

    DEFAULT_CSS: ClassVar[str] = """
    CommandLine {
        height: 1;
        border: none;
        padding: 0 1;
        background: $raised;
        color: $foreground;

        &.-in-place {
            position: absolute;
            layer: above;
            padding: 0;
            background: $accent;
            color: $background;
        }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, priority=True, id="line.cancel", tooltip="Close the line"),
        Binding("up", "history(-1)", "Older", show=False, id="line.older", tooltip="The line before"),
        Binding("down", "history(1)", "Newer", show=False, id="line.newer", tooltip="The next line"),
        Binding(
            "tab", "complete", "Complete", show=False, priority=True, id="line.complete", tooltip="Complete a word"
        ),
    ]

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, compact=True, select_on_focus=False)
        self.purpose = ""
        self.completer: Callable[[str], list[str]] | None = None
        self._history: dict[str, list[str]] = {}
        self._at = 0
        self._matches: list[str] = []
        self._match = -1
        self._typed = ""

    def ask(self, purpose: str, text: str = "", *, completer: Callable[[str], list[str]] | None = None) -> None:
        """Take a line for ``purpose``, beginning with ``text``."""
        self.purpose, self.completer = purpose, completer
        self._at = len(self._history.get(purpose, []))
        self._matches = []
        self.value = text
        self.cursor_position = len(text)
        self.focus()

    async def action_submit(self) -> None:
        line = self.value.strip()
        if line:
            lines = self._history.setdefault(self.purpose, [])
            if not lines or lines[-1] != line:
                lines.append(line)
            del lines[:-_KEPT]
        self.post_message(LineEntered(self.purpose, self.value))

    def action_cancel(self) -> None:
        """Close without doing anything."""
        self.post_message(LineCancelled(self.purpose))

    def action_history(self, step: int) -> None:
        """An older or newer line of the same purpose."""
        lines = self._history.get(self.purpose, [])
        self._at = max(0, min(self._at + step, len(lines)))
        self.value = lines[self._at] if self._at < len(lines) else ""
        self.cursor_position = len(self.value)

    def action_complete(self) -> None:
        """Complete as far as it is certain, then go through what is possible."""
        if self.completer is None:
            return
        if not self._matches or self.value not in (self._typed, *self._matches):
            self._typed = self.value
            self._matches = self.completer(self.value)
            self._match = -1
            shared = _shared_prefix(self._matches)
            if len(shared) > len(self.value):
                self.value = shared if len(self._matches) > 1 else shared + " "
                self.cursor_position = len(self.value)
                self._typed = self.value
                return
        if self._matches:
            self._match = (self._match + 1) % len(self._matches)
            self.value = self._matches[self._match]
            self.cursor_position = len(self.value)

    def on_blur(self, event: events.Blur) -> None:
        """A click elsewhere closes the line."""
        self.post_message(LineCancelled(self.purpose))


def _shared_prefix(words: list[str]) -> str:
    if not words:
        return ""
    first, last = min(words), max(words)
    for index, char in enumerate(first):
        if index >= len(last) or last[index] != char:
            return first[:index]
    return first
