"""The timeline: a density bar over the whole history with the present marked, then the events, one row each."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from kvmscope.ui.line_panel import Key, Kind, Row, Span
from kvmscope.ui.render.event_index import EventIndex, cell_of
from kvmscope.ui.render.event_text import EventKind, describe
from kvmscope.ui.render.reader import Symbols, symbols_of
from kvmscope.ui.render.text import clip, message, row
from kvmscope.ui.view import View
from kvmscope.vmm.events import Event

__all__ = ["VCPU_STYLES", "bar_rows", "clamp_first", "event_row", "event_rows", "follow_first"]

VCPU_STYLES: Final = ("accent", "ok", "num", "symbol")
"""Inks of the vCPUs' numbers, by turns; the number itself tells them apart."""


def bar_rows(view: View, index: EventIndex, width: int) -> list[Row]:
    """Two rows: how dense events are over history, and where in it we stand."""
    snapshot = view.snapshot
    room = max(1, width - 2)
    last = max(snapshot.last_tick, snapshot.tick)
    at = cell_of(snapshot.tick, last, room)
    bar = index.density(room, last)
    style = "past" if view.in_past else "accent"
    label = f"{snapshot.tick}/{last}" if view.in_past else f"{snapshot.tick}"
    left = at + 2 + len(label) > room
    mark = (
        (Span(" " * max(0, at - len(label) - 1)), Span(f"{label} ", "dim"), Span("▲", style))
        if left and at > len(label)
        else (Span(" " * at), Span("▲", style), Span(f" {label}", "dim"))
    )
    return [
        row(width, (Span(" "), Span(bar[:at], "dim"), Span(bar[at], style), Span(bar[at + 1 :], "zero"))),
        row(width, (Span(" "), *mark)),
    ]


def follow_first(index: EventIndex, positions: Sequence[int], height: int) -> int:
    """First row to show so that the present is on screen: most of the room for the past, some for the future."""
    present = bisect_left(positions, index.here)
    return clamp_first(present - max(1, height * 3 // 4), len(positions), height)


def clamp_first(first: int, count: int, height: int) -> int:
    """``first`` moved into the rows there are."""
    return max(0, min(first, count - height))


def event_rows(
    view: View, index: EventIndex, positions: Sequence[int], width: int, height: int, first: int
) -> list[Row]:
    """The ``height`` event rows from ``first`` on."""
    if not positions:
        return [message(width, "no events" + (" of these kinds" if index.events else " yet"))]
    symbols = symbols_of(view.image)
    digits = max(4, len(str(max(view.snapshot.last_tick, index.ticks[-1]))))
    rows: list[Row] = []
    shown = [index.events[positions[line]].rip for line in range(first, min(first + height, len(positions)))]
    rip_digits = max((len(f"{rip:x}") for rip in shown), default=1)
    vcpus = len(view.snapshot.vcpus)
    for line in range(first, min(first + height, len(positions))):
        position = positions[line]
        event = index.events[position]
        here = position == index.here - 1 and event.tick == view.snapshot.tick
        selected = view.focus.event_tick is not None and event.tick == view.focus.event_tick
        future = position >= index.here
        rows.append(
            event_row(event, symbols, width, (digits, rip_digits), "▶" if here else " ", future, selected, vcpus=vcpus)
        )
    return rows


# Events are records that never change; identity is equality for the cache, and their states are costly to hash.
class _ById:
    """An event as a key of the cache."""

    __slots__ = ("event",)

    def __init__(self, event: Event) -> None:
        self.event = event

    def __hash__(self) -> int:
        return id(self.event)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.event is self.event


def event_row(
    event: Event,
    symbols: Symbols,
    width: int,
    digits: tuple[int, int],
    point: str,
    future: bool,
    selected: bool = False,
    *,
    vcpus: int = 0,
) -> Row:
    """``▶ 123 401000 <main+4>  #PF(2) write 7000, supervisor, not present``; ``digits`` of ticks and of addresses.

    Where there are several ``vcpus`` the event's own stands behind the tick: ``▶ 123 v1 401000``.
    """
    return _event_row(_ById(event), symbols, width, digits, point, future, selected, vcpus)


@lru_cache(maxsize=2048)
def _event_row(
    boxed: _ById,
    symbols: Symbols,
    width: int,
    digits: tuple[int, int],
    point: str,
    future: bool,
    selected: bool,
    vcpus: int,
) -> Row:
    event = boxed.event
    words = describe(event, symbols)
    key = Key(Kind.TICK, event.tick, f"{event.tick}", event.rip, event.vcpu if vcpus > 1 else None)
    spans = [Span(point, "gutter_current"), Span("·" if future else " ", "past")]
    spans.append(Span(f"{event.tick:{digits[0]}d} ", "dim"))
    if vcpus > 1:
        ink = VCPU_STYLES[event.vcpu % len(VCPU_STYLES)]
        spans.append(Span(f"v{event.vcpu:<{len(str(vcpus - 1))}} ", ink))
    address = f"{event.rip:>{digits[1]}x}"
    if width >= 60:
        near = symbols.words(event.rip)
        room = 26 if width >= 90 else 18
        where = f"{address} {near}"
        spans.append(Span((where if len(where) < room else where[: room - 2] + "…").ljust(room), "addr"))
    elif width >= 46:
        spans.append(Span(f"{address} ", "addr"))
    spans += (Span(f"{words.verb:<8} ", words.style), *words.spans)
    if future:
        spans = [*spans[:2], *(Span(span.text, "comment") for span in spans[2:])]
    return Row(clip(spans, width), key, "selection" if selected else "")


def filter_words(index: EventIndex, kinds: frozenset[EventKind]) -> str:
    """``all 12 events`` or ``exceptions, MSR: 3 of 12``."""
    counts = index.kinds()
    total = sum(counts.values())
    if not kinds:
        return f"{total} event{'' if total == 1 else 's'}"
    shown = sum(counts.get(kind, 0) for kind in kinds)
    return f"{', '.join(kind.value for kind in EventKind if kind in kinds)}: {shown} of {total}"
