"""Segment, system and gate descriptors, decoded (SDM vol. 3A sections 3.4.5, 3.5, 5.8.3, 6.11 and 6.14.1).

A descriptor's 8 or 16 bytes are kept as one little-endian integer; everything else is read out of it on demand.
Encoding is in `kvmscope.x86.encode`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmscope.x86.state import SegmentRegister

__all__ = [
    "SYSTEM_TYPES",
    "Descriptor",
    "Selector",
    "SelectorErrorCode",
    "SystemType",
    "attributes_of",
    "decode",
    "decode_gate64",
    "descriptor_of",
    "descriptor_size",
    "iter_table",
    "segment_of",
]


@dataclass(frozen=True, slots=True)
class SystemType:
    """Meaning of a type with S = 0 (SDM vol. 3A table 3-2).

    ``kind`` is a kind of `kvmscope.x86.encode.encode`, empty for a reserved type; ``bits`` the operand size outside
    of IA-32e mode; ``long`` tells whether IA-32e mode knows the type (as a 16-byte, 64-bit form where it is not a
    reserved one).
    """

    kind: str
    bits: int
    long: bool
    busy: bool = False


SYSTEM_TYPES: Final = (
    SystemType("", 0, False),
    SystemType("tss", 16, False),
    SystemType("ldt", 0, True),
    SystemType("tss", 16, False, busy=True),
    SystemType("call-gate", 16, False),
    SystemType("task-gate", 0, False),
    SystemType("interrupt-gate", 16, False),
    SystemType("trap-gate", 16, False),
    SystemType("", 0, False),
    SystemType("tss", 32, True),
    SystemType("", 0, False),
    SystemType("tss", 32, True, busy=True),
    SystemType("call-gate", 32, True),
    SystemType("", 0, False),
    SystemType("interrupt-gate", 32, True),
    SystemType("trap-gate", 32, True),
)
"""By type number."""

_GATES: Final = {"call-gate", "task-gate", "interrupt-gate", "trap-gate"}


@dataclass(frozen=True, slots=True)
class Selector:
    """A segment selector (SDM vol. 3A section 3.4.2)."""

    value: int

    @property
    def index(self) -> int:
        """Descriptor number."""
        return self.value >> 3

    @property
    def ti(self) -> int:
        """Table indicator: 0 GDT, 1 LDT."""
        return self.value >> 2 & 1

    @property
    def rpl(self) -> int:
        """Requested privilege level."""
        return self.value & 3

    @property
    def offset(self) -> int:
        """Byte offset of the descriptor in its table."""
        return self.value & 0xFFF8

    @property
    def null(self) -> bool:
        """True for selectors 0 to 3."""
        return self.value & 0xFFFC == 0

    def __str__(self) -> str:
        if self.null:
            return f"{self.value:#x} (null, RPL {self.rpl})"
        return f"{self.value:#x} ({'LDT' if self.ti else 'GDT'}[{self.index}], RPL {self.rpl})"


@dataclass(frozen=True, slots=True)
class SelectorErrorCode:
    """The error code of #TS, #NP, #SS, #GP (SDM vol. 3A figure 6-7): bit 0 EXT, 1 IDT, 2 TI, 15:3 index."""

    value: int

    @property
    def ext(self) -> int:
        """1: raised while delivering an event from outside the program."""
        return self.value & 1

    @property
    def idt(self) -> int:
        """1: the index is a vector."""
        return self.value >> 1 & 1

    @property
    def ti(self) -> int:
        """1: the index is into the LDT (where IDT = 0)."""
        return self.value >> 2 & 1

    @property
    def index(self) -> int:
        """Descriptor number, or vector where IDT = 1."""
        return self.value >> 3 & 0x1FFF

    @property
    def table(self) -> str:
        """``IDT``, ``LDT`` or ``GDT``."""
        return "IDT" if self.idt else "LDT" if self.ti else "GDT"

    def __str__(self) -> str:
        if self.value & 0xFFFE == 0:
            return "no selector" + (", EXT" if self.ext else "")
        where = (
            f"IDT vector {self.index:#x}"
            if self.idt
            else f"selector {self.value & 0xFFFC:#x} ({self.table}[{self.index}])"
        )
        return where + (", EXT" if self.ext else "")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One descriptor.  ``raw`` is the little-endian value of its ``size`` (8 or 16) bytes.

    ``long`` says that it was read in IA-32e mode, which changes what its type means.  ``truncated`` is set when the
    upper half of a 16-byte descriptor was not there to read.
    """

    raw: int
    size: int = 8
    long: bool = False
    truncated: bool = False

    @property
    def attributes(self) -> int:
        """Access rights in the layout of `SegmentRegister.attributes`."""
        return self.raw >> 40 & 0xF0FF

    @property
    def type(self) -> int:
        """Type, 4 bits."""
        return self.raw >> 40 & 0xF

    @property
    def s(self) -> int:
        """1 for code or data, 0 for system descriptors and gates."""
        return self.raw >> 44 & 1

    @property
    def dpl(self) -> int:
        """Descriptor privilege level."""
        return self.raw >> 45 & 3

    @property
    def present(self) -> bool:
        """P bit."""
        return bool(self.raw >> 47 & 1)

    @property
    def system(self) -> SystemType | None:
        """What the type means; None for code and data."""
        return None if self.s else SYSTEM_TYPES[self.type]

    @property
    def kind(self) -> str:
        """``null``, ``code``, ``data``, ``reserved`` or a kind of `SYSTEM_TYPES`."""
        if self.raw == 0:
            return "null"
        system = self.system
        if system is None:
            return "code" if self.type & 8 else "data"
        return system.kind if system.kind and (system.long or not self.long) else "reserved"

    @property
    def is_gate(self) -> bool:
        """True for call, task, interrupt and trap gates."""
        return self.kind in _GATES

    @property
    def bits(self) -> int:
        """Size that the descriptor stands for: 16, 32 or 64 (of code, the default operand size); 0 where it has none."""
        system = self.system
        if system is not None:
            return 64 if self.long and system.long and system.kind != "ldt" else system.bits
        if self.type & 8 and self.raw >> 53 & 1 and self.long:
            return 64
        return 32 if self.raw >> 54 & 1 else 16

    @property
    def base(self) -> int:
        """Segment base, linear."""
        low = self.raw >> 16 & 0xFFFFFF | (self.raw >> 56 & 0xFF) << 24
        return low | (self.raw >> 64 & 0xFFFFFFFF) << 32 if self.size == 16 else low

    @property
    def limit(self) -> int:
        """Segment limit in bytes: the last valid offset (of expand-down data, the last invalid one)."""
        limit = self.raw & 0xFFFF | self.raw >> 32 & 0xF0000
        return limit << 12 | 0xFFF if self.raw >> 55 & 1 else limit

    @property
    def selector(self) -> int:
        """Target segment (or TSS) of a gate."""
        return self.raw >> 16 & 0xFFFF

    @property
    def offset(self) -> int:
        """Target offset of a gate."""
        low = self.raw & 0xFFFF
        if self.bits == 16:
            return low
        low |= (self.raw >> 48 & 0xFFFF) << 16
        return low | (self.raw >> 64 & 0xFFFFFFFF) << 32 if self.size == 16 else low

    @property
    def ist(self) -> int:
        """Interrupt stack table index of a 64-bit interrupt or trap gate, else 0."""
        return self.raw >> 32 & 7 if self.size == 16 and self.kind in ("interrupt-gate", "trap-gate") else 0

    @property
    def count(self) -> int:
        """Parameters that a 16-bit or 32-bit call gate copies, else 0."""
        return self.raw >> 32 & 0x1F if self.kind == "call-gate" and self.size == 8 else 0

    def problems(self) -> tuple[str, ...]:
        """What makes the descriptor unusable whoever refers to it."""
        out = []
        if self.truncated:
            out.append("upper 8 bytes are beyond the table")
        if self.kind == "reserved":
            out.append(f"type {self.type:#x} is reserved{' in IA-32e mode' if self.long else ''}")
        if self.kind == "code" and self.long and self.raw >> 53 & 1 and self.raw >> 54 & 1:
            out.append("L = 1 and D = 1")
        # The type field of the upper half must be 0 for the descriptors that live in the GDT or LDT.
        if self.size == 16 and self.kind in ("call-gate", "tss", "ldt") and self.raw >> 104 & 0x1F:
            out.append("upper type field (bits 108:104) is not 0")
        if self.kind not in ("null", "reserved") and not self.present:
            out.append("not present")
        return tuple(out)

    def describe(self) -> str:
        """One line: ``code 64-bit DPL 0 present execute/read accessed base 0x0 limit 0xffffffff``."""
        kind = self.kind
        if kind == "null":
            return "null"
        words = [kind]
        if self.bits:
            words.append(f"{self.bits}-bit")
        words += [f"DPL {self.dpl}", "present" if self.present else "not present"]
        if kind == "reserved":
            return f"reserved type {self.type:#x} DPL {self.dpl} {words[-1]}"
        if self.is_gate:
            if kind == "task-gate":
                return " ".join([*words, f"TSS {Selector(self.selector)}"])
            words.append(f"-> {self.selector:#x}:{self.offset:#x}")
            words += [f"IST {self.ist}"] * (self.ist > 0) + [f"count {self.count}"] * (self.count > 0)
            return " ".join(words)
        if kind == "code":
            words.append("execute/read" if self.type & 2 else "execute-only")
            words += ["conforming"] * (self.type >> 2 & 1) + ["accessed"] * (self.type & 1)
        elif kind == "data":
            words.append("read/write" if self.type & 2 else "read-only")
            words += ["expand-down"] * (self.type >> 2 & 1) + ["accessed"] * (self.type & 1)
        elif kind == "tss":
            words.append("busy" if SYSTEM_TYPES[self.type].busy else "available")
        words += [f"base {self.base:#x}", f"limit {self.limit:#x}"]
        return " ".join(words)


def descriptor_size(low: int, long: bool) -> int:
    """Bytes of the GDT or LDT descriptor whose first 8 bytes are ``low`` (16 for IA-32e system descriptors)."""
    if not long or low >> 44 & 1:
        return 8
    system = SYSTEM_TYPES[low >> 40 & 0xF]
    return 16 if system.kind and system.long else 8


def decode(data: bytes, *, long: bool = False) -> Descriptor:
    """The GDT or LDT descriptor at the start of ``data`` (8 bytes at least; 16 where its type needs them)."""
    low = int.from_bytes(data[:8], "little")
    size = descriptor_size(low, long)
    return Descriptor(int.from_bytes(data[:size], "little"), size, long, len(data) < size)


def decode_gate64(data: bytes) -> Descriptor:
    """An IDT entry of IA-32e mode: always 16 bytes, whatever its type."""
    return Descriptor(int.from_bytes(data[:16], "little"), 16, True, len(data) < 16)


def iter_table(data: bytes, *, long: bool = False, idt: bool = False) -> list[tuple[int, Descriptor]]:
    """(index, descriptor) of every whole entry of a table; the index is a vector in the IDT, else an 8-byte slot.

    ``data`` is the table from its base to its limit.  The second slot of a 16-byte descriptor has no entry of its own.
    """
    step = 16 if long and idt else 8
    out: list[tuple[int, Descriptor]] = []
    position = 0
    while position + step <= len(data):
        chunk = data[position : position + 16]
        found = decode_gate64(chunk) if step == 16 else decode(chunk, long=long)
        if idt and not long:
            found = Descriptor(int.from_bytes(chunk[:8], "little"))
        out.append((position // step, found))
        position += max(step, found.size)
    return out


def attributes_of(second_dword: int) -> int:
    """`SegmentRegister.attributes` from a descriptor's second doubleword (the limit's nibble removed)."""
    return second_dword >> 8 & 0xF0FF


def segment_of(selector: int, descriptor: Descriptor) -> SegmentRegister:
    """The segment register that loading ``selector`` with ``descriptor`` gives (the accessed bit as it stands)."""
    return SegmentRegister(selector, descriptor.base, descriptor.limit, descriptor.attributes)


def descriptor_of(segment: SegmentRegister) -> int:
    """The 8-byte descriptor that would load ``segment``'s hidden part (base bits 31:0)."""
    limit = segment.limit >> 12 if segment.g else segment.limit
    return (
        limit & 0xFFFF
        | (segment.base & 0xFFFFFF) << 16
        | (segment.attributes & 0xF0FF) << 40
        | (limit >> 16 & 0xF) << 48
        | (segment.base >> 24 & 0xFF) << 56
    )
