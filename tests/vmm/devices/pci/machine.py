"""A PCI machine without processors, driven by ports as a guest drives it."""

from __future__ import annotations

from collections.abc import Callable

from kvmscope.vmm.devices import Bus
from kvmscope.vmm.devices.acpi_pm import AcpiPm
from kvmscope.vmm.devices.device import Device
from kvmscope.vmm.devices.pci import Upstream, devfn, make_root
from kvmscope.vmm.devices.pci.edu import Edu
from kvmscope.vmm.devices.pci.testdev import PciTestDevice
from kvmscope.vmm.devices.pci.upstream import Translator
from tests.vmm.devices.board_parts import AllApics, HandClock, Levels, Memory

EDU = devfn(4)
TESTDEV = devfn(5)


class PciMachine:
    def __init__(
        self,
        q35: bool = False,
        iommu: Callable[[Memory, AllApics], tuple[Device, Translator]] | None = None,
        dma_bits: int = 28,
    ) -> None:
        self.clock = HandClock()
        self.ram = Memory()
        self.lines = Levels()
        self.apics = AllApics()
        self.pm = AcpiPm(
            self.clock,
            lambda level: None,
            lambda state: None,
            lambda: None,
            lambda: None,
            remap=lambda: self.bus.remap(),
        )
        self.edu = Edu(self.clock, dma_bits)
        self.testdev = PciTestDevice()
        unit = iommu(self.ram, self.apics) if iommu is not None else None
        upstream = Upstream(self.ram, self.apics.bus, unit[1] if unit else None)
        self.root = make_root(
            "q35" if q35 else "pc", self.pm, upstream, self.lines, lambda: self.bus.remap(), (self.edu, self.testdev)
        )
        extra = (unit[0],) if unit else ()
        self.bus = Bus((self.pm, self.root, *extra, *self.root.functions.values()))

    def select(self, source: int, register: int) -> None:
        self.bus.port_write(0xCF8, 4, 0x80000000 | source << 8 | register & 0xFC)

    def read(self, source: int, register: int, size: int = 4) -> int:
        self.select(source, register)
        return self.bus.port_read(0xCFC + (register & 3), size)[0]

    def write(self, source: int, register: int, value: int, size: int = 4) -> None:
        self.select(source, register)
        self.bus.port_write(0xCFC + (register & 3), size, value)

    def bar(self, source: int, number: int) -> int:
        value = self.read(source, 0x10 + 4 * number)
        return value & ~3 if value & 1 else value & ~0xF

    def edu_read(self, register: int, size: int = 4) -> int:
        return self.bus.memory_read(self.bar(EDU, 0) + register, size)[0]

    def edu_write(self, register: int, value: int, size: int = 4) -> None:
        self.bus.memory_write(self.bar(EDU, 0) + register, size, value)

    def edu_dma(self, source: int, destination: int, count: int, command: int) -> None:
        """Start a transfer and wait for its end."""
        for register, value in ((0x80, source), (0x88, destination), (0x90, count)):
            self.edu_write(register, value, 8)
        self.edu_write(0x98, command)
        for _ in range(10):
            if not self.edu_read(0x98) & 1:
                return
            self.clock.advance(1000)
        raise AssertionError("the transfer does not end")
