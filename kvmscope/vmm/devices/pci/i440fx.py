"""The chipset of QEMU's ``pc`` machine: 82441FX host bridge, PIIX3 ISA bridge, PIIX4 power management.

Of their registers those are here that do something in this machine: memory below 1 MiB is plain RAM (PAM and SMRAM are
what firmware leaves, and fixed), and there is no SMM.
"""

from __future__ import annotations

from typing import Final

from kvmscope.vmm.devices.acpi_pm import PM_BASE, AcpiPm
from kvmscope.vmm.devices.device import DeviceField
from kvmscope.vmm.devices.pci.function import Identity, PciFunction, Register
from kvmscope.vmm.devices.pci.root import IsaBridge

__all__ = ["FIRMWARE_LINES", "I440Fx", "Piix3", "Piix4Pm"]

FIRMWARE_LINES: Final = (10, 10, 11, 11)
"""ISA lines that SeaBIOS gives the four routing inputs."""
_PIRQ_ROUTE: Final = 0x60
_ROUTE_OFF: Final = 0x80
_PMBASE: Final = 0x40
_PMREGMISC: Final = 0x80
_SCI: Final = 9


class I440Fx(PciFunction):
    """82441FX, device 0 (Intel 290549)."""

    name = "i440fx"
    identity = Identity(0x8086, 0x1237, 0x060000, revision=2, status=0x0280)

    def __init__(self) -> None:
        super().__init__()
        # Memory decoding and bus mastering are always on.
        self.set_config(Register.COMMAND, 2, 0x0006)
        self.allow(Register.COMMAND, 2, 0x0100)
        self.set_config(0x59, 7, 0x33333333333330)


class Piix3(IsaBridge):
    """82371SB function 0 (Intel 290550): PIRQ route control at 0x60-0x63, section 2.2.11."""

    name = "piix3"
    identity = Identity(0x8086, 0x7000, 0x060100, multifunction=True, status=0x0200)

    def __init__(self) -> None:
        super().__init__()
        self.set_config(Register.COMMAND, 2, 0x0007)
        self.allow(Register.COMMAND, 2, 0x0100)
        for pirq, line in enumerate(FIRMWARE_LINES):
            self.config[_PIRQ_ROUTE + pirq] = line
            self.allow(_PIRQ_ROUTE + pirq, 1, 0x8F)

    def configured(self, offset: int, size: int) -> None:
        """Routes may have changed."""
        if offset < _PIRQ_ROUTE + 4 and offset + size > _PIRQ_ROUTE:
            self.fabric.lines_changed()

    def pirq(self, device: int, pin: int) -> int:
        """Pins rotate from slot to slot (QEMU's wiring)."""
        return (device - 1 + pin - 1) & 3

    def gsis(self, pirq: int) -> tuple[int, ...]:
        """The ISA line, if the route is on."""
        route = self.config[_PIRQ_ROUTE + pirq]
        # Lines 0-2, 8 and 13 are reserved: no device may be routed there.
        if route & _ROUTE_OFF or route & 0xF in (0, 1, 2, 8, 13):
            return ()
        return (route & 0xF,)

    def firmware_line(self, device: int, pin: int) -> int:
        """The line of the pin's route."""
        return FIRMWARE_LINES[self.pirq(device, pin)]

    def fields(self) -> tuple[DeviceField, ...]:
        """The routes."""
        routes = self.config[_PIRQ_ROUTE : _PIRQ_ROUTE + 4]
        return tuple(
            DeviceField(f"PIRQ{'ABCD'[i]}", f"{route:#04x}", "off" if route & _ROUTE_OFF else f"line {route & 0xF}")
            for i, route in enumerate(routes)
        )


class Piix4Pm(PciFunction):
    """82371AB function 3 (Intel 290562, section 7.1): PMBASE at 0x40 places the registers of ``pm``, PMREGMISC enables them."""

    name = "piix4-pm"
    identity = Identity(0x8086, 0x7113, 0x068000, revision=3, status=0x0280)
    pin = 1

    def __init__(self, pm: AcpiPm) -> None:
        super().__init__()
        self._pm = pm
        self.config[Register.INTERRUPT_LINE] = _SCI
        self.set_config(_PMBASE, 4, PM_BASE | 1)
        self.allow(_PMBASE, 4, 0xFFC0)
        self.config[_PMREGMISC] = 1
        self.allow(_PMREGMISC, 1, 0x01)
        self.allow(Register.COMMAND, 2, 0x0101)

    def configured(self, offset: int, size: int) -> None:
        """The registers may have moved."""
        base = self.get_config(_PMBASE, 2) & 0xFFC0 if self.config[_PMREGMISC] & 1 else None
        self._pm.relocate(base)
