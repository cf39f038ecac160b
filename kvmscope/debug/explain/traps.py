"""Exceptions that the instruction and a few registers explain alone: #DE #DB #BP #OF #BR #NM #MF #AC #XM."""

from __future__ import annotations

from typing import Final

from kvmscope.debug.explain.model import Guest
from kvmscope.debug.explain.operands import Decoded, register_value
from kvmscope.vmm.events import ExceptionEvent
from kvmscope.x86.registers import register_width

__all__ = ["TRAPS", "Cause"]

Cause = tuple[str, list[str]]
"""(the rest of the title, further lines)."""

_NOT_DETERMINED: Final = "cause not determined: "


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 & 1 else value


def divide_error(guest: Guest, event: ExceptionEvent, decoded: Decoded | None) -> Cause:
    """#DE: the divisor is zero, or the quotient does not fit (SDM vol. 2A DIV, IDIV, AAM)."""
    if decoded is None or decoded.mnemonic not in ("div", "idiv", "aam"):
        return _NOT_DETERMINED + "the instruction at RIP is no DIV, IDIV or AAM", []
    if decoded.mnemonic == "aam":
        return "AAM with base 0", []
    if decoded.registers:
        source = decoded.registers[0]
        divisor = register_value(guest, source)
        size = register_width(source)
    else:
        operand = decoded.memory[0]
        source, size = operand.formula(), operand.size * 8
        divisor = guest.word(operand.linear, operand.size)
    if divisor is None:
        return _NOT_DETERMINED + "the divisor cannot be read", []
    if size == 8:
        high_name, dividend, pair = "AX", guest.gpr("rax") & 0xFFFF, "AX"
    else:
        low = guest.gpr("rax") & (1 << size) - 1
        high = guest.gpr("rdx") & (1 << size) - 1
        dividend = high << size | low
        prefix = {16: "", 32: "E", 64: "R"}[size]
        high_name, pair = f"{prefix}DX", f"{prefix}DX:{prefix}AX"
    lines = [f"dividend {pair} = {dividend:#x}", f"divisor {source} = {divisor:#x}"]
    if divisor == 0:
        return f"division by zero: {source.split(':')[0]} = 0", lines
    if decoded.mnemonic == "div":
        quotient = dividend // divisor
        if not quotient >> size:
            return _NOT_DETERMINED + f"the quotient {quotient:#x} fits {size} bits", lines
        lines.append(f"quotient {quotient:#x} exceeds {(1 << size) - 1:#x} ({size} bits)")
        if size != 8:
            lines.append(f"DIV needs {high_name} below the divisor; zero {high_name} before an unsigned division")
        return f"quotient {quotient:#x} does not fit {size} bits", lines
    signed_dividend, signed_divisor = _signed(dividend, 2 * size), _signed(divisor, size)
    magnitude = abs(signed_dividend) // abs(signed_divisor)
    quotient = -magnitude if (signed_dividend < 0) != (signed_divisor < 0) else magnitude
    if -(1 << size - 1) <= quotient < 1 << size - 1:
        return _NOT_DETERMINED + f"the quotient {quotient} fits {size} bits", lines
    lines.append(f"signed quotient {quotient} is outside of {-(1 << size - 1)}..{(1 << size - 1) - 1}")
    return f"quotient {quotient} does not fit {size} bits, signed", lines


_DR6: Final = (
    (13, "BD", "access to a debug register while DR7.GD = 1"),
    (14, "BS", "single step: RFLAGS.TF = 1"),
    (15, "BT", "task switch to a TSS with T = 1"),
)
_RW: Final = ("execution", "data write", "I/O", "data read or write")
_LENGTH: Final = (1, 2, 8, 4)


def debug_exception(guest: Guest, event: ExceptionEvent, decoded: Decoded | None) -> Cause:
    """#DB from DR6 (SDM vol. 3B section 18.2.3); without a bit it is ICEBP or a software interrupt."""
    dr6 = event.dr6 if event.dr6 is not None else guest.cpu.dr[6]
    dr7 = guest.cpu.dr[7]
    causes: list[str] = []
    lines = [f"DR6 = {dr6:#x}, DR7 = {dr7:#x}"]
    for number in range(4):
        if not dr6 >> number & 1:
            continue
        if dr7 >> 2 * number & 3:
            kind = _RW[dr7 >> 16 + 4 * number & 3]
            length = _LENGTH[dr7 >> 18 + 4 * number & 3]
            causes.append(f"B{number}: {kind} breakpoint at DR{number} = {guest.cpu.dr[number]:#x}, {length} bytes")
        else:
            lines.append(f"B{number} is set too, but breakpoint {number} is not enabled in DR7")
    causes.extend(f"{name}: {meaning}" for bit, name, meaning in _DR6 if dr6 >> bit & 1)
    if decoded is not None and decoded.mnemonic in ("int1", "icebp"):
        return "ICEBP (opcode F1)", lines
    if not causes:
        return _NOT_DETERMINED + "no cause bit is set in DR6", lines
    if guest.cpu.interrupt_shadow == 2:
        lines.append("a MOV SS or POP SS held the exception back for one instruction")
    return "; ".join(causes), lines


def breakpoint_exception(guest: Guest, event: ExceptionEvent, decoded: Decoded | None) -> Cause:
    """#BP: INT3, or INT 3."""
    return "INT3: a trap, the saved RIP is that of the next instruction", []


