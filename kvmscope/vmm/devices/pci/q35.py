"""The chipset of QEMU's ``q35`` machine: the 82G33 memory controller hub and the ICH9 LPC bridge.

PCIEXBAR is not implemented (reads 0: disabled), so there is no memory-mapped configuration space.
"""

from __future__ import annotations

from typing import Final

from kvmscope.vmm.devices.acpi_pm import PM_BASE, AcpiPm
from kvmscope.vmm.devices.device import DeviceField
from kvmscope.vmm.devices.pci.function import Identity, PciFunction, Register
from kvmscope.vmm.devices.pci.i440fx import FIRMWARE_LINES
from kvmscope.vmm.devices.pci.root import IsaBridge

__all__ = ["Ich9Lpc", "Mch"]

_PMBASE: Final = 0x40
_ACPI_CNTL: Final = 0x44
_ACPI_ENABLED: Final = 0x80
_ROUTES: Final = (*range(0x60, 0x64), *range(0x68, 0x6C))
"""Route control of PIRQA# .. PIRQH#."""
_ROUTE_OFF: Final = 0x80
_FIRST_GSI: Final = 16
_ROTATING: Final = 25
"""Devices below this number have their pins rotated over PIRQE#-PIRQH#."""


class Mch(PciFunction):
    """82G33 host bridge, device 0 (Intel 316966)."""

    name = "mch"
    identity = Identity(0x8086, 0x29C0, 0x060000, status=0x0080)

    def __init__(self) -> None:
        super().__init__()
        self.set_config(Register.COMMAND, 2, 0x0006)
        self.allow(Register.COMMAND, 2, 0x0100)


class Ich9Lpc(IsaBridge):
    """ICH9 device 31 function 0 (Intel 316972, section 13.1).

    INTx of the root bus reaches the I/O APIC twice: PIRQn# always at input 16+n, and where its route is on also at the
    ISA line.  The general-purpose event block of ``pm`` stays where PIIX4 has it.
    """

    name = "ich9-lpc"
    identity = Identity(0x8086, 0x2918, 0x060100, revision=2, multifunction=True, status=0x0200)

    def __init__(self, pm: AcpiPm) -> None:
        super().__init__()
        self._pm = pm
        self.set_config(Register.COMMAND, 2, 0x0007)
        self.allow(Register.COMMAND, 2, 0x0100)
        self.set_config(_PMBASE, 4, PM_BASE | 1)
        self.allow(_PMBASE, 4, 0xFF80)
        self.config[_ACPI_CNTL] = _ACPI_ENABLED
        self.allow(_ACPI_CNTL, 1, _ACPI_ENABLED)
        for i, register in enumerate(_ROUTES):
            self.config[register] = FIRMWARE_LINES[i & 3]
            self.allow(register, 1, 0x8F)

    def configured(self, offset: int, size: int) -> None:
        """Routes or the power management registers may have changed."""
        base = self.get_config(_PMBASE, 2) & 0xFF80 if self.config[_ACPI_CNTL] & _ACPI_ENABLED else None
        self._pm.relocate(base)
        self.fabric.lines_changed()

    def pirq(self, device: int, pin: int) -> int:
        """PIRQE#-H# in rotation, or PIRQA#-D# in order for the ICH9's own devices (their reset values)."""
        return 4 + (device + pin - 1) % 4 if device < _ROTATING else pin - 1

    def gsis(self, pirq: int) -> tuple[int, ...]:
        """Input 16+n, and the ISA line if the route is on."""
        route = self.config[_ROUTES[pirq]]
        if route & _ROUTE_OFF or route & 0xF in (0, 1, 2, 8, 13):
            return (_FIRST_GSI + pirq,)
        return (route & 0xF, _FIRST_GSI + pirq)

    def firmware_line(self, device: int, pin: int) -> int:
        """The ISA line of the pin's route."""
        return FIRMWARE_LINES[self.pirq(device, pin) & 3]

    def fields(self) -> tuple[DeviceField, ...]:
        """The routes."""
        return tuple(
            DeviceField(
                f"PIRQ{'ABCDEFGH'[i]}",
                f"{(route := self.config[register]):#04x}",
                f"input {_FIRST_GSI + i}" + ("" if route & _ROUTE_OFF else f", line {route & 0xF}"),
            )
            for i, register in enumerate(_ROUTES)
        )
