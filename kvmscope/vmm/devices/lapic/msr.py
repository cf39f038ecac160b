"""The local APIC's MSRs: IA32_APIC_BASE, IA32_TSC_DEADLINE and the registers in x2APIC mode (SDM vol. 3A section 11.12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.devices.interrupts import MsrFault
from kvmscope.vmm.devices.lapic.registers import REGISTERS, Reg, Register

if TYPE_CHECKING:
    from kvmscope.vmm.devices.lapic.apic import LocalApic

__all__ = ["BSP", "EN", "EXTD", "IA32_APIC_BASE", "IA32_TSC_DEADLINE", "X2APIC", "read", "writable_bits", "write"]

IA32_APIC_BASE: Final = 0x1B
IA32_TSC_DEADLINE: Final = 0x6E0
X2APIC: Final = range(0x800, 0x900)
"""Reserved for the x2APIC as a whole; registers are up to 0x83f."""

BSP: Final = 1 << 8
EXTD: Final = 1 << 10
EN: Final = 1 << 11
_BASE_RESERVED: Final = 0x2FF

_TIMER_TSC_DEADLINE: Final = 1 << 18


def read(apic: LocalApic, index: int) -> int | None:
    """RDMSR; None: not an MSR of the local APIC.  Raises `MsrFault`."""
    if index == IA32_APIC_BASE:
        return apic.apic_base
    if index == IA32_TSC_DEADLINE and apic.has_tsc_deadline:
        return apic.timer.tsc_deadline
    if index not in X2APIC:
        return None
    register = _register(apic, index, "r")
    value = apic.load(register.offset)
    return value | apic.load(Reg.ICR_HIGH) << 32 if register.offset == Reg.ICR else value


def write(apic: LocalApic, index: int, value: int) -> bool:
    """WRMSR; False: not an MSR of the local APIC.  Raises `MsrFault`."""
    if index == IA32_APIC_BASE:
        _write_base(apic, value)
    elif index == IA32_TSC_DEADLINE and apic.has_tsc_deadline:
        apic.timer.set_tsc_deadline(value)
    elif index in X2APIC:
        register = _register(apic, index, "w")
        high = value >> 32
        if register.offset == Reg.ICR:
            value &= 0xFFFFFFFF
        writable = writable_bits(apic, register)
        if value & ~(writable | register.ignored):
            raise MsrFault(f"reserved bits of {register.name}")
        if register.offset == Reg.ICR:
            apic.values[Reg.ICR_HIGH] = high
        apic.store(register.offset, value & writable)
    else:
        return False
    return True


def writable_bits(apic: LocalApic, register: Register) -> int:
    """The bits that a write sets: the timer has TSC-deadline mode only on processors that have it."""
    deadline = register.offset == Reg.LVT_TIMER and apic.has_tsc_deadline
    return register.writable | (_TIMER_TSC_DEADLINE if deadline else 0)


def _register(apic: LocalApic, index: int, access: str) -> Register:
    register = REGISTERS.get(index - X2APIC.start << 4)
    if register is None or not apic.x2apic_mode or access not in register.x2apic:
        raise MsrFault(f"no such x2APIC register: {index:#x}")
    return register


def _write_base(apic: LocalApic, value: int) -> None:
    """Every transition of figure 11-27; the BSP flag is as software writes it (SDM vol. 4)."""
    reserved = _BASE_RESERVED | ~((1 << apic.maxphyaddr) - 1) | (0 if apic.has_x2apic else EXTD)
    if value & reserved:
        raise MsrFault("reserved bits of IA32_APIC_BASE")
    mode, wanted = apic.apic_base & (EN | EXTD), value & (EN | EXTD)
    if wanted == EXTD:
        raise MsrFault("IA32_APIC_BASE: EXTD without EN")
    if mode == EN | EXTD and wanted == EN:
        raise MsrFault("IA32_APIC_BASE: from x2APIC to xAPIC mode")
    if not mode and wanted == EN | EXTD:
        raise MsrFault("IA32_APIC_BASE: from disabled to x2APIC mode")
    apic.set_apic_base(value)
