"""#GP(0) of MOV to control and debug registers, LMSW, WRMSR, RDMSR and XSETBV.

The rules are those of SDM vol. 2B MOV (control registers), MOV (debug registers), vol. 2D WRMSR and XSETBV.
"""

from __future__ import annotations

from typing import Final

from kvmscope.debug.explain.model import Guest
from kvmscope.debug.explain.operands import Decoded, register_value
from kvmscope.debug.explain.traps import Cause
from kvmscope.x86.bitfields import CR0, CR4, Bit, defined_mask
from kvmscope.x86.msrs import check_read, check_write
from kvmscope.x86.paging import load_pdptes
from kvmscope.x86.paging.formats import is_canonical

__all__ = ["control_cause"]

_PE, _NW, _CD, _PG = 1, 1 << 29, 1 << 30, 1 << 31
_PAE, _LA57, _PCIDE = 1 << 5, 1 << 12, 1 << 17
_LMA, _LME = 1 << 10, 1 << 8
_CR8_DEFINED: Final = 0xF
_EFER: Final = 0xC0000080
_MSR_REGISTERS: Final = {"rdmsr": "read", "wrmsr": "write"}


def _bits(mask: int) -> str:
    numbers = [str(bit) for bit in range(63, -1, -1) if mask >> bit & 1]
    return f"bit{'s' * (len(numbers) > 1)} {', '.join(numbers)}"


def _names(table: tuple[Bit, ...], mask: int) -> str:
    return ", ".join(bit.name for bit in table if bit.mask & mask)


def control_cause(guest: Guest, decoded: Decoded) -> tuple[str, Cause] | None:
    """(reference key, cause) of a #GP(0) by a system register's value; None when no rule shows it."""
    if decoded.mnemonic == "mov" and decoded.first == "reg":
        target = decoded.registers[0]
        value = register_value(guest, decoded.registers[1]) if len(decoded.registers) > 1 else None
        if value is None:
            return None
        if target.startswith("cr"):
            return _answer("cr", _control_register(guest, target, value), target, value)
        if target.startswith("dr"):
            return _answer("dr", _debug_register(target, value), target, value)
        return None
    if decoded.mnemonic in _MSR_REGISTERS:
        return _msr(guest, decoded)
    if decoded.mnemonic == "invpcid":
        return _invpcid(guest, decoded)
    if decoded.mnemonic == "xsetbv":
        value = guest.gpr("rdx") << 32 & 0xFFFFFFFF00000000 | guest.gpr("rax") & 0xFFFFFFFF
        return _answer("xsetbv", _xcr0(guest, value), "xcr0", value)
    return None


def _answer(key: str, words: str, target: str, value: int) -> tuple[str, Cause] | None:
    return (key, (words, [f"{target.upper()} <- {value:#x}"])) if words else None


def _control_register(guest: Guest, name: str, value: int) -> str:
    cpu = guest.cpu
    if name == "cr0":
        return _cr0(guest, value)
    if name == "cr4":
        reserved = value & ~defined_mask(CR4)
        if reserved:
            return f"CR4 reserved {_bits(reserved)} set"
        profile = guest.profile
        lacking = value & ~profile.cr4_valid if profile is not None else 0
        if profile is not None and lacking:
            return f"CR4.{_names(CR4, lacking)} set: the {profile.name} profile lacks the feature"
        if guest.long_mode and not value & _PAE:
            return "CR4.PAE cannot be cleared in IA-32e mode"
        if guest.long_mode and (value ^ cpu.cr4) & _LA57:
            return "CR4.LA57 cannot change in IA-32e mode"
        if value & _PCIDE and not cpu.cr4 & _PCIDE:
            if not guest.long_mode:
                return "CR4.PCIDE cannot be set outside of IA-32e mode"
            if cpu.cr3 & 0xFFF:
                return f"CR4.PCIDE cannot be set while CR3[11:0] = {cpu.cr3 & 0xFFF:#x}"
        if value >> 23 & 1 and not cpu.cr0 >> 16 & 1:
            return "CR4.CET cannot be set while CR0.WP = 0"
        return ""
    if name == "cr3":
        if cpu.cr4 & _PCIDE:
            # Bit 63 asks to keep translations.
            value &= ~(1 << 63)
        width = guest.profile.maxphyaddr if guest.profile is not None else 52
        if value >> width:
            return f"CR3 {_bits(value >> width << width)} set: physical addresses have {width} bits"
        if guest.long_mode:
            return ""
        if cpu.cr0 & _PG and cpu.cr4 & _PAE:
            return load_pdptes(guest.memory, value)[1]
        return ""
    if name == "cr8" and value & ~_CR8_DEFINED:
        return f"CR8 reserved {_bits(value & ~_CR8_DEFINED)} set"
    return ""


