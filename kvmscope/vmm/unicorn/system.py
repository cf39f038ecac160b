"""Instructions that Unicorn executes wrongly and does not report: executed or checked here.

Each function returns True when it has completed the instruction (RIP is after it) and False when Unicorn may go on
with it.  Raises `Fault` or `Unsupported`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn import checks, decode, msrs, segments, syscall, transfer, x87
from kvmscope.vmm.unicorn.env import CR, EIP, FLAG, HF, HFLAGS, M32, TR_BASE, TR_FLAGS, TR_LIMIT, XCR0
from kvmscope.vmm.unicorn.faults import Fault, Unsupported
from kvmscope.vmm.unicorn.memory import canonical
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.vmm.unicorn.decode import Instruction

__all__ = ["HANDLERS", "Kind"]

_UD, _SS, _GP = 6, 12, 13
_PERFCTR0: Final = 0xC0010004


class Kind:
    """Why an instruction is trapped."""

    FAR_JUMP: Final = "far jump"
    FAR_CALL: Final = "far call"
    FAR_RETURN: Final = "far return"
    NEAR_CALL: Final = "indirect near call"
    SYSCALL: Final = "SYSCALL"
    SYSRET: Final = "SYSRET"
    SYSENTER: Final = "SYSENTER"
    SYSEXIT: Final = "SYSEXIT"
    XSETBV: Final = "XSETBV"
    BASE: Final = "WRFSBASE or WRGSBASE"
    STACK_SEGMENT: Final = "load of SS"
    ACCESS_RIGHTS: Final = "LAR or LSL"
    MXCSR: Final = "load of MXCSR"
    UNDEFINED: Final = "undefined instruction"
    BRANCH16: Final = "66-prefixed near branch"
    ALIGNED: Final = "aligned SSE operand"
    INVLPG: Final = "INVLPG"
    PORT: Final = "port I/O"
    MEMORY: Final = "memory operand that may fault"
    FETCH: Final = "code beyond the segment's limit"
    SEGMENT: Final = "load of a segment register"
    CMPXCHG: Final = "CMPXCHG8B or CMPXCHG16B"
    UMIP: Final = "SGDT, SIDT, SLDT, STR or SMSW"
    RDPMC: Final = "RDPMC"
    SSE4A: Final = "SSE4A instruction"
    X87: Final = "x87 or MMX instruction that may raise #MF"
    X87_CONTROL: Final = "load of the x87 control word"


def _protected(cpu: Cpu) -> bool:
    return bool(cpu.env.q[CR] & 1) and not cpu.env.q[17] & FLAG.VM


def _far(cpu: Cpu, ins: Instruction, call: bool) -> bool:
    if ins.lock:
        raise Fault(_UD)
    if _protected(cpu):
        transfer.far_call_or_jump(cpu, ins, call)
        return True
    # Real and virtual-8086 mode: Unicorn leaves out only the limit.
    if ins.opcode == 0xFF:
        ip = decode.read_operand(cpu, ins, ins.operand_size)
    else:
        ip = int.from_bytes(ins.data[ins.length : ins.length + ins.operand_size], "little")
    if ip > cpu.env.segment(Seg.CS).limit:
        raise Fault(_GP, 0)
    return False


def _far_jump(cpu: Cpu, ins: Instruction) -> bool:
    return _far(cpu, ins, call=False)


def _far_call(cpu: Cpu, ins: Instruction) -> bool:
    return _far(cpu, ins, call=True)


def _far_return(cpu: Cpu, ins: Instruction) -> bool:
    if ins.lock:
        raise Fault(_UD)
    if not _protected(cpu):
        return False
    transfer.far_return(cpu, ins)
    return True


def _near_call(cpu: Cpu, ins: Instruction) -> bool:
    """Unicorn would push the return address before it finds the target non-canonical."""
    if ins.lock:
        raise Fault(_UD)
    if not canonical(decode.read_operand(cpu, ins, 8), cpu.memory.linear_bits):
        raise Fault(_GP, 0)
    return False


def _syscall(cpu: Cpu, ins: Instruction) -> bool:
    syscall.syscall(cpu, ins)
    return True


def _sysret(cpu: Cpu, ins: Instruction) -> bool:
    syscall.sysret(cpu, ins)
    return True


def _sysenter(cpu: Cpu, ins: Instruction) -> bool:
    syscall.sysenter(cpu, ins)
    return True


def _sysexit(cpu: Cpu, ins: Instruction) -> bool:
    syscall.sysexit(cpu, ins)
    return True


def _xsetbv(cpu: Cpu, ins: Instruction) -> bool:
    """XSETBV (SDM vol. 2D)."""
    env = cpu.env
    q = env.q
    if ins.lock or ins.rep or ins.size_prefix or not q[CR + 4] & 1 << 18:
        raise Fault(_UD)
    if env.cpl or q[1] & M32:
        raise Fault(_GP, 0)
    value = q[0] & M32 | (q[2] & M32) << 32
    if value & ~cpu.model.xcr0_valid or not value & 1:
        raise Fault(_GP, 0)
    cpu.note_register("xcr0", q[XCR0], value)
    q[XCR0] = value
    q[EIP] = q[EIP] + ins.length & env.ip_mask
    return True


def _base(cpu: Cpu, ins: Instruction) -> bool:
    """WRFSBASE, WRGSBASE: a non-canonical base is #GP(0), after #UD for CR4.FSGSBASE = 0."""
    if (
        cpu.env.q[CR + 4] & 1 << 16
        and ins.operand_size == 8
        and not canonical(cpu.env.q[ins.rm], cpu.model.linear_bits)
    ):
        raise Fault(_GP, 0)
    return False


