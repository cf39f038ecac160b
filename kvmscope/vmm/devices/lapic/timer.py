"""The timer of the local APIC (SDM vol. 3A section 11.5.4).

It counts down at 1 GHz through the divider.  A countdown is one number, the time at which it began, so that reading the
count costs nothing.  The clock is asked for a deadline only when the expiry would change something (`matters`): a masked
timer, or one whose interrupt is pending already, counts unobserved, and a guest that sets a period of one nanosecond
cannot make the machine do more than one step of work for each interrupt it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from kvmscope.vmm.clock import TSC_RATIO, Clock

__all__ = ["ApicTimer", "TimerMode"]

_NONE: Final = -1


class TimerMode(IntEnum):
    """Bits 18:17 of the timer's LVT entry."""

    ONE_SHOT = 0
    PERIODIC = 1
    TSC_DEADLINE = 2
    RESERVED = 3


class ApicTimer:
    """Initial count, divider, mode and TSC deadline.

    ``expired`` is called for an expiry (for several that passed unobserved: once).  ``wake`` is called from the clock when
    a deadline has come; it must lead to `settle` and `schedule`.  ``matters`` says whether an expiry would have an effect
    now.  ``tsc`` gives the processor's time-stamp counter.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        expired: Callable[[], None],
        wake: Callable[[], None],
        matters: Callable[[], bool],
        tsc: Callable[[], int],
    ) -> None:
        self._clock = clock
        self._expired = expired
        self._matters = matters
        self._tsc = tsc
        self._timer = clock.timer(wake)
        self.mode = TimerMode.ONE_SHOT
        self.initial = 0
        self.divisor = 2
        self._origin: int | None = None
        """Guest time at which the current countdown began at ``initial``; None while nothing counts."""
        self._tsc_deadline = 0
        """0: not armed."""

    @property
    def tsc_deadline(self) -> int:
        """IA32_TSC_DEADLINE: 0 when not armed."""
        return self._tsc_deadline

    @property
    def current(self) -> int:
        """The current count, now."""
        if self._origin is None:
            return 0
        elapsed, period = self._clock.now - self._origin, self.initial * self.divisor
        if elapsed >= period:
            if self.mode != TimerMode.PERIODIC:
                return 0
            elapsed %= period
        return self.initial - elapsed // self.divisor

    def settle(self) -> bool:
        """Catch up with the clock: report an expiry that has come.  To be called before anything looks or changes."""
        if self._origin is not None:
            period = self.initial * self.divisor
            passed = (self._clock.now - self._origin) // period
            if not passed:
                return False
            self._origin = self._origin + passed * period if self.mode == TimerMode.PERIODIC else None
        elif self._tsc_deadline and self._tsc() >= self._tsc_deadline:
            self._tsc_deadline = 0
        else:
            return False
        self._expired()
        return True

    def schedule(self) -> None:
        """Have the clock call at the next expiry, if that matters.  To be called after `settle` and every change."""
        due = None
        if self._origin is not None:
            if self._matters():
                due = self._origin + self.initial * self.divisor
        elif self._tsc_deadline:
            # Not subject to `matters`: it expires once, and a later change of the TSC must not bring it back.
            due = self._clock.now - (self._tsc() - self._tsc_deadline) // TSC_RATIO
        if due != self._timer.deadline:
            if due is None:
                self._timer.cancel()
            else:
                self._timer.arm(due)

    def start(self, count: int) -> None:
        """Write of the initial count: counts down from it; 0 stops.  Ignored in TSC-deadline mode."""
        if self.mode == TimerMode.TSC_DEADLINE:
            return
        self.initial = count
        self._origin = self._clock.now if count and self.mode != TimerMode.RESERVED else None

    def set_mode(self, mode: TimerMode) -> None:
        """Change the mode.  Between one-shot and periodic the count goes on; any other change disarms the timer."""
        if mode != self.mode and max(mode, self.mode) >= TimerMode.TSC_DEADLINE:
            self._origin = None
            self.initial = self._tsc_deadline = 0
        self.mode = mode

    def set_divisor(self, divisor: int) -> None:
        """Change the divider: the count goes on from where it is at the new rate."""
        if self._origin is not None and divisor != self.divisor:
            self._origin = self._clock.now - (self.initial - self.current) * divisor
        self.divisor = divisor

    def set_tsc_deadline(self, value: int) -> None:
        """Write of IA32_TSC_DEADLINE: 0 disarms; expires at once if the TSC is there.  Ignored in the other modes."""
        if self.mode == TimerMode.TSC_DEADLINE:
            self._tsc_deadline = value
            self.settle()

    def reset(self) -> None:
        """As after power-up: nothing counts."""
        self.mode, self.divisor = TimerMode.ONE_SHOT, 2
        self.initial = self._tsc_deadline = 0
        self._origin = None

    def save(self) -> tuple[int, ...]:
        """What `restore` needs; mode and divider are in the APIC's registers too, but it is all here."""
        deadline = _NONE if self._timer.deadline is None else self._timer.deadline
        # A slower divider can put the beginning of a countdown before boot, so no number can stand for None.
        counting = self._origin is not None
        origin = self._origin or 0
        return (int(self.mode), self.initial, self.divisor, int(counting), origin, self._tsc_deadline, deadline)

    def restore(self, state: tuple[int, ...]) -> None:
        """Be again what `save` saw."""
        mode, self.initial, self.divisor, counting, origin, self._tsc_deadline, deadline = state
        self.mode = TimerMode(mode)
        self._origin = origin if counting else None
        self._timer.restore(None if deadline == _NONE else deadline)
