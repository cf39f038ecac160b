"""ELF executables as a loader sees them: segments by physical address, symbols, and sections by name.

System V ABI (gABI) chapters 4 and 5; little-endian x86 only, ELF32 and ELF64.  The file is untrusted: every offset is
checked against its length before anything is read, every count against what the file can hold.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kvmscope.asm.image import ELF_MAGIC
from kvmscope.errors import GuestImageError

__all__ = ["MAX_SYMBOLS", "ElfFile", "ElfSection", "ElfSegment", "ElfSymbol", "is_elf", "read_elf"]

MAX_SYMBOLS: Final = 500_000
"""Symbols taken of one file; the rest of a larger table is left out."""
_MAX_SEGMENTS: Final = 512

_EM_386: Final = 3
_EM_IAMCU: Final = 6
_EM_X86_64: Final = 62
_TYPES: Final = {1: "a relocatable object", 2: "an executable", 3: "a shared object", 4: "a core dump"}
_ET_EXEC: Final = 2
_ET_DYN: Final = 3
_PT_LOAD: Final = 1
_PT_INTERP: Final = 3
_PF_X: Final = 1
_SHT_SYMTAB: Final = 2
_SHT_NOBITS: Final = 8
_SHF_ALLOC: Final = 2
_SHF_COMPRESSED: Final = 0x800
_SHN_UNDEF: Final = 0
_SHN_ABS: Final = 0xFFF1
_SHN_RESERVED: Final = 0xFF00
_STT_FUNC: Final = 2
_STT_FILE: Final = 4
_LABELS: Final = (0, 1, _STT_FUNC)
"""Symbol types that name a place: NOTYPE, OBJECT, FUNC."""


@dataclass(frozen=True, slots=True)
class ElfSegment:
    """A PT_LOAD: ``data`` at ``physical``, then zeros up to ``size``."""

    virtual: int
    physical: int
    data: bytes
    size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class ElfSection:
    """A section header."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int

    @property
    def allocated(self) -> bool:
        """True for what occupies memory of the running program."""
        return bool(self.flags & _SHF_ALLOC)


@dataclass(frozen=True, slots=True)
class ElfSymbol:
    """A defined symbol.  ``file`` is the source that a local symbol belongs to; empty for global ones."""

    name: str
    value: int
    size: int
    function: bool
    absolute: bool
    local: bool
    file: str


@dataclass(frozen=True)
class ElfFile:
    """What was read; `blob` is the whole file."""

    blob: bytes
    wide: bool
    machine64: bool
    """Made for x86-64, whatever the class of the file says."""
    entry: int
    segments: tuple[ElfSegment, ...]
    sections: tuple[ElfSection, ...]
    symbols: tuple[ElfSymbol, ...]

    def section(self, name: str) -> bytes:
        """Contents of a section; empty when there is none of the name, when it is compressed or takes no space."""
        for found in self.sections:
            if found.name == name and found.kind != _SHT_NOBITS and not found.flags & _SHF_COMPRESSED:
                return self.blob[found.offset : found.offset + found.size]
        return b""


def is_elf(blob: bytes) -> bool:
    """True for a file that says it is ELF."""
    return blob.startswith(ELF_MAGIC)


def read_elf(blob: bytes, name: str) -> ElfFile:
    """Read an executable.

    Raises GuestImageError with the place in the file for what is truncated, contradictory, or for another machine.
    """
    return _Reader(blob, name).read()


