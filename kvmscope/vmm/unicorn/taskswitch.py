"""Hardware task switches (SDM vol. 3A chapter 7), 32-bit and 16-bit TSS."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn import segments
from kvmscope.vmm.unicorn.env import (
    CR,
    EIP,
    FLAG,
    M32,
    TR_BASE,
    TR_FLAGS,
    TR_LIMIT,
    TR_SELECTOR,
    selector_index,
)
from kvmscope.vmm.unicorn.faults import Fault, Unsupported
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["CALL", "JUMP", "back", "switch", "through_gate"]

JUMP, CALL, RETURN = range(3)

_TS, _NP, _SS, _GP = 10, 11, 12, 13
_PRESENT: Final = 1 << 15
_BUSY: Final = 2
_REGISTERS: Final = range(8)

# (offset of IP, FLAGS, first register, first segment, LDT, size of the fixed part); registers in encoding order.
_WIDE: Final = (0x20, 0x24, 0x28, 0x48, 0x60, 104)
_NARROW: Final = (0x0E, 0x10, 0x12, 0x22, 0x2A, 44)


def through_gate(cpu: Cpu, selector: int, source: int, following: int, ext: int = 0, rf: int = 0) -> None:
    """Switch to the task that a task gate names.  Raises `Fault`."""
    code = selector & 0xFFFC | ext
    if not selector & 0xFFFC or selector & 4:
        raise Fault(_TS if ext or not selector & 0xFFFC else _GP, code)
    descriptor = segments.read_descriptor(cpu, selector)
    if descriptor is None:
        raise Fault(_GP, code)
    low, high = descriptor
    if high >> 8 & 0x1F not in (1, 9):
        raise Fault(_GP, code)
    if not high & _PRESENT:
        raise Fault(_NP, code)
    switch(cpu, selector, low, high, source, following, ext, rf)


def back(cpu: Cpu, following: int) -> None:
    """IRET with NT: to the task that the current TSS links to.  Raises `Fault`."""
    q = cpu.env.q
    link = int.from_bytes(cpu.memory.read(q[TR_BASE], 2, implicit=True), "little")
    code = link & 0xFFFC
    descriptor = None if link & 4 else segments.read_descriptor(cpu, link)
    if descriptor is None or descriptor[1] >> 8 & 0x1F not in (3, 11):
        raise Fault(_TS, code)
    if not descriptor[1] & _PRESENT:
        raise Fault(_NP, code)
    switch(cpu, link, descriptor[0], descriptor[1], RETURN, following)


def switch(
    cpu: Cpu, selector: int, low: int, high: int, source: int, following: int, ext: int = 0, rf: int = 0
) -> None:
    """Save the current task with ``following`` as its EIP and load the one whose TSS descriptor is (low, high).

    ``rf`` is RF as it is to be saved: a fault that enters a task sets it.
    Raises `Fault`; one raised after the new TSS was taken belongs to the new task, as on hardware.
    """
    env, memory = cpu.env, cpu.memory
    d, q = env.d, env.q
    wide = bool(high & 1 << 11)
    base, limit = segments.base_of(low, high), segments.limit_of(low, high)
    layout = _WIDE if wide else _NARROW
    old_layout = _WIDE if d[TR_FLAGS] & 1 << 11 else _NARROW
    code = selector & 0xFFFC | ext
    if limit < layout[5] - 1:
        raise Fault(_TS, code)
    if d[TR_LIMIT] < old_layout[5] - 1:
        raise Fault(_TS, d[TR_SELECTOR] & 0xFFFC | ext)
    # Both TSSs must be there before anything changes.
    new = memory.read(base, layout[5], implicit=True)
    old_base = q[TR_BASE]
    for at in (old_base, old_base + old_layout[5] - 1):
        memory.translate(at & M32, True, user=False, implicit=True)
    if source == CALL:
        memory.translate(base, True, user=False, implicit=True)

    flags = env.flags()
    if source in (JUMP, RETURN):
        _set_busy(cpu, d[TR_SELECTOR], busy=False)
    if source == RETURN:
        flags &= ~FLAG.NT
    _save(cpu, old_base, old_layout, following, flags | rf)
    if source == CALL:
        memory.write(base, struct.pack("<H", d[TR_SELECTOR] & 0xFFFF), implicit=True)
    if source in (JUMP, CALL):
        _set_busy(cpu, selector, busy=True)
    env.set_segment(Seg.TR, selector, base, limit, high)
    q[CR] |= 1 << 3
    _load(cpu, new, layout, source, wide, ext)


def _set_busy(cpu: Cpu, selector: int, busy: bool) -> None:
    address = segments.descriptor_address(cpu, selector)
    if address is None:
        return
    byte = cpu.memory.read(address + 5, 1, implicit=True)[0]
    cpu.memory.write(address + 5, bytes([byte | _BUSY if busy else byte & ~_BUSY]), implicit=True)


def _save(cpu: Cpu, base: int, layout: tuple[int, ...], following: int, flags: int) -> None:
    d, q = cpu.env.d, cpu.env.q
    wide = layout is _WIDE
    width = 4 if wide else 2
    mask = M32 if wide else 0xFFFF
    values = [following & mask, flags & mask, *(q[i] & mask for i in _REGISTERS)]
    data = b"".join(value.to_bytes(width, "little") for value in values)
    cpu.memory.write(base + layout[0], data, implicit=True)
    for i in range(6 if wide else 4):
        selector = d[selector_index(i)] & 0xFFFF
        cpu.memory.write(base + layout[3] + width * i, struct.pack("<H", selector), implicit=True)


def _load(cpu: Cpu, new: bytes, layout: tuple[int, ...], source: int, wide: bool, ext: int) -> None:
    """Registers, then segments of the new task."""
    env = cpu.env
    d, q = env.d, env.q
    width = 4 if wide else 2

    def field(offset: int, size: int) -> int:
        return int.from_bytes(new[offset : offset + size], "little")

    if wide and q[CR] & 1 << 31:
        cr3 = field(0x1C, 4)
        if cr3 != q[CR + 3]:
            cpu.note_register("cr3", q[CR + 3], cr3)
        q[CR + 3] = cr3
        env.flush_tlb()
    ip = field(layout[0], width)
    flags = field(layout[1], width)
    if source == CALL:
        flags |= FLAG.NT
    for i in _REGISTERS:
        value = field(layout[2] + width * i, width)
        # A 16-bit TSS leaves the upper halves undefined; processors set them.
        q[i] = value if wide else 0xFFFF0000 | value
    selectors = [field(layout[3] + width * i, 2) for i in range(6 if wide else 4)]
    selectors += [0] * (6 - len(selectors))
    ldt = field(layout[4], 2)
    q[EIP] = ip
    cpu.load_flags(flags & 0x3F7FD7)
    if cpu.dr[7] & 0x155:
        cpu.dr[7] &= ~0x155
        cpu.debug_changed = True
        cpu.break_slice()
    if flags & FLAG.VM:
        for i, selector in enumerate(selectors):
            env.set_segment(i, selector, selector << 4, 0xFFFF, 0xF300)
        env.update_hflags(3)
        _load_ldt(cpu, ldt, ext)
    else:
        cpl = selectors[Seg.CS] & 3
        for i, selector in enumerate(selectors):
            env.set_segment(i, selector, 0, 0, 0)
        env.update_hflags(cpl)
        _load_ldt(cpu, ldt, ext)
        for i in (Seg.CS, Seg.SS, Seg.ES, Seg.DS, Seg.FS, Seg.GS):
            _load_segment(cpu, i, selectors[i], cpl, ext)
        env.update_hflags(cpl)
        if ip > d[selector_index(Seg.CS) + 4]:
            raise Fault(_GP, ext)
    if wide and new[100] & 1:
        raise Unsupported("a task switch to a TSS with its debug trap bit (T) set")


def _load_ldt(cpu: Cpu, selector: int, ext: int) -> None:
    env = cpu.env
    env.set_segment(Seg.LDTR, selector, 0, 0, 0)
    if not selector & 0xFFFC:
        return
    code = selector & 0xFFFC | ext
    descriptor = None if selector & 4 else segments.read_descriptor(cpu, selector)
    if descriptor is None or descriptor[1] >> 8 & 0x1F != 2 or not descriptor[1] & _PRESENT:
        raise Fault(_TS, code)
    low, high = descriptor
    env.set_segment(Seg.LDTR, selector, segments.base_of(low, high), segments.limit_of(low, high), high)


def _load_segment(cpu: Cpu, index: int, selector: int, cpl: int, ext: int) -> None:
    """One segment register of the new task (SDM vol. 3A table 7-1)."""
    code = selector & 0xFFFC | ext
    if not selector & 0xFFFC:
        if index in (Seg.CS, Seg.SS):
            raise Fault(_TS, code)
        return
    descriptor = segments.read_descriptor(cpu, selector)
    if descriptor is None:
        raise Fault(_TS, code)
    low, high = descriptor
    dpl, rpl, kind = high >> 13 & 3, selector & 3, high >> 8 & 0x1F
    if index == Seg.CS:
        good = kind & 0x18 == 0x18 and (dpl <= rpl if kind & 4 else dpl == rpl)
    elif index == Seg.SS:
        good = kind & 0x1A == 0x12 and dpl == cpl and rpl == cpl
    else:
        readable = kind & 0x10 and (not kind & 8 or kind & 2)
        conforming = kind & 0xC == 0xC
        good = bool(readable) and (conforming or (dpl >= cpl and dpl >= rpl))
    if not good:
        raise Fault(_TS, code)
    if not high & _PRESENT:
        raise Fault(_SS if index == Seg.SS else _NP, code)
    segments.set_accessed(cpu, selector, high)
    cpu.env.set_segment(index, selector, segments.base_of(low, high), segments.limit_of(low, high), high | 1 << 8)
