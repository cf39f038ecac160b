"""The timeline panel."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from kvmscope.ui.line_panel import LinePanel, Row
from kvmscope.ui.render.event_index import EventIndex
from kvmscope.ui.render.event_text import EventKind
from kvmscope.ui.render.timeline import bar_rows, clamp_first, event_rows, filter_words, follow_first
from kvmscope.ui.view import View
from kvmscope.vmm.snapshot import Snapshot

__all__ = ["TimelinePanel"]

_BAR_FROM = 5
"""Lines from which on two are spent on the density bar."""


class TimelinePanel(LinePanel):
    """What the hardware did, in order; the future too, while history holds it."""

    KIND = "timeline"
    TITLE = "Timeline"
    HELP = (
        "Exceptions, I/O, MSR and control-register accesses and mode changes, in order.\n"
        "▶ is the present; rows with · lie in the future of where you stand.\n"
        "The bar shows where in history events are dense, ▲ where you are.\n"
        "Enter goes to the event's moment, a shows one kind of event after the other, [ and ] walk along."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "next_kind", "Filter", show=False, id="timeline.kind", tooltip="Show one kind of event, or all"),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self.index = EventIndex()
        self.kinds: frozenset[EventKind] = frozenset()
        self._first: int | None = None
        self._drawn: Snapshot | None = None

    def show(self, view: View) -> None:
        # Hidden or not: see `EventIndex`.
        self.index.update(view.snapshot)
        super().show(view)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        self.index.update(view.snapshot)
        if view.snapshot is not self._drawn:
            self._drawn, self._first = view.snapshot, None
        positions = self.index.positions(self.kinds)
        bars = bar_rows(view, self.index, width) if height >= _BAR_FROM else []
        room = height - len(bars)
        first = self._first if self._first is not None else follow_first(self.index, positions, room)
        first = clamp_first(first, len(positions), room)
        return [*bars, *event_rows(view, self.index, positions, width, room, first)]

    def _room(self) -> int:
        height = self.window_height
        return height - 2 if height >= _BAR_FROM else height

    def scroll_lines(self, lines: int) -> None:
        positions = self.index.positions(self.kinds)
        first = self._first if self._first is not None else follow_first(self.index, positions, self._room())
        self._first = clamp_first(first + lines, len(positions), self._room())
        self.redraw()

    def edge_reached(self, direction: int) -> None:
        self.scroll_lines(direction * (len(self.index.events) + 1))

    def action_next_kind(self) -> None:
        """Show the next kind of event that there is; after the last, all."""
        there = [*self.index.kinds()]
        now = next(iter(self.kinds), None)
        at = there.index(now) + 1 if now in there else 0
        self.kinds = frozenset(there[at : at + 1])
        self._first = None
        self.redraw()

    def subtitle(self, view: View) -> str:
        dropped = view.snapshot.events_dropped
        return filter_words(self.index, self.kinds) + (f" · {dropped} older ones dropped" if dropped else "")
