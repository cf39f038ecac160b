"""Descriptor loads and stacks as transfers of control need them (SDM vol. 3A chapters 3, 5 and 6).

A descriptor is handled as its two doublewords ``low`` and ``high``, the form in which Unicorn keeps segment caches.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn.env import (
    GDT_BASE,
    GDT_LIMIT,
    HF,
    HFLAGS,
    LDT_BASE,
    LDT_SELECTOR,
    M32,
    M64,
    TR_BASE,
    TR_FLAGS,
    TR_LIMIT,
    TR_SELECTOR,
)
from kvmscope.vmm.unicorn.faults import Fault

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = [
    "base_of",
    "descriptor_address",
    "inner_stack",
    "limit_of",
    "push_all",
    "read_descriptor",
    "set_accessed",
]

_TS, _SS = 10, 12
_PRESENT: Final = 1 << 15


def base_of(low: int, high: int) -> int:
    """Segment base of a descriptor."""
    return low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000


def limit_of(low: int, high: int) -> int:
    """Segment limit in bytes, G applied."""
    limit = low & 0xFFFF | high & 0xF0000
    return limit << 12 | 0xFFF if high & 1 << 23 else limit


def descriptor_address(cpu: Cpu, selector: int, size: int = 8) -> int | None:
    """Linear address of the descriptor that ``selector`` names; None beyond the table's limit."""
    d, q = cpu.env.d, cpu.env.q
    offset = selector & 0xFFF8
    if selector & 4:
        if not d[LDT_SELECTOR + 5] & _PRESENT or offset + size - 1 > d[LDT_SELECTOR + 4]:
            return None
        base = q[LDT_BASE]
    else:
        if offset + size - 1 > d[GDT_LIMIT]:
            return None
        base = q[GDT_BASE]
    return base + offset & (M64 if d[HFLAGS] & HF.LMA else M32)


def read_descriptor(cpu: Cpu, selector: int) -> tuple[int, int] | None:
    """The two doublewords of a descriptor, None beyond the table's limit.  Raises `Fault` (#PF)."""
    address = descriptor_address(cpu, selector)
    if address is None:
        return None
    low, high = struct.unpack("<II", cpu.memory.read(address, 8, implicit=True))
    return low, high


def set_accessed(cpu: Cpu, selector: int, high: int) -> None:
    """Set the accessed bit of a code or data descriptor in its table, if it is not set yet."""
    if high & 1 << 8:
        return
    address = descriptor_address(cpu, selector)
    if address is not None:
        cpu.memory.write(address + 5, bytes([high >> 8 & 0xFF | 1]), implicit=True)


def inner_stack(cpu: Cpu, level: int, ext: int) -> tuple[int, int, int, int]:
    """SS and ESP of ring ``level`` from the 16-bit or 32-bit TSS, checked: (selector, esp, low, high).

    Raises `Fault`: #TS(selector), #SS(selector) or #PF.
    """
    d, q = cpu.env.d, cpu.env.q
    wide = d[TR_FLAGS] >> 11 & 1
    at = 4 + 8 * level if wide else 2 + 4 * level
    # SDM: the last byte of the SS word (32-bit: of its doubleword) must be within the limit.
    if at + (5 if wide else 3) > d[TR_LIMIT]:
        raise Fault(_TS, d[TR_SELECTOR] & 0xFFFC | ext)
    raw = cpu.memory.read(q[TR_BASE] + at & M32, 6 if wide else 4, implicit=True)
    esp, selector = struct.unpack("<IH" if wide else "<HH", raw)
    code = selector & 0xFFFC | ext
    if not selector & 0xFFFC or selector & 3 != level:
        raise Fault(_TS, code)
    descriptor = read_descriptor(cpu, selector)
    if descriptor is None:
        raise Fault(_TS, code)
    low, high = descriptor
    # Writable data (S = 1, code bit 0, W = 1) of the new ring's DPL.
    if high >> 13 & 3 != level or high >> 8 & 0x1A != 0x12:
        raise Fault(_TS, code)
    if not high & _PRESENT:
        raise Fault(_SS, code)
    return selector, esp, low, high


def stack_room(offset: int, size: int, limit: int, high: int) -> bool:
    """True if [offset, offset+size) is inside a stack segment (expand-down included)."""
    last = offset + size - 1
    top = M32 if high & 1 << 22 else 0xFFFF
    if high >> 10 & 1:
        return offset > limit and last <= top
    return last <= limit


def push_all(
    cpu: Cpu,
    values: list[int],
    width: int,
    sp: int,
    base: int,
    limit: int,
    high: int,
    code: int,
    user: bool,
) -> None:
    """Push ``values``, first one first, and set RSP; nothing is written if any of them faults.

    ``code`` is the error code of the #SS where the stack is too small.
    """
    memory, q = cpu.memory, cpu.env.q
    mask = M32 if high & 1 << 22 else 0xFFFF
    places = []
    for _ in values:
        offset = sp - width & mask
        if not stack_room(offset, width, limit, high):
            raise Fault(_SS, code)
        linear = base + offset & M32
        memory.translate(linear, True, user)
        if (linear & 0xFFF) + width > 0x1000:
            memory.translate(linear + width - 1 & M32, True, user)
        places.append(linear)
        sp = sp & ~mask | offset
    for place, value in zip(places, values, strict=True):
        memory.write(place, (value & ((1 << 8 * width) - 1)).to_bytes(width, "little"), user=user)
    q[4] = sp & M32 if mask == M32 else sp
