"""The high precision event timers (IA-PC HPET specification 1.0a, section 2.3): three, at 0xfed00000.

As QEMU's: period 10 ns, 64 bits, legacy replacement, every timer periodic; timers may be routed to interrupts 2, 8 and
16-23 (q35).  Comparators match when the counter *reaches* them, so one in the past waits for a wrap: of 32 bits in
32-bit mode, else for ever.  A 32-bit one-shot timer also interrupts when the low half wraps (section 2.3.9.2.1).
Writes to the running main counter are dropped (the specification leaves them open), and so are unsupported routes.

Nothing ticks: counter, comparators and status are computed from the clock.  A timer of the clock is kept only for a
match whose interrupt is heard (`Hpet.heard`).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Final

from kvmscope.vmm.clock import Clock
from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range, bit_names
from kvmscope.vmm.devices.interrupts import Line
from kvmscope.vmm.devices.unheard import Source, catch_up, rearm

__all__ = ["PERIOD", "Hpet"]

PERIOD: Final = 10
"""Nanoseconds of a clock of the main counter."""
_BASE: Final = 0xFED0_0000
_TIMERS: Final = 3
_CAPABILITIES: Final = PERIOD * 1_000_000 << 32 | 0x8086_A001 | (_TIMERS - 1) << 8
"""Period in femtoseconds; vendor, LEG_RT_CAP, COUNT_SIZE_CAP, number of timers, revision 1."""
_ROUTES: Final = 0x00FF_0104
"""Interrupts 2, 8, 16-23: what a timer may be routed to."""
_LEGACY: Final = (0, 8)
"""ISA interrupts of timers 0 and 1 under legacy replacement; the PIT and the RTC have them otherwise."""
_FAR: Final = 1 << 62
"""Clocks after which nothing is waited for: 1,400 years."""
_U32, _U64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF

# Offsets (section 2.3.3).
_GCAP_ID, _GEN_CONF, _GINTR_STA, _MAIN_CNT, _TIMER0 = 0x00, 0x10, 0x20, 0xF0, 0x100
_ENABLE, _LEG_RT = 0x1, 0x2
# Timer configuration (section 2.3.8).
_LEVEL, _INT_ENB, _PERIODIC, _VAL_SET, _32BIT, _FSB_EN = 0x2, 0x4, 0x8, 0x40, 0x100, 0x4000
_CAPS: Final = 0x30
"""PER_INT_CAP and SIZE_CAP."""
_FSB_CAP: Final = 0x8000
_CONF_BITS: Final = (
    (2, "INT_ENB"),
    (3, "PERIODIC"),
    (6, "VAL_SET"),
    (8, "32MODE"),
    (14, "FSB_EN"),
    (15, "FSB_CAP"),
)


@dataclass(slots=True)
class _Timer:
    """One comparator.  `next` is a count of clocks since the main counter was 0, never wrapped."""

    config: int = 0
    """Writable bits only."""
    comparator: int = _U64
    period: int = 0
    fsb: int = 0
    """Message address << 32 | data."""
    next: int = -1
    """Count at which it matches next; -1 when it does not."""

    def state(self) -> tuple[int, ...]:
        """All of it, in the order of the fields."""
        return tuple(int(getattr(self, name)) for name in self.__slots__)

    @property
    def mask(self) -> int:
        """The bits that are compared."""
        return _U32 if self.config & _32BIT else _U64

    @property
    def wraps(self) -> bool:
        """It interrupts at a wrap of 32 bits too."""
        return self.config & (_32BIT | _PERIODIC) == _32BIT

    def plan(self, count: int) -> None:
        """Find the next match after ``count``."""
        ahead = (self.comparator - count - 1 & self.mask) + 1
        if self.wraps:
            ahead = min(ahead, (-count - 1 & _U32) + 1)
        self.next = count + ahead if ahead < _FAR else -1

    def advance(self, count: int) -> bool:
        """Go on to ``count``; True when it matched on the way, once or often."""
        if not 0 <= self.next <= count:
            return False
        if self.config & _PERIODIC:
            # The comparator grows by the period at each match (section 2.3.9.2.2).
            matches = (count - self.next) // self.period + 1 if self.period else 1
            self.comparator = self.comparator + matches * self.period & self.mask
        self.plan(count)
        return True


class Hpet(Device):
    """1 KiB of registers.  ``irq(gsi, level)`` takes interrupt numbers as the chipset counts them: 0-15 are the ISA
    interrupts (so 0 is what the PIT drives too), above them the pins of the I/O APIC.

    ``message(address, data)`` delivers a message; without it the timers have no FSB delivery.
    """

    name = "hpet"
    ticking = True
    memory = (Range(_BASE, 0x400, access=8),)

    def __init__(
        self,
        clock: Clock,
        irq: Callable[[int, bool], None],
        message: Callable[[int, int], object] | None = None,
    ) -> None:
        self._clock = clock
        self._irq = irq
        self._message = message
        self._alarm = clock.timer(self._expire)
        self._config = 0
        self._status = 0
        self._count = 0
        """The main counter when it was last started or stopped, not wrapped."""
        self._started = 0
        """Guest time at which it was started."""
        self._timers = tuple(_Timer() for _ in range(_TIMERS))
        self._lines = 0
        """Bit n: interrupt n is driven by a level triggered timer."""
        self._inputs = 0
        """Bit n: ISA interrupt n (0 and 8) as the PIT and the RTC want it."""
        self.heard: Callable[[int], bool] = lambda gsi: True
        """False while interrupt ``gsi`` is masked wherever it leads."""
        self.sources: tuple[Source, ...] = ()
        """The sources that legacy replacement cuts off."""

    @property
    def legacy(self) -> bool:
        """Legacy replacement: interrupts 0 and 8 are timers 0 and 1's, not the PIT's and the RTC's."""
        return bool(self._config & _LEG_RT)

    def legacy_input(self, irq: int) -> Line:
        """The line for the PIT (0) or the RTC (8) to drive: it leads on unless legacy replacement cuts it off."""

        def drive(level: bool) -> None:
            self._inputs = self._inputs & ~(1 << irq) | level << irq
            if not self.legacy:
                self._irq(irq, level)

        return drive

    # time

    def _now(self) -> int:
        """The main counter, not wrapped."""
        if not self._config & _ENABLE:
            return self._count
        return self._count + (self._clock.now - self._started) // PERIOD

    def _plan(self, timer: _Timer) -> None:
        if self._config & _ENABLE:
            timer.plan(self._now())
        else:
            timer.next = -1

    def _route(self, index: int) -> int:
        """The interrupt that timer ``index`` drives; -1 when it was not routed to one that it can have."""
        if self.legacy and index < len(_LEGACY):
            return _LEGACY[index]
        route = self._timers[index].config >> 9 & 0x1F
        return route if _ROUTES >> route & 1 else -1

    def catch_up(self) -> None:
        """Set what the matches up to now set, and send the interrupts that they make."""
        count = self._now()
        for index, timer in enumerate(self._timers):
            if timer.advance(count):
                self._matched(index, timer)
        self._drive_levels()

    def _matched(self, index: int, timer: _Timer) -> None:
        if timer.config & _LEVEL:
            self._status |= 1 << index
        if not timer.config & _INT_ENB:
            return
        if timer.config & _FSB_EN and self._message is not None:
            self._message(timer.fsb >> 32, timer.fsb & _U32)
        elif not timer.config & _LEVEL and (route := self._route(index)) >= 0:
            self._irq(route, True)
            self._irq(route, False)

    def _drive_levels(self) -> None:
        """Level triggered timers hold their interrupts while the status bit is set."""
        lines = 0
        if self._config & _ENABLE:
            for index, timer in enumerate(self._timers):
                up = timer.config & (_INT_ENB | _LEVEL | _FSB_EN) == _INT_ENB | _LEVEL and self._status >> index & 1
                if up and (route := self._route(index)) >= 0:
                    lines |= 1 << route
        changed, self._lines = lines ^ self._lines, lines
        for gsi in range(changed.bit_length()):
            if changed >> gsi & 1:
                self._irq(gsi, bool(lines >> gsi & 1))

    def rearm(self) -> None:
        """Expire at the next match that interrupts."""
        counts = [timer.next for index, timer in enumerate(self._timers) if timer.next >= 0 and self._waits(index)]
        if counts:
            self._alarm.arm(self._started + (min(counts) - self._count) * PERIOD)
        else:
            self._alarm.cancel()

    def _waits(self, index: int) -> bool:
        config = self._timers[index].config
        if not config & _INT_ENB:
            return False
        if config & _FSB_EN:
            return True
        if config & _LEVEL and self._status >> index & 1:
            return False
        route = self._route(index)
        return route >= 0 and self.heard(route)

    def _expire(self) -> None:
        self.catch_up()
        self.rearm()

    # registers

    def _config_of(self, timer: _Timer) -> int:
        """The configuration register as it reads; VAL_SET reads 0."""
        return _ROUTES << 32 | timer.config & ~_VAL_SET | _CAPS | (_FSB_CAP if self._message is not None else 0)

    def _register(self, offset: int) -> int:
        if offset == _GCAP_ID:
            return _CAPABILITIES
        if offset == _GEN_CONF:
            return self._config
        if offset == _GINTR_STA:
            return self._status
        if offset == _MAIN_CNT:
            return self._now() & _U64
        index, register = divmod(offset - _TIMER0, 0x20)
        if not 0 <= index < _TIMERS or register > 0x10:
            return 0
        timer = self._timers[index]
        if register == 0x08:
            return timer.comparator & timer.mask
        return timer.fsb if register else self._config_of(timer)

    def memory_read(self, address: int, size: int) -> int:
        """A register, or the part of it at ``address``."""
        self.catch_up()
        offset = address - _BASE
        return self._register(offset & ~7) >> 8 * (offset & 7)

    def memory_write(self, address: int, size: int, value: int) -> None:
        """A register, or the part of it at ``address``; the rest keeps its value."""
        self.catch_up()
        offset = address - _BASE
        shift = 8 * (offset & 7)
        mask = ((1 << 8 * size) - 1 << shift) & _U64
        value = value << shift & mask
        offset &= ~7
        if offset == _GEN_CONF:
            self._set_config(self._config & ~mask | value & 0x3)
        elif offset == _GINTR_STA:
            self._status &= ~value
        elif offset == _MAIN_CNT:
            if not self._config & _ENABLE:
                self._count = self._count & ~mask & _U64 | value
        elif _TIMER0 <= offset < _TIMER0 + 0x20 * _TIMERS:
            index, register = divmod(offset - _TIMER0, 0x20)
            self._set_timer(self._timers[index], register, mask, value)
        self._drive_levels()
        self.rearm()

    def _set_config(self, config: int) -> None:
        changed = config ^ self._config
        if changed & _ENABLE:
            self._count, self._started = self._now() & _U64, self._clock.now
        if changed & _LEG_RT:
            catch_up(self.sources)
            # The inputs that are cut off let go; those that are let through again stand as their devices want them.
            for irq in _LEGACY:
                if self._inputs >> irq & 1:
                    self._irq(irq, not config & _LEG_RT)
        self._config = config
        if changed & _ENABLE:
            for timer in self._timers:
                self._plan(timer)
        if changed & _LEG_RT:
            rearm(self.sources)

    def _set_timer(self, timer: _Timer, register: int, mask: int, value: int) -> None:
        if register == 0x00:
            writable = 0x014E | (_FSB_EN if self._message is not None else 0)
            route = value >> 9 & 0x1F if mask >> 9 & 0x1F == 0x1F else timer.config >> 9 & 0x1F
            if _ROUTES >> route & 1:
                writable |= 0x3E00
            writable &= mask
            timer.config = timer.config & ~writable | value & writable
            if not timer.config & _PERIODIC:
                timer.config &= ~_VAL_SET
            timer.comparator &= timer.mask
            self._plan(timer)
        elif register == 0x08:
            self._set_comparator(timer, mask, value)
        elif register == 0x10 and self._message is not None:
            timer.fsb = timer.fsb & ~mask | value

    def _set_comparator(self, timer: _Timer, mask: int, value: int) -> None:
        """The comparator; of a periodic timer the period, and with VAL_SET both."""
        periodic = timer.config & _PERIODIC
        if periodic:
            timer.period = (timer.period & ~mask | value) & timer.mask
        if not periodic or timer.config & _VAL_SET:
            timer.comparator = (timer.comparator & ~mask | value) & timer.mask
            self._plan(timer)
        timer.config &= ~_VAL_SET

    def view(self) -> DeviceView:
        """Every register, decoded, as it stands now."""
        count, status = self._now(), self._status
        timers = []
        for index, live in enumerate(self._timers):
            timer = copy(live)
            if timer.advance(count) and timer.config & _LEVEL:
                status |= 1 << index
            timers.append(timer)
        config = self._config
        modes = ["counting" if config & _ENABLE else "halted", "legacy replacement" if self.legacy else "routed"]
        fields = [
            DeviceField("GCAP_ID", f"{_CAPABILITIES:#018x}", f"{PERIOD} ns, {_TIMERS} timers, 64 bits, legacy routes"),
            DeviceField("GEN_CONF", f"{config:#x}", ", ".join(modes)),
            DeviceField("GINTR_STA", f"{status:#x}", bit_names(tuple((i, f"T{i}") for i in range(_TIMERS)), status)),
            DeviceField("MAIN_CNT", f"{count & _U64:#018x}", f"{(count & _U64) * PERIOD / 1e6:g} ms"),
        ]
        for index, timer in enumerate(timers):
            fields += self._fields(index, timer, count)
        return DeviceView(self.name, "memory 0xfed00000", tuple(fields))

    def _fields(self, index: int, timer: _Timer, count: int) -> list[DeviceField]:
        config = self._config_of(timer)
        bits = bit_names(_CONF_BITS, config | timer.config).split()
        bits.append("level" if config & _LEVEL else "edge")
        route = self._route(index)
        bits.append(f"interrupt {route}" if route >= 0 else "not routed")
        when = f"in {timer.next - count} clocks" if timer.next >= 0 else "no match ahead"
        fields = [
            DeviceField(f"T{index}_CONF", f"{config:#018x}", " ".join(bits)),
            DeviceField(f"T{index}_COMPARATOR", f"{timer.comparator & timer.mask:#x}", when),
        ]
        if config & _PERIODIC:
            fields.append(DeviceField(f"T{index} period", f"{timer.period:#x}", f"{timer.period * PERIOD} ns"))
        if self._message is not None:
            meaning = f"address {timer.fsb >> 32:#x}, data {timer.fsb & _U32:#x}"
            fields.append(DeviceField(f"T{index}_FSB", f"{timer.fsb:#018x}", meaning))
        return fields

    def save(self) -> DeviceState:
        """Registers, counter, timers, lines and the alarm."""
        deadline = -1 if self._alarm.deadline is None else self._alarm.deadline
        timers = [number for timer in self._timers for number in timer.state()]
        return (
            self._config,
            self._status,
            self._count,
            self._started,
            self._lines,
            self._inputs,
            *timers,
            deadline,
        )

    def restore(self, state: DeviceState) -> None:
        """Put all of it back."""
        numbers = [number for number in state if isinstance(number, int)]
        self._config, self._status, self._count, self._started, self._lines, self._inputs = numbers[:6]
        size = len(_Timer.__slots__)
        self._timers = tuple(_Timer(*numbers[6 + i * size : 6 + (i + 1) * size]) for i in range(_TIMERS))
        self._alarm.restore(None if numbers[-1] < 0 else numbers[-1])
