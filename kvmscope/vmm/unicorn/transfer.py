"""Far transfers of control: JMP, CALL, RET and IRET (SDM vol. 2A; vol. 3A sections 5.8 and 6.12).

All checks come before the first change: a transfer that faults leaves the processor at its instruction.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from kvmscope.vmm.unicorn import decode, segments, taskswitch
from kvmscope.vmm.unicorn.env import (
    CR,
    CS_BASE,
    EIP,
    FLAG,
    HF,
    HFLAGS,
    M32,
    M64,
    SS_BASE,
    SS_FLAGS,
    TR_BASE,
    TR_LIMIT,
    TR_SELECTOR,
    base_index,
    selector_index,
)
from kvmscope.vmm.unicorn.faults import Fault
from kvmscope.vmm.unicorn.memory import canonical
from kvmscope.vmm.unicorn.routes import IRET_FLAGS
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.vmm.unicorn.decode import Instruction

__all__ = ["far_call_or_jump", "far_return", "iret"]

_TS, _NP, _SS, _GP = 10, 11, 12, 13
_PRESENT: Final = 1 << 15
_CS: Final = selector_index(Seg.CS)
_SS_INDEX: Final = selector_index(Seg.SS)
_DATA: Final = (Seg.ES, Seg.DS, Seg.FS, Seg.GS)


class _Code(NamedTuple):
    """A code segment that passed its checks."""

    selector: int
    low: int
    high: int
    cpl: int

    @property
    def long(self) -> bool:
        return bool(self.high & 1 << 21)


class Stack:
    """Reads from the current stack without moving it yet."""

    def __init__(self, cpu: Cpu) -> None:
        d, q = cpu.env.d, cpu.env.q
        self._cpu = cpu
        self._code64 = bool(d[HFLAGS] & HF.CS64)
        self._base = 0 if self._code64 else q[SS_BASE]
        self._mask = M64 if self._code64 else M32 if d[SS_FLAGS] & 1 << 22 else 0xFFFF
        self._limit = d[_SS_INDEX + 4]
        self._flags = d[SS_FLAGS]
        self._user = cpu.env.cpl == 3
        self.pointer = q[4]

    def pop(self, size: int) -> int:
        """The next ``size`` bytes.  Raises `Fault` (#SS(0), #PF)."""
        offset = self.pointer & self._mask
        if not self._code64 and not segments.stack_room(offset, size, self._limit, self._flags):
            raise Fault(_SS, 0)
        linear = self._base + offset & (M64 if self._code64 else M32)
        raw = self._cpu.memory.read(linear, size, user=self._user, stack=True)
        self.skip(size)
        return int.from_bytes(raw, "little")

    def pop_many(self, size: int, count: int) -> list[int]:
        """The next ``count`` items.  Raises `Fault` (#SS(0), #PF)."""
        if not self._code64:
            return [self.pop(size) for _ in range(count)]
        raw = self._cpu.memory.read(self.pointer, size * count, user=self._user, stack=True)
        self.skip(size * count)
        return [int.from_bytes(raw[i : i + size], "little") for i in range(0, size * count, size)]

    def skip(self, size: int) -> None:
        """Move over ``size`` bytes."""
        self.pointer = self.pointer & ~self._mask | self.pointer + size & self._mask


def _load(cpu: Cpu, selector: int, vector: int = _GP) -> tuple[int, int]:
    descriptor = segments.read_descriptor(cpu, selector)
    if descriptor is None:
        raise Fault(vector, selector & 0xFFFC)
    return descriptor


def _check_target(cpu: Cpu, code: _Code, ip: int) -> None:
    """#GP(0) for an instruction pointer outside of its segment."""
    if code.long and cpu.env.long_mode:
        if not canonical(ip, cpu.memory.linear_bits):
            raise Fault(_GP, 0)
    elif ip > segments.limit_of(code.low, code.high):
        raise Fault(_GP, 0)


def _check_size_bits(cpu: Cpu, code: _Code) -> None:
    """In IA-32e mode L = 1 and D = 1 together are #GP(selector)."""
    if cpu.env.long_mode and code.high >> 21 & 3 == 3:
        raise Fault(_GP, code.selector & 0xFFFC)


def _enter(cpu: Cpu, code: _Code, ip: int) -> None:
    """Load CS and RIP."""
    segments.set_accessed(cpu, code.selector, code.high)
    base = segments.base_of(code.low, code.high)
    limit = segments.limit_of(code.low, code.high)
    cpu.env.set_segment(Seg.CS, code.selector & ~3 | code.cpl, base, limit, code.high | 1 << 8)
    cpu.env.q[EIP] = ip
    cpu.env.update_hflags(code.cpl)


# JMP and CALL


def far_call_or_jump(cpu: Cpu, ins: Instruction, call: bool) -> None:
    """JMP or CALL far in protected mode, direct (EA, 9A) or through memory (FF /5, /3)."""
    size = ins.operand_size
    if ins.opcode == 0xFF:
        if ins.mod == 3:
            raise Fault(6)
        ip = decode.read_operand(cpu, ins, size)
        selector = decode.read_operand(cpu, ins, 2, size)
        following = ins.length
    else:
        at = ins.length
        ip = int.from_bytes(ins.data[at : at + size], "little")
        selector = int.from_bytes(ins.data[at + size : at + size + 2], "little")
        following = at + size + 2
    back = cpu.env.q[EIP] + following & cpu.env.ip_mask
    if not selector & 0xFFFC:
        raise Fault(_GP, 0)
    low, high = _load(cpu, selector)
    code = selector & 0xFFFC
    if high & 1 << 12:
        if not high & 1 << 11:
            raise Fault(_GP, code)
        target = _direct(cpu, selector, low, high)
        _check_target(cpu, target, ip)
        if call:
            _push_return(cpu, size, back)
        _enter(cpu, target, ip)
        return
    _system(cpu, selector, low, high, call, back)


def _direct(cpu: Cpu, selector: int, low: int, high: int) -> _Code:
    """A code segment named by the instruction itself."""
    cpl, dpl, rpl = cpu.env.cpl, high >> 13 & 3, selector & 3
    code = selector & 0xFFFC
    # Conforming code runs at the caller's CPL; other code only at its own.
    if dpl > cpl if high & 1 << 10 else (rpl > cpl or dpl != cpl):
        raise Fault(_GP, code)
    target = _Code(selector, low, high, cpl)
    _check_size_bits(cpu, target)
    if not high & _PRESENT:
        raise Fault(_NP, code)
    return target


def _system(cpu: Cpu, selector: int, low: int, high: int, call: bool, back: int) -> None:
    """Gates and TSSs."""
    long = cpu.env.long_mode
    kind = high >> 8 & 0xF
    code = selector & 0xFFFC
    if kind not in ((12,) if long else (1, 4, 5, 9, 12)):
        raise Fault(_GP, code)
    dpl = high >> 13 & 3
    if dpl < cpu.env.cpl or dpl < selector & 3:
        raise Fault(_GP, code)
    if not high & _PRESENT:
        raise Fault(_NP, code)
    source = taskswitch.CALL if call else taskswitch.JUMP
    if kind == 5:
        taskswitch.through_gate(cpu, low >> 16, source, back)
    elif kind in (1, 9):
        taskswitch.switch(cpu, selector, low, high, source, back)
    else:
        _call_gate(cpu, selector, low, high, call, back)


def _call_gate(cpu: Cpu, gate: int, low: int, high: int, call: bool, back: int) -> None:
    env = cpu.env
    long = env.long_mode
    ip = low & 0xFFFF
    if high & 1 << 11:
        ip |= high & 0xFFFF0000
    if long:
        address = segments.descriptor_address(cpu, gate, 16)
        if address is None:
            raise Fault(_GP, gate & 0xFFFC)
        upper = struct.unpack("<II", cpu.memory.read(address + 8, 8, implicit=True))
        if upper[1] >> 8 & 0x1F:
            raise Fault(_GP, gate & 0xFFFC)
        ip |= upper[0] << 32
    selector = low >> 16
    if not selector & 0xFFFC:
        raise Fault(_GP, 0)
    c_low, c_high = _load(cpu, selector)
    code = selector & 0xFFFC
    cpl, dpl = env.cpl, c_high >> 13 & 3
    conforming = bool(c_high & 1 << 10)
    if c_high >> 11 & 3 != 3 or dpl > cpl:
        raise Fault(_GP, code)
    if not call and not conforming and dpl != cpl:
        raise Fault(_GP, code)
    if long and c_high >> 21 & 3 != 1:
        raise Fault(_GP, code)
    if not c_high & _PRESENT:
        raise Fault(_NP, code)
    new_cpl = dpl if call and not conforming else cpl
    target = _Code(selector, c_low, c_high, new_cpl)
    _check_target(cpu, target, ip)
    if call:
        width = 8 if long else 4 if high & 1 << 11 else 2
        if new_cpl < cpl:
            _inner_call(cpu, width, new_cpl, high & 0x1F, back)
        else:
            _push_return(cpu, width, back)
    _enter(cpu, target, ip)


def _push_return(cpu: Cpu, size: int, back: int) -> None:
    """CS and the return address on the current stack."""
    env = cpu.env
    d, q = env.d, env.q
    values = [d[_CS] & 0xFFFF, back]
    user = env.cpl == 3
    if d[HFLAGS] & HF.CS64:
        _push64(cpu, values, size, q[4], user)
        return
    segments.push_all(cpu, values, size, q[4], q[SS_BASE], d[_SS_INDEX + 4], d[SS_FLAGS], 0, user)


def _push64(cpu: Cpu, values: list[int], size: int, sp: int, user: bool) -> None:
    mask = (1 << 8 * size) - 1
    data = b"".join((value & mask).to_bytes(size, "little") for value in reversed(values))
    sp = sp - len(data) & M64
    cpu.memory.write(sp, data, user=user, stack=True)
    cpu.env.q[4] = sp


def _inner_call(cpu: Cpu, width: int, level: int, count: int, back: int) -> None:
    """Switch to the inner ring's stack and push SS, SP, the parameters, CS and the return address."""
    env = cpu.env
    d, q = env.d, env.q
    old = [d[_SS_INDEX] & 0xFFFF, q[4]]
    if width == 8:
        at = 4 + 8 * level
        if at + 7 > d[TR_LIMIT]:
            raise Fault(_TS, d[TR_SELECTOR] & 0xFFFC)
        sp = int.from_bytes(cpu.memory.read(q[TR_BASE] + at & M64, 8, implicit=True), "little")
        if not canonical(sp, cpu.memory.linear_bits):
            raise Fault(_SS, 0)
        _push64(cpu, [*old, d[_CS] & 0xFFFF, back], 8, sp, user=False)
        env.set_segment(Seg.SS, level, 0, 0, level << 13)
        return
    selector, esp, low, high = segments.inner_stack(cpu, level, 0)
    stack = Stack(cpu)
    parameters = [stack.pop(width) for _ in range(count)]
    base, limit = segments.base_of(low, high), segments.limit_of(low, high)
    values = [*old, *reversed(parameters), d[_CS] & 0xFFFF, back]
    segments.push_all(cpu, values, width, esp, base, limit, high, selector & 0xFFFC, user=False)
    segments.set_accessed(cpu, selector, high)
    env.set_segment(Seg.SS, selector, base, limit, high | 1 << 8)


# RET and IRET


def far_return(cpu: Cpu, ins: Instruction) -> None:
    """RETF (CB) and RETF imm16 (CA) in protected mode."""
    release = int.from_bytes(ins.data[ins.length : ins.length + 2], "little") if ins.opcode == 0xCA else 0
    stack = Stack(cpu)
    size = ins.operand_size
    ip = stack.pop(size)
    selector = stack.pop(size) & 0xFFFF
    code = _return_code(cpu, selector)
    if code.cpl == cpu.env.cpl:
        _check_target(cpu, code, ip)
        stack.skip(release)
        _enter(cpu, code, ip)
        cpu.env.q[4] = stack.pointer
        return
    stack.skip(release)
    sp = stack.pop(size)
    ss = stack.pop(size) & 0xFFFF
    _outward(cpu, code, ip, ss, sp, release)


def _return_code(cpu: Cpu, selector: int) -> _Code:
    """The code segment to return to, checked."""
    if not selector & 0xFFFC:
        raise Fault(_GP, 0)
    low, high = _load(cpu, selector)
    code = selector & 0xFFFC
    rpl, dpl = selector & 3, high >> 13 & 3
    if high >> 11 & 3 != 3 or rpl < cpu.env.cpl:
        raise Fault(_GP, code)
    if dpl > rpl if high & 1 << 10 else dpl != rpl:
        raise Fault(_GP, code)
    target = _Code(selector, low, high, rpl)
    _check_size_bits(cpu, target)
    if not high & _PRESENT:
        raise Fault(_NP, code)
    return target


def _outward(cpu: Cpu, code: _Code, ip: int, ss: int, sp: int, release: int) -> None:
    """Return to an outer ring (or, by IRET, anywhere from 64-bit mode): SS and RSP, then CS and RIP."""
    env = cpu.env
    s_low = s_high = 0
    error = ss & 0xFFFC
    if not error:
        # A null SS is only for 64-bit code outside of ring 3.
        if not (env.long_mode and code.long) or code.cpl == 3 or ss & 3 != code.cpl:
            raise Fault(_GP, 0)
    else:
        if ss & 3 != code.cpl:
            raise Fault(_GP, error)
        s_low, s_high = _load(cpu, ss)
        if s_high >> 8 & 0x1A != 0x12 or s_high >> 13 & 3 != code.cpl:
            raise Fault(_GP, error)
        if not s_high & _PRESENT:
            raise Fault(_SS, error)
    _check_target(cpu, code, ip)
    old = env.cpl
    if error:
        segments.set_accessed(cpu, ss, s_high)
        base, limit = segments.base_of(s_low, s_high), segments.limit_of(s_low, s_high)
        env.set_segment(Seg.SS, ss, base, limit, s_high | 1 << 8)
    else:
        env.set_segment(Seg.SS, ss, 0, 0, code.cpl << 13)
    _enter(cpu, code, ip)
    wide = env.d[HFLAGS] & HF.CS64 or (env.d[SS_FLAGS] & 1 << 22)
    sp += release
    if env.d[HFLAGS] & HF.CS64:
        env.q[4] = sp & M64
    elif wide:
        env.q[4] = sp & M32
    else:
        env.q[4] = env.q[4] & ~0xFFFF | sp & 0xFFFF
    if code.cpl > old:
        _drop_data_segments(cpu, code.cpl)
        env.update_hflags(code.cpl)


def _drop_data_segments(cpu: Cpu, cpl: int) -> None:
    """Null the data segments that the outer ring may not use."""
    env = cpu.env
    for segment in _DATA:
        i = selector_index(segment)
        flags = env.d[i + 5]
        if not flags & _PRESENT:
            continue
        # Data, or code that is not conforming, with DPL < CPL.
        if flags >> 10 & 3 != 3 and flags >> 13 & 3 < cpl:
            # The base stays behind the null selector.
            env.set_segment(segment, 0, env.q[base_index(segment)], 0, 0)


def iret(cpu: Cpu, size: int, length: int) -> None:
    """IRET, IRETD, IRETQ (``size`` 2, 4, 8) in every mode; ``length`` is the instruction's."""
    env = cpu.env
    flags = env.flags()
    if not env.q[CR] & 1:
        _iret_real(cpu, size, flags, vm=False)
        return
    if flags & FLAG.VM:
        if flags & FLAG.IOPL != FLAG.IOPL:
            raise Fault(_GP, 0)
        _iret_real(cpu, size, flags, vm=True)
        return
    if flags & FLAG.NT:
        if env.long_mode:
            raise Fault(_GP, 0)
        taskswitch.back(cpu, env.q[EIP] + length & env.ip_mask)
        return
    code64 = bool(env.d[HFLAGS] & HF.CS64)
    known = code64 and size == 8
    if known and cpu.routes.leave(flags):
        return
    stack = Stack(cpu)
    sp = ss = 0
    if code64:
        ip, selector, image, sp, ss = stack.pop_many(size, 5)
    else:
        ip, selector, image = stack.pop_many(size, 3)
    selector &= 0xFFFF
    cpl = env.cpl
    if size == 4 and image & FLAG.VM and not cpl and not env.long_mode:
        _to_virtual_8086(cpu, stack, ip, selector, image)
        return
    code = _return_code(cpu, selector)
    mask = IRET_FLAGS
    if cpl <= flags >> 12 & 3:
        mask |= FLAG.IF
    if cpl == 0:
        mask |= FLAG.IOPL | (FLAG.VIF | FLAG.VIP if size != 2 else 0)
    if size == 2:
        mask &= 0xFFFF
    if code.cpl > cpl or code64:
        if not code64:
            sp, ss = stack.pop_many(size, 2)
        _outward(cpu, code, ip, ss & 0xFFFF, sp, 0)
    else:
        _check_target(cpu, code, ip)
        _enter(cpu, code, ip)
        env.q[4] = stack.pointer
    cpu.load_flags(flags & ~mask | image & mask)
    if known:
        cpu.routes.learn_outward()


def _iret_real(cpu: Cpu, size: int, flags: int, vm: bool) -> None:
    """Real-address and virtual-8086 mode."""
    env = cpu.env
    stack = Stack(cpu)
    ip = stack.pop(size)
    selector = stack.pop(size) & 0xFFFF
    image = stack.pop(size)
    if ip > env.d[_CS + 4]:
        raise Fault(_GP, 0)
    mask = IRET_FLAGS | FLAG.IF | (0 if vm else FLAG.IOPL)
    if size == 2:
        mask &= 0xFFFF
    env.d[_CS] = selector
    env.q[CS_BASE] = selector << 4
    env.q[EIP] = ip
    env.q[4] = stack.pointer
    cpu.load_flags(flags & ~mask | image & mask)


def _to_virtual_8086(cpu: Cpu, stack: Stack, ip: int, cs: int, image: int) -> None:
    """IRETD from ring 0 to virtual-8086 mode."""
    env = cpu.env
    sp = stack.pop(4)
    selectors = [stack.pop(4) & 0xFFFF for _ in range(5)]
    if ip > 0xFFFF:
        raise Fault(_GP, 0)
    order = (Seg.SS, Seg.ES, Seg.DS, Seg.FS, Seg.GS)
    for segment, selector in ((Seg.CS, cs), *zip(order, selectors, strict=True)):
        # Present read/write accessed data of DPL 3, 64 KiB.
        env.set_segment(segment, selector, selector << 4, 0xFFFF, 0xF300)
    env.q[EIP] = ip
    env.q[4] = sp
    cpu.load_flags(image & 0x3F7FD7)
    env.update_hflags(3)