def overflow(guest: Guest, event: ExceptionEvent, decoded: Decoded | None) -> Cause:
    """#OF: INTO with OF = 1."""
    return "INTO with RFLAGS.OF = 1: a trap, the saved EIP is that of the next instruction", []


def bound(guest: Guest, event: ExceptionEvent, decoded: Decoded | None) -> Cause:
    """#BR: the index of BOUND is outside of its limits."""
    if decoded is None or decoded.mnemonic != "bound" or not decoded.memory or not decoded.registers:
        return _NOT_DETERMINED + "the instruction at RIP is no BOUND", []
    size = decoded.operand_size // 8
    operand = decoded.memory[0]
    low, high = guest.word(operand.linear, size), guest.word(operand.linear + size, size)
    index = register_value(guest, decoded.registers[0])
    if low is None or high is None or index is None:
        return _NOT_DETERMINED + "the limits cannot be read", []
    bits = size * 8
    if _signed(low, bits) <= _signed(index, bits) <= _signed(high, bits):
        return _NOT_DETERMINED + "the index is within the limits", []
    text = f"{decoded.registers[0]} = {_signed(index, bits)} is outside of {_signed(low, bits)}..{_signed(high, bits)}"
    return text, [f"limits at {operand.linear:#x}: {operand.formula()}"]


def device_not_available(guest: Guest, event: ExceptionEvent, decoded: Decoded | None) -> Cause:
    """#NM: CR0.EM, CR0.TS, and CR0.MP for WAIT (SDM vol. 3A table 2-2)."""
    cr0 = guest.cpu.cr0
    em, task, mp = cr0 >> 2 & 1, cr0 >> 3 & 1, cr0 >> 1 & 1
    state = f"CR0.EM = {em}, TS = {task}, MP = {mp}"
    name = decoded.mnemonic if decoded is not None else ""
    if name in ("wait", "fwait"):
        if mp and task:
            return "WAIT with CR0.MP = 1 and CR0.TS = 1", [state]
    elif em and _is_x87(decoded):
        return f"{name} is an x87 instruction and CR0.EM = 1", [state]
    elif task:
        return f"{name or 'an FPU or SSE instruction'} with CR0.TS = 1", [state]
    return _NOT_DETERMINED + f"{state} do not ask for #NM here", []


def _is_x87(decoded: Decoded | None) -> bool:
    if decoded is None:
        return False
    return any(0xD8 <= byte <= 0xDF for byte in decoded.data[:3])


_X87: Final = (
    "IE invalid operation",
    "DE denormal",
    "ZE divide by zero",
    "OE overflow",
    "UE underflow",
    "PE precision",
)


def x87_error(guest: Guest, event: ExceptionEvent, decoded: Decoded | None) -> Cause:
    """#MF: an unmasked exception is pending in the status word; reported by the next waiting instruction."""
    if len(guest.cpu.fpu) < 4:
        return _NOT_DETERMINED + "the engine does not give the FPU state", []
    control = int.from_bytes(guest.cpu.fpu[:2], "little")
    status = int.from_bytes(guest.cpu.fpu[2:4], "little")
    pending = [name for bit, name in enumerate(_X87) if status & ~control & 1 << bit]
    lines = [f"FSW = {status:#x}, FCW = {control:#x}, CR0.NE = {guest.cpu.cr0 >> 5 & 1}"]
    if not pending:
        return _NOT_DETERMINED + "no unmasked exception is pending", lines
    return "pending and unmasked: " + ", ".join(pending), lines


def simd_error(guest: Guest, event: ExceptionEvent, decoded: Decoded | None) -> Cause:
    """#XM: an exception whose mask bit in MXCSR is 0."""
    mxcsr = guest.cpu.mxcsr
    unmasked = [name for bit, name in enumerate(_X87) if not mxcsr >> 7 + bit & 1]
    lines = [f"MXCSR = {mxcsr:#x}, unmasked: {', '.join(unmasked) or 'none'}"]
    raised = [name for bit, name in enumerate(_X87) if mxcsr >> bit & 1 and not mxcsr >> 7 + bit & 1]
    if raised:
        return "unmasked SSE exception: " + ", ".join(raised), lines
    return _NOT_DETERMINED + "the flags in MXCSR are those before the instruction", lines


def alignment_check(guest: Guest, event: ExceptionEvent, decoded: Decoded | None) -> Cause:
    """#AC: CR0.AM, RFLAGS.AC and CPL 3, and an operand that is not aligned to its size."""
    cpu = guest.cpu
    state = f"CR0.AM = {cpu.cr0 >> 18 & 1}, RFLAGS.AC = {cpu.rflags >> 18 & 1}, CPL = {cpu.cpl}"
    for operand in decoded.memory if decoded is not None else ():
        size = min(operand.size, 16)
        if operand.access and size > 1 and operand.linear % size:
            return f"{operand.size}-byte {operand.access} at {operand.linear:#x} is not aligned", [
                state,
                operand.formula(),
            ]
    return _NOT_DETERMINED + "no operand is misaligned", [state]


TRAPS: Final = {
    0: divide_error,
    1: debug_exception,
    3: breakpoint_exception,
    4: overflow,
    5: bound,
    7: device_not_available,
    16: x87_error,
    17: alignment_check,
    19: simd_error,
}
