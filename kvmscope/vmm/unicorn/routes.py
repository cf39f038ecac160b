"""Known ways through 64-bit gates and back by IRETQ: the commonest events, without their decoding.

A route is what the full delivery found once: the gate, the descriptors, the registers afterwards.  It holds while the
registers that the outcome depends on and the bytes of gate and descriptors are the same, which is looked at each time;
memory is accessed in the order of the full delivery and faults alike.  Whatever differs is left to `delivery` and
`transfer`, so that a route changes nothing but the time it takes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from kvmscope.vmm.unicorn.env import (
    CR,
    EFLAGS,
    EIP,
    FLAG,
    HF,
    HFLAGS,
    IDT_BASE,
    M32,
    M64,
    TR_BASE,
    base_index,
    selector_index,
)
from kvmscope.vmm.unicorn.layout import ENV
from kvmscope.vmm.unicorn.memory import KEYED, Translation, canonical
from kvmscope.vmm.unicorn.segments import base_of, descriptor_address, limit_of
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["IRET_FLAGS", "Routes"]

IRET_FLAGS: Final = 0x8D5 | FLAG.TF | FLAG.DF | FLAG.NT | FLAG.RF | FLAG.AC | FLAG.ID
"""What IRET of any size loads whatever CPL and IOPL are."""

_MOST: Final = 256
"""Routes of a kind that are kept."""
_FIRST: Final = ENV["segs"]
_SEGMENTS: Final = slice(_FIRST, _FIRST + 6 * 24)
"""The six segment registers."""
_SIZE: Final = ENV["cr"] + 8 - _FIRST
"""Bytes of segments, LDTR, TR, GDTR, IDTR and CR0, which follow each other."""
_CS: Final = selector_index(Seg.CS)
_SS: Final = selector_index(Seg.SS)
_QUAD: Final = struct.Struct("<Q")
_FRAME: Final = struct.Struct("<5Q")
_FRAME_WITH_ERROR: Final = struct.Struct("<6Q")

_InwardKey = tuple[int, int, int, bytes]
"""Vector and kind of event, mode, CR4, registers."""
_OutwardKey = tuple[int, int, int, int, bytes]
"""CS, SS, mode, CR4, registers."""


class _Quads:
    """One or two quadwords of a descriptor table, within a page, and what they must be."""

    __slots__ = ("first", "linear", "page", "place", "second", "translation")

    def __init__(self, linear: int, first: int, second: int | None) -> None:
        self.linear = linear
        self.page = linear >> 12
        self.first = first
        self.second = second
        self.translation: Translation | None = None
        """The page's, when ``place`` was computed."""
        self.place = -1
        """Where they are in RAM, in quadwords; -1 for not there."""


class _Inward(NamedTuple):
    """Through a gate."""

    gate: _Quads
    descriptor: _Quads
    stack: int | None
    """Linear address of the stack pointer in the TSS; None: the stack stays."""
    handler: int
    kept: int
    """RFLAGS bits that are not cleared."""
    segments: bytes
    hflags: int


class _Outward(NamedTuple):
    """By IRETQ to 64-bit code."""

    code: _Quads
    data: _Quads | None
    """The descriptor of SS; None for a null selector."""
    segments: bytes
    hflags: int