def _stack_segment(cpu: Cpu, ins: Instruction) -> bool:
    """MOV SS in 64-bit mode: a null selector needs RPL = CPL (SDM vol. 2B MOV)."""
    selector = decode.read_operand(cpu, ins, 2)
    if not selector & 0xFFFC and selector & 3 != cpu.env.cpl:
        raise Fault(_GP, 0)
    return False


_LAR_LEGACY: Final = frozenset({1, 2, 3, 4, 5, 9, 11, 12})
_LAR_LONG: Final = frozenset({2, 9, 11, 12})
_LSL_LEGACY: Final = frozenset({1, 2, 3, 9, 11})
_LSL_LONG: Final = frozenset({2, 9, 11})


def _access_rights(cpu: Cpu, ins: Instruction) -> bool:
    """LAR and LSL: Unicorn forgets that IA-32e mode has fewer valid types."""
    env = cpu.env
    if ins.lock:
        raise Fault(_UD)
    if not _protected(cpu):
        return False
    lar = ins.opcode == 2
    selector = decode.read_operand(cpu, ins, 2) & 0xFFFF
    flags = env.flags() & ~FLAG.ZF
    descriptor = segments.read_descriptor(cpu, selector) if selector & 0xFFFC else None
    if descriptor is not None:
        low, high = descriptor
        dpl = high >> 13 & 3
        reachable = dpl >= env.cpl and dpl >= selector & 3
        if high & 1 << 12:
            good = reachable or high >> 10 & 3 == 3
        else:
            long = env.long_mode
            types = (_LAR_LONG if long else _LAR_LEGACY) if lar else (_LSL_LONG if long else _LSL_LEGACY)
            good = reachable and high >> 8 & 0xF in types
        if good:
            flags |= FLAG.ZF
            value = high & 0x00F0FF00 if lar else segments.limit_of(low, high)
            if ins.operand_size == 2:
                env.q[ins.reg] = env.q[ins.reg] & ~0xFFFF | value & 0xFFFF
            else:
                env.q[ins.reg] = value
    env.set_flags(flags)
    env.q[EIP] = env.q[EIP] + ins.length & env.ip_mask
    return True


