"""The 8254 interval timer (Intel 82C54 data sheet) and the system control port 0x61 that goes with it.

The counters run at 1.193182 MHz.  Nothing is counted step by step: a counter's value and its output are computed from
the clock at which its count was loaded.  A timer is kept only for the next change of channel 0's output, and only
while its interrupt is heard (`Pit.heard`); an edge that nobody heard is told later, by `Pit.catch_up`.

What the data sheet leaves open: before a control word and a count have been written a counter stands still at 0 with
its output low; a count of 1, illegal in modes 2 and 3, leaves the output high for ever; a BCD digit above 9 counts for
what it says.  Port 0x43 reads 0, as in KVM.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Final

from kvmscope.vmm.clock import HZ, Clock
from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range, bit_names
from kvmscope.vmm.devices.interrupts import Line
from kvmscope.vmm.devices.pit_counter import PERIODIC, Counter

__all__ = ["PIT_HZ", "Pit"]

PIT_HZ: Final = 1_193_182
"""Clocks of the counters a second."""
_REFRESH: Final = 18
"""Clocks between two toggles of the refresh bit of port 0x61, about 15 us, as firmware programs channel 1."""

_CONTROL: Final = 0x43
_SYSTEM: Final = 0x61
_MODES: Final = (
    "interrupt on terminal count",
    "hardware retriggerable one-shot",
    "rate generator",
    "square wave",
    "software triggered strobe",
    "hardware triggered strobe",
)
_ACCESS: Final = ("", "low byte", "high byte", "low byte then high byte")
_SYSTEM_BITS: Final = (
    (0, "gate 2"),
    (1, "speaker"),
    (2, "parity check off"),
    (3, "channel check off"),
    (4, "refresh"),
    (5, "OUT2"),
)


def _clock_at(time: int) -> int:
    """Counter clocks that have passed at guest ``time``."""
    return time * PIT_HZ // HZ


def _time_of(clock: int) -> int:
    """The first guest time at which ``clock`` counter clocks have passed."""
    return -(-clock * HZ // PIT_HZ)


class Pit(Device):
    """Ports 0x40-0x43 and 0x61.  ``irq`` is channel 0's output, interrupt 0."""

    name = "pit"
    ticking = True
    ports = (Range(0x40, 4, access=1), Range(_SYSTEM, 1, access=1))

    def __init__(self, clock: Clock, irq: Line) -> None:
        self._clock = clock
        self._irq = irq
        self._timer = clock.timer(self._drive)
        # The gates of 0 and 1 are tied high; that of 2 is bit 0 of port 0x61.
        self._counters = (Counter(), Counter(), Counter(gate=0))
        self._system = 0
        """Bits 0-3 of port 0x61."""
        self._level = False
        """What the interrupt line was last told, and at which counter clock."""
        self._told = 0
        self.heard: Callable[[], bool] = lambda: True
        """False while interrupt 0 is masked wherever it leads: no timer is kept then."""

    def set_bios_state(self) -> None:
        """Be as firmware leaves it: channel 0 in mode 2, 65536 clocks, 18.2 Hz (SeaBIOS; control word 0x34).

        Call it before `Pic.set_bios_state`, whose ICW1 forgets the edge that this makes.
        """
        for port, value in ((_CONTROL, 0x34), (0x40, 0), (0x40, 0)):
            self.port_write(port, 1, value)

    @property
    def _now(self) -> int:
        return _clock_at(self._clock.now)

    def port_read(self, port: int, size: int) -> int:
        """A counter, or the system control port."""
        now = self._now
        if port == _SYSTEM:
            return self._system_byte(now)
        if port == _CONTROL:
            return 0
        counter = self._counters[port & 3]
        counter.settle(now)
        return counter.read(now)

    def port_write(self, port: int, size: int, value: int) -> None:
        """A count, a control word, or the system control port."""
        # First tell what happened under the old settings.
        self._drive()
        now = self._now
        for counter in self._counters:
            counter.settle(now)
        if port == _SYSTEM:
            self._system = value & 0xF
            self._counters[2].set_gate(bool(value & 1), now)
        elif port != _CONTROL:
            self._counters[port & 3].write(value, now)
        elif value >> 6 == 3:
            self._read_back(value, now)
        elif value >> 4 & 3:
            self._counters[value >> 6].control(value, now)
        else:
            self._counters[value >> 6].latch_count(now)
        self._drive()

    def _read_back(self, value: int, now: int) -> None:
        """Read-back command: bits 3-1 choose counters, bit 5 = 0 latches the count, bit 4 = 0 the status."""
        for index, counter in enumerate(self._counters):
            if value >> index + 1 & 1:
                if not value & 0x20:
                    counter.latch_count(now)
                if not value & 0x10 and counter.status < 0:
                    counter.status = counter.status_byte(now)

    def _system_byte(self, now: int) -> int:
        counter = copy(self._counters[2])
        counter.settle(now)
        return self._system | (now // _REFRESH & 1) << 4 | counter.out(now) << 5

    def catch_up(self) -> None:
        """Tell the line where the output stands, after a rising edge if one has not been told."""
        counter, now = self._counters[0], self._now
        at, level, rose = self._told, self._level, False
        # Of a periodic output two changes tell all; there are more only while a new count takes over.
        while not rose or counter.reload >= 0:
            at = counter.next_change(at)
            if not 0 <= at <= now:
                break
            counter.settle(at)
            before, level = level, counter.out(at)
            rose |= level and not before
        level = counter.out(now)
        if rose:
            if self._level:
                self._irq(False)
            self._irq(True)
            if not level:
                self._irq(False)
        elif level != self._level:
            self._irq(level)
        self._level, self._told = level, now

    def rearm(self) -> None:
        """Expire at the next change of channel 0's output if anybody hears it."""
        at = self._counters[0].next_change(self._now)
        if at >= 0 and self.heard():
            self._timer.arm(_time_of(at))
        else:
            self._timer.cancel()

    def _drive(self) -> None:
        self.catch_up()
        self.rearm()

    def view(self) -> DeviceView:
        """Each counter's settings, count and output, and port 0x61."""
        now = self._now
        fields: list[DeviceField] = []
        for index, live in enumerate(self._counters):
            counter = copy(live)
            counter.settle(now)
            fields += _fields(index, counter, now)
        system = self._system_byte(now)
        fields.append(DeviceField("port 0x61", f"{system:#04x}", bit_names(_SYSTEM_BITS, system)))
        return DeviceView(self.name, "ports 0x40-0x43, 0x61", tuple(fields))

    def save(self) -> DeviceState:
        """Counters, port 0x61, what the line was told, and the timer."""
        deadline = -1 if self._timer.deadline is None else self._timer.deadline
        counters = [number for counter in self._counters for number in counter.state()]
        return (*counters, self._system, int(self._level), self._told, deadline)

    def restore(self, state: DeviceState) -> None:
        """Put all of it back."""
        numbers = [number for number in state if isinstance(number, int)]
        size = len(Counter.__slots__)
        zero, one, two = (Counter(*numbers[i * size : (i + 1) * size]) for i in range(3))
        self._counters = (zero, one, two)
        self._system, level, self._told, deadline = numbers[3 * size :]
        self._level = bool(level)
        self._timer.restore(None if deadline < 0 else deadline)


def _fields(index: int, counter: Counter, now: int) -> list[DeviceField]:
    """One counter, decoded."""
    name = f"counter {index}"
    if counter.mode < 0:
        return [DeviceField(name, "-", "not programmed")]
    status = counter.status_byte(now)
    bits = [f"mode {counter.mode}: {_MODES[counter.mode]}", _ACCESS[counter.access], "BCD" if counter.bcd else "binary"]
    if counter.is_null(now):
        bits.append("null count")
    fields = [DeviceField(f"{name} status", f"{status:#04x}", ", ".join(bits))]
    if counter.count >= 0:
        clocks = counter.binary(counter.count)
        meaning = f"{clocks} clocks, {clocks / PIT_HZ * 1e3:.4g} ms"
        if counter.mode in PERIODIC:
            meaning += f", {PIT_HZ / clocks:.5g} Hz"
        fields.append(DeviceField(f"{name} count", f"{counter.count:#06x}", meaning))
    pins = f"OUT {'high' if counter.out(now) else 'low'}, gate {'high' if counter.gate else 'low'}"
    if counter.latch >= 0 or counter.status >= 0:
        pins += ", latched:" + " status" * (counter.status >= 0) + " count" * (counter.latch >= 0)
    fields.append(DeviceField(f"{name} value", f"{counter.element(now):#06x}", pins))
    return fields
