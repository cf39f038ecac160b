"""How a guest starts: `MachineConfig` and `Image` become memory contents and a processor state."""

from __future__ import annotations

from typing import Final

from kvmscope.asm.image import Image
from kvmscope.errors import GuestImageError, ReproducerError
from kvmscope.vmm.boot.declared import apply_msrs, apply_registers
from kvmscope.vmm.boot.interrupts import write_handlers, write_interrupt_tables
from kvmscope.vmm.boot.layout import (
    CODE_ORIGIN,
    GDT_BASE,
    IDT_BASE,
    IDT_CAPACITY,
    IVT_BASE,
    IVT_SIZE,
    LDT_BASE,
    LDT_CAPACITY,
    PAGE,
    STUB_BASE,
    STUB_SIZE,
    TSS_BASE,
    TSS_LIMIT,
)
from kvmscope.vmm.boot.memory import BootMemory, Labels, at_line
from kvmscope.vmm.boot.model import Boot
from kvmscope.vmm.boot.pagetables import build_page_tables
from kvmscope.vmm.boot.state import initial_state
from kvmscope.vmm.boot.tables import write_declared_descriptors, write_descriptor_tables, write_tss
from kvmscope.vmm.config import MAX_VCPUS, MachineConfig, MemoryInit, Mode, Paging

__all__ = ["MAX_MEMORY", "MIN_MEMORY", "Boot", "prepare"]

MIN_MEMORY: Final = 1 << 20
MAX_MEMORY: Final = 0xFEC0_0000
"""RAM ends where the devices of the last 20 MiB below 4 GiB begin (I/O APIC, local APIC, test device memory)."""

_PAGINGS: Final = {
    Mode.REAL16: (Paging.NONE,),
    Mode.PROT32: (Paging.NONE, Paging.BITS32, Paging.PAE),
    Mode.LONG64: (Paging.LEVEL4, Paging.LEVEL5),
}
_STUBS: Final = ("boot's exception stubs", STUB_BASE, STUB_BASE + 256 * STUB_SIZE)
_GDT: Final = ("boot's GDT", GDT_BASE, GDT_BASE + PAGE)
_PROTECTED: Final = (
    _GDT,
    ("boot's IDT", IDT_BASE, IDT_BASE + IDT_CAPACITY),
    _STUBS,
    ("boot's TSS", TSS_BASE, TSS_BASE + TSS_LIMIT + 1),
    ("boot's LDT", LDT_BASE, LDT_BASE + LDT_CAPACITY),
)
_RESERVED: Final = {
    Mode.REAL16: (("boot's interrupt vector table", IVT_BASE, IVT_BASE + IVT_SIZE), _GDT, _STUBS),
    Mode.PROT32: _PROTECTED,
    Mode.LONG64: _PROTECTED,
}


def prepare(config: MachineConfig, image: Image) -> Boot:
    """Lay out memory and the initial state.

    Raises ReproducerError for a header that cannot be carried out, GuestImageError for a section that does not lie in
    RAM or runs into another section or into boot's own tables.
    """
    _check(config)
    # Sources start in neither way, and the firmware's tables cost time to import.
    if config.mode is Mode.MULTIBOOT:
        from kvmscope.vmm.boot.multiboot import prepare_multiboot

        return prepare_multiboot(config, image)
    if config.mode is Mode.ROM:
        from kvmscope.vmm.boot.rom import prepare_rom

        return prepare_rom(config, image)
    memory = BootMemory(config.memory)
    labels = Labels(image.symbols)
    image_pages = _check_sections(config, image)
    entry = _entry(config, image, labels)

    paging = config.effective_paging
    cr3 = 0
    if paging is not Paging.NONE:
        cr3 = build_page_tables(memory, paging, config.ring, image_pages, config.pages)
    elif config.pages:
        raise ReproducerError(
            "Declared pages need paging",
            at_line(config.pages[0].line, f"page {config.pages[0].linear:#x}"),
            'mode = "long64", or mode = "prot32" with paging = "32bit" or "pae"',
        )
    write_descriptor_tables(memory, config.mode)
    write_interrupt_tables(memory, config)
    if config.mode is not Mode.REAL16:
        write_tss(memory, config, cr3)
    for section in image.sections:
        memory.write(section.address, section.data, f"section {section.name}")
    write_handlers(memory, config, labels)
    limits = write_declared_descriptors(memory, config, labels)
    for contents in config.contents:
        _write_contents(memory, contents, labels)

    state = initial_state(config, memory, limits, cr3, entry)
    state = apply_registers(apply_msrs(state, config), config, memory, limits, labels)
    return Boot(memory.pages(), state, entry)


