"""Registers by name: every name that an expression, a header or gdb may use, read from and written into a `CpuState`.

Names are lower case.  Beside whole registers there are their parts (``al``, ``r8d``, ``eip``), fields of segments and
tables (``cs.base``, ``gdtr.limit``; ``gdtr`` alone is its base), bits of control registers (``cr0.wp``, ``dr7.len0``) and flags (``zf``, ``iopl``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from kvmscope.x86.bitfields import (
    BIT_TABLES,
    CR0,
    CR3,
    CR4,
    CR8,
    DR6,
    DR7,
    EFER,
    MXCSR,
    PKRU,
    RFLAGS,
    XCR0,
    Bit,
    decode,
    defined_mask,
    flag_string,
)
from kvmscope.x86.state import GPR_NAMES, SEGMENT_NAMES, CpuState, DescriptorTable, Seg

__all__ = [
    "BIT_TABLES",
    "CR0",
    "CR3",
    "CR4",
    "CR8",
    "DR6",
    "DR7",
    "EFER",
    "KNOWN_NAMES",
    "MXCSR",
    "PKRU",
    "RFLAGS",
    "XCR0",
    "Bit",
    "decode",
    "defined_mask",
    "flag_string",
    "read_register",
    "register_width",
    "write_register",
]


@dataclass(frozen=True, slots=True)
class _Register:
    """How one name is read and written; ``width`` in bits."""

    width: int
    read: Callable[[CpuState], int]
    write: Callable[[CpuState, int], CpuState]


def _scalar(attribute: str, width: int) -> _Register:
    return _Register(
        width,
        lambda state: int(getattr(state, attribute)),
        # The field's name is data here, which replace()'s typing cannot express.
        lambda state, value: replace(state, **{attribute: value}),  # type: ignore[arg-type]
    )


def _gpr(number: int) -> _Register:
    def write(state: CpuState, value: int) -> CpuState:
        return replace(state, gpr=(*state.gpr[:number], value, *state.gpr[number + 1 :]))

    return _Register(64, lambda state: state.gpr[number], write)


def _element(attribute: str, number: int, width: int) -> _Register:
    def write(state: CpuState, value: int) -> CpuState:
        old: tuple[int, ...] = getattr(state, attribute)
        changed = (*old[:number], value, *old[number + 1 :])
        return replace(state, **{attribute: changed})  # type: ignore[arg-type]

    return _Register(width, lambda state: int(getattr(state, attribute)[number]), write)


def _part(whole: _Register, position: int, width: int, *, zero_extend: bool = False) -> _Register:
    """Bits of another register; a 32-bit part of a GPR clears the upper half when written, as the processor does."""
    mask = (1 << width) - 1

    def write(state: CpuState, value: int) -> CpuState:
        if zero_extend:
            return whole.write(state, value)
        return whole.write(state, whole.read(state) & ~(mask << position) | value << position)

    return _Register(width, lambda state: whole.read(state) >> position & mask, write)


def _segment(number: Seg, attribute: str, width: int) -> _Register:
    def write(state: CpuState, value: int) -> CpuState:
        changed = replace(state.segments[number], **{attribute: value})
        return replace(state, segments=(*state.segments[:number], changed, *state.segments[number + 1 :]))

    return _Register(width, lambda state: int(getattr(state.segments[number], attribute)), write)


def _table(name: str, attribute: str, width: int) -> _Register:
    def read(state: CpuState) -> int:
        table: DescriptorTable = getattr(state, name)
        return int(getattr(table, attribute))

    def write(state: CpuState, value: int) -> CpuState:
        changed = replace(getattr(state, name), **{attribute: value})
        return replace(state, **{name: changed})

    return _Register(width, read, write)


_SEGMENT_BITS: Final = (
    ("type", 0, 4),
    ("s", 4, 1),
    ("dpl", 5, 2),
    ("p", 7, 1),
    ("avl", 12, 1),
    ("l", 13, 1),
    ("db", 14, 1),
    ("g", 15, 1),
    ("unusable", 16, 1),
)
_LEGACY: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")


def _general() -> dict[str, _Register]:
    table: dict[str, _Register] = {}
    for number, name in enumerate(GPR_NAMES):
        whole = table[name] = _gpr(number)
        old = _LEGACY[number] if number < 8 else ""
        table[f"e{old}" if old else f"{name}d"] = _part(whole, 0, 32, zero_extend=True)
        table[old or f"{name}w"] = _part(whole, 0, 16)
        low = f"{old[0]}l" if number < 4 else f"{old}l" if old else f"{name}b"
        table[low] = _part(whole, 0, 8)
        if number < 4:
            table[f"{old[0]}h"] = _part(whole, 8, 8)
    rip, rflags = _scalar("rip", 64), _scalar("rflags", 64)
    table |= {"rip": rip, "eip": _part(rip, 0, 32, zero_extend=True), "ip": _part(rip, 0, 16, zero_extend=True)}
    table |= {"rflags": rflags, "eflags": _part(rflags, 0, 32), "flags": _part(rflags, 0, 16)}
    for bit in RFLAGS:
        table[bit.name.lower()] = _part(rflags, bit.position, bit.width)
    return table


def _system() -> dict[str, _Register]:
    table: dict[str, _Register] = {}
    for seg, name in zip(Seg, SEGMENT_NAMES, strict=True):
        table[name] = table[f"{name}.selector"] = _segment(seg, "selector", 16)
        table[f"{name}.base"] = _segment(seg, "base", 64)
        table[f"{name}.limit"] = _segment(seg, "limit", 32)
        rights = table[f"{name}.attributes"] = _segment(seg, "attributes", 17)
        for field, position, width in _SEGMENT_BITS:
            table[f"{name}.{field}"] = _part(rights, position, width)
        table[f"{name}.rpl"] = _part(table[name], 0, 2)
    for name in ("gdtr", "idtr"):
        table[name] = table[f"{name}.base"] = _table(name, "base", 64)
        table[f"{name}.limit"] = _table(name, "limit", 16)
    for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "xcr0"):
        table[name] = _scalar(name, 64)
    table |= {"mxcsr": _scalar("mxcsr", 32), "pkru": _scalar("pkru", 32), "cpl": _scalar("cpl", 2)}
    for number in (0, 1, 2, 3, 6, 7):
        table[f"dr{number}"] = _element("dr", number, 64)
    for number in range(16):
        table[f"xmm{number}"] = _element("xmm", number, 128)
    for name, bits in BIT_TABLES.items():
        for bit in bits:
            table[f"{name}.{bit.name.lower()}"] = _part(table.get(name) or _scalar(name, 64), bit.position, bit.width)
    return table


_REGISTERS: Final[dict[str, _Register]] = _general() | _system()
KNOWN_NAMES: Final = frozenset(_REGISTERS)
"""Every name that `read_register` and `write_register` take."""


def register_width(name: str) -> int:
    """Width in bits.  Raises KeyError for an unknown name."""
    return _REGISTERS[name].width


def read_register(state: CpuState, name: str) -> int:
    """The register's value, unsigned.  Raises KeyError for an unknown name."""
    return _REGISTERS[name].read(state)


def write_register(state: CpuState, name: str, value: int) -> CpuState:
    """``state`` with one register changed, nothing checked by mode: a selector leaves the hidden part alone.

    Raises KeyError for an unknown name, ValueError for a value that does not fit (negative ones are taken as two's
    complement of the register's width).
    """
    register = _REGISTERS[name]
    if not -(1 << register.width - 1) <= value < 1 << register.width:
        raise ValueError(f"{name} has {register.width} bits; {value:#x} does not fit")
    return register.write(state, value & (1 << register.width) - 1)