class _Reader:
    """Reading with a place for every complaint."""

    def __init__(self, blob: bytes, name: str) -> None:
        self._blob = blob
        self._name = name

    def _error(self, title: str, detail: str, hint: str = "") -> GuestImageError:
        return GuestImageError(title, f"{self._name}: {detail}", hint)

    def _truncated(self, what: str, offset: int, size: int) -> GuestImageError:
        return self._error(
            f"{what} lies beyond the end of the file",
            f"offset {offset:#x}, {size:#x} bytes; the file has {len(self._blob):#x} bytes",
            "the file is truncated or damaged: build or copy it again",
        )

    def _unpack(self, layout: struct.Struct, offset: int, what: str) -> tuple[int, ...]:
        if offset + layout.size > len(self._blob):
            raise self._truncated(what, offset, layout.size)
        return layout.unpack_from(self._blob, offset)

    def read(self) -> ElfFile:
        blob = self._blob
        if len(blob) < 52:
            raise self._truncated("The ELF header", 0, 52)
        if blob[4] not in (1, 2) or blob[5] != 1:
            raise self._error(
                "Not an x86 ELF file",
                f"offset 0x4: class {blob[4]}, byte order {blob[5]}",
                "x86 executables have class 1 or 2 and byte order 1 (little-endian)",
            )
        wide = blob[4] == 2
        fields = self._unpack(struct.Struct("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"), 16, "The ELF header")
        kind, machine, _, entry, program, table, _, _, entsize, count, shentsize, shcount, names = fields
        self._check_kind(kind, machine)
        self._wide = wide
        if shcount == 0 and table:
            # More than 65,279 sections: nothing that is loaded has them, and they are only names for debugging.
            table = 0
        sections = self._sections(table, shentsize, shcount, names) if table else ()
        segments = self._segments(program, entsize, count)
        return ElfFile(blob, wide, machine == _EM_X86_64, entry, segments, sections, self._symbols(sections))

    def _check_kind(self, kind: int, machine: int) -> None:
        if machine not in (_EM_386, _EM_IAMCU, _EM_X86_64):
            raise self._error("Not an image for x86", f"offset 0x12: machine {machine}", "x86 is 3 or 62")
        if kind not in (_ET_EXEC, _ET_DYN):
            raise self._error(
                f"This ELF file is {_TYPES.get(kind, 'of an unknown kind')}, not an executable",
                f"offset 0x10: type {kind}",
                "link it first: ld -Ttext 0x400000 -o image.elf FILE" if kind == 1 else "",
            )

    def _segments(self, table: int, entsize: int, count: int) -> tuple[ElfSegment, ...]:
        layout = struct.Struct("<IIQQQQQQ" if self._wide else "<IIIIIIII")
        if count and entsize < layout.size:
            raise self._error("A program header is too short", f"{entsize} bytes, {layout.size} are needed")
        if count > _MAX_SEGMENTS:
            raise self._error("Too many program headers", f"{count}; {_MAX_SEGMENTS} are taken")
        out = []
        for number in range(count):
            row = self._unpack(layout, table + number * entsize, f"Program header {number}")
            if self._wide:
                kind, flags, offset, virtual, physical, filled, size, _ = row
            else:
                kind, offset, virtual, physical, filled, size, flags, _ = row
            if kind == _PT_INTERP:
                raise self._error(
                    "This is a program of an operating system, not a guest image",
                    f"program header {number} names a dynamic linker",
                    "link it statically at a fixed address (ld -static -Ttext 0x400000)",
                )
            if kind != _PT_LOAD or not size:
                continue
            if filled > size:
                raise self._error(
                    f"Segment {number} has more bytes in the file than in memory", f"{filled:#x} of {size:#x}"
                )
            if offset + filled > len(self._blob):
                raise self._truncated(f"Segment {number}", offset, filled)
            data = self._blob[offset : offset + filled]
            out.append(ElfSegment(virtual, physical, data, size, bool(flags & _PF_X)))
        return tuple(sorted(out, key=lambda segment: segment.physical))

    def _sections(self, table: int, entsize: int, count: int, names: int) -> tuple[ElfSection, ...]:
        layout = struct.Struct("<IIQQQQIIQQ" if self._wide else "<IIIIIIIIII")
        if entsize < layout.size:
            raise self._error("A section header is too short", f"{entsize} bytes, {layout.size} are needed")
        if table + count * entsize > len(self._blob):
            raise self._truncated("The table of section headers", table, count * entsize)
        rows = [layout.unpack_from(self._blob, table + number * entsize) for number in range(count)]
        strings = b""
        if names < count:
            _, kind, _, _, offset, size, *_ = rows[names]
            strings = b"" if kind == _SHT_NOBITS else self._blob[offset : offset + size]
        out = []
        for number, (name, kind, flags, address, offset, size, link, _, _, _) in enumerate(rows):
            text = _text(strings, name)
            if kind not in (0, _SHT_NOBITS) and offset + size > len(self._blob):
                raise self._truncated(f"Section {text or number}", offset, size)
            out.append(ElfSection(text, kind, flags, address, offset, size, link))
        return tuple(out)

    def _symbols(self, sections: tuple[ElfSection, ...]) -> tuple[ElfSymbol, ...]:
        for section in sections:
            if section.kind == _SHT_SYMTAB:
                break
        else:
            return ()
        strings = b""
        if section.link < len(sections) and sections[section.link].kind != _SHT_NOBITS:
            found = sections[section.link]
            strings = self._blob[found.offset : found.offset + found.size]
        layout = struct.Struct("<IBBHQQ" if self._wide else "<IIIBBH")
        count = min(section.size // layout.size, MAX_SYMBOLS)
        rows = layout.iter_unpack(self._blob[section.offset : section.offset + count * layout.size])
        out = []
        file = ""
        for row in rows:
            if self._wide:
                offset, info, _, where, value, size = row
            else:
                offset, value, size, info, _, where = row
            kind, local = info & 15, info >> 4 == 0
            if kind == _STT_FILE:
                file = _text(strings, offset)
                continue
            if kind not in _LABELS or where == _SHN_UNDEF or (where >= _SHN_RESERVED and where != _SHN_ABS):
                continue
            text = _text(strings, offset)
            if text:
                source = file if local else ""
                out.append(ElfSymbol(text, value, size, kind == _STT_FUNC, where == _SHN_ABS, local, source))
        return tuple(out)


def _text(strings: bytes, offset: int) -> str:
    """The string at ``offset``; empty where the table ends before it."""
    end = strings.find(b"\0", offset, offset + 4096)
    return strings[offset:end].decode("utf-8", "replace") if end >= 0 and offset < len(strings) else ""
