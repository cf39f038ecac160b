"""A q35 machine with a remapping unit, an I/O APIC behind it and edu."""

from __future__ import annotations

from kvmscope.vmm.devices.interrupts import Message
from kvmscope.vmm.devices.ioapic import IoApic
from kvmscope.vmm.devices.iommu import IOMMU_BASE, Iommu
from tests.vmm.devices.board_parts import AllApics, Memory
from tests.vmm.devices.pci.machine import EDU, PciMachine

ROOT, CONTEXT, PAGES, QUEUE, TABLE = 0x10000, 0x11000, 0x12000, 0x18000, 0x20000
TE, SRTP, QIE, IRE, SIRTP, CFI = (1 << bit for bit in (31, 30, 26, 25, 24, 23))
GCMD, GSTS, RTADDR, CCMD, FSTS, FECTL, FEDATA, FEADDR = 0x18, 0x1C, 0x20, 0x28, 0x34, 0x38, 0x3C, 0x40
IQH, IQT, IQA, ICS, IECTL, IEDATA, IEADDR, IRTA, IOTLB, FRCD = (
    *(0x80, 0x88, 0x90, 0x9C, 0xA0, 0xA4, 0xA8),
    *(0xB8, 0xF8, 0x220),
)
BUFFER = 0x40000
TO_DEVICE, TO_MEMORY = 1, 3


class IommuMachine(PciMachine):
    unit: Iommu

    def __init__(self, x2apic: bool = False) -> None:
        def make(ram: Memory, apics: AllApics) -> tuple[Iommu, Iommu]:
            self.unit = Iommu(ram, apics.bus, 39, x2apic)
            return self.unit, self.unit

        super().__init__(q35=True, iommu=make)
        self.ioapic = IoApic(self.apics.bus)
        self.ioapic.remap = self.unit.redirection
        self.write(EDU, 4, 0x0006, 2)

    def get(self, register: int, size: int = 4) -> int:
        return self.bus.memory_read(IOMMU_BASE + register, size)[0]

    def set(self, register: int, value: int, size: int = 4) -> None:
        self.bus.memory_write(IOMMU_BASE + register, size, value)

    def command(self, *bits: int) -> None:
        """Add to what is on, one by one."""
        for bit in bits:
            self.set(GCMD, self.get(GSTS) & ~(SRTP | SIRTP) | bit)
            assert self.get(GSTS) & bit

    def translate_edu(self, width: int = 1, kind: int = 0, fpd: bool = False) -> None:
        """Root and context entry for edu, an empty table, translation on."""
        self.ram.put(ROOT, CONTEXT | 1, 0)
        self.ram.put(CONTEXT + 16 * EDU, PAGES | kind << 2 | fpd << 1 | 1, width | 7 << 8)
        self.set(RTADDR, ROOT, 8)
        self.command(SRTP, TE)

    def map(self, address: int, entry: int, levels: int = 3, level: int = 1) -> None:
        """Entry of ``address`` at ``level``; the tables above it lie in the pages behind PAGES."""
        table = PAGES
        for at in range(levels, level, -1):
            self.ram.put(table + 8 * (address >> 12 + 9 * (at - 1) & 0x1FF), table + 0x1000 | 3)
            table += 0x1000
        self.ram.put(table + 8 * (address >> 12 + 9 * (level - 1) & 0x1FF), entry)

    def remap_interrupts(self, size: int = 3, extended: bool = False) -> None:
        self.set(IRTA, TABLE | extended << 11 | size, 8)
        self.command(SIRTP, IRE)

    def entry(self, index: int, low: int, high: int = 0) -> None:
        self.ram.put(TABLE + 16 * index, low, high)

    def fault(self) -> tuple[int, int, int, bool] | None:
        """(reason, source, info, read) of the record, which is then cleared."""
        info, high = self.get(FRCD, 8), self.get(FRCD + 8, 8)
        if not high >> 63:
            return None
        self.set(FRCD + 12, 1 << 31)
        return high >> 32 & 0xFF, high & 0xFFFF, info, bool(high >> 62 & 1)

    def take(self) -> list[Message]:
        messages, self.apics.messages = self.apics.messages, []
        return messages
