"""ACPI tables as firmware leaves them in memory (ACPI specification 6.4, section 5.2).

Pure functions: a description of the machine in, bytes by address out.  Everything lies in the BIOS area below 1 MiB,
where the RSDP has to be and where no memory map offers memory to use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kvmscope.vmm.devices import acpi_pm

__all__ = ["ACPI_BASE", "AcpiConfig", "AcpiTables", "IommuScope", "build_acpi", "checksum", "waking_vector"]

ACPI_BASE: Final = 0xE0000
"""Where the RSDP lies: the first place where software looks (section 5.2.5.1)."""
_END: Final = 0x100000
_LAPIC: Final = 0xFEE00000
_IOAPIC: Final = 0xFEC00000
_HPET: Final = 0xFED00000
_RESET_PORT: Final = 0xCF9
_RESET_VALUE: Final = 0x06
_SCI: Final = 9
_PCI_IRQS: Final = (5, 10, 11)
"""ISA lines to which PCI interrupts may be routed: level, as the SCI."""
_CENTURY: Final = 0x32
"""CMOS byte of the century."""
_ACTIVE_HIGH_LEVEL: Final = 0x0D
"""Flags of an interrupt source override: polarity 01, trigger 11."""

# FADT feature flags (table 5.10).
_WBINVD: Final = 1 << 0
_PROC_C1: Final = 1 << 2
_SLP_BUTTON: Final = 1 << 5
_TMR_VAL_EXT: Final = 1 << 8
_RESET_REG_SUP: Final = 1 << 10
# IA-PC boot architecture flags: legacy devices, 8042.
_BOOT_FLAGS: Final = 0x0003


@dataclass(frozen=True, slots=True)
class IommuScope:
    """What the DMAR table says of a VT-d unit that serves the whole segment."""

    base: int = 0xFED90000
    address_bits: int = 39
    """Host address width."""
    ioapic_source: int = 0xFF00
    """Bus and device/function that the I/O APIC uses as its source-id; QEMU's number."""


@dataclass(frozen=True, slots=True)
class AcpiConfig:
    """What the tables have to say."""

    apic_ids: Sequence[int] = (0,)
    """One a processor, the bootstrap processor's first; below 255."""
    ioapic_id: int = 0
    hpet_id: int | None = 0x8086A201
    """Low half of the HPET's capability register; None: there is no HPET."""
    timer_bits: int = 24
    """Width of the PM timer: 24 or 32."""
    pm_base: int = acpi_pm.PM_BASE
    iommu: IommuScope | None = None
    base: int = ACPI_BASE


@dataclass(frozen=True, slots=True)
class AcpiTables:
    """Addresses of the tables, by signature, and the bytes at each."""

    rsdp: int
    facs: int
    tables: Mapping[str, int]
    """Those that the RSDT names, and DSDT, RSDT and XSDT."""
    contents: Mapping[int, bytes]


def checksum(data: bytes) -> int:
    """The byte that makes ``data`` sum to 0 modulo 256."""
    return -sum(data) & 0xFF


def build_acpi(config: AcpiConfig) -> AcpiTables:
    """All tables of a machine, from ``config.base`` up."""
    place = _Place(config.base)
    rsdp = place.reserve(36, 16)
    # The OS writes the waking vector and the global lock: a cache line of its own (section 5.2.10).
    facs = place.put(_facs(), 64)
    named: dict[str, int] = {}
    for signature, table in _tables(config, facs, dsdt := place.put(_dsdt(), 16)):
        named[signature] = place.put(table, 16)
    listed = tuple(named.values())
    rsdt = place.put(_table("RSDT", 1, b"".join(_n(address, 4) for address in listed)), 16)
    xsdt = place.put(_table("XSDT", 1, b"".join(_n(address, 8) for address in listed)), 16)
    place.contents[rsdp] = _rsdp(rsdt, xsdt)
    named |= {"DSDT": dsdt, "RSDT": rsdt, "XSDT": xsdt}
    return AcpiTables(rsdp, facs, named, dict(sorted(place.contents.items())))


