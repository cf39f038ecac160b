"""What a run leaves behind in order of time: event records and output, with a position for travelling back.

The position is where the machine stands.  Behind it is the past, before it the future that history already knows:
going back only moves the position, and going forward again over known ground moves it without storing twice, because
a replay gives the same records.  `cut` forgets the future (an edit in the past makes another one).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from kvmscope.vmm.events import Event, ExceptionEvent

__all__ = ["EventLog", "EventView", "Output"]

_EXCEPTION_WEIGHT = 10
"""An exception record holds a whole processor state: it counts for this many others."""


class EventView(Sequence[Event]):
    """A frozen stretch of the log, without a copy: what is appended later is not in it."""

    def __init__(self, events: list[Event], start: int, stop: int) -> None:
        self._events = events
        self._start = start
        self._length = stop - start

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | Sequence[Event]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            if step == 1:
                return EventView(self._events, self._start + start, self._start + max(start, stop))
            return [self[i] for i in range(start, stop, step)]
        if index < 0:
            index += self._length
        if not 0 <= index < self._length:
            raise IndexError("event index out of range")
        return self._events[self._start + index]

    def __iter__(self) -> Iterator[Event]:
        for i in range(self._start, self._start + self._length):
            yield self._events[i]


class EventLog:
    """Events by their number since boot.  Of more than ``limit`` the oldest are dropped, an eighth at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, 8)
        self._events: list[Event] = []
        self._first = 0
        """Number of the oldest event kept."""
        self._weight = 0
        self.position = 0
        """Events since boot where the machine stands."""

    def append(self, event: Event) -> None:
        """Record the next event (already known when replaying)."""
        self.position += 1
        if self.position <= self._first + len(self._events):
            return
        self._events.append(event)
        self._weight += _EXCEPTION_WEIGHT if isinstance(event, ExceptionEvent) else 1
        if self._weight > self._limit:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        count = max(1, len(self._events) // 8)
        # A new list: views of the old one stay as they were.
        self._events = self._events[count:]
        self._first += count
        self._weigh()

    def _weigh(self) -> None:
        self._weight = sum(_EXCEPTION_WEIGHT if isinstance(e, ExceptionEvent) else 1 for e in self._events)

    def cut(self) -> None:
        """Forget what lies beyond the position."""
        keep = self.position - self._first
        if keep < len(self._events):
            self._events = self._events[: max(0, keep)]
            self._first = min(self._first, self.position)
            self._weigh()

    def view(self, start: int = 0, stop: int | None = None) -> EventView:
        """Events number ``start`` to ``stop`` (default: the position), as far as they are kept."""
        end = self.position if stop is None else stop
        end = max(0, min(end - self._first, len(self._events)))
        return EventView(self._events, min(max(0, start - self._first), end), end)

    def known(self) -> EventView:
        """Every event kept, the known future included."""
        return EventView(self._events, 0, len(self._events))

    @property
    def dropped(self) -> int:
        """Events before the position that are not kept any more."""
        return min(self._first, self.position)


class Output:
    """One output channel."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.position = 0
        """Bytes written since boot where the machine stands."""
        self._shown = b""

    def put(self, byte: int) -> None:
        """Write the next byte (already known when replaying)."""
        if self.position == len(self._data):
            self._data.append(byte)
        self.position += 1

    def cut(self) -> None:
        """Forget what lies beyond the position."""
        del self._data[self.position :]
        self._shown = b""

    def text(self) -> bytes:
        """Everything written up to the position."""
        if len(self._shown) != self.position:
            self._shown = bytes(self._data[: self.position])
        return self._shown