class Routes:
    """The routes of one engine; they outlive restored states, as they are compared with what there is."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._tlb = cpu.env.tlb
        self._quadwords = cpu.memory.quadwords
        self._registers = cpu.env.b[_FIRST : _FIRST + _SIZE]
        self._inward: dict[_InwardKey, _Inward] = {}
        self._outward: dict[_OutwardKey, _Outward] = {}
        self._unknown_inward: _InwardKey | None = None
        self._unknown_outward: _OutwardKey | None = None

    # through a gate

    def enter(
        self, vector: int, software: bool, external: bool, error_code: int | None, back: int, flags: int, rf: int
    ) -> int | None:
        """Enter the handler of ``vector`` and give its offset; None, with nothing changed, where no known route holds.

        ``flags`` is RFLAGS, which must not be lazy.  Raises `Fault` as the full delivery would.
        """
        cpu = self._cpu
        env, memory = cpu.env, cpu.memory
        d, q = env.d, env.q
        kind = vector | software << 8 | external << 9 | (error_code is not None) << 10
        key = (kind, d[HFLAGS] & ~HF.INHIBIT, q[CR + 4], self._registers.tobytes())
        route = self._inward.get(key)
        if route is None:
            self._unknown_inward = key
            return None
        self._unknown_inward = None
        gate, descriptor, stack, handler, kept, registers, hflags = route
        keyed = key[2] & KEYED
        if not (
            self._holds(gate, keyed) and self._holds(descriptor, keyed) and cpu.host.has_own_handler(vector, handler)
        ):
            return None
        old = sp = q[4]
        if stack is not None:
            (sp,) = _QUAD.unpack(memory.read(stack, 8, False, True))
        if error_code is None:
            place = (sp & ~15) - 40
            frame = _FRAME.pack(back, d[_CS] & 0xFFFF, flags | rf, old, d[_SS] & 0xFFFF)
        else:
            place = (sp & ~15) - 48
            frame = _FRAME_WITH_ERROR.pack(error_code, back, d[_CS] & 0xFFFF, flags | rf, old, d[_SS] & 0xFFFF)
        if place < 0 or (sp >> 47 and not (canonical(sp, memory.linear_bits) and canonical(place, memory.linear_bits))):
            return None
        memory.write(place, frame, False, False, True)
        env.b[_SEGMENTS] = registers
        q[4] = place
        q[EIP] = handler
        q[EFLAGS] = flags & kept
        d[HFLAGS] = hflags
        return handler

    def learn_inward(self) -> None:
        """Remember the delivery that has just come to its end, which `enter` did not know."""
        key, self._unknown_inward = self._unknown_inward, None
        cpu = self._cpu
        env = cpu.env
        d, q = env.d, env.q
        if key is None or not d[HFLAGS] & HF.CS64 or d[HFLAGS] & 3 == 3:
            return
        gate = self._quads(q[IDT_BASE] + (key[0] & 0xFF) * 16, 16)
        if gate is None:
            return
        low, high = gate.first, gate.second or 0
        selector = low >> 16 & 0xFFFF
        descriptor = self._descriptor(selector)
        # What the handler has pushed or a walk has marked may have been the tables themselves.
        offset = low & 0xFFFF | low >> 32 & 0xFFFF0000 | (high & M32) << 32
        if descriptor is None or low >> 47 & 1 == 0 or low >> 40 & 0x1E != 0xE or offset != q[EIP]:
            return
        if (selector ^ d[_CS]) & 0xFFFC or not self._is(descriptor, Seg.CS):
            return
        cpl, ist = key[1] & 3, low >> 32 & 7
        at = 28 + 8 * ist if ist else 4 + 8 * env.cpl
        stack = q[TR_BASE] + at & M64 if ist or env.cpl < cpl else None
        cleared = FLAG.TF | FLAG.NT | FLAG.RF | FLAG.VM | (0 if low >> 40 & 1 else FLAG.IF)
        if len(self._inward) >= _MOST:
            self._inward.clear()
        hflags = d[HFLAGS]
        self._inward[key] = _Inward(gate, descriptor, stack, offset, ~cleared, bytes(env.b[_SEGMENTS]), hflags)

    # back

    def leave(self, flags: int) -> bool:
        """Execute IRETQ of 64-bit code, RFLAGS being ``flags``; False, with nothing changed, where no route holds.

        Raises `Fault` as the full one would.
        """
        cpu = self._cpu
        env, memory = cpu.env, cpu.memory
        d, q = env.d, env.q
        sp, h = q[4], d[HFLAGS]
        self._unknown_outward = None
        physical = memory.translate(sp, False, h & 3 == 3, False, True)
        if (sp & 0xFFF) > 0x1000 - 40 or physical + 40 > memory.size:
            return False
        ip, cs, image, rsp, ss = _FRAME.unpack_from(memory.ram, physical)
        cs, ss = cs & 0xFFFF, ss & 0xFFFF
        key = (cs, ss, h & ~HF.INHIBIT, q[CR + 4], self._registers.tobytes())
        route = self._outward.get(key)
        if route is None:
            self._unknown_outward = key
            return False
        code, data, registers, hflags = route
        keyed = key[3] & KEYED
        if (
            not self._holds(code, keyed)
            or (data is not None and not self._holds(data, keyed))
            or (ip >> 47 and not canonical(ip, memory.linear_bits))
        ):
            return False
        env.b[_SEGMENTS] = registers
        q[EIP], q[4] = ip, rsp
        d[HFLAGS] = hflags | h & HF.INHIBIT
        mask = IRET_FLAGS
        if h & 3 <= flags >> 12 & 3:
            mask |= FLAG.IF
        if not h & 3:
            mask |= FLAG.IOPL | FLAG.VIF | FLAG.VIP
        cpu.load_flags(flags & ~mask | image & mask)
        return True

    def learn_outward(self) -> None:
        """Remember the IRETQ that has just come to its end, which `leave` did not know."""
        key, self._unknown_outward = self._unknown_outward, None
        env = self._cpu.env
        if key is None or not env.d[HFLAGS] & HF.CS64:
            return
        cs, ss = key[0], key[1]
        code = self._descriptor(cs)
        data = self._descriptor(ss) if ss & 0xFFFC else None
        if code is None or not self._is(code, Seg.CS) or (ss & 0xFFFC and (data is None or not self._is(data, Seg.SS))):
            return
        if len(self._outward) >= _MOST:
            self._outward.clear()
        self._outward[key] = _Outward(code, data, bytes(env.b[_SEGMENTS]), env.d[HFLAGS] & ~HF.INHIBIT)

    # descriptor tables

    def _holds(self, quads: _Quads, keyed: int) -> bool:
        """Whether memory has these quadwords, read as a system structure; ``keyed`` are the `KEYED` bits of CR4.

        Raises `Fault` as any read does.
        """
        known = self._tlb.get(quads.page)
        if known is None or known is not quads.translation or (keyed and not self._cpu.memory.plain(known)):
            memory = self._cpu.memory
            physical = memory.translate(quads.linear, False, False, True)
            quads.translation = self._tlb.get(quads.page)
            quads.place = physical >> 3 if not physical & 7 and physical + 16 <= memory.size else -1
        place, q = quads.place, self._quadwords
        return place >= 0 and q[place] == quads.first and (quads.second is None or q[place + 1] == quads.second)

    def _quads(self, linear: int, size: int) -> _Quads | None:
        """The quadwords there, where they have just been read; None if not in one page of RAM."""
        linear &= M64
        memory = self._cpu.memory
        physical = memory.translated(linear)
        if physical is None or physical & 7 or (linear & 0xFFF) + size > 0x1000 or physical + 16 > memory.size:
            return None
        first, second = self._quadwords[physical >> 3], self._quadwords[(physical >> 3) + 1]
        return _Quads(linear, first, second if size == 16 else None)

    def _descriptor(self, selector: int) -> _Quads | None:
        address = descriptor_address(self._cpu, selector)
        return None if address is None else self._quads(address, 8)

    def _is(self, descriptor: _Quads, segment: int) -> bool:
        """Whether the register is what this descriptor loads."""
        env = self._cpu.env
        i = selector_index(segment)
        low, high = descriptor.first & M32, descriptor.first >> 32
        loaded = env.q[base_index(segment)], env.d[i + 4], env.d[i + 5]
        return loaded == (base_of(low, high), limit_of(low, high), high)
