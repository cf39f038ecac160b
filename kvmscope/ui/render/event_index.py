"""All events known of a history, by position and by kind, grown by what each stop adds.

A machine that stands in the past reports the events up to there only; those behind it are kept as long as history holds
them, so that the timeline shows where the future is.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from kvmscope.ui.render.event_text import EventKind, kind_of
from kvmscope.vmm.events import Event, MmioEvent, PortEvent
from kvmscope.vmm.snapshot import Snapshot

__all__ = ["EventIndex", "cell_of"]

_BLOCKS: Final = "▁▂▃▄▅▆▇█"


def cell_of(tick: int, last_tick: int, width: int) -> int:
    """The cell of a bar over the whole history that ``tick`` lies in: 0 is the first cell, ``last_tick`` the last one."""
    return min(width - 1, tick * (width - 1) // max(1, last_tick))


class EventIndex:
    """Events in order of their tick; `update` must see every stop, or a future that was cut meanwhile would stay."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ticks: list[int] = []
        self._by_kind: dict[EventKind, list[int]] = {}
        self._accessed: dict[str, int] = {}
        """Device -> position of its first access; -1: among the events that are kept no more."""
        self._first = 0
        self._now: Snapshot | None = None
        self.here = 0
        """Number of events up to the present tick."""

    def update(self, snapshot: Snapshot) -> None:
        """Take in a stop: what is new is added, what history no longer holds is forgotten."""
        if snapshot is self._now:
            return
        self._now = snapshot
        reported = snapshot.events
        if snapshot.events_dropped != self._first:
            self._forget_first(snapshot.events_dropped)
        known = self._shared(reported)
        if known < len(reported):
            # News, or another history from here on.
            self._truncate(known)
            for i in range(known, len(reported)):
                self._append(reported[i])
        elif snapshot.tick >= snapshot.last_tick:
            # There is no future (any more).
            self._truncate(known)
        else:
            self._truncate(max(known, bisect_right(self.ticks, snapshot.last_tick)))
        self.here = len(reported)

    def _shared(self, reported: Sequence[Event]) -> int:
        """How many events at the beginning are the same records.

        A history appends records and cuts its end, so what is the same is the beginning, and identity tells.
        """
        low, high = 0, min(len(reported), len(self.events))
        while low < high:
            middle = (low + high + 1) // 2
            if reported[middle - 1] is self.events[middle - 1]:
                low = middle
            else:
                high = middle - 1
        return low

    def _clear(self) -> None:
        self.events.clear()
        self.ticks.clear()
        self._by_kind.clear()

    def _forget_first(self, dropped: int) -> None:
        """Begin anew: the budget of events has run over, and positions have moved."""
        # Fewer than before are dropped in another history only.
        self._accessed = dict.fromkeys(self._accessed, -1) if dropped > self._first else {}
        self._first = dropped
        self._clear()

    def _append(self, event: Event) -> None:
        self._by_kind.setdefault(kind_of(event), []).append(len(self.events))
        if isinstance(event, (PortEvent, MmioEvent)) and event.device:
            self._accessed.setdefault(event.device, len(self.events))
        self.events.append(event)
        self.ticks.append(event.tick)

    def _truncate(self, length: int) -> None:
        if length >= len(self.events):
            return
        del self.events[length:]
        del self.ticks[length:]
        self._accessed = {device: first for device, first in self._accessed.items() if first < length}
        for positions in self._by_kind.values():
            del positions[bisect_left(positions, length) :]

    def first_access(self, device: str) -> int:
        """Position of the first access to a device's ports or memory, or the number of events when there was none."""
        return self._accessed.get(device, len(self.events))

    def kinds(self) -> dict[EventKind, int]:
        """How many events of each kind there are."""
        return {kind: len(found) for kind in EventKind if (found := self._by_kind.get(kind))}

    def positions(self, kinds: frozenset[EventKind]) -> list[int] | range:
        """Positions of the events of ``kinds`` (all when empty), in order."""
        if not kinds:
            return range(len(self.events))
        chosen = [self._by_kind[kind] for kind in EventKind if kind in kinds and kind in self._by_kind]
        if len(chosen) == 1:
            return chosen[0]
        return sorted(position for found in chosen for position in found)

    def density(self, width: int, last_tick: int) -> str:
        """A bar of ``width`` cells over the whole history: how many events fall in each part of it."""
        last = max(last_tick, self.ticks[-1] if self.ticks else 0, 1)
        # The inverse of `cell_of`: the first tick of each cell, rounded up.
        edges = [bisect_left(self.ticks, -(-i * last // max(1, width - 1))) for i in range(width)]
        edges.append(len(self.ticks))
        counts = [b - a for a, b in pairwise(edges)]
        most = max(counts, default=0)
        if not most:
            return " " * width
        return "".join(_BLOCKS[max(0, (count * len(_BLOCKS) - 1) // most)] if count else " " for count in counts)
