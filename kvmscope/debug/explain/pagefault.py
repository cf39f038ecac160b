"""Why an access raised #PF: the walk it took, and the entry and bit that stopped it (SDM vol. 3A section 4.7)."""

from __future__ import annotations

from kvmscope.debug.explain.model import Explanation, Guest, plural
from kvmscope.debug.explain.names import REFERENCES, vector_title
from kvmscope.debug.explain.operands import Decoded, MemoryOperand
from kvmscope.vmm.events import ExceptionEvent
from kvmscope.x86.exceptions import PAGE_FAULT_BITS
from kvmscope.x86.paging import PF_FETCH, PF_USER, PF_WRITE, Walk, walk
from kvmscope.x86.state import Seg

__all__ = ["explain_page_fault", "page_fault_bits", "structure_at", "walk_for", "walk_lines"]


def page_fault_bits(code: int) -> str:
    """``P = 1 (protection violation), W/R = 1 (write), U/S = 0 (supervisor)``."""
    words = []
    for bit, name, is_set, clear in PAGE_FAULT_BITS:
        if code >> bit & 1:
            words.append(f"{name} = 1 ({is_set})")
        elif clear:
            words.append(f"{name} = 0 ({clear})")
    return ", ".join(words)


def structure_at(guest: Guest, linear: int) -> str:
    """Which system structure of the processor holds ``linear``: the IDT entry of a vector, the GDT, the TSS; or empty."""
    cpu = guest.cpu
    if 0 <= linear - cpu.idtr.base <= cpu.idtr.limit:
        size = 16 if guest.long_mode else 8
        return f"the IDT entry of vector {(linear - cpu.idtr.base) // size:#x}"
    if 0 <= linear - cpu.gdtr.base <= cpu.gdtr.limit:
        return f"the GDT, descriptor {(linear - cpu.gdtr.base) & ~7:#x}"
    task = cpu.segments[Seg.TR]
    if 0 <= linear - task.base <= task.limit and task.present:
        return f"the TSS, offset {linear - task.base:#x}"
    table = cpu.segments[Seg.LDTR]
    if table.present and 0 <= linear - table.base <= table.limit:
        return f"the LDT, descriptor {(linear - table.base) & ~7:#x}"
    return ""


def walk_for(guest: Guest, linear: int, code: int, implicit: bool) -> Walk:
    """The walk of the access that an error code describes, through the tables as they stand."""
    cpu = guest.cpu
    return walk(
        guest.memory,
        cpu.cr0,
        cpu.cr3,
        cpu.cr4,
        cpu.efer,
        linear,
        cpl=cpu.cpl,
        write=bool(code & PF_WRITE),
        fetch=bool(code & PF_FETCH),
        user=bool(code & PF_USER),
        implicit=implicit,
        ac=bool(cpu.rflags >> 18 & 1),
        pkru=cpu.pkru,
        pkrs=cpu.msrs.get(0x6E1, 0),
    )


def walk_lines(result: Walk) -> list[str]:
    """One line an entry: ``PTE at 0x3038 = 0x7025  P US A``."""
    lines = [f"{result.mode} paging, CR3 table walk of {result.linear:#x}:"]
    for step in result.steps:
        flags = " ".join(step.flags)
        note = f"  <- {step.note}" if step.note else ""
        target = f"  -> {step.target:#x}" if step.target is not None else ""
        lines.append(f"  {step} [{step.index}]{target}  {flags}{note}".rstrip())
    if result.page_size:
        rights = "".join((
            "writable" if result.writable else "read-only",
            ", user" if result.user else ", supervisor",
            ", executable" if result.executable else ", no execute",
        ))  # fmt: skip
        lines.append(f"  maps to {result.mapped:#x}, {result.page_size // 1024} KiB page, {rights}")
    return lines


def _access_words(event: ExceptionEvent, code: int, operand: MemoryOperand | None, fetch: bool) -> str:
    address = event.cr2 or 0
    if fetch:
        return f"instruction fetch from {address:#x}"
    kind = "write to" if code & PF_WRITE else "read from"
    if operand is not None and operand.linear != address:
        return f"{kind} {address:#x} (operand of {plural(operand.size, 'byte')} at {operand.linear:#x} crosses into its page)"
    return f"{kind} {address:#x}"


def _operand_at(decoded: Decoded | None, linear: int, writes: bool) -> MemoryOperand | None:
    if decoded is None:
        return None
    hits = [m for m in decoded.memory if m.access and m.covers(linear)]
    if not hits:
        return None
    # A read fault of a read-modify-write or a string move belongs to the operand read.
    fitting = [m for m in hits if m.writes == writes]
    return (fitting or hits)[0]


def explain_page_fault(guest: Guest, event: ExceptionEvent, decoded: Decoded | None, stale: bool) -> Explanation:
    """#PF from its CR2, its error code and the tables; ``stale``: memory is that of a later time than the fault."""
    code = event.error_code or 0
    linear = event.cr2 if event.cr2 is not None else guest.cpu.cr2
    operand = _operand_at(decoded, linear, bool(code & PF_WRITE))
    in_code = 0 <= linear - guest.cpu.pc < 15 or linear == guest.cpu.pc
    fetch = bool(code & PF_FETCH) or (operand is None and in_code and event.parent is None and not code & PF_WRITE)
    structure = "" if fetch or operand is not None else structure_at(guest, linear)
    supervisor = not code & PF_USER
    # Loads of descriptors and pushes on another stack are supervisor accesses that RFLAGS.AC does not exempt from SMAP.
    implicit = supervisor and (guest.cpu.cpl == 3 or bool(structure) or event.parent is not None)
    result = walk_for(guest, linear, code, implicit)
    where = guest.place()
    title = f"#PF({code:#x}) at {guest.cpu.pc:#x}: {_access_words(event, code, operand, fetch)}"

    lines: list[str] = []
    if decoded is not None and not (fetch and in_code):
        lines.append(f"{where}: {decoded.text}")
    else:
        lines.append(f"at {where}")
    lines.append(f"error code {code:#x}: {page_fault_bits(code)}")
    if operand is not None:
        lines.append(f"{operand.formula()} -> {operand.linear:#x}, {plural(operand.size, 'byte')}, {operand.access}")
    elif structure:
        lines.append(f"{linear:#x} is in {structure}")
    fault = result.fault
    if fault is not None and fault.vector == 14 and (fault.error_code ^ code) & ~PF_FETCH == 0:
        title += f", {fault.reason}"
    elif result.unbacked is not None:
        title += f", {result.reason}"
    else:
        lines.append(_undetermined(code, result, stale))
    if not fetch and operand is None and not structure and event.parent is None and decoded is not None:
        lines.append("no operand of the instruction covers the address: an access the instruction implies")
    lines.extend(walk_lines(result))
    if stale:
        lines.append("instruction and tables were read later than the exception: go to its tick to be sure")
    return Explanation(title, tuple(lines), REFERENCES["#PF"])


def _undetermined(code: int, result: Walk, stale: bool) -> str:
    fault = result.fault
    found = "let the access pass" if fault is None else f"give {vector_title(fault.vector, fault.error_code)}"
    if stale:
        return f"cause not determined: the tables as they stand now {found}; they have changed since"
    return f"cause not determined: the tables {found} (a translation cached before they changed would explain it)"
