"""A multiboot image as its boot loader starts it (Multiboot Specification version 0.6.96, sections 3.2 and 3.3).

32-bit protected mode with flat segments from a GDT of the loader's, paging and interrupts off, EBX pointing to what the
image is told: memory, its map, a command line (file name, then the arguments, with single blanks between, as QEMU's
``-append`` gives it), and one module, the environment, when there is one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from kvmscope.asm.image import Image
from kvmscope.errors import GuestImageError, UsageError
from kvmscope.vmm.boot.acpi import AcpiConfig, IommuScope, build_acpi
from kvmscope.vmm.boot.firmware import EBDA, FIRMWARE, LOW_MEMORY_END, write_firmware
from kvmscope.vmm.boot.layout import PAGE
from kvmscope.vmm.boot.memory import BootMemory
from kvmscope.vmm.boot.model import Boot
from kvmscope.vmm.config import MachineConfig
from kvmscope.x86.descriptors import decode, segment_of
from kvmscope.x86.encode import encode
from kvmscope.x86.profiles import resolve
from kvmscope.x86.reset import reset_state
from kvmscope.x86.state import CpuState, DescriptorTable, Gpr, SegmentRegister

__all__ = ["CODE", "DATA", "MAGIC", "command_line", "memory_map", "prepare_multiboot"]

MAGIC: Final = 0x2BADB002
"""In EAX at entry."""
CODE: Final = 0x08
DATA: Final = 0x10
"""Selectors of the loader's GDT."""

_MEMORY: Final = 1 << 0
_COMMAND_LINE: Final = 1 << 2
_MODULES: Final = 1 << 3
_MEMORY_MAP: Final = 1 << 6
_LOADER_NAME: Final = 1 << 9
_INFO: Final = struct.Struct("<29I")
"""The information structure up to vbe_interface_len."""
_MODULE: Final = struct.Struct("<4I")
_RANGE: Final = struct.Struct("<IQQI")
_AVAILABLE: Final = 1
_RESERVED: Final = 2
_TOP: Final = 1 << 32

_MEBIBYTE: Final = 1 << 20
_LOWEST: Final = 0x9000
"""The loader's tables go above this, in the first pages that the image leaves free."""
_MAX_COMMAND_LINE: Final = 1 << 16
_MAX_ENVIRONMENT: Final = 1 << 20

# CR0: PE and ET; a firmware has enabled the caches (CD and NW clear).
_CR0: Final = 0x11
_IVT_LIMIT: Final = 0x3FF


def command_line(config: MachineConfig, image: Image) -> bytes:
    """The command line.  Raises UsageError for one that no image would take."""
    text = " ".join((image.name or "image", " ".join(config.args))).encode("utf-8", "surrogateescape")
    if b"\0" in text or len(text) >= _MAX_COMMAND_LINE:
        raise UsageError(
            "The image's arguments cannot be a command line",
            f"{len(text)} bytes; less than {_MAX_COMMAND_LINE} fit, and no NUL",
        )
    return text + b"\0"


def memory_map(memory: int) -> Iterator[tuple[int, int, int]]:
    """(first address, bytes, type) of each range, as a PC's firmware reports them (1: RAM, 2: reserved)."""
    yield 0, LOW_MEMORY_END, _AVAILABLE
    yield EBDA, 0xA0000 - EBDA, _RESERVED
    yield FIRMWARE[0], FIRMWARE[1] - FIRMWARE[0], _RESERVED
    if memory > _MEBIBYTE:
        yield _MEBIBYTE, memory - _MEBIBYTE, _AVAILABLE
    # The top of the address space belongs to the firmware's ROM.
    yield _TOP - 0x40000, 0x40000, _RESERVED


def prepare_multiboot(config: MachineConfig, image: Image) -> Boot:
    """Memory and state of a multiboot image.

    Raises GuestImageError for a section that does not lie in RAM or runs into another, UsageError for arguments or an
    environment that cannot be handed over.
    """
    _check_sections(config, image)
    memory = BootMemory(config.memory)
    write_firmware(memory)
    width = resolve(config.cpu).maxphyaddr
    iommu = IommuScope(address_bits=width) if "intel-iommu" in config.devices else None
    acpi = build_acpi(AcpiConfig(apic_ids=range(config.smp), iommu=iommu))
    for address, table in acpi.contents.items():
        memory.write(address, table, "the firmware's ACPI tables")
    for section in image.sections:
        memory.write(section.address, section.data, f"section {section.name}")
    gdt, info = _write_information(config, image, memory)
    return Boot(memory.pages(), _state(gdt, info, image.entry), image.entry, firmware=True, facs=acpi.facs)


