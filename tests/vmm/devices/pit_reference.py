"""An 8254 counter stepped clock by clock, straight from the data sheet's mode definitions: the oracle of the PIT."""

from __future__ import annotations


class ReferenceCounter:
    """Call `clock` once a clock pulse; writes and gate changes happen between pulses."""

    def __init__(self, gate: bool) -> None:
        self.gate = gate
        self.mode = -1
        self.access = 3
        self.bcd = False
        self.register = 0
        self.low: int | None = None
        self.element = 0
        self.bits = 0
        """What is read while nothing has been loaded since the control word."""
        self.half = 0
        """Count in use of mode 3."""
        self.out = False
        self.null = False
        self.written = False
        self.load = False
        self.trigger = False
        self.counting = False
        self.armed = False

    @property
    def modulus(self) -> int:
        return 10000 if self.bcd else 65536

    def count(self) -> int:
        value = int(f"{self.register:04x}") if self.bcd else self.register
        return value or self.modulus

    def shown(self) -> int:
        if not self.counting:
            return self.bits
        value = self.element % self.modulus
        return int(f"{value:04d}", 16) if self.bcd else value

    def control(self, access: int, mode: int, bcd: bool) -> None:
        self.bits = self.shown()
        self.access, self.mode, self.bcd = access, mode, bcd
        self.out = mode != 0
        self.low = None
        self.null = True
        self.written = self.load = self.trigger = self.counting = self.armed = False

    def write(self, byte: int) -> None:
        if self.access == 3 and self.low is None:
            self.low = byte
            if self.mode == 0:
                self.bits = self.shown()
                self.out = self.counting = self.load = False
            return
        if self.access == 3:
            self.register, self.low = byte << 8 | (self.low or 0), None
        else:
            self.register = byte << 8 if self.access == 2 else byte
        self.written = self.null = True
        if self.mode in (0, 4) or (self.mode in (2, 3) and not self.counting):
            self.load = True
        if self.mode == 0:
            self.out = False
        if self.mode == 4:
            self.out = True

    def set_gate(self, gate: bool) -> None:
        if gate and not self.gate:
            self.trigger = self.mode in (1, 2, 3, 5) and self.written
        if not gate and self.mode in (2, 3):
            self.out = True
        self.gate = gate

    def _take(self) -> None:
        self.half = self.count()
        self.element = self.half & ~1 if self.mode == 3 else self.half
        self.load = self.trigger = self.null = False
        self.counting = self.armed = True

    def clock(self) -> None:
        if self.load or self.trigger:
            triggered = self.trigger
            self._take()
            if self.mode == 1 and triggered:
                self.out = False
            elif self.mode != 0:
                self.out = True
        elif self.counting:
            getattr(self, f"_mode_{self.mode}")()

    def _down(self) -> bool:
        self.element = (self.element - 1) % self.modulus
        return self.element == 0

    def _mode_0(self) -> None:
        if self.gate and self._down():
            self.out = True

    def _mode_1(self) -> None:
        if self._down():
            self.out = True

    def _mode_2(self) -> None:
        if self.gate:
            self.element -= 1
            if self.element == 1:
                self.out = False
            elif self.element == 0:
                self._take()
                self.out = True

    def _mode_3(self) -> None:
        if not self.gate:
            return
        if self.half & 1 and self.out and self.element == 0:
            over = True
        else:
            self.element -= 2
            over = self.element == 0 and not (self.half & 1 and self.out)
        if over:
            out = not self.out
            self._take()
            self.out = out

    def _mode_4(self) -> None:
        self.out = True
        if self.gate and self._down() and self.armed:
            self.out = self.armed = False

    def _mode_5(self) -> None:
        self.out = True
        if self._down() and self.armed:
            self.out = self.armed = False
