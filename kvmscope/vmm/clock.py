"""Guest time: nanoseconds, counted by instruction starts.

One tick of the engine is one nanosecond, and four counts of the TSC: it runs at 4 GHz on every profile.  While every processor waits in HLT
no instruction starts and time is *skipped* to the next deadline.  Wall time plays no part: the same guest sees the
same times in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["HZ", "TSC_RATIO", "Clock", "Timer"]

HZ: Final = 1_000_000_000
"""Nanoseconds a second."""

TSC_RATIO: Final = 4
"""Counts of the time-stamp counter in a nanosecond: 4 GHz.  Guests that wait by the TSC wait four times less for it than
by instructions, as on a processor that does less than one instruction a cycle."""


class Timer:
    """One deadline of a device.  Made by `Clock.timer`; a device keeps it for life and saves `deadline` in its state."""

    __slots__ = ("_clock", "_expire", "deadline", "order")

    def __init__(self, clock: Clock, expire: Callable[[], None], order: int) -> None:
        self._clock = clock
        self._expire = expire
        self.order = order
        self.deadline: int | None = None
        """Guest time at which it expires; None when it is not armed."""

    def arm(self, at: int) -> None:
        """Expire at guest time ``at``, at the earliest at the next instruction boundary."""
        self.deadline = max(at, self._clock.now + 1)
        self._clock.changed(self)

    def cancel(self) -> None:
        """Do not expire."""
        if self.deadline is not None:
            self.deadline = None
            self._clock.changed(self)

    def restore(self, deadline: int | None) -> None:
        """Be armed as saved (history is being put back, so an old deadline is right)."""
        self.deadline = deadline
        self._clock.changed(self)

    def fire(self) -> None:
        """For the clock: expire now."""
        self.deadline = None
        self._expire()


class Clock:
    """Guest time and the timers of all devices.

    ``ticks`` gives the engine's clock; ``nearer`` is called when the next deadline has come nearer in ticks, so that a
    run in progress looks again where it must stop.
    """

    def __init__(self, ticks: Callable[[], int], nearer: Callable[[], None] = lambda: None) -> None:
        self._ticks = ticks
        self._nearer = nearer
        self._timers: list[Timer] = []
        self.skipped = 0
        """Time that passed without instructions."""
        self.deadline: int | None = None
        """The next deadline, guest time."""

    @property
    def now(self) -> int:
        """Guest time in nanoseconds since boot; exact inside device callbacks."""
        return self._ticks() + self.skipped

    def count_by(self, ticks: Callable[[], int]) -> None:
        """From now on ``ticks`` is the engine's clock."""
        self._ticks = ticks

    def timer(self, expire: Callable[[], None]) -> Timer:
        """A new timer; ``expire`` is called between two instructions, once for each time it was armed.

        Timers due at the same time expire in the order they were made.
        """
        timer = Timer(self, expire, len(self._timers))
        self._timers.append(timer)
        return timer

    def changed(self, timer: Timer) -> None:
        """For timers: a deadline was set or cleared."""
        before = self.deadline
        if timer.deadline is not None and (before is None or timer.deadline <= before):
            self.deadline = timer.deadline
        else:
            self.deadline = min((t.deadline for t in self._timers if t.deadline is not None), default=None)
        if self.deadline is not None and (before is None or self.deadline < before):
            self._nearer()

    def run_due(self) -> None:
        """Expire every timer whose deadline has come, oldest deadline first."""
        now = self.now
        while self.deadline is not None and self.deadline <= now:
            due = min((t for t in self._timers if t.deadline is not None), key=lambda t: (t.deadline or 0, t.order))
            due.fire()
            self.deadline = min((t.deadline for t in self._timers if t.deadline is not None), default=None)

    def spend(self, nanoseconds: int) -> None:
        """Time passes inside an instruction; what becomes due expires at its end."""
        self.skipped += nanoseconds
        if self.deadline is not None:
            self._nearer()

    def skip(self) -> bool:
        """Let time pass to the next deadline and expire what is due; False when nothing is armed."""
        if self.deadline is None:
            return False
        self.skipped += max(0, self.deadline - self.now)
        self.run_due()
        return True