def _mxcsr(cpu: Cpu, ins: Instruction) -> bool:
    """LDMXCSR, FXRSTOR, XRSTOR: reserved bits are #GP(0), and unmasked exceptions would never be raised."""
    h = cpu.env.d[HFLAGS]
    # EM, TS and (for LDMXCSR) a missing OSFXSR come first; Unicorn raises them.
    if ins.lock or h & 3 << 10 or (ins.reg & 7 == 2 and not h & HF.OSFXSR):
        return False
    if ins.reg & 7 != 2:
        # They load the x87 control word too.
        cpu.break_slice()
    if ins.reg & 7 == 5:
        if not cpu.env.q[CR + 4] & 1 << 18:
            return False
        wanted = cpu.env.q[0] & cpu.env.q[XCR0]
        present = decode.read_operand(cpu, ins, 8, 512)
        if not wanted & 2 or not present & 2:
            return False
    value = decode.read_operand(cpu, ins, 4, 0 if ins.reg & 7 == 2 else 24)
    if value & ~0xFFFF:
        raise Fault(_GP, 0)
    if value & 0x1F80 != 0x1F80:
        raise Unsupported(f"MXCSR = {value:#x} unmasks SSE exceptions (#XM), which are never raised")
    return False


def _undefined(_cpu: Cpu, _ins: Instruction) -> bool:
    raise Fault(_UD)


def _sse4a(cpu: Cpu, _ins: Instruction) -> bool:
    """EXTRQ, INSERTQ, MOVNTSS, MOVNTSD: Unicorn has them whatever CPUID says."""
    if not cpu.model.profile.has("sse4a"):
        raise Fault(_UD)
    return False


def _x87(cpu: Cpu, ins: Instruction) -> bool:
    x87.check(cpu, ins.opcode if not ins.map else 0)
    return False


def _x87_control(cpu: Cpu, _ins: Instruction) -> bool:
    """After this instruction pending exceptions may have to be looked for."""
    cpu.break_slice()
    return False


def _branch16(cpu: Cpu, ins: Instruction) -> bool:
    """A near branch with 66 in 64-bit mode: Intel ignores the prefix, AMD and Unicorn do not."""
    if cpu.model.intel:
        raise Unsupported("a near branch with a 66 prefix in 64-bit mode: Intel's processors ignore the prefix")
    return False


def _aligned(cpu: Cpu, ins: Instruction) -> bool:
    """A 16-byte SSE operand that must be aligned: #GP(0) where it is not."""
    where = decode.linear(cpu, ins, 16)
    if where & 15:
        h = cpu.env.d[HFLAGS]
        if not h & 3 << 10 and h & HF.OSFXSR:
            raise Fault(_GP, 0)
    return False


def _compare_exchange(cpu: Cpu, ins: Instruction) -> bool:
    """CMPXCHG8B, CMPXCHG16B: in the middle of a block Unicorn's lose CF, PF, AF, SF and OF."""
    env = cpu.env
    q = env.q
    width = 8 if ins.operand_size == 8 else 4
    if not cpu.model.profile.has("cx16" if width == 8 else "cx8"):
        raise Fault(_UD)
    where = decode.linear(cpu, ins, 2 * width)
    if width == 8 and where & 15:
        raise Fault(_GP, 0)
    user, stack = env.cpl == 3, ins.segment == Seg.SS
    # The destination is written whatever the outcome.
    cpu.memory.translate(where, True, user, stack=stack)
    raw = cpu.memory.read(where, 2 * width, user, stack=stack)
    mask = (1 << 8 * width) - 1
    found = int.from_bytes(raw, "little")
    flags = env.flags() & ~FLAG.ZF
    if found == q[0] & mask | (q[2] & mask) << 8 * width:
        flags |= FLAG.ZF
        raw = (q[3] & mask | (q[1] & mask) << 8 * width).to_bytes(2 * width, "little")
    else:
        q[0], q[2] = found & mask, found >> 8 * width
    cpu.memory.write(where, raw, user, stack=stack)
    env.set_flags(flags)
    q[EIP] = q[EIP] + ins.length & env.ip_mask
    return True


def _umip(cpu: Cpu, ins: Instruction) -> bool:
    """User-mode instruction prevention (SDM vol. 3A section 2.5, CR4.UMIP); SMSW, which Unicorn cuts to 16 bits."""
    env = cpu.env
    # In virtual-8086 mode SLDT and STR do not exist, which comes first.
    if env.q[CR + 4] & 1 << 11 and env.cpl and (ins.opcode == 1 or _protected(cpu)):
        raise Fault(_GP, 0)
    if ins.opcode != 1 or ins.reg & 7 != 4 or ins.mod != 3:
        return False
    # SMSW of a 32-bit register leaves the upper half undefined in the manual; processors store all of CR0.
    decode.write_operand(cpu, ins, ins.operand_size, env.q[CR])
    env.q[EIP] = env.q[EIP] + ins.length & env.ip_mask
    return True