def waking_vector(facs: bytes) -> tuple[int, int] | None:
    """(CS selector, IP) at which firmware resumes from S3 in real mode; None when the OS has set no vector.

    ``facs`` is the table as the guest left it.  Section 5.2.10: the vector is a physical address below 1 MiB.
    """
    vector = int.from_bytes(facs[12:16], "little")
    return (vector >> 4 & 0xFFFF, vector & 0xF) if vector else None


class _Place:
    """Hands out addresses upwards."""

    def __init__(self, base: int) -> None:
        self._next = base
        self.contents: dict[int, bytes] = {}

    def reserve(self, size: int, align: int) -> int:
        address = -(-self._next // align) * align
        self._next = address + size
        if self._next > _END:
            raise ValueError(f"ACPI tables end at {self._next:#x}, beyond the BIOS area")
        return address

    def put(self, data: bytes, align: int) -> int:
        address = self.reserve(len(data), align)
        self.contents[address] = data
        return address


def _n(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def _table(signature: str, revision: int, body: bytes) -> bytes:
    """A table with its header (section 5.2.6)."""
    head = signature.encode() + _n(36 + len(body), 4) + bytes((revision, 0))
    head += b"KVMSCP" + b"KVMSCOPE" + _n(1, 4) + b"KVMS" + _n(1, 4)
    table = head + body
    return table[:9] + bytes((checksum(table),)) + table[10:]


def _rsdp(rsdt: int, xsdt: int) -> bytes:
    first = b"RSD PTR " + b"\0" + b"KVMSCP" + bytes((2,)) + _n(rsdt, 4)
    first = first[:8] + bytes((checksum(first),)) + first[9:]
    whole = first + _n(36, 4) + _n(xsdt, 8) + bytes(4)
    return whole[:32] + bytes((checksum(whole),)) + whole[33:]


def _facs() -> bytes:
    return (b"FACS" + _n(64, 4)).ljust(32, b"\0") + bytes((1,)) + bytes(31)


def _port(address: int, size: int) -> bytes:
    """A generic address structure (section 5.2.3.2) of ``size`` bytes of port space; the null one for address 0."""
    if not address:
        return bytes(12)
    access = {1: 1, 2: 2, 4: 3}.get(size, 0)
    return bytes((1, 8 * size, 0, access)) + _n(address, 8)


def _fadt(config: AcpiConfig, facs: int, dsdt: int) -> bytes:
    event, control, timer, gpe = config.pm_base, config.pm_base + 4, config.pm_base + 8, acpi_pm.GPE0
    flags = _WBINVD | _PROC_C1 | _SLP_BUTTON | _RESET_REG_SUP | (_TMR_VAL_EXT if config.timer_bits == 32 else 0)
    body = (
        _n(facs, 4)
        + _n(dsdt, 4)
        + bytes((0, 0))  # (reserved), no preferred power profile
        + _n(_SCI, 2)
        + _n(acpi_pm.SMI_COMMAND, 4)
        + bytes((acpi_pm.ACPI_ENABLE, acpi_pm.ACPI_DISABLE, 0, 0))
        + b"".join(_n(port, 4) for port in (event, 0, control, 0, 0, timer, gpe.first, 0))
        + bytes((4, 2, 0, 4, gpe.size, 0, 0, 0))
        # C2 and C3 are not there: latencies beyond the limits (100 and 1000 us).
        + _n(0xFFF, 2)
        + _n(0xFFF, 2)
        + bytes(4)  # no flush by reading
        + bytes((0, 0, 0, 0, _CENTURY))
        + _n(_BOOT_FLAGS, 2)
        + b"\0"
        + _n(flags, 4)
        + _port(_RESET_PORT, 1)
        + bytes((_RESET_VALUE,))
        + bytes(3)
        # X_FIRMWARE_CTRL stays 0: only one of the two may be used, and the older one is what everybody reads.
        + _n(0, 8)
        + _n(dsdt, 8)
        + _port(event, 4)
        + _port(0, 0)
        + _port(control, 2)
        + _port(0, 0)
        + _port(0, 0)
        + _port(timer, 4)
        + _port(gpe.first, gpe.size)
        + _port(0, 0)
    )
    return _table("FACP", 3, body)


def _madt(config: AcpiConfig) -> bytes:
    body = _n(_LAPIC, 4) + _n(1, 4)  # PCAT_COMPAT: there are 8259s too
    for uid, apic_id in enumerate(config.apic_ids):
        body += bytes((0, 8, uid, apic_id)) + _n(1, 4)
    body += bytes((1, 12, config.ioapic_id, 0)) + _n(_IOAPIC, 4) + _n(0, 4)
    # The PIT's line 0 comes in at pin 2, where the 8259's output would be.
    body += _override(0, 2, 0)
    for irq in sorted((_SCI, *_PCI_IRQS)):
        body += _override(irq, irq, _ACTIVE_HIGH_LEVEL)
    # NMI at LINT1 of every processor.
    body += bytes((4, 6, 0xFF)) + _n(0, 2) + bytes((1,))
    return _table("APIC", 1, body)


def _override(irq: int, gsi: int, flags: int) -> bytes:
    return bytes((2, 10, 0, irq)) + _n(gsi, 4) + _n(flags, 2)


def _hpet(identity: int) -> bytes:
    """IA-PC HPET specification 1.0a, section 3.2.4: the block in memory, no minimum tick of its own."""
    return _table(
        "HPET", 1, _n(identity, 4) + bytes((0, 64, 0, 0)) + _n(_HPET, 8) + bytes((0,)) + _n(0, 2) + bytes((0,))
    )


def _dmar(scope: IommuScope, ioapic_id: int) -> bytes:
    """Intel VT-d specification, section 8: one unit for all devices, with interrupt remapping."""
    bus, devfn = scope.ioapic_source >> 8, scope.ioapic_source & 0xFF
    ioapic = bytes((3, 8, 0, 0, ioapic_id, bus, devfn >> 3, devfn & 7))
    # INCLUDE_PCI_ALL; segment 0.
    unit = _n(0, 2) + _n(16 + len(ioapic), 2) + bytes((1, 0)) + _n(0, 2) + _n(scope.base, 8) + ioapic
    return _table("DMAR", 1, bytes((scope.address_bits - 1, 1)) + bytes(10) + unit)


def _tables(config: AcpiConfig, facs: int, dsdt: int) -> list[tuple[str, bytes]]:
    tables = [("FACP", _fadt(config, facs, dsdt)), ("APIC", _madt(config))]
    if config.hpet_id is not None:
        tables.append(("HPET", _hpet(config.hpet_id)))
    if config.iommu is not None:
        tables.append(("DMAR", _dmar(config.iommu, config.ioapic_id)))
    return tables


# AML opcodes (section 20.3).
_ZERO_OP: Final = 0x00
_NAME_OP: Final = 0x08
_BYTE_PREFIX: Final = 0x0A
_PACKAGE_OP: Final = 0x12


def _sleep_package(name: str, kind: int) -> bytes:
    r"""``Name (\_S3, Package (4) {kind, kind, 0, 0})``: what goes into SLP_TYP (section 7.4.2)."""
    elements = bytes((_BYTE_PREFIX, kind)) * 2 + bytes((_ZERO_OP, _ZERO_OP))
    # PkgLength counts itself and the number of elements.
    package = bytes((_PACKAGE_OP, 2 + len(elements), 4)) + elements
    return bytes((_NAME_OP,)) + b"\\" + name.encode() + package


def _dsdt() -> bytes:
    """The sleep states only; devices are where a PC has them."""
    return _table("DSDT", 1, _sleep_package("_S3_", acpi_pm.SLEEP_S3) + _sleep_package("_S5_", acpi_pm.SLEEP_S5))
