"""One exception event in words: the dispatch by vector, error code and circumstances."""

from __future__ import annotations

from collections.abc import Sequence

from kvmscope.debug.explain.delivery import gate_failure, gate_lines
from kvmscope.debug.explain.general import instruction_cause, segment_cause
from kvmscope.debug.explain.loads import selector_cause
from kvmscope.debug.explain.model import Explanation, Guest
from kvmscope.debug.explain.names import REFERENCES, event_title, vector_title
from kvmscope.debug.explain.opcode import invalid_opcode
from kvmscope.debug.explain.operands import Decoded, decode
from kvmscope.debug.explain.pagefault import explain_page_fault
from kvmscope.debug.explain.traps import TRAPS, Cause
from kvmscope.vmm.events import Event, ExceptionEvent, ExceptionSource
from kvmscope.x86.descriptors import SelectorErrorCode
from kvmscope.x86.exceptions import mnemonic

__all__ = ["explain_exception", "parent_source"]

_SELECTOR_VECTORS = frozenset({10, 11, 12, 13})
_NO_RULE = (
    "cause not determined: no rule of the instruction, its operands or the selectors is broken in the state before it"
)


def parent_source(event: ExceptionEvent, events: Sequence[Event]) -> ExceptionSource:
    """How the vector was raised whose delivery raised ``event``."""
    for other in reversed(events):
        if other.tick < event.tick:
            break
        if isinstance(other, ExceptionEvent) and other is not event and other.vector == event.parent:
            return other.source
    return ExceptionSource.FAULT


def explain_exception(
    guest: Guest, event: ExceptionEvent, events: Sequence[Event], *, stale: bool = False
) -> Explanation:
    """Why ``event`` was raised.  ``stale``: memory has moved on since, which is said wherever memory decides."""
    decoded = decode(guest)
    if event.source is ExceptionSource.EXTERNAL:
        return _interrupt(guest, event, decoded)
    if event.vector == 14:
        found = explain_page_fault(guest, event, decoded, stale)
        return _with_parent(found, event)
    title = f"{vector_title(event.vector, event.error_code)} at {guest.cpu.pc:#x}"
    head = [f"{guest.place()}: {decoded.text}" if decoded is not None else f"at {guest.place()}"]
    if event.source is ExceptionSource.SOFTWARE and event.vector not in TRAPS:
        text = decoded.text if decoded is not None else f"INT {event.vector:#x}"
        return Explanation(f"{title}: software interrupt, {text}", tuple(head), REFERENCES["interrupt"])

    key, (words, lines) = _cause(guest, event, events, decoded)
    name = mnemonic(event.vector)
    if event.vector in _SELECTOR_VECTORS and event.error_code:
        head.append(f"error code {event.error_code:#x}: {SelectorErrorCode(event.error_code)}")
    if stale:
        lines = [*lines, "instruction and tables were read later than the exception: go to its tick to be sure"]
    references = tuple(dict.fromkeys((*REFERENCES.get(name, ()), *REFERENCES.get(key, ()))))
    return _with_parent(Explanation(f"{title}: {words}", (*head, *lines), references), event)


def _interrupt(guest: Guest, event: ExceptionEvent, decoded: Decoded | None) -> Explanation:
    """From outside: no instruction is its cause, it comes between two.  Which device asked for it the event does not tell."""
    nmi = event.vector == 2
    what = "non-maskable interrupt" if nmi else "external interrupt"
    # A halted vCPU stands behind its HLT.
    waiting = guest.read(guest.cpu.pc - 1, 1) == b"\xf4"
    text = f": {decoded.text}" if decoded is not None else ""
    lines = [
        f"taken before {guest.place()}{text}",
        f"RFLAGS.IF = {guest.cpu.rflags >> 9 & 1}" + (", which an NMI does not ask" if nmi else ""),
    ]
    if waiting:
        lines.append("the byte before is HLT: where the vCPU waited there, this woke it")
    return Explanation(
        f"{event_title(event)} at {guest.cpu.pc:#x}: {what}", tuple(lines), REFERENCES["nmi" if nmi else "interrupt"]
    )


def _with_parent(found: Explanation, event: ExceptionEvent) -> Explanation:
    if event.parent is None:
        return found
    line = f"raised while delivering {mnemonic(event.parent)}"
    return Explanation(found.title, (line, *found.lines), found.references)


def _cause(guest: Guest, event: ExceptionEvent, events: Sequence[Event], decoded: Decoded | None) -> tuple[str, Cause]:
    """(reference key, cause)."""
    if event.vector == 8:
        return "", ("an exception could not be delivered", [])
    if event.vector == 6:
        return "", invalid_opcode(guest, event, decoded)
    trap = TRAPS.get(event.vector)
    if trap is not None:
        return "", trap(guest, event, decoded)
    if event.vector in _SELECTOR_VECTORS:
        return _protection(guest, event, events, decoded)
    return "", ("cause not determined: no rule for this vector", [])


def _protection(
    guest: Guest, event: ExceptionEvent, events: Sequence[Event], decoded: Decoded | None
) -> tuple[str, Cause]:
    """#TS, #NP, #SS, #GP: by delivery, by selector, by instruction."""
    code = event.error_code or 0
    vector = event.parent
    source = ExceptionSource.SOFTWARE
    if vector is not None:
        source = parent_source(event, events)
    elif code & 2:
        vector = code >> 3 & 0xFF
    if vector is not None:
        obstacle = gate_failure(guest, vector, source)
        matches = obstacle is not None and obstacle.vector == event.vector and obstacle.error_code in (None, code)
        if obstacle is not None and matches:
            return "gate", (f"delivery of {mnemonic(vector)} failed: {obstacle.words}", [*obstacle.lines])
        return "gate", (f"cause not determined: the delivery of {mnemonic(vector)} failed", gate_lines(guest, vector))
    if decoded is not None and code & 0xFFFC and guest.protected:
        found = selector_cause(guest, decoded, event.vector, code)
        if found is not None:
            return "selector", found
        return "selector", (_NO_RULE, [])
    answer = instruction_cause(guest, decoded)
    if answer is not None and (event.vector == 13 or _is_stack(guest, event, decoded, answer)):
        return answer
    if answer is None and not guest.code():
        return "", ("cause not determined: the instruction bytes cannot be read", [])
    return "", (_NO_RULE, [])


def _is_stack(guest: Guest, event: ExceptionEvent, decoded: Decoded | None, answer: tuple[str, Cause]) -> bool:
    """#SS(0) comes from a stack access only."""
    if event.vector != 12 or decoded is None:
        return False
    return any((segment_cause(guest, m) or (0,))[0] == 12 for m in decoded.memory if m.access)
