"""Descriptors from named fields: what a reproducer's ``[[descriptor]]`` says (SDM vol. 3A sections 3.4.5, 5.8.3, 6.11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["FIELDS", "encode"]

_SEGMENT: Final = {"base": 0, "limit": 0xFFFFF, "g": -1, "avl": 0, "dpl": 0, "present": 1}
_SYSTEM: Final = {**_SEGMENT, "limit": 0x67, "bits": 0}
_GATE: Final = {"selector": 0, "offset": 0, "dpl": 0, "present": 1, "bits": 0}

FIELDS: Final[Mapping[str, Mapping[str, int]]] = {
    "code": {
        **_SEGMENT,
        "limit": 0xFFFFFFFF,
        "bits": 0,
        "readable": 1,
        "conforming": 0,
        "accessed": 1,
        "l": -1,
        "d": -1,
    },
    "data": {**_SEGMENT, "limit": 0xFFFFFFFF, "writable": 1, "expand_down": 0, "accessed": 1, "b": 1},
    "tss": {**_SYSTEM, "busy": 0},
    "tss16": {**_SYSTEM, "limit": 0x2B, "busy": 0},
    "ldt": {**_SYSTEM, "limit": 0xFFFF},
    "call-gate": {**_GATE, "count": 0},
    "interrupt-gate": {**_GATE, "ist": 0},
    "trap-gate": {**_GATE, "ist": 0},
    "task-gate": {"selector": 0, "dpl": 0, "present": 1},
}
"""Kinds, and for each its field names with their defaults.

``limit`` is in bytes; ``g`` -1 sets granularity where the limit needs it.  ``bits`` 0 means the machine's own: 64 in
IA-32e mode, else 32.  ``l`` and ``d`` -1 follow ``bits``.
"""

_WIDTHS: Final = {"dpl": 2, "ist": 3, "count": 5, "selector": 16}
_FLAGS: Final = {
    "g",
    "avl",
    "present",
    "readable",
    "conforming",
    "accessed",
    "l",
    "d",
    "b",
    "writable",
    "expand_down",
    "busy",
}
_GATE_TYPES: Final = {"call-gate": 0x4, "interrupt-gate": 0x6, "trap-gate": 0x7}


def encode(kind: str, fields: Mapping[str, int] | None = None, *, long: bool = False) -> bytes:
    """The 8 or 16 bytes of a descriptor.  Raises ValueError naming the field that is unknown or does not fit.

    ``long``: the machine is in IA-32e mode, so system descriptors and gates default to their 64-bit form.
    """
    if kind not in FIELDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(FIELDS)}")
    known = FIELDS[kind]
    given = dict(fields or {})
    for name, number in given.items():
        if name not in known:
            raise ValueError(f"{kind} has no field {name!r}; known: {', '.join(known)}")
        top = 1 if name in _FLAGS else (1 << _WIDTHS[name]) - 1 if name in _WIDTHS else (1 << 64) - 1
        low = known[name] if known[name] < 0 else 0
        if not low <= number <= top:
            raise ValueError(f"{kind}: {name} = {number:#x} does not fit (0 to {top:#x})")
    f = {**known, **given}
    if kind in ("code", "data"):
        return _segment(kind, f, long)
    if kind == "task-gate":
        return (f["selector"] << 16 | _access(0x5, f) << 40).to_bytes(8, "little")
    bits = 16 if kind == "tss16" else f["bits"] or (64 if long else 32)
    if bits not in (16, 32, 64):
        raise ValueError(f"{kind}: bits = {bits} is not 16, 32 or 64")
    if kind in _GATE_TYPES:
        return _gate(kind, f, bits)
    return _system(kind, f, bits)


def _access(type_: int, f: Mapping[str, int]) -> int:
    """Bits 15:8 of the second doubleword of a system descriptor or gate."""
    return type_ | f["dpl"] << 5 | f["present"] << 7


def _base_limit(kind: str, f: Mapping[str, int], base_bits: int) -> int:
    """Base, limit, G and AVL in their places."""
    limit, g = f["limit"], f["g"]
    if f["base"] >> base_bits:
        raise ValueError(f"{kind}: base = {f['base']:#x} is wider than {base_bits} bits")
    if limit > 0xFFFFFFFF:
        raise ValueError(f"{kind}: limit = {limit:#x} is wider than 32 bits")
    if g == -1:
        g = int(limit > 0xFFFFF)
    if g:
        if limit & 0xFFF != 0xFFF:
            raise ValueError(f"{kind}: limit = {limit:#x} with G = 1 must end in 0xfff: it counts 4 KiB units")
        limit >>= 12
    elif limit > 0xFFFFF:
        raise ValueError(f"{kind}: limit = {limit:#x} needs G = 1")
    low = limit & 0xFFFF | (f["base"] & 0xFFFFFF) << 16 | (limit >> 16) << 48 | (f["base"] >> 24 & 0xFF) << 56
    return low | f["avl"] << 52 | g << 55 | (f["base"] >> 32) << 64


def _segment(kind: str, f: Mapping[str, int], long: bool) -> bytes:
    value = _base_limit(kind, f, 32)
    if kind == "data":
        type_ = f["accessed"] | f["writable"] << 1 | f["expand_down"] << 2
        value |= f["b"] << 54
    else:
        bits = f["bits"] or (64 if long else 32)
        if bits not in (16, 32, 64):
            raise ValueError(f"code: bits = {bits} is not 16, 32 or 64")
        type_ = 8 | f["accessed"] | f["readable"] << 1 | f["conforming"] << 2
        value |= (f["l"] if f["l"] >= 0 else int(bits == 64)) << 53
        value |= (f["d"] if f["d"] >= 0 else int(bits == 32)) << 54
    return (value | _access(0x10 | type_, f) << 40).to_bytes(8, "little")


def _system(kind: str, f: Mapping[str, int], bits: int) -> bytes:
    if kind == "ldt":
        if bits == 16:
            raise ValueError("ldt: bits = 16 does not exist")
        type_ = 0x2
    else:
        type_ = (0x1 if bits == 16 else 0x9) | f["busy"] << 1
    value = _base_limit(kind, f, 64 if bits == 64 else 32) | _access(type_, f) << 40
    return value.to_bytes(16 if bits == 64 else 8, "little")


def _gate(kind: str, f: Mapping[str, int], bits: int) -> bytes:
    offset = f["offset"]
    if offset >> bits:
        raise ValueError(f"{kind}: offset = {offset:#x} is wider than {bits} bits")
    extra = f.get("ist", 0) or f.get("count", 0)
    if bits != 64 and f.get("ist"):
        raise ValueError(f"{kind}: ist needs a 64-bit gate")
    if bits == 64 and f.get("count"):
        raise ValueError(f"{kind}: count needs a 16-bit or 32-bit gate")
    type_ = _GATE_TYPES[kind] | (0 if bits == 16 else 8)
    value = offset & 0xFFFF | f["selector"] << 16 | extra << 32 | _access(type_, f) << 40
    value |= (offset >> 16 & 0xFFFF) << 48 | (offset >> 32) << 64
    return value.to_bytes(16 if bits == 64 else 8, "little")