def _check(config: MachineConfig) -> None:
    paging = config.effective_paging
    if config.mode.declared and paging not in _PAGINGS[config.mode]:
        known = " or ".join(f'"{p.value}"' for p in _PAGINGS[config.mode])
        raise ReproducerError(
            f"{config.mode.value} cannot start with {paging.value} paging", "paging", f"paging = {known}"
        )
    if config.ring not in (0, 3):
        raise ReproducerError(f"A guest starts in ring 0 or 3, not {config.ring}", "ring")
    if config.ring and config.mode is Mode.REAL16:
        raise ReproducerError("Real mode has no rings", "ring", 'mode = "prot32" or "long64"')
    if config.ring and not config.mode.declared:
        raise ReproducerError("An image starts in ring 0", "ring")
    if config.memory % PAGE or not MIN_MEMORY <= config.memory <= MAX_MEMORY:
        raise ReproducerError(
            "Memory is a multiple of 4 KiB from 1 MiB to 4076 MiB",
            f"memory: {config.memory} bytes",
            "the last 20 MiB below 4 GiB belong to devices",
        )
    if not 1 <= config.smp <= MAX_VCPUS:
        raise ReproducerError(f"A machine has 1 to {MAX_VCPUS} vCPUs, not {config.smp}", "smp")


def _check_sections(config: MachineConfig, image: Image) -> frozenset[int]:
    """Page numbers of the image, its sections found to lie in RAM and apart."""
    taken = list(_RESERVED[config.mode])
    pages: set[int] = set()
    for section in image.sections:
        if not section.size:
            continue
        place = f"section {section.name}: {section.address:#x}-{section.end - 1:#x}"
        if section.address < 0 or section.end > config.memory:
            raise GuestImageError(
                f"Section {section.name} does not lie in memory",
                f"{place}; RAM is 0x0-{config.memory - 1:#x}",
                f"origin = {CODE_ORIGIN[config.mode.value]:#x} is the default; or give the machine more memory",
            )
        for name, first, end in taken:
            if section.address < end and first < section.end:
                raise GuestImageError(
                    f"Section {section.name} runs into {name}",
                    f"{place}; {name}: {first:#x}-{end - 1:#x}",
                    "move the section; [[memory]] may overwrite boot's tables on purpose",
                )
        taken.append((f"section {section.name}", section.address, section.end))
        pages.update(range(section.address // PAGE, (section.end - 1) // PAGE + 1))
    return frozenset(pages)


def _entry(config: MachineConfig, image: Image, labels: Labels) -> int:
    if config.entry is not None:
        return labels.resolve(config.entry, "entry")
    filled = [section for section in image.sections if section.size]
    if not filled and not config.contents:
        raise GuestImageError("The program is empty", hint="write an instruction")
    return image.entry or filled[0].address


def _write_contents(memory: BootMemory, contents: MemoryInit, labels: Labels) -> None:
    address = labels.resolve(contents.address, "memory: address", contents.line)
    what = f"memory {address:#x}"
    data = bytearray(contents.data)
    for size, declared in contents.words:
        value = labels.resolve(declared, what, contents.line)
        if not -(1 << 8 * size - 1) <= value < 1 << 8 * size:
            raise ReproducerError(
                f"{value:#x} does not fit in {size} byte{'s' if size > 1 else ''}", at_line(contents.line, what)
            )
        data += (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    memory.write(address, bytes(data), what, contents.line)