def _cr0(guest: Guest, value: int) -> str:
    cpu = guest.cpu
    if value >> 32:
        return f"CR0 {_bits(value & ~0xFFFFFFFF & ~defined_mask(CR0))} set: bits 63:32 are reserved"
    if value & _PG and not value & _PE:
        return "CR0.PG = 1 with PE = 0"
    if value & _NW and not value & _CD:
        return "CR0.NW = 1 with CD = 0"
    if not value & _PG and cpu.cr0 & _PG:
        if guest.bits == 64:
            return "CR0.PG cannot be cleared in 64-bit mode"
        if cpu.cr4 & _PCIDE:
            return "CR0.PG cannot be cleared while CR4.PCIDE = 1"
    if value & _PG and not cpu.cr0 & _PG:
        if cpu.efer & _LME and not cpu.cr4 & _PAE:
            return "CR0.PG = 1 with EFER.LME = 1 and CR4.PAE = 0"
        if cpu.efer & _LME and cpu.segments[1].long:
            return "CR0.PG = 1 with EFER.LME = 1 while CS.L = 1"
        if cpu.cr4 & _PAE and not cpu.efer & _LME:
            return load_pdptes(guest.memory, cpu.cr3)[1]
    if not value >> 16 & 1 and cpu.cr4 >> 23 & 1:
        return "CR0.WP cannot be cleared while CR4.CET = 1"
    return ""


def _debug_register(name: str, value: int) -> str:
    if name in ("dr6", "dr7", "dr4", "dr5") and value >> 32:
        return f"{name.upper()} bits 63:32 must be 0"
    return ""


def _invpcid(guest: Guest, decoded: Decoded) -> tuple[str, Cause] | None:
    """INVPCID's type and descriptor (SDM vol. 2A)."""
    kind = register_value(guest, decoded.registers[0]) if decoded.registers else None
    raw = [guest.word(operand.linear + i, 8) for operand in decoded.memory[:1] for i in (0, 8)]
    if kind is None or len(raw) < 2 or raw[0] is None or raw[1] is None:
        return None
    pcid, address = raw[0], raw[1]
    words = ""
    if kind > 3:
        words = f"INVPCID type {kind:#x}: types are 0 to 3"
    elif pcid >> 12:
        words = f"the INVPCID descriptor's reserved {_bits(pcid & ~0xFFF)} set"
    elif kind < 2 and pcid and not guest.cpu.cr4 & _PCIDE:
        words = f"INVPCID of PCID {pcid:#x} with CR4.PCIDE = 0"
    elif kind == 0 and guest.profile is not None and not is_canonical(address, guest.profile.linear_bits):
        words = f"the INVPCID descriptor's address {address:#x} is not canonical"
    return ("cr", (words, [f"type {kind:#x}, PCID {pcid:#x}, address {address:#x}"])) if words else None


def _xcr0(guest: Guest, value: int) -> str:
    index = guest.gpr("rcx") & 0xFFFFFFFF
    if index:
        return f"XCR{index} does not exist"
    if not value & 1:
        return "XCR0[0] (x87) must be 1"
    if value & 4 and not value & 2:
        return "XCR0[2] (AVX) needs XCR0[1] (SSE)"
    if (value >> 3 & 3) in (1, 2):
        return "XCR0[4:3] (MPX) must be set together"
    if value >> 5 & 7 not in (0, 7) or (value >> 5 & 7 and not value & 4):
        return "XCR0[7:5] (AVX-512) must be set together, and need AVX"
    if value >> 17 & 3 in (1, 2):
        return "XCR0[18:17] (AMX) must be set together"
    profile = guest.profile
    lacking = value & ~profile.xcr0_valid if profile is not None else 0
    if profile is not None and lacking:
        return f"XCR0 {_bits(lacking)} set: the {profile.name} profile lacks the feature"
    return ""


def _msr(guest: Guest, decoded: Decoded) -> tuple[str, Cause] | None:
    """RDMSR and WRMSR by the profile's table; None where the profile is not known or the table has no objection."""
    index = guest.gpr("rcx") & 0xFFFFFFFF
    profile = guest.profile
    if profile is None:
        return None
    if decoded.mnemonic == "rdmsr":
        words = check_read(index, profile)
        lines = [f"ECX = {index:#x}"]
    else:
        value = (guest.gpr("rdx") & 0xFFFFFFFF) << 32 | guest.gpr("rax") & 0xFFFFFFFF
        old = guest.cpu.efer if index == _EFER else guest.cpu.msrs.get(index, 0)
        words = check_write(index, old, value, profile)
        if words is None and index == _EFER and (value ^ old) & _LME and guest.cpu.cr0 & _PG:
            words = f"IA32_EFER.LME cannot change while CR0.PG = 1 ({old:#x} -> {value:#x})"
        lines = [f"ECX = {index:#x}, EDX:EAX = {value:#x}, the MSR holds {old:#x}"]
    return ("msr", (words, lines)) if words else None