def _rdpmc(cpu: Cpu, ins: Instruction) -> bool:
    """RDPMC: only AMD's profile has counters, and they stand still."""
    env = cpu.env
    q = env.q
    if ins.lock:
        raise Fault(_UD)
    if q[CR] & 1 and env.cpl and not q[CR + 4] & 1 << 8:
        raise Fault(_GP, 0)
    counter = q[1] & M32
    if cpu.model.intel or counter >= 4:
        raise Fault(_GP, 0)
    value = msrs.read(cpu, _PERFCTR0 + counter)
    q[0], q[2] = value & M32, value >> 32
    q[EIP] = q[EIP] + ins.length & env.ip_mask
    return True


def _memory(cpu: Cpu, ins: Instruction) -> bool:
    checks.check_memory(cpu, ins.data)
    return False


def _fetch(cpu: Cpu, ins: Instruction) -> bool:
    checks.check_fetch(cpu, len(ins.data))
    return False


def _segment(cpu: Cpu, _ins: Instruction) -> bool:
    """After this instruction other segments may have to be checked."""
    cpu.break_slice()
    return False


def _port(cpu: Cpu, ins: Instruction) -> bool:
    """The I/O permission bitmap of the TSS (SDM vol. 1 section 19.5.2), which Unicorn does not look at."""
    if cpu.ports_allowed:
        return False
    d, q = cpu.env.d, cpu.env.q
    # A 32-bit or 64-bit TSS; a 16-bit one has no bitmap.
    if not d[TR_FLAGS] & 1 << 11 or d[TR_LIMIT] < 0x67:
        raise Fault(_GP, 0)
    port = ins.data[ins.length] if ins.opcode & 0xF8 == 0xE0 else q[2] & 0xFFFF
    size = 1 if not ins.opcode & 1 else min(ins.operand_size, 4)
    offset = int.from_bytes(cpu.memory.read(q[TR_BASE] + 0x66, 2, implicit=True), "little") + (port >> 3)
    if offset + 1 > d[TR_LIMIT]:
        raise Fault(_GP, 0)
    bits = int.from_bytes(cpu.memory.read(q[TR_BASE] + offset, 2, implicit=True), "little") >> (port & 7)
    if bits & (1 << size) - 1:
        raise Fault(_GP, 0)
    return False


def _invlpg(cpu: Cpu, ins: Instruction) -> bool:
    """Python's accesses keep translations too."""
    if not cpu.env.cpl:
        cpu.env.tlb.clear()
        cpu.env.pages.clear()
    return False


HANDLERS: Final[dict[str, Callable[[Cpu, Instruction], bool]]] = {
    Kind.FAR_JUMP: _far_jump,
    Kind.FAR_CALL: _far_call,
    Kind.FAR_RETURN: _far_return,
    Kind.NEAR_CALL: _near_call,
    Kind.SYSCALL: _syscall,
    Kind.SYSRET: _sysret,
    Kind.SYSENTER: _sysenter,
    Kind.SYSEXIT: _sysexit,
    Kind.XSETBV: _xsetbv,
    Kind.BASE: _base,
    Kind.STACK_SEGMENT: _stack_segment,
    Kind.ACCESS_RIGHTS: _access_rights,
    Kind.MXCSR: _mxcsr,
    Kind.UNDEFINED: _undefined,
    Kind.BRANCH16: _branch16,
    Kind.ALIGNED: _aligned,
    Kind.INVLPG: _invlpg,
    Kind.PORT: _port,
    Kind.MEMORY: _memory,
    Kind.FETCH: _fetch,
    Kind.SEGMENT: _segment,
    Kind.CMPXCHG: _compare_exchange,
    Kind.UMIP: _umip,
    Kind.RDPMC: _rdpmc,
    Kind.SSE4A: _sse4a,
    Kind.X87: _x87,
    Kind.X87_CONTROL: _x87_control,
}
