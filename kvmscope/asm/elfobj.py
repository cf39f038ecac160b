"""A relocatable ELF object -> bytes at addresses.

`ld` is not used: it costs as much time as `as` itself, reports an undefined symbol without a column, and knows no
addresses per section on its command line.  The relocations that `as` writes for a flat program are few
(System V psABI for i386, table 4.9, and for x86-64, table 4.10).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from kvmscope.asm.image import ELF_MAGIC

__all__ = ["ObjectFile", "ObjectSection", "ObjectSymbol", "RelocationError", "read_object", "relocate"]

SHT_SYMTAB: Final = 2
SHT_RELA: Final = 4
SHT_NOBITS: Final = 8
SHT_REL: Final = 9
_NOT_LOADED: Final = (".note", ".comment", ".debug", ".eh_frame", ".stab", ".gnu", ".group")
_CONTENT_TYPES: Final = frozenset({1, SHT_NOBITS, 14, 15, 16})
SHN_UNDEF: Final = 0
SHN_ABS: Final = 0xFFF1
SHN_COMMON: Final = 0xFFF2
SHF_EXECINSTR: Final = 4


@dataclass(frozen=True, slots=True)
class _Kind:
    """A relocation: width in bytes, PC-relative or not, and the range of values that the field can hold."""

    name: str
    size: int
    relative: bool
    low: int
    high: int


def _kind(name: str, size: int, *, relative: bool = False, signed: bool = False) -> _Kind:
    bits = 8 * size
    return _Kind(name, size, relative, -(1 << bits - 1), (1 << bits - 1 if signed else 1 << bits) - 1)


_X86_64: Final = {
    1: _kind("R_X86_64_64", 8), 2: _kind("R_X86_64_PC32", 4, relative=True, signed=True),
    4: _kind("R_X86_64_PLT32", 4, relative=True, signed=True), 10: _kind("R_X86_64_32", 4),
    11: _kind("R_X86_64_32S", 4, signed=True), 12: _kind("R_X86_64_16", 2),
    13: _kind("R_X86_64_PC16", 2, relative=True, signed=True), 14: _kind("R_X86_64_8", 1),
    15: _kind("R_X86_64_PC8", 1, relative=True, signed=True), 24: _kind("R_X86_64_PC64", 8, relative=True, signed=True),
}  # fmt: skip
_I386: Final = {
    1: _kind("R_386_32", 4), 2: _kind("R_386_PC32", 4, relative=True), 4: _kind("R_386_PLT32", 4, relative=True),
    20: _kind("R_386_16", 2), 21: _kind("R_386_PC16", 2, relative=True, signed=True), 22: _kind("R_386_8", 1),
    23: _kind("R_386_PC8", 1, relative=True, signed=True),
}  # fmt: skip


@dataclass(slots=True)
class ObjectSection:
    """A section of the object; ``address`` is decided by the caller."""

    index: int
    name: str
    kind: int
    flags: int
    align: int
    data: bytearray
    size: int
    address: int = 0
    relocations: list[tuple[int, int, int, int | None]] = field(default_factory=list)
    """(offset, type, symbol index, addend or None when it stands in the data)."""

    @property
    def executable(self) -> bool:
        return bool(self.flags & SHF_EXECINSTR)

    @property
    def loaded(self) -> bool:
        """True for what belongs into the guest's memory; a section without flags is the user's data too."""
        return self.size > 0 and self.kind in _CONTENT_TYPES and not self.name.startswith(_NOT_LOADED)


@dataclass(frozen=True, slots=True)
class ObjectSymbol:
    """A symbol; ``section`` is an index or one of the SHN constants."""

    name: str
    value: int
    section: int
    kind: int
    size: int


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """What `as` wrote."""

    sections: dict[int, ObjectSection]
    symbols: list[ObjectSymbol]
    wide: bool


@dataclass(frozen=True, slots=True)
class RelocationError:
    """A field that cannot be filled in: an undefined symbol, or a value that does not fit."""

    section: str
    offset: int
    symbol: str
    message: str
    undefined: bool = False


def read_object(blob: bytes) -> ObjectFile:
    """Read sections, symbols and relocations of an ELF32 or ELF64 little-endian object.

    Raises ValueError or struct.error for anything else.
    """
    if not blob.startswith(ELF_MAGIC) or blob[5] != 1:
        raise ValueError("not a little-endian ELF object")
    wide = blob[4] == 2
    header = struct.unpack_from("<QQQIHHHHHH" if wide else "<IIIIHHHHHH", blob, 24)
    table, entry_size, count, names_index = header[2], header[7], header[8], header[9]
    layout = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
    raw = [struct.unpack_from(layout, blob, table + i * entry_size) for i in range(count)]
    names = blob[raw[names_index][4] : raw[names_index][4] + raw[names_index][5]]
    sections: dict[int, ObjectSection] = {}
    symbols: list[ObjectSymbol] = []
    for index, (name, kind, flags, _, offset, size, _link, _, align, _) in enumerate(raw):
        data = bytearray() if kind == SHT_NOBITS else bytearray(blob[offset : offset + size])
        sections[index] = ObjectSection(index, _text(names, name), kind, flags, max(align, 1), data, size)
    for _, kind, _, _, offset, size, link, info, _, _ in raw:
        if kind == SHT_SYMTAB:
            strings = bytes(sections[link].data)
            symbols = _symbols(blob[offset : offset + size], strings, wide)
        elif kind in (SHT_RELA, SHT_REL):
            sections[info].relocations = _relocations(blob[offset : offset + size], kind, wide)
    return ObjectFile(sections, symbols, wide)


def _text(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode(errors="replace")


def _symbols(blob: bytes, strings: bytes, wide: bool) -> list[ObjectSymbol]:
    if wide:
        return [
            ObjectSymbol(_text(strings, name), value, section, info & 15, size)
            for name, info, _, section, value, size in struct.iter_unpack("<IBBHQQ", blob)
        ]
    return [
        ObjectSymbol(_text(strings, name), value, section, info & 15, size)
        for name, value, size, info, _, section in struct.iter_unpack("<IIIBBH", blob)
    ]


def _relocations(blob: bytes, kind: int, wide: bool) -> list[tuple[int, int, int, int | None]]:
    if wide:
        return [
            (offset, info & 0xFFFFFFFF, info >> 32, addend) for offset, info, addend in struct.iter_unpack("<QQq", blob)
        ]
    if kind == SHT_RELA:
        return [(offset, info & 0xFF, info >> 8, addend) for offset, info, addend in struct.iter_unpack("<IIi", blob)]
    return [(offset, info & 0xFF, info >> 8, None) for offset, info in struct.iter_unpack("<II", blob)]


def relocate(obj: ObjectFile) -> list[RelocationError]:
    """Fill in every field of the loaded sections for the addresses they were given; returns what is wrong."""
    errors: list[RelocationError] = []
    kinds = _X86_64 if obj.wide else _I386
    for section in obj.sections.values():
        if not section.loaded:
            continue
        for offset, number, symbol_index, addend in section.relocations:
            symbol = obj.symbols[symbol_index]
            name = symbol.name or (obj.sections[symbol.section].name if symbol.section in obj.sections else "")
            kind = kinds.get(number)
            if kind is None:
                message = f"this reference to '{name}' needs a dynamic linker (relocation {number})"
                errors.append(RelocationError(section.name, offset, name, message))
                continue
            base = _value(obj, symbol)
            if base is None:
                errors.append(RelocationError(section.name, offset, name, f"undefined symbol '{name}'", True))
                continue
            problem = _apply(section, offset, kind, base, addend)
            if problem:
                errors.append(RelocationError(section.name, offset, name, problem))
    return errors


def _value(obj: ObjectFile, symbol: ObjectSymbol) -> int | None:
    if symbol.section == SHN_ABS or (symbol.section == SHN_UNDEF and not symbol.name):
        return symbol.value
    section = obj.sections.get(symbol.section)
    return None if section is None or symbol.section == SHN_UNDEF else section.address + symbol.value


def _apply(section: ObjectSection, offset: int, kind: _Kind, base: int, addend: int | None) -> str:
    """Store one field; returns what is wrong with it, or nothing."""
    if addend is None:
        addend = int.from_bytes(section.data[offset : offset + kind.size], "little", signed=True)
    value = base + addend
    place = section.address + offset
    if kind.relative:
        value -= place
        # In a 64 KiB segment IP wraps, so a 16-bit branch reaches every target within it.
        if kind.size == 2 and base >> 16 == place >> 16:
            value = (value + 0x8000 & 0xFFFF) - 0x8000
    mask = (1 << 8 * kind.size) - 1
    # `-1` as an unsigned 64-bit constant and an address of a 32-bit guest above 2 GiB are both fine.
    if kind.size == 8 or (kind.relative and kind.name.startswith("R_386") and kind.size == 4):
        value &= mask
    elif not kind.low <= value <= kind.high:
        what = "a branch or reference over" if kind.relative else "the value"
        return f"{what} {'-' if value < 0 else ''}{abs(value):#x} does not fit in {8 * kind.size} bits ({kind.name})"
    section.data[offset : offset + kind.size] = (value & mask).to_bytes(kind.size, "little")
    return ""
