"""#UD: which bytes are undefined, and which mode bit, privilege level or prefix makes them so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kvmscope.debug.explain.model import Guest, hexbytes
from kvmscope.debug.explain.operands import Decoded, decode
from kvmscope.debug.explain.traps import Cause
from kvmscope.vmm.events import ExceptionEvent

__all__ = ["invalid_opcode"]

_NOT_IN_64: Final[dict[int, str]] = {
    0x06: "PUSH ES", 0x07: "POP ES", 0x0E: "PUSH CS", 0x16: "PUSH SS", 0x17: "POP SS", 0x1E: "PUSH DS",
    0x1F: "POP DS", 0x27: "DAA", 0x2F: "DAS", 0x37: "AAA", 0x3F: "AAS", 0x60: "PUSHA", 0x61: "POPA",
    0x82: "opcode 82", 0x9A: "far CALL ptr16", 0xCE: "INTO", 0xD4: "AAM", 0xD5: "AAD", 0xD6: "SALC",
    0xEA: "far JMP ptr16",
}  # fmt: skip
"""One-byte opcodes that 64-bit mode does not have (SDM vol. 2D table A-2, superscript i64)."""

_LOCKABLE: Final = frozenset({
    "add", "adc", "and", "btc", "btr", "bts", "cmpxchg", "cmpxchg8b", "cmpxchg16b", "dec", "inc", "neg", "not", "or",
    "sbb", "sub", "xor", "xadd", "xchg",
})  # fmt: skip
"""Instructions that LOCK may precede, with a memory destination (SDM vol. 2A LOCK)."""

_PROTECTED_ONLY: Final = frozenset({"lldt", "sldt", "ltr", "str", "arpl", "verr", "verw", "lar", "lsl"})
_VMX: Final = frozenset({
    "vmxon", "vmxoff", "vmlaunch", "vmresume", "vmclear", "vmptrld", "vmptrst", "vmread", "vmwrite", "invept", "invvpid",
})  # fmt: skip
_SVM: Final = frozenset({"vmrun", "vmload", "vmsave", "stgi", "clgi", "skinit", "invlpga"})


@dataclass(frozen=True, slots=True)
class _Rule:
    """When one of ``mnemonics`` raises #UD although it is a defined instruction."""

    mnemonics: frozenset[str]
    applies: Callable[[Guest], bool]
    words: str


def _cr4(bit: int) -> Callable[[Guest], bool]:
    return lambda guest: not guest.cpu.cr4 >> bit & 1


_RULES: Final = (
    _Rule(frozenset({"ud0", "ud1", "ud2"}), lambda g: True, "{name} is defined to raise #UD"),
    _Rule(_PROTECTED_ONLY, lambda g: not g.protected, "{name} does not exist in real-address and virtual-8086 mode"),
    _Rule(frozenset({"syscall", "sysret", "sysretq"}), lambda g: not g.cpu.efer & 1, "EFER.SCE = 0"),
    _Rule(frozenset({"sysret", "sysretq", "swapgs"}), lambda g: g.bits != 64, "{name} exists in 64-bit mode only"),
    _Rule(_VMX, _cr4(13), "CR4.VMXE = 0"),
    _Rule(_VMX - {"vmxon"}, lambda g: True, "the processor is not in VMX operation"),
    _Rule(_SVM, lambda g: not g.cpu.efer >> 12 & 1, "EFER.SVME = 0"),
    _Rule(frozenset({"xgetbv", "xsetbv", "xsave", "xrstor", "xsave64", "xrstor64", "xsaveopt", "xsavec", "xsaves"}),
          _cr4(18), "CR4.OSXSAVE = 0"),
    _Rule(frozenset({"rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase"}), _cr4(16), "CR4.FSGSBASE = 0"),
    _Rule(frozenset({"rdpkru", "wrpkru"}), _cr4(22), "CR4.PKE = 0"),
    _Rule(frozenset({"clac", "stac"}), lambda g: g.cpu.cpl > 0, "{name} at CPL {cpl}"),
    _Rule(frozenset({"monitor", "mwait"}), lambda g: g.cpu.cpl > 0, "{name} at CPL {cpl}"),
    _Rule(frozenset({"rsm"}), lambda g: True, "RSM outside of system-management mode"),
)  # fmt: skip


