"""The remapping unit: its registers, commands, invalidation queue, fault log and events (VT-d specification, chapter 10)."""

from __future__ import annotations

from typing import Final

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, GuestRam, Range, bit_names
from kvmscope.vmm.devices.interrupts import ApicBus, DeliveryMode, Message
from kvmscope.vmm.devices.iommu import dma, queue
from kvmscope.vmm.devices.iommu.faults import Reason, RemapFault
from kvmscope.vmm.devices.iommu.interrupts import RemapTable, compatible, redirection_request, remap
from kvmscope.vmm.devices.iommu.registers import (
    FAULT_RECORD,
    FSTS_BITS,
    GCMD_BITS,
    IOTLB,
    LENGTH,
    Reg,
    capabilities,
    extended_capabilities,
    writable,
)

__all__ = ["IOMMU_BASE", "Iommu"]

IOMMU_BASE: Final = 0xFED90000
_VERSION: Final = 0x10

_TRANSLATION: Final = 1 << 31
_ROOT_POINTER: Final = 1 << 30
_QUEUE: Final = 1 << 26
_REMAPPING: Final = 1 << 25
_TABLE_POINTER: Final = 1 << 24
_COMPATIBILITY: Final = 1 << 23
_LEVELS: Final = _TRANSLATION | _QUEUE | _REMAPPING | _COMPATIBILITY
"""Commands whose bit says what shall be; the other two act when they are written as ones."""

_PFO, _PPF, _IQE = 1 << 0, 1 << 1, 1 << 4
_FSTS_CLEARABLE: Final = 0x71
_MASKED: Final = 1 << 31
_PENDING: Final = 1 << 30
_WAIT_COMPLETE: Final = 1
_FAULT: Final = 1 << 63
_IS_READ: Final = 1 << 62
_BUSY: Final = 1 << 63
"""ICC and IVT: an invalidation by register is under way."""


