"""RDMSR and WRMSR (SDM vol. 4; APM vol. 2 appendix A)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.devices.interrupts import MsrFault
from kvmscope.vmm.events import MsrEvent
from kvmscope.vmm.unicorn import paravirt
from kvmscope.vmm.unicorn.env import CR, EFER, EIP, M32, M64, NATIVE
from kvmscope.vmm.unicorn.faults import Fault, Unsupported
from kvmscope.x86.msrs import MISC_ENABLE, check_read, check_write, stored_value, unsupported_write

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["IA32_EFER", "IA32_TSC", "access", "read", "write"]

GP: Final = 13
IA32_TSC: Final = 0x10
IA32_TSC_ADJUST: Final = 0x3B
IA32_PKRS: Final = 0x6E1
HWCR: Final = 0xC0010015
_STATUS_WRITABLE: Final = 1 << 18
_XD_DISABLE: Final = 1 << 34
_NXE: Final = 1 << 11
IA32_SYSENTER_CS: Final = 0x174
IA32_EFER: Final = 0xC0000080


def _of_apic(cpu: Cpu, index: int) -> bool:
    """IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC registers: the local APIC's, if it has them."""
    return (index in (0x1B, 0x6E0) or 0x800 <= index < 0x900) and cpu.model.profile.has("apic")


def access(cpu: Cpu, write_access: bool) -> int:
    """Execute RDMSR or WRMSR at the current instruction; returns its length.  Raises `Fault`."""
    q = cpu.env.q
    index = q[1] & M32
    if write_access:
        value = q[0] & M32 | (q[2] & M32) << 32
        write(cpu, index, value)
    else:
        value = read(cpu, index)
        q[0], q[2] = value & M32, value >> 32
    cpu.host.record(MsrEvent(cpu.clock, q[EIP], cpu.vcpu, index, value, write_access))
    return 2


def read(cpu: Cpu, index: int) -> int:
    """The value of an MSR.  Raises `Fault` (#GP) if the profile has none such."""
    if _of_apic(cpu, index):
        try:
            found = cpu.host.read_msr(cpu.vcpu, index)
        except MsrFault:
            raise Fault(GP, 0) from None
        if found is not None:
            return found
    if check_read(index, cpu.model.profile) is not None:
        raise Fault(GP, 0)
    return _value(cpu, index)


def _value(cpu: Cpu, index: int) -> int:
    where = NATIVE.get(index)
    if where is not None:
        return cpu.env.q[where] & (M32 if index == IA32_SYSENTER_CS else M64)
    if index == IA32_EFER:
        return cpu.env.q[EFER]
    if index == IA32_TSC:
        return cpu.tsc
    value = cpu.msrs.get(index)
    return cpu.model.msr_resets.get(index, 0) if value is None else value


def write(cpu: Cpu, index: int, value: int) -> None:
    """Write an MSR.

    Raises `Fault` (#GP) for what the processor refuses, `Unsupported` for what it would do and the engine cannot.
    """
    if _of_apic(cpu, index):
        try:
            if cpu.host.write_msr(cpu.vcpu, index, value):
                return
        except MsrFault:
            raise Fault(GP, 0) from None
    profile = cpu.model.profile
    old = _value(cpu, index)
    status_writable = bool(cpu.msrs.get(HWCR, 0) & _STATUS_WRITABLE)
    if check_write(index, old, value, profile, status_writable=status_writable) is not None:
        raise Fault(GP, 0)
    reason = unsupported_write(index, value, profile)
    if reason is not None:
        raise Unsupported(reason)
    value = stored_value(index, old, value, profile)
    if index == IA32_EFER:
        _write_efer(cpu, old, value)
    elif index == IA32_TSC:
        _set_tsc(cpu, value, _value(cpu, IA32_TSC_ADJUST) + value - old)
    elif index == IA32_TSC_ADJUST:
        _set_tsc(cpu, cpu.tsc + value - old & M64, value)
    elif index in NATIVE:
        cpu.env.q[NATIVE[index]] = value
    else:
        cpu.set_msr(index, value)
        if index == IA32_PKRS:
            # Which accesses are checked has changed.
            cpu.break_slice()
        elif index in paravirt.CLOCKS:
            paravirt.enable_clock(cpu, index)


def _set_tsc(cpu: Cpu, value: int, adjust: int) -> None:
    """Change the TSC; IA32_TSC_ADJUST follows it (SDM vol. 3B section 19.17.3)."""
    cpu.tsc = value
    if cpu.model.profile.has("tsc_adjust"):
        cpu.set_msr(IA32_TSC_ADJUST, adjust & M64)
    paravirt.update_clock(cpu)


def _write_efer(cpu: Cpu, old: int, value: int) -> None:
    env = cpu.env
    # LME cannot change while paging is on (SDM vol. 3A section 9.8.5).
    if (value ^ old) & 0x100 and env.q[CR] & 1 << 31:
        raise Fault(GP, 0)
    # IA32_MISC_ENABLE can take execute-disable away.
    if value & ~old & _NXE and cpu.msrs.get(MISC_ENABLE, 0) & _XD_DISABLE:
        raise Fault(GP, 0)
    env.q[EFER] = value & ~0x400 | old & 0x400
    env.flush_tlb()
