"""Why the machine stopped: one function a `StopReason`, and the chain of a double or triple fault."""

from __future__ import annotations

from collections.abc import Sequence

from kvmscope.asm.image import Image
from kvmscope.debug.explain.delivery import gate_failure, gate_lines
from kvmscope.debug.explain.fault import explain_exception
from kvmscope.debug.explain.model import Explanation, Guest
from kvmscope.debug.explain.names import REFERENCES, event_title, vector_title
from kvmscope.vmm.engine import Activity, Stop, StopReason
from kvmscope.vmm.events import Event, ExceptionEvent
from kvmscope.vmm.snapshot import Snapshot
from kvmscope.x86.exceptions import mnemonic
from kvmscope.x86.state import CpuState

__all__ = ["chain_of", "explain_chain", "explain_stop"]


def chain_of(last: ExceptionEvent, events: Sequence[Event]) -> list[ExceptionEvent]:
    """The exceptions of one instruction that lead to ``last``, oldest first."""
    chain: list[ExceptionEvent] = []
    for event in events:
        if isinstance(event, ExceptionEvent) and event.tick == last.tick and event.vcpu == last.vcpu:
            chain.append(event)
            if event == last:
                break
    if last not in chain:
        chain.append(last)
    # A delivery that succeeded ends an older story within the same tick.
    start = max((i + 1 for i, event in enumerate(chain[:-1]) if event.delivered), default=0)
    return chain[start:]


def explain_chain(
    chain: Sequence[ExceptionEvent], snapshot: Snapshot, image: Image | None, shutdown: bool
) -> Explanation:
    """Each link: the exception, its own cause, and why its delivery failed."""
    stale = snapshot.tick > chain[-1].tick
    names = " -> ".join(event_title(e) for e in chain)
    title = f"{names} -> shutdown (triple fault)" if shutdown else names
    first = Guest.of(snapshot, image, chain[0].before)
    title += f" at {first.cpu.pc:#x}"
    lines: list[str] = []
    for number, event in enumerate(chain, 1):
        guest = Guest.of(snapshot, image, event.before)
        if event.vector == 8:
            first_vector = chain[number - 2].parent if number > 1 else event.parent
            second = chain[number - 2].vector if number > 1 else None
            both = (
                f": {mnemonic(second)} while delivering {mnemonic(first_vector)}"
                if second is not None and first_vector is not None
                else f": while delivering {mnemonic(event.parent)}"
                if event.parent is not None
                else ""
            )
            lines.append(f"{number}. {vector_title(8, event.error_code)}{both}")
        else:
            cause = explain_exception(guest, event, snapshot.events, stale=stale)
            lines.append(f"{number}. {cause.title}")
            lines.extend(f"   {line}" for line in cause.lines)
        last = number == len(chain)
        if not last or shutdown:
            lines.extend(f"   {line}" for line in _delivery_lines(guest, event, snapshot.events))
        cpu = guest.cpu
        lines.append(
            f"   state: CPL {cpu.cpl}, CS {cpu.segments[1].selector:#x}, RSP {cpu.gpr[4]:#x}, "
            f"IDTR {cpu.idtr.base:#x}/{cpu.idtr.limit:#x}, GDTR {cpu.gdtr.base:#x}/{cpu.gdtr.limit:#x}, "
            f"TR {cpu.segments[7].selector:#x} base {cpu.segments[7].base:#x}"
        )
    if shutdown:
        lines.append(f"{len(chain) + 1}. an exception while delivering #DF: the processor shuts down")
    keys = ("#DF", "triple") if shutdown else ("#DF",)
    return Explanation(title, tuple(lines), tuple(r for key in keys for r in REFERENCES[key]))


def _delivery_lines(guest: Guest, event: ExceptionEvent, events: Sequence[Event]) -> list[str]:
    if event.delivered:
        return []
    obstacle = gate_failure(guest, event.vector, event.source)
    if obstacle is None:
        return [
            "delivery failed: cause not determined, the gate, code segment and stack pass",
            *gate_lines(guest, event.vector),
        ]
    return [f"delivery failed: {obstacle.words}: {vector_title(obstacle.vector, obstacle.error_code)}", *obstacle.lines]


def _exception(stop: Stop, snapshot: Snapshot, image: Image | None) -> Explanation:
    event = stop.exception
    if event is None:
        return Explanation("an exception without a handler of the guest's own", (stop.detail,) if stop.detail else ())
    chain = chain_of(event, snapshot.events)
    note = "no handler of the guest's own: the machine stopped before delivery"
    if event.vector == 8:
        found = explain_chain(chain, snapshot, image, shutdown=False)
    else:
        found = explain_exception(Guest.of(snapshot, image, event.before), event, snapshot.events)
    return Explanation(found.title, (*found.lines, note), found.references)