class Iommu(Device):
    """4 KiB of registers at 0xfed90000.  ``address_bits``: the width of physical addresses.

    ``x2apic`` allows destinations of 32 bits (EIM).  Commands are done when they are written, entries are never cached.
    """

    name = "iommu"
    memory = (Range(IOMMU_BASE, 0x1000, access=8),)

    def __init__(self, ram: GuestRam, apics: ApicBus, address_bits: int = 39, x2apic: bool = False) -> None:
        self._ram = ram
        self._apics = apics
        self._address_bits = address_bits
        self._writable = writable(x2apic)
        self._registers = bytearray(LENGTH)
        self._set(Reg.VER, 4, _VERSION)
        self._set(Reg.CAP, 8, capabilities())
        self._set(Reg.ECAP, 8, extended_capabilities(x2apic))
        self._set(Reg.FECTL, 4, _MASKED)
        self._set(Reg.IECTL, 4, _MASKED)
        # What the pointer commands latched.
        self._root = 0
        self._table = 0

    # registers

    def _get(self, offset: int, size: int) -> int:
        return int.from_bytes(self._registers[offset : offset + size], "little")

    def _set(self, offset: int, size: int, value: int) -> None:
        self._registers[offset : offset + size] = value.to_bytes(size, "little")

    def memory_read(self, address: int, size: int) -> int:
        """A register; what is not there reads 0."""
        return self._get(address - IOMMU_BASE, size)

    def memory_write(self, address: int, size: int, value: int) -> None:
        """An aligned DWORD or quadword (others have no meaning and are dropped), with its effects."""
        offset = address - IOMMU_BASE
        if size not in (4, 8) or offset % size:
            return
        for at in range(offset, offset + size, 4):
            self._write(at, value >> 8 * (at - offset) & 0xFFFFFFFF)

    def _write(self, offset: int, value: int) -> None:
        if offset >= LENGTH:
            return
        mask = int.from_bytes(self._writable[offset : offset + 4], "little")
        self._set(offset, 4, self._get(offset, 4) & ~mask | value & mask)
        if offset == Reg.GCMD:
            self._command(value)
        elif offset == Reg.CCMD + 4:
            # The granularity asked for is the one performed.
            self._finish(Reg.CCMD, 61, 59)
        elif offset == IOTLB + 4:
            self._finish(IOTLB, 60, 57)
        elif offset == Reg.FSTS:
            self._set(Reg.FSTS, 4, self._get(Reg.FSTS, 4) & ~(value & _FSTS_CLEARABLE))
            self._settle_faults()
            self._fetch()
        elif offset == FAULT_RECORD + 12 and value >> 31:
            self._set(offset, 4, self._get(offset, 4) & 0x7FFFFFFF)
            self._set(Reg.FSTS, 4, self._get(Reg.FSTS, 4) & ~_PPF)
            self._settle_faults()
        elif offset == Reg.ICS and value & _WAIT_COMPLETE:
            self._set(Reg.ICS, 4, 0)
            self._set(Reg.IECTL, 4, self._get(Reg.IECTL, 4) & ~_PENDING)
        elif offset == Reg.FECTL:
            self._deliver(Reg.FECTL)
        elif offset == Reg.IECTL:
            self._deliver(Reg.IECTL)
        elif offset == Reg.IQT:
            self._fetch()

    def _finish(self, register: int, asked: int, done: int) -> None:
        """An invalidation by register: nothing is cached, so it is over at once."""
        value = self._get(register, 8)
        if value & _BUSY:
            granularity = value >> asked & 3
            self._set(register, 8, value & ~(_BUSY | 3 << done) | granularity << done)

    def _command(self, command: int) -> None:
        status = self._get(Reg.GSTS, 4)
        if command & _ROOT_POINTER:
            self._root = self._get(Reg.RTADDR, 8)
        if command & _TABLE_POINTER:
            self._table = self._get(Reg.IRTA, 8)
        after = status & ~_LEVELS | command & (_LEVELS | _ROOT_POINTER | _TABLE_POINTER)
        self._set(Reg.GSTS, 4, after)
        if (status ^ after) & _QUEUE:
            # Switched on or off, the queue starts at its first descriptor.
            self._set(Reg.IQH, 8, 0)
            self._fetch()

    @property
    def _status(self) -> int:
        return self._get(Reg.GSTS, 4)

    # invalidation queue

    def _fetch(self) -> None:
        if not self._status & _QUEUE:
            return
        where = self._get(Reg.IQA, 8)
        base, size = where & ~0xFFF, 0x1000 << (where & 7)
        head, tail = self._get(Reg.IQH, 8), self._get(Reg.IQT, 8)
        if tail >= size:
            self._queue_error()
            return
        while head != tail and not self._get(Reg.FSTS, 4) & _IQE:
            raw = self._ram.read(base + head, 16)
            done = queue.decode(int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little"))
            if done is False:
                self._queue_error()
                return
            if isinstance(done, queue.Wait):
                self._complete(done)
            head = (head + 16) % size
            self._set(Reg.IQH, 8, head)

    def _complete(self, wait: queue.Wait) -> None:
        if wait.status is not None:
            address, data = wait.status
            self._ram.write(address, data.to_bytes(4, "little"))
        if wait.event and not self._get(Reg.ICS, 4):
            self._set(Reg.ICS, 4, _WAIT_COMPLETE)
            self._event(Reg.IECTL)

    def _queue_error(self) -> None:
        self._report(_IQE)

    # faults and events

    def _event(self, control: int) -> None:
        """Interrupt by the message beside ``control``, now or when it is unmasked."""
        self._set(control, 4, self._get(control, 4) | _PENDING)
        self._deliver(control)

    def _deliver(self, control: int) -> None:
        value = self._get(control, 4)
        if value & _PENDING and not value & _MASKED:
            self._set(control, 4, value & ~_PENDING)
            data, address, upper = (self._get(control + 4 * i, 4) for i in (1, 2, 3))
            mode = data >> 8 & 7
            if mode not in (3, 6):
                # The unit's own interrupts are not remapped.
                destination = address >> 12 & 0xFF | upper & 0xFFFFFF00
                logical = bool(address & 4)
                self._apics.send(Message(data & 0xFF, DeliveryMode(mode), destination, logical))

    def _report(self, bits: int) -> None:
        """Set status bits; the first that is set interrupts, the others find the status set already."""
        before = self._get(Reg.FSTS, 4)
        self._set(Reg.FSTS, 4, before | bits)
        if not before and bits:
            self._event(Reg.FECTL)

    def _settle_faults(self) -> None:
        if not self._get(Reg.FSTS, 4):
            self._set(Reg.FECTL, 4, self._get(Reg.FECTL, 4) & ~_PENDING)

    def _record(self, fault: RemapFault, source: int, info: int, read: bool) -> None:
        if fault.silent or self._get(Reg.FSTS, 4) & _PFO:
            return
        if self._get(FAULT_RECORD + 8, 8) & _FAULT:
            self._report(_PFO)
            return
        self._set(FAULT_RECORD, 8, info)
        self._set(FAULT_RECORD + 8, 8, source | fault.reason << 32 | (_IS_READ if read else 0) | _FAULT)
        self._report(_PPF)

    # requests

    def translate(self, source: int, address: int, write: bool) -> int | None:
        """Physical address of one access that does not cross a page; None when it is blocked."""
        if not self._status & _TRANSLATION:
            return address
        try:
            return dma.translate(self._ram, self._root & ~0xFFF, source, address, write, self._address_bits)
        except RemapFault as fault:
            self._record(fault, source, address & ~0xFFF, not write)
            return None

    def message(self, source: int | None, address: int, data: int) -> Message | None:
        """The message that a write of ``data`` to 0xfeexxxxx becomes; None when it is blocked or makes no sense."""
        if not self._status & _REMAPPING or (compatible(address) and self._compatibility):
            mode = data >> 8 & 7
            if mode in (3, 6):
                return None
            destination = address >> 12 & 0xFF
            return Message(data & 0xFF, DeliveryMode(mode), destination, bool(address & 4), bool(data >> 15 & 1))
        table = RemapTable(self._table & ~0xFFF, 2 << (self._table & 0xF), bool(self._table & 0x800))
        try:
            if compatible(address):
                raise RemapFault(Reason.COMPATIBILITY_BLOCKED)
            return remap(self._ram, table, source, address, data)
        except RemapFault as fault:
            self._record(fault, source or 0, fault.index << 48, False)
            return None

    @property
    def _compatibility(self) -> bool:
        """Compatibility format passes: enabled, and no extended destinations."""
        return bool(self._status & _COMPATIBILITY) and not self._table & 0x800

    def interrupt(self, source: int | None, address: int, data: int) -> bool:
        """Send the message of a function; False when it is blocked or nobody takes it."""
        message = self.message(source, address, data)
        return message is not None and self._apics.send(message)

    def redirection(self, entry: int) -> Message | None:
        """The message of an I/O APIC's redirection entry; what `IoApic.remap` wants."""
        return self.message(None, *redirection_request(entry))

    # for the panel and for history

    def view(self) -> DeviceView:
        """Status, tables, queue and the fault log."""
        status, faults, record = self._status, self._get(Reg.FSTS, 4), self._get(FAULT_RECORD + 8, 8)
        last = "none"
        if record & _FAULT:
            reason = Reason(record >> 32 & 0xFF)
            what = (
                f"index {self._get(FAULT_RECORD, 8) >> 48}" if reason.interrupt else f"{self._get(FAULT_RECORD, 8):#x}"
            )
            kind = "interrupt" if reason.interrupt else "read" if record & _IS_READ else "write"
            last = f"{reason.name.lower().replace('_', ' ')}: {kind} {what} of source {record & 0xFFFF:#06x}"
        return DeviceView(
            self.name,
            f"memory {IOMMU_BASE:#x}",
            (
                DeviceField("CAP", f"{self._get(Reg.CAP, 8):#x}"),
                DeviceField("ECAP", f"{self._get(Reg.ECAP, 8):#x}"),
                DeviceField("GSTS", f"{status:#010x}", bit_names(GCMD_BITS, status)),
                DeviceField("root table", f"{self._root:#x}", "latched"),
                DeviceField("interrupt table", f"{self._table & ~0xFFF:#x}", f"{2 << (self._table & 0xF)} entries"),
                DeviceField("IQA", f"{self._get(Reg.IQA, 8):#x}", f"{256 << (self._get(Reg.IQA, 8) & 7)} descriptors"),
                DeviceField("IQH", f"{self._get(Reg.IQH, 8):#x}", f"tail {self._get(Reg.IQT, 8):#x}"),
                DeviceField("FSTS", f"{faults:#x}", bit_names(FSTS_BITS, faults)),
                DeviceField("fault", f"{record >> 32 & 0xFF:#x}", last),
            ),
        )

    def save(self) -> DeviceState:
        """Registers and what was latched."""
        return (bytes(self._registers), self._root, self._table)

    def restore(self, state: DeviceState) -> None:
        """Put all of it back."""
        registers, root, table = state
        assert isinstance(registers, bytes)
        assert isinstance(root, int)
        assert isinstance(table, int)
        self._registers[:] = registers
        self._root, self._table = root, table
