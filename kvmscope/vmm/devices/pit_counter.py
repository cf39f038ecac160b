"""One counter of the 8254 (Intel 82C54 data sheet, "Mode definitions"), computed from when its count was loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["PERIODIC", "Counter"]

PERIODIC: Final = (2, 3)
"""Modes that load their count again and again."""
_TRIGGERED: Final = (1, 5)
"""Modes that start at a rising edge of the gate, not when the count is written."""
_NEVER: Final = 1 << 62
"""A clock that does not come."""


@dataclass(slots=True)
class Counter:
    """One counter.  Times are in its clocks since boot; -1 means none."""

    gate: int = 1
    mode: int = -1
    """-1 until a control word is written."""
    access: int = 3
    bcd: int = 0
    low: int = -1
    """The low byte, while it waits for the high one."""
    count: int = -1
    """Count register as written (16 bits)."""
    null_until: int = 0
    """NULL COUNT until this clock: the count register has not gone into the counting element yet."""
    loaded: int = 0
    """The count in use, 1 to 65536 (BCD: 10000); 0 when none was loaded."""
    origin: int = 0
    """When it was loaded; of a square wave that began with its low half, when that wave would have begun."""
    frozen: int = -1
    """Clocks counted when the gate stopped the counter."""
    reload: int = -1
    """When a new count of a running periodic mode takes over."""
    reload_low: int = 0
    """It takes over with the low half of the square wave."""
    held: int = 0
    """The counting element, as it is read, while nothing is loaded."""
    held_out: int = 0
    """The output while nothing is loaded."""
    high_next: int = 0
    """The next read of a two-byte access gives the high byte."""
    latch: int = -1
    """The latched count."""
    status: int = -1
    """The latched status."""

    def state(self) -> tuple[int, ...]:
        """All of it, in the order of the fields."""
        return tuple(int(getattr(self, name)) for name in self.__slots__)

    @property
    def modulus(self) -> int:
        """Values that the counting element can take."""
        return 10000 if self.bcd else 0x10000

    def binary(self, raw: int) -> int:
        """The number of clocks that 16 bits as written mean."""
        if self.bcd:
            raw = sum((raw >> 4 * i & 0xF) * 10**i for i in range(4)) % 10000
        return raw or self.modulus

    def high_half(self, count: int) -> int:
        """Clocks of a square wave's high half (section "Mode 3": (N + 1) / 2 for odd counts)."""
        return count + 1 >> 1

    def passed(self, now: int) -> int:
        """Clocks since the count was loaded; negative while it waits for the next clock."""
        return self.frozen if self.frozen >= 0 and now >= self.origin else now - self.origin

    def element(self, now: int) -> int:
        """The counting element as it is read: 16 bits, or four decimal digits."""
        if not self.loaded or self.passed(now) < 0:
            return self.held
        value = self._left(self.passed(now)) % self.modulus
        return sum(value // 10**i % 10 << 4 * i for i in range(4)) if self.bcd else value

    def _left(self, passed: int) -> int:
        if self.mode == 2:
            return self.loaded - passed % self.loaded
        if self.mode == 3:
            phase, high = passed % self.loaded, self.high_half(self.loaded)
            return (self.loaded & ~1) - 2 * (phase if phase < high else phase - high)
        return self.loaded - passed

    def out(self, now: int) -> bool:
        """The output pin."""
        if self.mode in PERIODIC and not self.gate:
            return True
        passed = self.passed(now)
        if not self.loaded or passed < 0:
            return bool(self.held_out)
        if self.mode in (0, 1):
            return passed >= self.loaded
        if self.mode == 2:
            return self.loaded < 2 or passed % self.loaded != self.loaded - 1
        if self.mode == 3:
            return passed % self.loaded < self.high_half(self.loaded)
        # A strobe lasts one clock, even if the gate stops the count there.
        return passed != self.loaded or now - self.origin != self.loaded

    def next_change(self, now: int) -> int:
        """The first clock after ``now`` at which the output may differ; -1 when it stays."""
        if not self.loaded or self.frozen >= 0:
            return -1
        passed = now - self.origin
        if passed < 0:
            return self.origin
        if self.mode in PERIODIC:
            if self.loaded < 2:
                return self.reload
            phase = passed % self.loaded
            fall = self.loaded - 1 if self.mode == 2 else self.high_half(self.loaded)
            at = now - phase + (fall if phase < fall else self.loaded)
            return at if self.reload < 0 else min(at, self.reload)
        if passed < self.loaded:
            return self.origin + self.loaded
        # The strobe of modes 4 and 5 lasts one clock.
        return now + 1 if self.mode in (4, 5) and passed == self.loaded else -1

    def settle(self, now: int) -> None:
        """Let a new count take over if its time has come."""
        if 0 <= self.reload <= now:
            self.loaded = self.binary(self.count)
            self.origin = self.reload - (self.high_half(self.loaded) if self.reload_low else 0)
            self.reload, self.null_until = -1, 0

    def is_null(self, now: int) -> bool:
        """NULL COUNT of the status byte."""
        return now < self.null_until

    def control(self, value: int, now: int) -> None:
        """A control word: stop, and wait for a count."""
        self.held = self.element(now)
        mode = value >> 1 & 7
        self.mode = mode if mode < 6 else mode - 4
        self.access, self.bcd = value >> 4 & 3, value & 1
        self.held_out = int(self.mode != 0)
        self.low = self.count = self.frozen = self.reload = self.latch = self.status = -1
        self.loaded, self.high_next, self.null_until = 0, 0, _NEVER

    def write(self, byte: int, now: int) -> None:
        """A byte of the count."""
        if self.mode < 0:
            return
        if self.access == 3:
            if self.low < 0:
                self.low = byte
                if self.mode == 0:
                    # The first byte stops the counting and takes the output low at once.
                    self.held, self.held_out, self.loaded = self.element(now), 0, 0
                    self.null_until = _NEVER if self.is_null(now) else 0
                return
            byte, self.low = self.low | byte << 8, -1
        elif self.access == 2:
            byte <<= 8
        self.count, self.null_until = byte, _NEVER
        if self.mode in PERIODIC and self.loaded and self.origin <= now:
            # Without its gate it waits for the rising edge, which loads.
            if self.gate:
                self._replace(now)
        elif self.mode in _TRIGGERED:
            if self.loaded and now < self.origin:
                # Triggered in this very clock: the load takes what is there when it comes.
                self.loaded, self.null_until = self.binary(self.count), self.origin
        else:
            self._load(now, self.held_out if self.mode in PERIODIC else int(self.mode == 4))

    def _load(self, now: int, out: int) -> None:
        """Take the count with the next clock; the gate may hold it there."""
        self.held, self.held_out = self.element(now), out
        self.loaded = self.binary(self.count)
        self.origin, self.reload = now + 1, -1
        self.null_until = now + 1 if self.is_null(now) else 0
        self.frozen = -1 if self.gate or self.mode in _TRIGGERED else 0

    def _replace(self, now: int) -> None:
        """Take the count at the end of the cycle (mode 2) or half-cycle (mode 3)."""
        phase = (now - self.origin) % self.loaded
        high = self.high_half(self.loaded)
        self.reload_low = int(self.mode == 3 and phase < high)
        self.reload = now - phase + (high if self.reload_low else self.loaded)

    def set_gate(self, gate: bool, now: int) -> None:
        """The gate pin: a level for modes 0 and 4, an edge for 1 and 5, both for 2 and 3."""
        if gate == bool(self.gate):
            return
        if not gate:
            if self.loaded and self.mode not in _TRIGGERED:
                self.frozen, self.reload = max(self.passed(now), 0), -1
            self.gate = 0
            return
        out = int(self.out(now))
        self.gate = 1
        if self.mode in _TRIGGERED or self.mode in PERIODIC:
            if self.count >= 0:
                self._load(now, out)
        elif self.frozen >= 0:
            if now >= self.origin:
                over = self.mode == 4 and self.frozen == self.loaded and self.out(now)
                # A strobe that is over must not come again: a whole round more shows the same count.
                self.origin = now - self.frozen - (self.modulus if over else 0)
            self.frozen = -1

    def latch_count(self, now: int) -> None:
        """Counter latch command; a second one before the read does nothing."""
        if self.latch < 0:
            self.latch = self.element(now)

    def status_byte(self, now: int) -> int:
        """What the read-back command latches."""
        return int(self.out(now)) << 7 | self.is_null(now) << 6 | self.access << 4 | max(self.mode, 0) << 1 | self.bcd

    def read(self, now: int) -> int:
        """The next byte: a latched status, then a latched count, then the live count."""
        if self.status >= 0:
            status, self.status = self.status, -1
            return status
        value = self.latch if self.latch >= 0 else self.element(now)
        if self.access == 3:
            self.high_next ^= 1
            if self.high_next:
                return value & 0xFF
            self.latch = -1
            return value >> 8
        self.latch = -1
        return value >> 8 if self.access == 2 else value & 0xFF
