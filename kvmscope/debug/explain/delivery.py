"""Why an exception or interrupt could not be delivered: gate, handler's code segment, stack (SDM vol. 3A 6.12, 6.14).

`gate_failure` follows the manual's order of checks through the guest's own IDT, GDT and TSS and names the first one
that fails, with the vector and error code the processor reports for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmscope.debug.explain.model import Guest
from kvmscope.debug.explain.pagefault import walk_for
from kvmscope.debug.explain.selectors import STACK, Entry, check, describe, entry_of
from kvmscope.vmm.events import ExceptionSource
from kvmscope.x86.descriptors import Descriptor, decode_gate64
from kvmscope.x86.exceptions import mnemonic
from kvmscope.x86.state import Seg

__all__ = ["Obstacle", "gate_entry", "gate_failure", "gate_lines"]

_GATES: Final = {True: frozenset({14, 15}), False: frozenset({5, 6, 7, 14, 15})}


@dataclass(frozen=True, slots=True)
class Obstacle:
    """The check that stopped a delivery: vector raised, its error code where one is known, and why."""

    vector: int
    error_code: int | None
    words: str
    lines: tuple[str, ...] = ()


def gate_entry(guest: Guest, vector: int) -> Entry:
    """The IDT entry of ``vector``."""
    size = 16 if guest.long_mode else 8
    idtr = guest.cpu.idtr
    address = idtr.base + vector * size
    beyond = vector * size + size - 1 > idtr.limit
    data = None if beyond else guest.read(address, size)
    found = None
    if data is not None:
        found = decode_gate64(data) if size == 16 else Descriptor(int.from_bytes(data, "little"))
    return Entry(vector, "IDT", address, found, idtr.limit, beyond)


def gate_lines(guest: Guest, vector: int) -> list[str]:
    """The gate as it stands, and the code segment that it names."""
    if not guest.protected:
        address = guest.cpu.idtr.base + vector * 4
        raw = guest.word(address, 4)
        text = "cannot be read" if raw is None else f"{raw >> 16:04x}:{raw & 0xFFFF:04x}"
        return [f"IVT[{vector:#x}] at {address:#x} = {text}, IDTR limit {guest.cpu.idtr.limit:#x}"]
    gate = gate_entry(guest, vector)
    lines = [describe(gate)]
    if gate.found is not None:
        lines.append("handler's CS: " + describe(entry_of(guest, gate.found.selector)))
    return lines


def gate_failure(guest: Guest, vector: int, source: ExceptionSource) -> Obstacle | None:
    """The first check that delivering ``vector`` fails; None when the gate, code segment and stack pass."""
    external = 0 if source is ExceptionSource.SOFTWARE else 1
    if not guest.protected:
        if vector * 4 + 3 > guest.cpu.idtr.limit:
            return Obstacle(13, None, f"vector {vector:#x} is beyond the IVT limit {guest.cpu.idtr.limit:#x}")
        return None
    gate = gate_entry(guest, vector)
    code = vector << 3 | 2 | external
    name = mnemonic(vector)
    if gate.beyond:
        size = 16 if guest.long_mode else 8
        words = f"the IDT entry of {name} ends at {vector * size + size - 1:#x}, IDTR limit is {gate.limit:#x}"
        return Obstacle(13, code, words)
    if gate.found is None:
        if guest.translate(gate.address) is None:
            return Obstacle(14, None, f"the IDT entry of {name} at {gate.address:#x} is not mapped")
        return None
    segment = gate.found
    shown = (describe(gate),)
    if segment.s or segment.type not in _GATES[guest.long_mode]:
        return Obstacle(
            13, code, f"the IDT entry of {name} is no gate (type {segment.type:#x}, S = {segment.s})", shown
        )
    if source is ExceptionSource.SOFTWARE and segment.dpl < guest.cpu.cpl:
        return Obstacle(
            13, code, f"gate DPL = {segment.dpl} is below CPL = {guest.cpu.cpl} for a software interrupt", shown
        )
    if not segment.present:
        return Obstacle(11, code, f"the gate of {name} has P = 0", shown)
    if segment.type == 5:
        return None
    return _code_segment(guest, gate, external) or _stack(guest, gate, external, vector)


def _code_segment(guest: Guest, gate: Entry, external: int) -> Obstacle | None:
    selector = gate.descriptor.selector
    target = entry_of(guest, selector)
    shown = (describe(gate), describe(target))
    if selector & 0xFFFC == 0:
        return Obstacle(13, external, "the gate's selector is null", shown)
    code = selector & 0xFFFC | external
    if target.beyond:
        return Obstacle(13, code, f"the gate's selector {selector:#x} is beyond the {target.table} limit", shown)
    if target.found is None:
        return None
    segment = target.found
    if not (segment.s and segment.type & 8):
        return Obstacle(13, code, f"the gate's selector {selector:#x} names no code segment", shown)
    if segment.dpl > guest.cpu.cpl:
        words = f"the handler's DPL = {segment.dpl} exceeds CPL = {guest.cpu.cpl}"
        return Obstacle(13, code, words, shown)
    long, default = segment.raw >> 53 & 1, segment.raw >> 54 & 1
    if guest.long_mode and not (long and not default):
        words = f"the handler's code segment must have L = 1, D = 0 (L = {long}, D = {default})"
        return Obstacle(13, code, words, shown)
    if not segment.present:
        return Obstacle(11, code, f"the handler's code segment {selector:#x} has P = 0", shown)
    if guest.long_mode and not guest.canonical(gate.descriptor.offset):
        return Obstacle(13, external, f"the handler's offset {gate.descriptor.offset:#x} is not canonical", shown)
    return None


def _tss_word(guest: Guest, offset: int, size: int) -> int | None:
    return guest.word(guest.cpu.segments[Seg.TR].base + offset, size)


def _stack(guest: Guest, gate: Entry, external: int, vector: int) -> Obstacle | None:
    """The stack that the frame goes to: IST, the TSS's ring stack, or the present one."""
    target = entry_of(guest, gate.descriptor.selector).descriptor
    new_cpl = guest.cpu.cpl if target.type & 4 else target.dpl
    task = guest.cpu.segments[Seg.TR]
    if guest.long_mode:
        ist = gate.descriptor.ist
        if ist or new_cpl < guest.cpu.cpl:
            name = f"IST{ist}" if ist else f"RSP{new_cpl}"
            offset = 0x24 + 8 * (ist - 1) if ist else 4 + 8 * new_cpl
            if offset + 7 > task.limit:
                return Obstacle(
                    10, task.selector & 0xFFFC | external, f"{name} is beyond the TSS limit {task.limit:#x}"
                )
            pointer = _tss_word(guest, offset, 8)
            if pointer is None:
                return None
        else:
            name, pointer = "RSP", guest.gpr("rsp")
        if not guest.canonical(pointer):
            return Obstacle(12, external, f"{name} = {pointer:#x} is not canonical")
        return _unmapped_push(guest, pointer & ~0xF, name, vector)
    if new_cpl < guest.cpu.cpl:
        offset, size = (4 + 8 * new_cpl, 4) if task.type & 8 else (2 + 4 * new_cpl, 2)
        if offset + size + 1 > task.limit:
            words = f"SS{new_cpl}:ESP{new_cpl} is beyond the TSS limit {task.limit:#x}"
            return Obstacle(10, task.selector & 0xFFFC | external, words)
        pointer, selector = _tss_word(guest, offset, size), _tss_word(guest, offset + size, 2)
        if pointer is None or selector is None:
            return None
        failure = check(guest, selector, STACK, cpl=new_cpl)
        if failure is not None:
            code = (selector & 0xFFFC if failure.selector_code else 0) | external
            vector_raised = 12 if failure.vector == 12 else 10
            shown = (describe(entry_of(guest, selector)),)
            return Obstacle(vector_raised, code, f"SS{new_cpl} = {selector:#x} in the TSS: {failure.words}", shown)
        base = entry_of(guest, selector).descriptor.base
        return _unmapped_push(guest, base + pointer & 0xFFFFFFFF, f"ESP{new_cpl}", vector)
    stack = guest.cpu.segments[Seg.SS]
    mask = 0xFFFFFFFF if stack.db else 0xFFFF
    pointer = guest.gpr("rsp") & mask
    if not stack.type & 4 and (pointer - 1 & mask) > stack.limit:
        return Obstacle(12, external, f"the stack at {pointer:#x} is beyond the SS limit {stack.limit:#x}")
    return _unmapped_push(guest, stack.base + pointer & 0xFFFFFFFF, "ESP", vector)


def _unmapped_push(guest: Guest, top: int, name: str, vector: int) -> Obstacle | None:
    """#PF when the frame's page is not writable for the supervisor; only the page below ``top`` is looked at."""
    mask = (1 << 64) - 1 if guest.long_mode else 0xFFFFFFFF
    address = top - 1 & mask
    result = walk_for(guest, address, 2, implicit=True)
    if result.fault is None:
        return None
    if result.fault.vector != 14:
        return Obstacle(12, 0, f"the frame below {name} = {top:#x}: {result.fault.reason}")
    words = f"pushing the frame of {mnemonic(vector)} below {name} = {top:#x}: {result.fault.reason}"
    return Obstacle(14, result.fault.error_code, words)
