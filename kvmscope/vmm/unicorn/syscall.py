"""SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM vol. 2B; APM vol. 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn.env import CR, EFER, EIP, FLAG, HF, HFLAGS, M32, M64, NATIVE
from kvmscope.vmm.unicorn.faults import Fault
from kvmscope.vmm.unicorn.memory import canonical
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.vmm.unicorn.decode import Instruction

__all__ = ["syscall", "sysenter", "sysexit", "sysret"]

_UD, _GP = 6, 13
_STAR, _LSTAR, _CSTAR, _FMASK = (NATIVE[i] for i in (0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084))
_SYSENTER_CS, _SYSENTER_ESP, _SYSENTER_EIP = (NATIVE[i] for i in (0x174, 0x175, 0x176))
_FLAT: Final = 0xFFFFFFFF
_CODE64: Final = 0xAF9B00
_CODE32: Final = 0xCF9B00
_DATA: Final = 0xCF9300


def _segments(cpu: Cpu, cs: int, ss: int, code: int, cpl: int) -> None:
    ring = cpl << 13
    cpu.env.set_segment(Seg.CS, cs & 0xFFFC | cpl, 0, _FLAT, code | ring)
    cpu.env.set_segment(Seg.SS, ss & 0xFFFC | cpl, 0, _FLAT, _DATA | ring)
    cpu.env.update_hflags(cpl)


def syscall(cpu: Cpu, ins: Instruction) -> None:
    """SYSCALL.  Raises `Fault` (#UD)."""
    env = cpu.env
    q = env.q
    code64 = bool(env.d[HFLAGS] & HF.CS64)
    if not q[EFER] & 1 or not q[CR] & 1 or q[17] & FLAG.VM or (cpu.model.intel and not code64):
        raise Fault(_UD)
    flags = env.flags()
    star = q[_STAR]
    cs = star >> 32 & 0xFFFF
    back = q[EIP] + ins.length & env.ip_mask
    if env.long_mode:
        q[1] = back
        q[11] = flags
        target = q[_LSTAR] if code64 else q[_CSTAR]
        _segments(cpu, cs, cs + 8, _CODE64, 0)
        env.set_flags(flags & ~q[_FMASK])
        q[EIP] = target
    else:
        # Legacy mode (AMD): EIP from STAR, and only IF, VM and RF are cleared.
        q[1] = back & M32
        _segments(cpu, cs, cs + 8, _CODE32, 0)
        env.set_flags(flags & ~(FLAG.VM | FLAG.IF))
        q[EIP] = star & M32


def sysret(cpu: Cpu, ins: Instruction) -> None:
    """SYSRET.  Raises `Fault` (#UD, #GP)."""
    env = cpu.env
    q = env.q
    code64 = bool(env.d[HFLAGS] & HF.CS64)
    if not q[EFER] & 1 or not q[CR] & 1 or q[17] & FLAG.VM or (cpu.model.intel and not code64):
        raise Fault(_UD)
    if env.cpl:
        raise Fault(_GP, 0)
    selector = q[_STAR] >> 48 & 0xFFFF
    wide = ins.operand_size == 8
    target = q[1] if wide else q[1] & M32
    # Intel checks the return address still in ring 0; AMD lets the fetch fault in ring 3.
    if cpu.model.intel and wide and not canonical(target, cpu.memory.linear_bits):
        raise Fault(_GP, 0)
    long = env.long_mode
    flags = q[11] & 0x3C7FD7 if long else env.flags() | FLAG.IF
    ss = selector + 8
    stack = env.segment(Seg.SS)
    if wide:
        _segments(cpu, selector + 16, ss, _CODE64, 3)
    else:
        _segments(cpu, selector, ss, _CODE32, 3)
    if not cpu.model.intel:
        # AMD loads the selector of SS only.
        flags_word = (stack.attributes & 0xF0FF) << 8
        env.set_segment(Seg.SS, ss & 0xFFFC | 3, stack.base, stack.limit, flags_word)
        env.update_hflags(3)
    q[EIP] = target & M64
    cpu.load_flags(flags)


def sysenter(cpu: Cpu, ins: Instruction) -> None:
    """SYSENTER.  Raises `Fault` (#UD, #GP)."""
    env = cpu.env
    q = env.q
    if not cpu.model.profile.has("sep") or (not cpu.model.intel and env.long_mode):
        raise Fault(_UD)
    if not q[CR] & 1:
        raise Fault(_GP, 0)
    cs = q[_SYSENTER_CS] & 0xFFFF
    if not cs & 0xFFFC:
        raise Fault(_GP, 0)
    long = env.long_mode
    flags = env.flags()
    esp, eip = q[_SYSENTER_ESP], q[_SYSENTER_EIP]
    env.set_flags(flags & ~(FLAG.VM | FLAG.IF))
    _segments(cpu, cs, (cs & 0xFFFC) + 8, _CODE64 if long else _CODE32, 0)
    q[4] = esp if long else esp & M32
    q[EIP] = eip if long else eip & M32


def sysexit(cpu: Cpu, ins: Instruction) -> None:
    """SYSEXIT.  Raises `Fault` (#UD, #GP)."""
    env = cpu.env
    q = env.q
    if not cpu.model.profile.has("sep") or (not cpu.model.intel and env.long_mode):
        raise Fault(_UD)
    cs = q[_SYSENTER_CS] & 0xFFFF
    if not q[CR] & 1 or not cs & 0xFFFC or env.cpl:
        raise Fault(_GP, 0)
    wide = ins.operand_size == 8
    sp, ip = q[1], q[2]
    if wide:
        bits = cpu.memory.linear_bits
        if not canonical(sp, bits) or not canonical(ip, bits):
            raise Fault(_GP, 0)
        _segments(cpu, cs + 32, cs + 40, _CODE64, 3)
        q[4], q[EIP] = sp, ip
    else:
        _segments(cpu, cs + 16, cs + 24, _CODE32, 3)
        q[4], q[EIP] = sp & M32, ip & M32
