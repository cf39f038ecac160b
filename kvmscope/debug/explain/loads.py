"""#GP, #NP, #SS and #TS whose error code is a selector: which load named it, and which check it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmscope.debug.explain.model import Guest
from kvmscope.debug.explain.operands import Decoded, register_value
from kvmscope.debug.explain.selectors import (
    CODE_FAR,
    CODE_RETURN,
    DATA,
    LDT,
    STACK,
    TSS,
    Check,
    check,
    describe,
    entry_of,
)
from kvmscope.debug.explain.traps import Cause
from kvmscope.x86.state import Seg

__all__ = ["Load", "loads_of", "selector_cause"]

_DATA_SEGMENTS: Final = frozenset({"ds", "es", "fs", "gs"})
_POINTER_LOADS: Final = {"lds": "ds", "les": "es", "lfs": "fs", "lgs": "gs", "lss": "ss"}


@dataclass(frozen=True, slots=True)
class Load:
    """One selector that an instruction puts into a segment register, with the checks it has to pass."""

    target: str
    selector: int
    checks: tuple[Check, ...]
    cpl: int | None = None
    """CPL that the checks are made against, where it is not the present one (a return to an outer ring)."""


def _segment_load(target: str, selector: int) -> Load:
    return Load(target.upper(), selector, STACK if target == "ss" else DATA)


def _far_pointer(guest: Guest, decoded: Decoded) -> int | None:
    """Selector of a far pointer: the first immediate, or the word behind the offset in memory."""
    if len(decoded.immediates) >= 2:
        return decoded.immediates[0] & 0xFFFF
    if not decoded.memory:
        return None
    return guest.word(decoded.memory[0].linear + decoded.operand_size // 8, 2)


def _is_far(decoded: Decoded) -> bool:
    if decoded.mnemonic in ("ljmp", "lcall"):
        return True
    # capstone prints the indirect forms as `jmp ptr [..]`: FF /3 and FF /5 (and far immediates 9A, EA).
    body = decoded.data.lstrip(b"\x26\x2e\x36\x3e\x64\x65\x66\x67")
    if body and body[0] & 0xF0 == 0x40 and len(body) > 1 and body[1] == 0xFF:
        body = body[1:]
    return len(body) > 1 and body[0] == 0xFF and body[1] >> 3 & 7 in (3, 5)


def _return_loads(guest: Guest, decoded: Decoded) -> list[Load]:
    stack = next((m for m in decoded.memory if m.segment == Seg.SS), None)
    size = decoded.operand_size // 8
    if stack is None:
        return []
    cs = guest.word(stack.linear + size, size)
    if cs is None:
        return []
    loads = [Load("CS", cs & 0xFFFF, CODE_RETURN)]
    slot = 4
    if decoded.mnemonic.startswith("retf"):
        slot = 3
        # RET imm16 releases parameters: the outer stack pointer lies behind them.
        extra = decoded.immediates[0] if decoded.immediates else 0
    else:
        extra = 0
    outer = (cs & 3) > guest.cpu.cpl
    if outer or (guest.bits == 64 and slot == 4):
        ss = guest.word(stack.linear + slot * size + extra, 2)
        if ss is not None:
            loads.append(Load("SS", ss, STACK, cpl=cs & 3))
    return loads


def loads_of(guest: Guest, decoded: Decoded) -> list[Load]:
    """The selectors that the instruction loads, in the order in which the processor checks them."""
    name = decoded.mnemonic
    first = decoded.registers[0] if decoded.registers and decoded.first == "reg" else ""
    if name == "mov" and first in _DATA_SEGMENTS | {"ss"}:
        if len(decoded.registers) > 1:
            value = register_value(guest, decoded.registers[1])
        else:
            value = guest.word(decoded.memory[0].linear, 2) if decoded.memory else None
        return [] if value is None else [_segment_load(first, value & 0xFFFF)]
    if name == "pop" and first in _DATA_SEGMENTS | {"ss"}:
        value = guest.word(decoded.memory[-1].linear, 2)
        return [] if value is None else [_segment_load(first, value)]
    if name in _POINTER_LOADS:
        value = guest.word(decoded.memory[0].linear + decoded.operand_size // 8, 2) if decoded.memory else None
        return [] if value is None else [_segment_load(_POINTER_LOADS[name], value)]
    if name in ("ltr", "lldt"):
        if decoded.registers:
            value = register_value(guest, decoded.registers[0])
        else:
            value = guest.word(decoded.memory[0].linear, 2) if decoded.memory else None
        checks = TSS if name == "ltr" else LDT
        return [] if value is None else [Load("TR" if name == "ltr" else "LDTR", value & 0xFFFF, checks)]
    if _is_far(decoded):
        value = _far_pointer(guest, decoded)
        return [] if value is None else [Load("CS", value, CODE_FAR)]
    if name.startswith(("iret", "retf")):
        return _return_loads(guest, decoded)
    return []


def selector_cause(guest: Guest, decoded: Decoded, vector: int, error_code: int) -> Cause | None:
    """The check that failed with this vector and error code, of the selectors that the instruction loads."""
    for load in loads_of(guest, decoded):
        failure = check(guest, load.selector, load.checks, cpl=load.cpl)
        entry = entry_of(guest, load.selector)
        if failure is None:
            if load.checks is CODE_FAR and entry.found is not None and entry.descriptor.is_gate:
                return _through_gate(guest, entry.descriptor.selector, error_code, describe(entry))
            continue
        code = load.selector & 0xFFFC if failure.selector_code else 0
        if failure.vector == vector and code == error_code & 0xFFFC:
            return f"{load.target} <- {load.selector:#x}: {failure.words}", [describe(entry)]
        return None
    return None


def _through_gate(guest: Guest, selector: int, error_code: int, gate: str) -> Cause | None:
    """The code segment that a call gate names (SDM vol. 2A CALL: far calls through a gate)."""
    if error_code & 0xFFFC != selector & 0xFFFC:
        return None
    entry = entry_of(guest, selector)
    descriptor = entry.descriptor
    lines = [gate, describe(entry)]
    if selector & 0xFFFC == 0:
        return "the call gate's selector is null", lines
    if entry.beyond:
        return f"the call gate's selector {selector:#x} is beyond the {entry.table} limit {entry.limit:#x}", lines
    if descriptor.kind != "code":
        return f"the call gate's selector {selector:#x} names no code segment", lines
    if descriptor.dpl > guest.cpu.cpl:
        return f"the call gate's code segment has DPL = {descriptor.dpl} above CPL = {guest.cpu.cpl}", lines
    if guest.long_mode and descriptor.bits != 64:
        return f"the call gate's code segment {selector:#x} is not a 64-bit one", lines
    if not descriptor.present:
        return f"the call gate's code segment {selector:#x} has P = 0", lines
    return None
