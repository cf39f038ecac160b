"""Instructions that Unicorn reports as SVM intercepts, executed here as the SDM says.

Unicorn checks CPL, prefixes and decoding before it reports; what it leaves out (reserved bits, canonical addresses,
unknown MSRs, descriptor types) is done here.  A handler returns when the instruction is complete, with RIP after it,
or raises `Fault`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.engine import EXIT_TIME, RDTSC_TIME, Activity
from kvmscope.vmm.unicorn import controls, decode, msrs, segments, transfer
from kvmscope.vmm.unicorn.env import (
    CR,
    EIP,
    ERROR_CODE,
    GDT_BASE,
    GDT_LIMIT,
    HF,
    HFLAGS,
    IDT_BASE,
    IDT_LIMIT,
    M32,
    NATIVE,
)
from kvmscope.vmm.unicorn.faults import Fault, Unsupported
from kvmscope.vmm.unicorn.memory import canonical
from kvmscope.x86.msrs import MISC_ENABLE
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["INTERCEPTS", "Intercept", "execute"]


class Intercept:
    """SVM exit codes (APM vol. 2 appendix C)."""

    INTR: Final = 0x60

    READ_CR0: Final = 0x00
    WRITE_CR0: Final = 0x10
    READ_DR0: Final = 0x20
    WRITE_DR0: Final = 0x30
    LIDT: Final = 0x6A
    LGDT: Final = 0x6B
    LLDT: Final = 0x6C
    LTR: Final = 0x6D
    RDTSC: Final = 0x6E
    CPUID: Final = 0x72
    IRET: Final = 0x74
    SWINT: Final = 0x75
    PAUSE: Final = 0x77
    HLT: Final = 0x78
    MSR: Final = 0x7C
    MONITOR: Final = 0x8A
    MWAIT: Final = 0x8B


def _advance(cpu: Cpu, length: int) -> None:
    env = cpu.env
    env.q[EIP] = env.q[EIP] + length & env.ip_mask


def _msr(cpu: Cpu) -> None:
    write_access = bool(cpu.env.d[ERROR_CODE])
    ins = decode.decode(cpu, decode.fetch(cpu), modrm=False)
    msrs.access(cpu, write_access)
    _advance(cpu, ins.length)


def _rdtsc(cpu: Cpu) -> None:
    ins = decode.decode(cpu, decode.fetch(cpu), modrm=False)
    q = cpu.env.q
    tsc = cpu.tsc
    q[0], q[2] = tsc & M32, tsc >> 32
    cpu.host.spend(RDTSC_TIME)
    length = ins.length
    if ins.opcode == 0x01:
        # RDTSCP (0F 01 F9)
        if not cpu.model.profile.has("rdtscp"):
            raise Fault(6)
        q[1] = q[NATIVE[0xC0000103]] & M32
        length += 1
    _advance(cpu, length)


def _cpuid(cpu: Cpu) -> None:
    ins = decode.decode(cpu, decode.fetch(cpu), modrm=False)
    q = cpu.env.q
    cpu.host.spend(EXIT_TIME)
    q[0], q[3], q[1], q[2] = cpu.model.cpuid(cpu, q[0] & M32, q[1] & M32)
    _advance(cpu, ins.length)


def _hlt(cpu: Cpu) -> None:
    ins = decode.decode(cpu, decode.fetch(cpu), modrm=False)
    _advance(cpu, ins.length)
    cpu.activity = Activity.HALTED
    cpu.break_slice()


def _pause(cpu: Cpu) -> None:
    """PAUSE: others have their turns, or some guest time passes."""
    ins = decode.decode(cpu, decode.fetch(cpu), modrm=False)
    _advance(cpu, ins.length)
    cpu.turn_over()


def _monitor(cpu: Cpu) -> None:
    """MONITOR: the address is checked as a load is; Unicorn has checked CPL and ECX."""
    length = _monitor_length(cpu)
    ins = decode.decode(cpu, decode.fetch(cpu), modrm=False)
    segment = Seg.DS if ins.segment_override is None else Seg(ins.segment_override)
    ins.segment, ins.offset = segment, cpu.env.q[0] & (1 << 8 * ins.address_size) - 1
    cpu.memory.read(decode.linear(cpu, ins, 1), 1)
    _advance(cpu, length)


def _mwait(cpu: Cpu) -> None:
    """MWAIT: it may end for any reason, and here ends at once; other processors have their turns."""
    length = _monitor_length(cpu)
    _advance(cpu, length)
    cpu.turn_over()


def _monitor_length(cpu: Cpu) -> int:
    """Raises `Fault` (#UD) where IA32_MISC_ENABLE has taken the instructions away."""
    if cpu.model.intel and not msrs.read(cpu, MISC_ENABLE) & 1 << 18:
        raise Fault(6)
    return decode.decode(cpu, decode.fetch(cpu), modrm=False).length + 1


def _control_write(cpu: Cpu) -> None:
    ins = decode.decode(cpu, decode.fetch(cpu), modrm=False)
    if ins.opcode == 0x06:
        controls.write_cr0(cpu, cpu.env.q[CR] & ~8)
        _advance(cpu, ins.length)
        return
    ins = decode.decode(cpu, ins.data)
    if ins.opcode == 0x01:
        # LMSW: PE MP EM TS, and PE cannot be cleared.
        value = decode.read_operand(cpu, ins, 2) & 0xF
        controls.write_cr0(cpu, cpu.env.q[CR] & ~0xE | value)
        _advance(cpu, ins.length)
        return
    # MOV CRn ignores the mod bits: the operand is always a register.
    if ins.lock:
        raise Fault(6)
    code64 = cpu.env.d[HFLAGS] & HF.CS64
    value = cpu.env.q[ins.rm] if code64 else cpu.env.q[ins.rm] & M32
    # The length is that of the prefixes, 0F 22 and ModRM; no SIB, no displacement.
    length = ins.prefix_length + 3
    controls.WRITERS[ins.reg](cpu, value)
    if ins.reg != 3:
        cpu.host.spend(EXIT_TIME)
    _advance(cpu, length)


def _control_read(cpu: Cpu) -> None:
    ins = decode.decode(cpu, decode.fetch(cpu))
    if ins.lock:
        raise Fault(6)
    if ins.reg != 8:
        raise Unsupported("a read of a control register that should not be intercepted")
    cpu.host.spend(EXIT_TIME)
    cpu.env.q[ins.rm] = cpu.cr8
    _advance(cpu, ins.prefix_length + 3)


def _debug_register(cpu: Cpu) -> None:
    ins = decode.decode(cpu, decode.fetch(cpu))
    code64 = cpu.env.d[HFLAGS] & HF.CS64
    q = cpu.env.q
    if ins.opcode == 0x23:
        controls.write_dr(cpu, ins.reg, q[ins.rm] if code64 else q[ins.rm] & M32)
    else:
        value = controls.read_dr(cpu, ins.reg)
        q[ins.rm] = value if code64 else value & M32
    _advance(cpu, ins.prefix_length + 3)


def _load_table(cpu: Cpu) -> None:
    """LGDT and LIDT (SDM vol. 2A)."""
    env = cpu.env
    ins = decode.decode(cpu, decode.fetch(cpu))
    code64 = env.d[HFLAGS] & HF.CS64
    size = 10 if code64 else 6
    raw = decode.read_operand(cpu, ins, size)
    limit, base = raw & 0xFFFF, raw >> 16
    if code64:
        if not canonical(base, cpu.model.linear_bits):
            raise Fault(13, 0)
    elif ins.operand_size == 2:
        base &= 0xFFFFFF
    if ins.reg & 7 == 2:
        env.q[GDT_BASE], env.d[GDT_LIMIT] = base, limit
    else:
        env.q[IDT_BASE], env.d[IDT_LIMIT] = base, limit
    _advance(cpu, ins.length)


def _system_segment(cpu: Cpu) -> None:
    """LLDT and LTR (SDM vol. 2A)."""
    env = cpu.env
    ins = decode.decode(cpu, decode.fetch(cpu))
    selector = decode.read_operand(cpu, ins, 2)
    code = selector & 0xFFFC
    task = ins.reg & 7 == 3
    if not code:
        if task:
            raise Fault(13, 0)
        env.set_segment(Seg.LDTR, selector, 0, 0, 0)
        _advance(cpu, ins.length)
        return
    long = bool(env.d[HFLAGS] & HF.LMA)
    if selector & 4:
        raise Fault(13, code)
    address = segments.descriptor_address(cpu, selector, 16 if long else 8)
    if address is None:
        raise Fault(13, code)
    raw = int.from_bytes(cpu.memory.read(address, 16 if long else 8, implicit=True), "little")
    low, high = raw & M32, raw >> 32 & M32
    kind = high >> 8 & 0x1F
    if kind not in ((9,) if task and long else (1, 9) if task else (2,)):
        raise Fault(13, code)
    if not high & 1 << 15:
        raise Fault(11, code)
    base = segments.base_of(low, high)
    if long:
        base |= (raw >> 64 & M32) << 32
        if raw >> 104 & 0x1F or not canonical(base, cpu.model.linear_bits):
            raise Fault(13, code)
    if task:
        cpu.memory.write(address + 5, bytes([high >> 8 & 0xFF | 2]), implicit=True)
    env.set_segment(Seg.TR if task else Seg.LDTR, selector, base, segments.limit_of(low, high), high)
    _advance(cpu, ins.length)


def _iret(cpu: Cpu) -> None:
    if cpu.nmi_blocked:
        # Also when IRET faults (SDM vol. 3A section 7.7.1).
        cpu.nmi_blocked = False
        if cpu.host.signals(cpu.vcpu).nmi:
            cpu.break_slice()
    data = decode.fetch(cpu, 2)
    if data == b"\x48\xcf" and cpu.env.d[HFLAGS] & HF.CS64:
        transfer.iret(cpu, 8, 2)
        return
    ins = decode.decode(cpu, decode.fetch(cpu), modrm=False)
    if ins.lock:
        raise Fault(6)
    transfer.iret(cpu, ins.operand_size, ins.length)


INTERCEPTS: Final[dict[int, Callable[[Cpu], None]]] = {
    Intercept.LIDT: _load_table,
    Intercept.LGDT: _load_table,
    Intercept.LLDT: _system_segment,
    Intercept.LTR: _system_segment,
    Intercept.RDTSC: _rdtsc,
    Intercept.CPUID: _cpuid,
    Intercept.HLT: _hlt,
    Intercept.PAUSE: _pause,
    Intercept.IRET: _iret,
    Intercept.MSR: _msr,
    Intercept.MONITOR: _monitor,
    Intercept.MWAIT: _mwait,
    Intercept.READ_CR0 + 8: _control_read,
    **{Intercept.WRITE_CR0 + n: _control_write for n in (0, 2, 3, 4, 8)},
    **{base + n: _debug_register for base in (Intercept.READ_DR0, Intercept.WRITE_DR0) for n in range(8)},
}
"""What executes each intercept; SWINT is the engine's own, because it is an event."""


def execute(cpu: Cpu, code: int) -> None:
    """Execute the instruction behind intercept ``code``.  Raises `Fault` or `Unsupported`."""
    handler = INTERCEPTS.get(code)
    if handler is None:
        raise Unsupported(f"intercept {code:#x}")
    handler(cpu)
