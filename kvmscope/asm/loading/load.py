"""A file -> `Image`: ELF, a multiboot image with addresses of its own, or raw bytes."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kvmscope.asm.image import Image, Section
from kvmscope.asm.loading.elf import ElfFile, ElfSegment, is_elf, read_elf
from kvmscope.asm.loading.multiboot import MultibootHeader, find_multiboot
from kvmscope.asm.source_lines import SourceLines
from kvmscope.errors import GuestImageError, UsageError

if TYPE_CHECKING:
    from kvmscope.asm.loading.dwarf_lines import LineRows

__all__ = ["MAX_IMAGE", "LoadedImage", "load_image", "read_image"]

MAX_IMAGE: Final = 256 << 20
"""Largest file taken, in bytes."""
_PRIVATE: Final = (".L", "$")
"""Prefixes of names that assemblers make for themselves."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image and how it wants to be started."""

    image: Image
    multiboot: bool
    """It has a multiboot header: a boot loader starts it in 32-bit protected mode."""
    placed: bool
    """It says itself where it goes; False for raw bytes."""


def read_image(path: Path) -> bytes:
    """The bytes of an image file.  Raises UsageError or GuestImageError for what cannot be one."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise GuestImageError(f"{path} is not a file", hint="an image is a regular file")
        with path.open("rb") as file:
            blob = file.read(MAX_IMAGE + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    if len(blob) > MAX_IMAGE:
        raise GuestImageError(f"{path} is larger than {MAX_IMAGE >> 20} MiB", hint="is it an image?")
    if not blob:
        raise GuestImageError(f"{path} is empty", hint="build or copy it again")
    return blob


def load_image(path: Path, *, address: int = 0, bits: int = 32) -> LoadedImage:
    """Load ``path``.  ``address`` and ``bits`` are for raw bytes, which do not say where they go or what they are.

    Raises UsageError when it cannot be read, GuestImageError with place and reason when it cannot be loaded.
    """
    blob, name = read_image(path), str(path)
    header = find_multiboot(blob, name)
    if is_elf(blob):
        return _elf(read_elf(blob, name), path, header)
    if header is not None:
        if header.has_addresses:
            return LoadedImage(_addressed(blob, name, header), True, True)
        raise GuestImageError(
            "A multiboot image is an ELF file, or has the addresses of its parts in its header",
            f"{name}: header at offset {header.offset:#x}, flags {header.flags:#x}: bit 16 is clear",
            "set bit 16 and give the addresses, or link an ELF file",
        )
    section = Section("image", address, blob)
    return LoadedImage(Image((section,), {}, entry=address, bits=bits, name=name), False, False)


def _addressed(blob: bytes, name: str, header: MultibootHeader) -> Image:
    """Where bit 16 of the header's flags is set, its addresses replace those of the file's format (section 3.1.3)."""
    place = f"{name}: multiboot header at offset {header.offset:#x}"
    begin = header.offset - (header.header_address - header.load_address)
    if header.load_address > header.header_address or begin < 0:
        raise GuestImageError(
            "The multiboot header's addresses contradict its place in the file",
            f"{place}: header_addr {header.header_address:#x}, load_addr {header.load_address:#x}",
            "header_addr - load_addr is the header's distance from what is loaded first",
        )
    end = header.load_end or header.load_address + len(blob) - begin
    size = end - header.load_address
    if size < 0 or begin + size > len(blob):
        raise GuestImageError(
            "The multiboot header asks for more than the file holds",
            f"{place}: load_addr {header.load_address:#x}, load_end_addr {end:#x}, {len(blob) - begin:#x} bytes are there",
            "the file is truncated or damaged: build or copy it again",
        )
    zeros = max(0, header.bss_end - end) if header.bss_end else 0
    section = Section("image", header.load_address, blob[begin : begin + size], zeros=zeros)
    return Image((section,), {}, entry=header.entry, bits=32, name=name)


def _elf(elf: ElfFile, path: Path, header: MultibootHeader | None) -> LoadedImage:
    if not elf.segments:
        raise GuestImageError(
            "This ELF file has nothing to load", f"{path}: no PT_LOAD program header", "link it to an executable"
        )
    if not elf.symbols or not elf.section(".debug_line"):
        names = _fuller(elf, path)
    else:
        names = elf
    symbols, sizes, constants = _symbols(names)
    sections = tuple(_sections(elf))
    places = None
    if names.section(".debug_line"):
        ranges = [(segment.virtual, segment.virtual + segment.size) for segment in elf.segments]
        places = SourceLines(lambda: _lines(names), path, ranges)
    bits = 32 if header is not None or not elf.machine64 else 64
    image = Image(
        sections,
        symbols,
        entry=_entry(elf, path),
        bits=bits,
        constants=constants,
        name=str(path),
        sizes=sizes,
        places=places,
    )
    return LoadedImage(image, header is not None, True)


def _fuller(elf: ElfFile, path: Path) -> ElfFile:
    """The ELF file beside a stripped image (``x.elf`` beside ``x.flat``), if it is the same program and knows more."""
    beside = path.with_suffix(".elf")
    if beside == path:
        return elf
    try:
        found = read_elf(read_image(beside), str(beside))
    except (GuestImageError, UsageError):
        return elf
    same = [(s.virtual, s.data) for s in found.segments] == [(s.virtual, s.data) for s in elf.segments]
    return found if same else elf


def _entry(elf: ElfFile, path: Path) -> int:
    """The entry as a physical address: paging is off where it starts."""
    for segment in elf.segments:
        if segment.virtual <= elf.entry < segment.virtual + segment.size:
            return elf.entry - segment.virtual + segment.physical
    first = elf.segments[0]
    raise GuestImageError(
        "The entry point lies in nothing that is loaded",
        f"{path}: entry {elf.entry:#x}; the first segment is {first.virtual:#x}-{first.virtual + first.size - 1:#x}",
        "give the entry to the linker: ENTRY(start), or ld -e start",
    )


def _sections(elf: ElfFile) -> Iterable[Section]:
    for number, segment in enumerate(elf.segments):
        yield Section(
            _name(elf, segment, number),
            segment.physical,
            segment.data,
            segment.executable,
            segment.size - len(segment.data),
        )


def _name(elf: ElfFile, segment: ElfSegment, number: int) -> str:
    for section in elf.sections:
        if section.allocated and section.name and 0 <= section.address - segment.virtual < segment.size:
            return section.name
    return f"segment {number}"


def _symbols(elf: ElfFile) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Labels, their sizes, and constants.  A global name wins; a local one that is taken gets its file: ``run@a.c``."""
    symbols: dict[str, int] = {}
    sizes: dict[str, int] = {}
    constants: dict[str, int] = {}
    for symbol in sorted(elf.symbols, key=lambda symbol: symbol.local):
        name = symbol.name
        if name.startswith(_PRIVATE):
            continue
        if symbol.absolute:
            constants.setdefault(name, symbol.value)
            continue
        if symbols.get(name, symbol.value) != symbol.value:
            name = f"{name}@{symbol.file}" if symbol.file else name
            number = 2
            while symbols.get(name, symbol.value) != symbol.value:
                name, number = f"{symbol.name}@{symbol.file}.{number}", number + 1
        symbols[name] = symbol.value
        if symbol.size:
            sizes[name] = symbol.size
    return symbols, sizes, constants


def _lines(elf: ElfFile) -> LineRows:
    from kvmscope.asm.loading.dwarf_lines import decode_lines

    return decode_lines(elf.section(".debug_line"), elf.section(".debug_line_str"), elf.section(".debug_str"))
