"""ACPI's fixed hardware: PM1 event and control registers, PM timer, GPE0, and the SMI command port.

ACPI specification 6.4, section 4.8; addresses as QEMU's PIIX4 has them (Intel 82371AB data sheet, section 7.2).  There is
no SMM: what its handler would do with the two commands of the SMI port, this device does at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmscope.vmm.clock import HZ, Clock
from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range, bit_names
from kvmscope.vmm.devices.interrupts import Line

__all__ = [
    "ACPI_DISABLE",
    "ACPI_ENABLE",
    "GPE0",
    "PM_BASE",
    "SLEEP_S3",
    "SLEEP_S5",
    "SMI_COMMAND",
    "TIMER_HZ",
    "AcpiPm",
]

PM_BASE: Final = 0x600
"""PM1 events at +0, PM1 control at +4, PM timer at +8."""
GPE0: Final = Range(0xAFE0, 4, access=1)
"""Two bytes of status, two of enables.  Nothing on the board raises a general-purpose event: the status stays 0."""
SMI_COMMAND: Final = 0xB2
ACPI_ENABLE: Final = 0xF1
ACPI_DISABLE: Final = 0xF0
TIMER_HZ: Final = 3_579_545
SLEEP_S5: Final = 0
"""SLP_TYP of S5 (soft off), as PIIX4 codes it."""
SLEEP_S3: Final = 1
"""SLP_TYP of S3 (suspend to RAM)."""

_EVENT_BITS: Final = ((0, "TMR"), (4, "BM"), (5, "GBL"), (8, "PWRBTN"), (9, "SLPBTN"), (10, "RTC"), (15, "WAK"))
_TMR: Final = 1 << 0
_RTC: Final = 1 << 10
_WAK: Final = 1 << 15
_STATUS: Final = 0x8731
_ENABLE: Final = 0x0721
"""Bus master status and WAK have no enable bit."""
_CONTROL_BITS: Final = ((0, "SCI_EN"), (1, "BM_RLD"))
_SCI_EN: Final = 1 << 0
_SLP_EN: Final = 1 << 13
_CONTROL: Final = 0x1C03
"""GBL_RLS and SLP_EN are write-only: they read 0."""


class AcpiPm(Device):
    """``sci`` is the system control interrupt (line 9).

    ``suspend(3)`` is called when SLP_EN is written with the type of S3, ``power_off`` with that of S5, and ``wake`` when
    an enabled event comes while suspended; by then the status has WAK_STS, and firmware goes to the waking vector.
    The timer counts at 3.579545 MHz from the clock; ``timer_bits`` is 24 or 32.  ``remap`` has the bus look at the ports
    anew.
    """

    name = "acpi-pm"
    ticking = True

    def __init__(
        self,
        clock: Clock,
        sci: Line,
        suspend: Callable[[int], None],
        power_off: Callable[[], None],
        wake: Callable[[], None],
        timer_bits: int = 24,
        remap: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._sci = sci
        self._suspend, self._power_off, self._wake = suspend, power_off, wake
        self._timer_bits = timer_bits
        self._remap = remap
        self._timer = clock.timer(self._update)
        self._base: int | None = PM_BASE
        self._status = self._enable = self._control = 0
        self._gpe = bytearray(GPE0.size)
        self._apm = bytearray(2)
        self._sci_level = False
        self._asleep = 0
        self._carry = self._next_carry()
        """Guest time at which the timer's highest bit changes next, since the status was last cleared."""
        self._lay()

    def _lay(self) -> None:
        base = () if self._base is None else (Range(self._base, 4), Range(self._base + 4, 4), Range(self._base + 8, 4))
        self.ports = (*base, GPE0, Range(SMI_COMMAND, 2, access=1))

    def relocate(self, base: int | None) -> None:
        """Move the PM registers (None: nowhere), as the PM function's PMBASE says."""
        if base != self._base:
            self._base = base
            self._lay()
            self._remap()

    # time

    def _count(self) -> int:
        return self._clock.now * TIMER_HZ // HZ

    def _next_carry(self) -> int:
        half = 1 << self._timer_bits - 1
        count = (self._count() // half + 1) * half
        return -(-count * HZ // TIMER_HZ)

    def _events(self) -> int:
        """PM1 status as of now."""
        if self._clock.now >= self._carry:
            self._status |= _TMR
        return self._status

    def _update(self) -> None:
        """Drive the SCI, and be called when the timer's highest bit changes if that would interrupt."""
        events = self._events() & self._enable
        level = bool(self._control & _SCI_EN and events)
        if level != self._sci_level:
            self._sci_level = level
            self._sci(level)
        # SCI_EN and TMR_EN are both bit 0.
        if self._enable & self._control & 1 and not self._status & _TMR and not self._asleep:
            if self._timer.deadline != self._carry:
                self._timer.arm(self._carry)
        else:
            self._timer.cancel()

    # events from outside

    def rtc_alarm(self) -> None:
        """The real-time clock's interrupt went high."""
        self._status |= _RTC
        self._wake_up(bool(self._enable & _RTC))

    def _wake_up(self, enabled: bool) -> None:
        if self._asleep and enabled:
            self._asleep = 0
            self._status |= _WAK
            self._wake()
        self._update()

    # ports

    def port_read(self, port: int, size: int) -> int:
        """A register."""
        if port in (SMI_COMMAND, SMI_COMMAND + 1):
            return self._apm[port - SMI_COMMAND]
        if GPE0.first <= port < GPE0.end:
            return self._gpe[port - GPE0.first]
        assert self._base is not None
        offset = port - self._base
        if offset >= 8:
            return (self._count() & (1 << self._timer_bits) - 1) >> 8 * (offset - 8)
        registers = (self._events() | self._enable << 16) if offset < 4 else self._control
        return registers >> 8 * (offset & 3)

    def port_write(self, port: int, size: int, value: int) -> None:
        """Clear status bits by ones, set enables and control; the timer takes no writes."""
        if port in (SMI_COMMAND, SMI_COMMAND + 1):
            self._apm[port - SMI_COMMAND] = value
            if port == SMI_COMMAND and value in (ACPI_ENABLE, ACPI_DISABLE):
                self._control = self._control & ~_SCI_EN | (value == ACPI_ENABLE)
        elif GPE0.first <= port < GPE0.end:
            offset = port - GPE0.first
            if offset >= 2:
                self._gpe[offset] = value
        else:
            assert self._base is not None
            offset = port - self._base
            if offset < 8:
                self._pm1_write(offset, (1 << 8 * size) - 1 << 8 * (offset & 3), value << 8 * (offset & 3))
        self._update()

    def _pm1_write(self, offset: int, mask: int, value: int) -> None:
        if offset < 4:
            cleared = value & _STATUS
            if cleared & self._events() & _TMR:
                self._carry = self._next_carry()
            self._status &= ~cleared
            self._enable = (self._enable & ~(mask >> 16) | value >> 16) & _ENABLE
            return
        self._control = (self._control & ~mask | value) & _CONTROL
        if value & _SLP_EN:
            kind = self._control >> 10 & 7
            if kind == SLEEP_S3:
                self._asleep = 3
                self._suspend(3)
                # An enabled event that came before keeps the machine from sleeping.
                self._wake_up(bool(self._status & self._enable & _RTC))
            elif kind == SLEEP_S5:
                self._power_off()

    def view(self) -> DeviceView:
        """Every register, decoded."""
        status = self._status | (_TMR if self._clock.now >= self._carry else 0)
        sleep = f"SLP_TYP {self._control >> 10 & 7}"
        where = "nowhere" if self._base is None else f"{self._base:#x}-{self._base + 11:#x}"
        return DeviceView(
            self.name,
            f"ports {where}, {GPE0.first:#x}, 0xb2",
            (
                DeviceField("PM1_STS", f"{status:#06x}", bit_names(_EVENT_BITS, status)),
                DeviceField("PM1_EN", f"{self._enable:#06x}", bit_names(_EVENT_BITS, self._enable)),
                DeviceField(
                    "PM1_CNT", f"{self._control:#06x}", f"{bit_names(_CONTROL_BITS, self._control)} {sleep}".strip()
                ),
                DeviceField("PM_TMR", f"{self._count() & (1 << self._timer_bits) - 1:#x}", f"{self._timer_bits} bits"),
                DeviceField("GPE0_STS", f"{int.from_bytes(self._gpe[:2], 'little'):#06x}"),
                DeviceField("GPE0_EN", f"{int.from_bytes(self._gpe[2:], 'little'):#06x}"),
                DeviceField("SCI", "high" if self._sci_level else "low", "line 9"),
                DeviceField("sleep", f"S{self._asleep}", "suspended" if self._asleep else "working"),
            ),
        )

    def save(self) -> DeviceState:
        """Every register, the timer's deadlines and the level of the SCI."""
        deadline = self._timer.deadline
        return (
            -1 if self._base is None else self._base,
            self._status,
            self._enable,
            self._control,
            self._asleep,
            int(self._sci_level),
            self._carry,
            -1 if deadline is None else deadline,
            bytes(self._gpe),
            bytes(self._apm),
        )

    def restore(self, state: DeviceState) -> None:
        """Put all of it back."""
        *registers, gpe, apm = state
        assert isinstance(gpe, bytes)
        assert isinstance(apm, bytes)
        base, self._status, self._enable, self._control, self._asleep, level, self._carry, deadline = (
            number for number in registers if isinstance(number, int)
        )
        self._sci_level = bool(level)
        self._gpe, self._apm = bytearray(gpe), bytearray(apm)
        self._timer.restore(None if deadline < 0 else deadline)
        self.relocate(None if base < 0 else base)