def _check_sections(config: MachineConfig, image: Image) -> None:
    end, before = 0, ""
    for section in sorted(image.sections, key=lambda section: section.address):
        place = f"{image.name}: section {section.name}: {section.address:#x}-{section.end - 1:#x}"
        if section.end > config.memory:
            needed = -(-section.end // _MEBIBYTE)
            raise GuestImageError(
                f"Section {section.name} does not lie in memory",
                f"{place}; RAM is 0x0-{config.memory - 1:#x}",
                f"give the machine more memory: --memory {needed}M" if section.end < _TOP else "link it lower",
            )
        if section.address < end:
            raise GuestImageError(f"Section {section.name} runs into section {before}", place, "link them apart")
        end, before = section.end, section.name


def _write_information(config: MachineConfig, image: Image, memory: BootMemory) -> tuple[int, int]:
    """Put GDT and information in place; returns their addresses."""
    line = command_line(config, image)
    ranges = b"".join(
        _RANGE.pack(_RANGE.size - 4, first, size, kind) for first, size, kind in memory_map(config.memory)
    )
    name = b"kvmscope\0"
    environment = _environment(config)
    gdt = bytes(8) + encode("code", {"bits": 32}, long=False) + encode("data", {}, long=False)
    parts = (gdt, bytes(_INFO.size), ranges, bytes(_MODULE.size), name, line)
    base = _hole(config, image, sum(len(part) + 16 for part in parts), _LOWEST, "the loader's tables")
    places = []
    at = base
    for part in parts:
        places.append(at)
        at = (at + len(part) + 15) & ~15
    gdt_at, info_at, ranges_at, module_at, name_at, line_at = places
    flags = _MEMORY | _COMMAND_LINE | _MEMORY_MAP | _LOADER_NAME
    module = b""
    if environment:
        # Behind the image, where QEMU puts modules; aligned as bit 0 of the header's flags may ask for.
        behind = max((section.end for section in image.sections), default=0)
        start = _hole(config, image, len(environment), max(behind, _MEBIBYTE), "the environment")
        memory.write(start, environment, "the environment")
        module = _MODULE.pack(start, start + len(environment), name_at, 0)
        flags |= _MODULES
    fields = [0] * 29
    fields[0] = flags
    fields[1:3] = LOW_MEMORY_END >> 10, max(0, config.memory - _MEBIBYTE) >> 10
    fields[4] = line_at
    fields[5:7] = (1, module_at) if module else (0, 0)
    fields[11:13] = len(ranges), ranges_at
    fields[16] = name_at
    filled = (gdt, _INFO.pack(*fields), ranges, module, name, line)
    for place, part in zip(places, filled, strict=True):
        memory.write(place, part, "the loader's tables")
    return gdt_at, info_at


def _environment(config: MachineConfig) -> bytes:
    text = "".join(f"{name}={value}\n" for name, value in config.environment.items())
    data = text.encode("utf-8", "surrogateescape")
    if b"\0" in data or len(data) > _MAX_ENVIRONMENT:
        raise UsageError(
            "The environment cannot be handed to the image",
            f"{len(data)} bytes; {_MAX_ENVIRONMENT} fit, and no NUL",
        )
    return data


def _hole(config: MachineConfig, image: Image, size: int, lowest: int, what: str) -> int:
    """The first pages from ``lowest`` on that neither image nor firmware occupies."""
    taken = [(section.address, section.end) for section in image.sections]
    taken.append((EBDA, _MEBIBYTE))
    at = -(-lowest // PAGE) * PAGE
    for first, end in sorted(taken):
        if first < at + size and at < end:
            at = -(-end // PAGE) * PAGE
    if at + size > config.memory:
        raise GuestImageError(
            f"There is no room for {what}",
            f"{image.name}: {size:#x} bytes beside the image; RAM is 0x0-{config.memory - 1:#x}",
            "give the machine more memory: --memory 64M",
        )
    return at


def _state(gdt: int, info: int, entry: int) -> CpuState:
    """Registers as section 3.2 asks for; those it leaves undefined are as a firmware leaves them, or 0."""
    gpr = [0] * 16
    gpr[Gpr.RAX], gpr[Gpr.RBX] = MAGIC, info
    code, data = _segment(CODE, "code", {"bits": 32}), _segment(DATA, "data", {})
    reset = reset_state(0)
    _, _, _, _, _, _, ldtr, tr = reset.segments
    return replace(
        reset,
        gpr=tuple(gpr),
        rip=entry,
        segments=(data, code, data, data, data, data, ldtr, tr),
        gdtr=DescriptorTable(gdt, 23),
        idtr=DescriptorTable(0, _IVT_LIMIT),
        cr0=_CR0,
        cpl=0,
    )


def _segment(selector: int, kind: str, fields: dict[str, int]) -> SegmentRegister:
    return segment_of(selector, decode(encode(kind, fields, long=False), long=False))
