"""The real-time clock and its CMOS memory (Motorola MC146818A data sheet), as wired in a PC.

It shows guest time, never the host's: `START` at power-on, and the first update 10 ms later, so that a guest that waits
for one need not wait a second.  Nothing ticks: time, flags and the update in progress are computed from the clock.
A timer is kept only for what can change the interrupt line or wake the machine.

- The update itself takes no time: UIP is set during the 244 us before it (t_BUC), as in QEMU.
- The century at 0x32 counts on with the year.  Daylight saving (DSE) and the square wave (SQWE) lead nowhere.
- Port 0x70 is write only and reads 0xff, as in QEMU and a PIIX3; bit 7 masks NMIs (`Rtc.nmi_masked`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Final

from kvmscope.vmm.clock import HZ, Clock
from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range, bit_names
from kvmscope.vmm.devices.interrupts import Line

__all__ = ["START", "Rtc"]

START: Final = date(2025, 1, 1)
"""The date at power-on, at midnight; the same in every run."""
_FIRST_UPDATE: Final = 10_000_000
"""Guest time of the first update."""
_UIP_BEFORE: Final = 244_000
_CRYSTAL: Final = 32768
_DAY: Final = 86400

_INDEX, _DATA = 0x70, 0x71

# Registers.
_SECONDS, _SECONDS_ALARM, _MINUTES, _MINUTES_ALARM, _HOURS, _HOURS_ALARM, _WEEKDAY, _DATE, _MONTH, _YEAR = range(10)
_A, _B, _C, _D, _CENTURY, _SHUTDOWN = 0x0A, 0x0B, 0x0C, 0x0D, 0x32, 0x0F
_TIME: Final = (_SECONDS, _MINUTES, _HOURS, _WEEKDAY, _DATE, _MONTH, _YEAR, _CENTURY)
_ALARM: Final = (_HOURS_ALARM, _MINUTES_ALARM, _SECONDS_ALARM)

_UIP: Final = 0x80
_SET, _PIE, _AIE, _UIE, _BINARY, _24H = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
_IRQF, _PF, _AF, _UF = 0x80, 0x40, 0x20, 0x10
_PM: Final = 0x80
_DONT_CARE: Final = 0xC0
_A_RESET, _B_RESET, _VRT = 0x26, 0x02, 0x80
_B_BITS: Final = (
    (7, "SET"),
    (6, "PIE"),
    (5, "AIE"),
    (4, "UIE"),
    (3, "SQWE"),
    (2, "binary"),
    (1, "24h"),
    (0, "DSE"),
)
_C_BITS: Final = ((7, "IRQF"), (6, "PF"), (5, "AF"), (4, "UF"))
_WEEKDAYS: Final = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_SHUTDOWN_MEANING: Final = {
    0x00: "normal power-on self-test",
    0x05: "flush keyboard, EOI, jump through 40:67",
    0x09: "return from INT 15h function 87h",
    0x0A: "jump through 40:67",
    0x0B: "IRET through 40:67",
    0x0C: "RETF through 40:67",
    0xFE: "resume from S3 (as SeaBIOS marks it)",
}


class Rtc(Device):
    """Ports 0x70 and 0x71, 128 bytes.  ``irq`` is interrupt 8; ``wake`` hears of alarms with AIE set (S3).

    ``below_4g`` and ``above_4g`` are the sizes of RAM there, for the bytes in which firmware finds them.
    """

    name = "rtc"
    ticking = True
    ports = (Range(_INDEX, 2, access=1),)

    def __init__(
        self,
        clock: Clock,
        irq: Line,
        wake: Callable[[], None] = lambda: None,
        below_4g: int = 0,
        above_4g: int = 0,
    ) -> None:
        self._clock = clock
        self._irq = irq
        self._wake = wake
        self._timer = clock.timer(self._expire)
        self._index = 0
        self.nmi_masked = False
        """Bit 7 of the last write to port 0x70."""
        self._bytes = bytearray(128)
        """Alarm, A, B and memory; the time too, but only while it stands still (SET, or the divider held in reset)."""
        self._bytes[_A], self._bytes[_B], self._bytes[_D] = _A_RESET, _B_RESET, _VRT
        self._second = START.toordinal() * _DAY
        """The second that began at `_anchor`, counted from the day before 1 January of the year 1."""
        self._anchor = _FIRST_UPDATE - HZ
        self._weekday_shift = 0
        """What a guest's idea of the weekday adds to the calendar's."""
        self._flags = 0
        """PF, AF and UF, complete up to guest time `_seen`."""
        self._seen = clock.now
        self._line = False
        self._store_sizes(below_4g, above_4g)

    def _store_sizes(self, below_4g: int, above_4g: int) -> None:
        """Sizes of RAM: 640 KiB, KiB above 1 MiB, 64 KiB above 16 MiB and above 4 GiB; FPU present."""
        extended = min(max(below_4g - (1 << 20), 0) >> 10, 0xFFFF)
        self._put(0x15, 640, 2)
        self._put(0x17, extended, 2)
        self._put(0x30, extended, 2)
        self._put(0x34, min(max(below_4g - (16 << 20), 0) >> 16, 0xFFFF), 2)
        self._put(0x5B, min(above_4g >> 16, 0xFFFFFF), 3)
        self._bytes[0x14] = 0x02

    def _put(self, index: int, value: int, size: int) -> None:
        self._bytes[index : index + size] = value.to_bytes(size, "little")

    @property
    def shutdown_status(self) -> int:
        """Byte 0x0f: what firmware does after the next reset."""
        return self._bytes[_SHUTDOWN]

    # the calendar

    @property
    def _divider_reset(self) -> bool:
        return self._bytes[_A] & 0x60 == 0x60

    @property
    def _still(self) -> bool:
        return self._divider_reset or bool(self._bytes[_B] & _SET)

    def _code(self, value: int) -> int:
        """A number as a byte: binary or BCD by register B."""
        return value if self._bytes[_B] & _BINARY else value // 10 << 4 | value % 10

    def _number(self, byte: int) -> int:
        return byte if self._bytes[_B] & _BINARY else (byte >> 4) * 10 + (byte & 0xF)

    def _code_hour(self, hour: int) -> int:
        if self._bytes[_B] & _24H:
            return self._code(hour)
        return self._code((hour + 11) % 12 + 1) | (_PM if hour >= 12 else 0)

    def _hour(self, byte: int) -> int:
        if self._bytes[_B] & _24H:
            return self._number(byte)
        return self._number(byte & ~_PM) % 12 + (12 if byte & _PM else 0)

    def _encode(self, second: int) -> dict[int, int]:
        """The time registers at ``second``."""
        ordinal, rest = divmod(second, _DAY)
        day = date.fromordinal((ordinal - 1) % date.max.toordinal() + 1)
        return {
            _SECONDS: self._code(rest % 60),
            _MINUTES: self._code(rest // 60 % 60),
            _HOURS: self._code_hour(rest // 3600),
            _WEEKDAY: self._code((ordinal + self._weekday_shift) % 7 + 1),
            _DATE: self._code(day.day),
            _MONTH: self._code(day.month),
            _YEAR: self._code(day.year % 100),
            _CENTURY: self._code(day.year // 100),
        }

    def _decode(self, registers: dict[int, int]) -> tuple[int, int]:
        """(second, weekday shift) of the time registers; what is no date becomes a near one."""
        number = {index: self._number(byte) for index, byte in registers.items()}
        year = min(max(number[_CENTURY] * 100 + number[_YEAR], 1), 9999)
        month = min(max(number[_MONTH], 1), 12)
        ordinal = date(year, month, 1).toordinal() + max(number[_DATE], 1) - 1
        ordinal = min(ordinal, date.max.toordinal())
        clock = self._hour(registers[_HOURS]) * 3600 + number[_MINUTES] * 60 + number[_SECONDS]
        return ordinal * _DAY + clock, (number[_WEEKDAY] - 1 - ordinal) % 7

    def _second_at(self, time: int) -> int:
        return self._second + (time - self._anchor) // HZ

    def _set_second(self, registers: dict[int, int]) -> None:
        """Go on from ``registers``, with the second that is under way."""
        now = self._clock.now
        self._second, self._weekday_shift = self._decode(registers)
        self._anchor = now - (now - self._anchor) % HZ

    def _updating(self) -> bool:
        return not self._still and (self._clock.now - self._anchor) % HZ >= HZ - _UIP_BEFORE

    def _next_alarm(self, second: int) -> int | None:
        """The first second after ``second`` that matches the alarm bytes; None when none does."""
        alarm = [self._bytes[index] for index in _ALARM]
        end = second + 1 + _DAY
        second += 1
        while second < end:
            rest = second % _DAY
            shown = (self._code_hour(rest // 3600), self._code(rest // 60 % 60), self._code(rest % 60))
            for want, is_, unit in zip(alarm, shown, (3600, 60, 1), strict=True):
                if want < _DONT_CARE and want != is_:
                    second += unit - rest % unit
                    break
            else:
                return second
        return None

    # flags and the line

    def _period(self) -> int:
        """Periodic rate in clocks of the crystal; 0 when there is none (table 5)."""
        rate = self._bytes[_A] & 0xF
        if not rate or self._divider_reset:
            return 0
        return 1 << (rate + 6 if rate < 3 else rate - 1)

    def _catch_up(self) -> None:
        """Set the flags for what happened up to now."""
        now, seen = self._clock.now, self._seen
        if now <= seen:
            return
        self._seen = now
        period = self._period()
        if period and self._crystal(now) // period > self._crystal(seen) // period:
            self._flags |= _PF
        if self._still:
            return
        before, after = self._second_at(seen), self._second_at(now)
        if after > before:
            self._flags |= _UF
            alarm = self._next_alarm(before)
            if alarm is not None and alarm <= after:
                self._flags |= _AF
                if self._bytes[_B] & _AIE:
                    self._wake()

    def _crystal(self, time: int) -> int:
        """Clocks of the crystal, in step with the seconds."""
        return (time - self._anchor) * _CRYSTAL // HZ

    def _drive(self) -> None:
        """Set the line, and the timer for what comes next."""
        line = bool(self._flags & self._bytes[_B] & 0x70)
        if line != self._line:
            self._line = line
            self._irq(line)
        times = []
        now, enabled = self._clock.now, self._bytes[_B]
        period = self._period()
        if enabled & _PIE and period and not line:
            clocks = (self._crystal(now) // period + 1) * period
            times.append(self._anchor - (-clocks * HZ // _CRYSTAL))
        if not self._still:
            current = self._second_at(now)
            if enabled & _UIE and not line:
                times.append(self._anchor + (current + 1 - self._second) * HZ)
            # An alarm wakes even while the line is up.
            alarm = self._next_alarm(current) if enabled & _AIE else None
            if alarm is not None:
                times.append(self._anchor + (alarm - self._second) * HZ)
        if times:
            self._timer.arm(min(times))
        else:
            self._timer.cancel()

    def _expire(self) -> None:
        self._catch_up()
        self._drive()

    # ports

    def port_read(self, port: int, size: int) -> int:
        """The register selected; register C is cleared by it."""
        if port == _INDEX:
            return 0xFF
        index = self._index
        self._catch_up()
        if index == _C:
            value = self._flags | (_IRQF if self._line else 0)
            self._flags = 0
            self._drive()
            return value
        return self._peek(index)

    def _peek(self, index: int) -> int:
        if index == _A:
            return self._bytes[_A] | (_UIP if self._updating() else 0)
        if index in _TIME and not self._still:
            return self._encode(self._second_at(self._clock.now))[index]
        return self._bytes[index]

    def port_write(self, port: int, size: int, value: int) -> None:
        """Select a register, or write the one selected."""
        if port == _INDEX:
            self._index, self.nmi_masked = value & 0x7F, bool(value & 0x80)
            return
        index = self._index
        if index in (_C, _D):
            return
        self._catch_up()
        if index in (_A, _B):
            self._set_control(index, value & ~_UIP if index == _A else value)
        elif index in _TIME and not self._still:
            registers = self._encode(self._second_at(self._clock.now))
            registers[index] = value
            self._set_second(registers)
        else:
            self._bytes[index] = value
        self._drive()

    def _set_control(self, index: int, value: int) -> None:
        """Register A or B: time may stop, or start again from what the time registers say."""
        was_still, was_reset = self._still, self._divider_reset
        if not was_still:
            shown = self._encode(self._second_at(self._clock.now))
        self._bytes[index] = value
        if index == _B and value & _SET:
            # Setting SET clears UIE (register B, bit 7).
            self._bytes[_B] &= ~_UIE
        if was_reset and not self._divider_reset:
            # The first update comes half a second after the divider is let go (section "Divider control").
            self._anchor = self._clock.now - HZ // 2
        if self._still and not was_still:
            for register, byte in shown.items():
                self._bytes[register] = byte
        elif was_still and not self._still:
            self._set_second({register: self._bytes[register] for register in _TIME})

    def view(self) -> DeviceView:
        """Time, alarm, control registers, and what of the memory has a meaning."""
        time = {index: self._peek(index) for index in _TIME}
        second, shift = self._decode(time)
        ordinal, rest = divmod(second, _DAY)
        day = date.fromordinal(min(ordinal, date.max.toordinal()))
        weekday = _WEEKDAYS[(ordinal + shift) % 7]
        alarm = [f"{self._bytes[i]:02x}" if self._bytes[i] < _DONT_CARE else "any" for i in _ALARM]
        a, b, c = self._peek(_A), self._bytes[_B], self._flags | (_IRQF if self._line else 0)
        period = self._period()
        rate = f"periodic {_CRYSTAL / period:g} Hz" if period else "no periodic rate"
        divider = "divider in reset" if self._divider_reset else "divider runs"
        extended, above = (int.from_bytes(self._bytes[i : i + 2], "little") for i in (0x30, 0x34))
        shown = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
        return DeviceView(
            self.name,
            "ports 0x70-0x71",
            (
                DeviceField("index", f"{self._index:#04x}", "NMI masked" if self.nmi_masked else "NMI open"),
                DeviceField("time", f"{weekday} {day.isoformat()} {shown}", "stands still" if self._still else ""),
                DeviceField("alarm", ":".join(alarm), "as the bytes are"),
                DeviceField("A", f"{a:#04x}", f"{rate}, {divider}{', UIP' if a & _UIP else ''}"),
                DeviceField("B", f"{b:#04x}", bit_names(_B_BITS, b)),
                DeviceField("C", f"{c:#04x}", bit_names(_C_BITS, c) or "no interrupt flag since it was read"),
                DeviceField("D", f"{self._bytes[_D]:#04x}", "VRT: memory and time are valid"),
                DeviceField(
                    "shutdown", f"{self.shutdown_status:#04x}", _SHUTDOWN_MEANING.get(self.shutdown_status, "")
                ),
                DeviceField("memory", f"{extended} KiB", f"above 1 MiB; {above * 64} KiB above 16 MiB"),
            ),
        )

    def save(self) -> DeviceState:
        """Memory, the anchor of time, flags, line and timer."""
        deadline = -1 if self._timer.deadline is None else self._timer.deadline
        return (
            bytes(self._bytes),
            self._index,
            int(self.nmi_masked),
            self._second,
            self._anchor,
            self._weekday_shift,
            self._flags,
            self._seen,
            int(self._line),
            deadline,
        )

    def restore(self, state: DeviceState) -> None:
        """Put all of it back."""
        memory, *rest = state
        assert isinstance(memory, bytes)
        numbers = [number for number in rest if isinstance(number, int)]
        self._bytes[:] = memory
        self._index, masked, self._second, self._anchor, self._weekday_shift, self._flags = numbers[:6]
        self._seen, line, deadline = numbers[6:]
        self.nmi_masked, self._line = bool(masked), bool(line)
        self._timer.restore(None if deadline < 0 else deadline)