def _triple_fault(stop: Stop, snapshot: Snapshot, image: Image | None) -> Explanation:
    last = stop.exception or next((e for e in reversed(snapshot.events) if isinstance(e, ExceptionEvent)), None)
    if last is None:
        return Explanation("triple fault: shutdown", (stop.detail,) if stop.detail else (), REFERENCES["triple"])
    return explain_chain(chain_of(last, snapshot.events), snapshot, image, shutdown=True)


def _debug_exit(stop: Stop, snapshot: Snapshot, image: Image | None) -> Explanation:
    code = stop.code or 0
    status = code << 1 | 1
    verdict = "0: success" if code == 0 else f"{code:#x}: failure"
    lines = (
        f"value {code:#x} written to the debug-exit port; QEMU would end with status {status} = ({code:#x} << 1) | 1",
    )
    return Explanation(f"debug exit {verdict}", lines, REFERENCES["debug-exit"])


def _hlt(stop: Stop, snapshot: Snapshot, image: Image | None) -> Explanation:
    if snapshot.vcpus:
        return _all_wait(snapshot, image)
    guest = Guest.of(snapshot, image)
    why = _deaf(snapshot.cpu)
    return Explanation(f"HLT: nothing can wake the processor ({why})", (f"next: {guest.place()}",), REFERENCES["hlt"])


def _deaf(cpu: CpuState) -> str:
    enabled = cpu.rflags >> 9 & 1
    return "RFLAGS.IF = 1, but no device raises an interrupt" if enabled else "RFLAGS.IF = 0: only NMI, SMI or reset"


def _all_wait(snapshot: Snapshot, image: Image | None) -> Explanation:
    """One line a vCPU: what it waits for."""
    lines: list[str] = []
    for vcpu in snapshot.vcpus:
        guest = Guest.of(snapshot, image, vcpu.cpu)
        if vcpu.activity is Activity.WAIT_FOR_SIPI:
            words = "waits for a start-up IPI"
        elif vcpu.activity is Activity.HALTED:
            words = f"halted, next {guest.place()}: {_deaf(vcpu.cpu)}"
        else:
            words = f"active at {guest.place()}"
        # A frozen vCPU might go on; it is the user who wants it not to.
        lines.append(f"vCPU {vcpu.index}: {words}{', and frozen' if vcpu.frozen else ''}")
    frozen = [str(vcpu.index) for vcpu in snapshot.vcpus if vcpu.frozen]
    title = "HLT: nothing can wake any processor"
    if frozen:
        title += f" (frozen: {', '.join(frozen)})"
        lines.append("thaw gives the frozen ones their turn again")
    return Explanation(title, tuple(lines), (*REFERENCES["hlt"], *REFERENCES["start-up"]))


def _reset(stop: Stop, snapshot: Snapshot, image: Image | None) -> Explanation:
    """How the guest asked for it; the machine stops where a real one would begin anew."""
    guest = Guest.of(snapshot, image)
    lines = [f"next: {guest.place()}", "the machine stops here: restart begins anew"]
    title = stop.detail or "the guest asked for a reset or for power-off"
    return Explanation(title, tuple(lines), REFERENCES["reset"])


_SIMPLE = {
    StopReason.READY: "ready: nothing has run yet",
    StopReason.STEP: "stepped",
    StopReason.BREAKPOINT: "breakpoint",
    StopReason.WATCHPOINT: "watchpoint",
    StopReason.PAUSED: "paused",
    StopReason.SLICE: "the ticks asked for have passed",
    StopReason.BUDGET: "out of budget",
    StopReason.RESET: "the guest asked for a reset or for power-off",
    StopReason.UNSUPPORTED: "the engine cannot execute this instruction exactly, and does not guess",
    StopReason.ERROR: "the engine failed",
}


def explain_stop(stop: Stop, snapshot: Snapshot, image: Image | None) -> Explanation:
    """Why the machine is not running."""
    detailed = {
        StopReason.EXCEPTION: _exception,
        StopReason.TRIPLE_FAULT: _triple_fault,
        StopReason.DEBUG_EXIT: _debug_exit,
        StopReason.HLT: _hlt,
        StopReason.RESET: _reset,
    }.get(stop.reason)
    if detailed is not None:
        return detailed(stop, snapshot, image)
    guest = Guest.of(snapshot, image)
    title = _SIMPLE[stop.reason] + (f": {stop.detail}" if stop.detail else "")
    address = stop.breakpoint if stop.breakpoint is not None else guest.cpu.pc
    return Explanation(title, (f"at {guest.place(address)}, tick {stop.tick}",))
