"""The one-line bars: header, status and footer.  They repaint only when what they say has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from kvmscope.ui.theme import Palette, palette_for

__all__ = ["Bar", "BarClicked", "BarItem", "fit"]


@dataclass(frozen=True, slots=True)
class BarItem:
    """A run of text in a bar."""

    text: str
    style: str = "bar"
    action: str = ""
    """Action that a click does; empty: none."""


@dataclass
class BarClicked(Message):
    """A word of a bar was clicked."""

    action: str


class Bar(Widget):
    """One line: items from the left, items at the right end."""

    DEFAULT_CSS: ClassVar[str] = "Bar { height: 1; width: 1fr; }"

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._left: tuple[BarItem, ...] = ()
        self._right: tuple[BarItem, ...] = ()
        self._palette: Palette = palette_for("kvmscope-dark")
        self._places: list[tuple[int, int, str]] = []

    def on_mount(self) -> None:
        self._palette = palette_for(self.app.theme)
        self.app.theme_changed_signal.subscribe(self, self._theme_changed)

    def _theme_changed(self, theme: object) -> None:
        self._palette = palette_for(getattr(theme, "name", ""))
        self.refresh()

    def show(self, left: Sequence[BarItem], right: Sequence[BarItem] = ()) -> None:
        """Say something else."""
        if (tuple(left), tuple(right)) != (self._left, self._right):
            self._left, self._right = tuple(left), tuple(right)
            self.refresh()

    @property
    def plain(self) -> str:
        """What the bar says, for tests."""
        return "".join(item.text for item in (*self._left, *self._right))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        right = fit(self._right, width)
        left = fit(self._left, width - sum(cell_len(item.text) for item in right))
        filler = width - sum(cell_len(item.text) for item in (*left, *right))
        self._places = []
        segments: list[Segment] = []
        column = 0
        for item in (*left, BarItem(" " * filler), *right):
            if item.text:
                size = cell_len(item.text)
                if item.action:
                    self._places.append((column, column + size, item.action))
                segments.append(Segment(item.text, self._palette[item.style]))
                column += size
        return Strip(segments, column)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        for first, end, action in self._places:
            if first <= event.x < end:
                self.post_message(BarClicked(action))


def fit(items: Sequence[BarItem], width: int) -> list[BarItem]:
    """The items that fit into ``width`` cells; the last one is cut with an ellipsis."""
    out: list[BarItem] = []
    room = max(0, width)
    for item in items:
        size = cell_len(item.text)
        if size <= room:
            out.append(item)
            room -= size
            continue
        if room > 1:
            text = item.text
            while text and cell_len(text) > room - 1:
                text = text[:-1]
            out.append(BarItem(text + "…", item.style, item.action))
        break
    return out