def _sse(guest: Guest, decoded: Decoded) -> str:
    """CR0.EM and CR4.OSFXSR for SSE instructions (SDM vol. 3A section 13.1.1), or empty."""
    if not any(word in decoded.operands for word in ("xmm", "mm0", "mm1", "mm2", "mm3", "mm4", "mm5", "mm6", "mm7")):
        return ""
    if guest.cpu.cr0 >> 2 & 1:
        return "an SSE or MMX instruction with CR0.EM = 1"
    if "xmm" in decoded.operands and not guest.cpu.cr4 >> 9 & 1:
        return "an SSE instruction with CR4.OSFXSR = 0"
    return ""


def _registers(guest: Guest, decoded: Decoded) -> str:
    """MOV to CS, to a control register that does not exist, to DR4 and DR5 with CR4.DE; or empty."""
    if decoded.mnemonic != "mov" or not decoded.registers:
        return ""
    if decoded.registers[0] == "cs" and decoded.first == "reg":
        return "CS cannot be loaded with MOV"
    for name in decoded.registers:
        if name.startswith("cr") and name[2:].isdigit() and int(name[2:]) not in (0, 2, 3, 4, 8):
            return f"{name.upper()} does not exist"
        if name in ("dr4", "dr5") and guest.cpu.cr4 >> 3 & 1:
            return f"{name.upper()} with CR4.DE = 1"
        if name.startswith("dr") and name[2:].isdigit() and int(name[2:]) > 7:
            return f"{name.upper()} does not exist"
    return ""


def _vector_prefix(guest: Guest, data: bytes) -> str:
    """VEX (C4, C5) or EVEX (62) with the state not enabled (SDM vol. 2A section 2.4), or empty."""
    first = data[0]
    if first not in (0xC4, 0xC5, 0x62) or (guest.bits != 64 and (len(data) < 2 or data[1] < 0xC0)):
        return ""
    name = "EVEX" if first == 0x62 else "VEX"
    if not guest.protected:
        return f"{name}-encoded instructions do not exist in real-address and virtual-8086 mode"
    if not guest.cpu.cr4 >> 18 & 1:
        return f"a {name}-encoded instruction with CR4.OSXSAVE = 0"
    if guest.cpu.xcr0 & 6 != 6:
        return f"a {name}-encoded instruction with XCR0 = {guest.cpu.xcr0:#x} (SSE and AVX state must be enabled)"
    return ""


def invalid_opcode(guest: Guest, event: ExceptionEvent, decoded: Decoded | None) -> Cause:
    """#UD from the bytes at RIP."""
    code = guest.code()
    if not code:
        return "cause not determined: the instruction bytes cannot be read", []
    opcode = _opcode_at(code, guest.bits)
    if guest.bits == 64 and opcode in _NOT_IN_64 and decoded is None:
        return f"{_NOT_IN_64[opcode]} does not exist in 64-bit mode", [f"bytes: {hexbytes(code[:4])}"]
    vector = _vector_prefix(guest, code)
    if vector:
        return vector, [f"bytes: {hexbytes(code[:8])}"]
    if decoded is None:
        if 0xF0 in code[:4]:
            without = _without_lock(guest, code)
            if without is not None:
                return f"LOCK before {without.mnemonic}, which cannot be locked", [f"bytes: {hexbytes(code[:8])}"]
        return "the bytes are no instruction", [f"bytes: {hexbytes(code)}"]
    lines = [f"bytes: {hexbytes(decoded.data)}"]
    for rule in _RULES:
        if decoded.mnemonic in rule.mnemonics and rule.applies(guest):
            return rule.words.format(name=decoded.mnemonic.upper(), cpl=guest.cpu.cpl), lines
    if decoded.lock:
        if decoded.mnemonic not in _LOCKABLE:
            return f"LOCK before {decoded.mnemonic.upper()}, which cannot be locked", lines
        if decoded.first != "mem":
            return f"LOCK {decoded.mnemonic.upper()} without a memory destination", lines
    found = _registers(guest, decoded) or _sse(guest, decoded)
    if found:
        return found, lines
    return f"cause not determined: {decoded.text} is defined; the CPU profile may lack its feature", lines


def _opcode_at(code: bytes, bits: int) -> int:
    """First opcode byte behind prefixes, -1 when there is none."""
    for byte in code:
        if byte in (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3):
            continue
        if bits == 64 and byte & 0xF0 == 0x40:
            continue
        return byte
    return -1


def _without_lock(guest: Guest, code: bytes) -> Decoded | None:
    """The instruction that stands behind the LOCK prefix."""
    return decode(guest, code.replace(b"\xf0", b"", 1))
