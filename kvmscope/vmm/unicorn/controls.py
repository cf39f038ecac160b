"""Control and debug registers with every check of MOV (SDM vol. 2B MOV-CR, MOV-DR; vol. 3A section 2.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn.env import CR, CS_FLAGS, EFER, HF, HFLAGS, M32
from kvmscope.vmm.unicorn.faults import Fault
from kvmscope.vmm.unicorn.memory import PHYSICAL_BITS

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["WRITERS", "DebugFault", "read_dr", "write_cr0", "write_cr3", "write_cr4", "write_dr"]

PE, WP, NW, CD, PG = 1 << 0, 1 << 16, 1 << 29, 1 << 30, 1 << 31
_CR0_BITS: Final = 0xE005003F
_PAE, _PCIDE, _LA57 = 1 << 5, 1 << 17, 1 << 12
_KEEP: Final = 1 << 63
_PKS: Final = 1 << 24
_CR4_PDPTE: Final = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 20
"""PSE PAE PGE SMEP: a change reloads the PDPTEs (SDM vol. 3A section 4.4.1)."""
_LME, _LMA = 1 << 8, 1 << 10
_GP: Final = 13


class DebugFault(Exception):
    """#DB raised by an access to a debug register with DR7.GD."""


def _check_pdptes(cpu: Cpu, cr3: int) -> None:
    """A present PDPTE with a reserved bit set makes the write #GP(0)."""
    reserved = 0x1E6 | (1 << 64) - (1 << PHYSICAL_BITS)
    raw = cpu.memory.read_physical(cr3 & 0xFFFFFFE0, 32)
    for i in range(0, 32, 8):
        entry = int.from_bytes(raw[i : i + 8], "little")
        if entry & 1 and entry & reserved:
            raise Fault(_GP, 0)


def write_cr0(cpu: Cpu, value: int) -> None:
    """MOV to CR0, LMSW, CLTS.  Raises `Fault` (#GP)."""
    env = cpu.env
    q = env.q
    old, cr4, efer = q[CR], q[CR + 4], q[EFER]
    if value >> 32:
        raise Fault(_GP, 0)
    value = value & _CR0_BITS | 1 << 4
    if (value & PG and not value & PE) or (value & NW and not value & CD):
        raise Fault(_GP, 0)
    if value & PG and not old & PG:
        if efer & _LME:
            if not cr4 & _PAE or env.d[CS_FLAGS] & 1 << 21:
                raise Fault(_GP, 0)
            efer |= _LMA
        elif cr4 & _PAE:
            _check_pdptes(cpu, q[CR + 3])
    elif old & PG and not value & PG:
        if env.d[HFLAGS] & HF.CS64 or cr4 & _PCIDE:
            raise Fault(_GP, 0)
        efer &= ~_LMA
    elif value & PG and cr4 & _PAE and not efer & _LMA and (value ^ old) & (CD | NW):
        _check_pdptes(cpu, q[CR + 3])
    if value != old:
        cpu.note_register("cr0", old, value)
    q[CR], q[EFER] = value, efer
    env.update_hflags(env.cpl if value & PE else 0)
    if (value ^ old) & (PG | WP | PE):
        env.flush_tlb()


def write_cr2(cpu: Cpu, value: int) -> None:
    """MOV to CR2."""
    cpu.note_register("cr2", cpu.cr2, value)
    cpu.cr2 = cpu.env.q[CR + 2] = value


def write_cr3(cpu: Cpu, value: int) -> None:
    """MOV to CR3.  Raises `Fault` (#GP)."""
    env = cpu.env
    q = env.q
    if q[CR + 4] & _PCIDE:
        # Bit 63 asks to keep the translations of the PCID; it is not stored, and keeping them is no duty.
        value &= ~_KEEP
    if value >> PHYSICAL_BITS:
        raise Fault(_GP, 0)
    if q[CR] & PG and q[CR + 4] & _PAE and not env.d[HFLAGS] & HF.LMA:
        _check_pdptes(cpu, value)
    cpu.note_register("cr3", q[CR + 3], value)
    q[CR + 3] = value
    env.flush_tlb()


def write_cr4(cpu: Cpu, value: int) -> None:
    """MOV to CR4.  Raises `Fault` (#GP)."""
    env = cpu.env
    q = env.q
    old = q[CR + 4]
    if value & ~cpu.model.cr4_valid:
        raise Fault(_GP, 0)
    long = env.d[HFLAGS] & HF.LMA
    if long and (not value & _PAE or (value ^ old) & _LA57):
        raise Fault(_GP, 0)
    if value & ~old & _PCIDE and (not long or q[CR + 3] & 0xFFF):
        raise Fault(_GP, 0)
    if not long and q[CR] & PG and value & _PAE and (value ^ old) & _CR4_PDPTE:
        _check_pdptes(cpu, q[CR + 3])
    if value != old:
        cpu.note_register("cr4", old, value)
    if (value ^ old) & 1 << 3:
        cpu.debug_changed = True
        cpu.break_slice()
    q[CR + 4] = value
    if (value ^ old) & _PKS:
        cpu.break_slice()
    env.update_hflags(env.cpl)
    env.flush_tlb()


def write_cr8(cpu: Cpu, value: int) -> None:
    """MOV to CR8.  Raises `Fault` (#GP)."""
    if value >> 4:
        raise Fault(_GP, 0)
    cpu.note_register("cr8", cpu.cr8, value)
    cpu.host.set_cr8(cpu.vcpu, value)


WRITERS: Final[dict[int, Callable[[Cpu, int], None]]] = {
    0: write_cr0,
    2: write_cr2,
    3: write_cr3,
    4: write_cr4,
    8: write_cr8,
}


def _debug_index(cpu: Cpu, number: int) -> int:
    if number in (4, 5):
        if cpu.env.q[CR + 4] & 1 << 3:
            raise Fault(6)
        number += 2
    if cpu.dr[7] & 1 << 13:
        raise DebugFault
    return number


def read_dr(cpu: Cpu, number: int) -> int:
    """MOV from a debug register.  Raises `Fault` (#UD) or `DebugFault`."""
    return cpu.dr[_debug_index(cpu, number)]


def write_dr(cpu: Cpu, number: int, value: int) -> None:
    """MOV to a debug register.  Raises `Fault` (#UD, #GP) or `DebugFault`."""
    index = _debug_index(cpu, number)
    if index >= 6:
        if value >> 32:
            raise Fault(_GP, 0)
        # Writable: B0-3 BD BS BT; all but bits 10, 11, 12, 14, 15.
        value = value & 0xE00F | 0xFFFF0FF0 if index == 6 else value & 0xFFFF23FF | 0x400
    cpu.note_register(f"dr{index}", cpu.dr[index], value)
    cpu.dr[index] = value & (M32 if index >= 6 else (1 << 64) - 1)
    if index != 6:
        cpu.debug_changed = True
        cpu.break_slice()
