"""What header, status line and footer say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.asm.image import Severity
from kvmscope.ui.actions import ACTIONS, BY_ID, Where
from kvmscope.ui.bars import BarItem
from kvmscope.ui.keymap import spelled
from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.events import (
    ControlRegisterEvent,
    Event,
    ExceptionEvent,
    MmioEvent,
    ModeEvent,
    MsrEvent,
    PortEvent,
)
from kvmscope.vmm.snapshot import Snapshot

if TYPE_CHECKING:
    from kvmscope.ui.workbench import Workbench

__all__ = ["event_text", "footer", "header", "status"]

_RULE: Final = BarItem(" │ ", "bar_rule")
_REASONS: Final = {
    StopReason.READY: "ready",
    StopReason.STEP: "stopped",
    StopReason.SLICE: "stopped",
    StopReason.PAUSED: "stopped",
    StopReason.BREAKPOINT: "breakpoint",
    StopReason.WATCHPOINT: "watchpoint",
    StopReason.EXCEPTION: "fault",
    StopReason.TRIPLE_FAULT: "triple fault",
    StopReason.DEBUG_EXIT: "exited",
    StopReason.HLT: "halted",
    StopReason.BUDGET: "out of budget",
    StopReason.UNSUPPORTED: "unsupported",
    StopReason.ERROR: "engine error",
}


def event_text(event: Event) -> str:
    """A few words for an event: ``#PF(0x2)``, ``out 0xe9 = 0x41``, ``wrmsr 0x10``."""
    if isinstance(event, ExceptionEvent):
        from kvmscope.x86.exceptions import mnemonic

        name = mnemonic(event.vector)
        return name if event.error_code is None else f"{name}({event.error_code:#x})"
    if isinstance(event, PortEvent):
        return f"{'out' if event.write else 'in'} {event.port:#x} = {event.value:#x}"
    if isinstance(event, MmioEvent):
        return f"mmio {'write' if event.write else 'read'} {event.address:#x}"
    if isinstance(event, MsrEvent):
        return f"{'wrmsr' if event.write else 'rdmsr'} {event.index:#x}"
    if isinstance(event, ControlRegisterEvent):
        return f"{event.name} = {event.new:#x}"
    if isinstance(event, ModeEvent):
        return event.what
    return "event"


def header(bench: Workbench, progress: int | None, width: int) -> tuple[list[BarItem], list[BarItem]]:
    """File, mode and CPL, step k/n, last event; at the right end the state."""
    left = [BarItem(" kvmscope ", "bar_strong"), BarItem("│ ", "bar_rule")]
    mark = " *" if bench.modified else ""
    left.append(BarItem(f"{bench.document.name}{mark}", "bar_strong"))
    snapshot = bench.view.snapshot if bench.view else None
    if snapshot is not None:
        left += [_RULE, BarItem(_mode(snapshot), "bar")]
        tick = snapshot.tick if progress is None else progress
        last = max(snapshot.last_tick, tick)
        left += [_RULE, BarItem(f"step {tick:,}/{last:,}", "bar")]
        if snapshot.events:
            left += [_RULE, BarItem(event_text(snapshot.events[-1]), "bar")]
    return left, [_state(bench, snapshot, progress)]


def _mode(snapshot: Snapshot) -> str:
    cpu = snapshot.cpu
    if not cpu.cr0 & 1:
        return "real mode"
    virtual = "v86 " if cpu.rflags >> 17 & 1 else ""
    return f"{virtual}{cpu.mode}-bit CPL {cpu.cpl}"


def _state(bench: Workbench, snapshot: Snapshot | None, progress: int | None) -> BarItem:
    if bench.editing:
        return BarItem(" ✎ EDIT ", "bar_edit")
    if progress is not None or bench.controller.busy_with in ("continue", "continue back"):
        return BarItem(" ▶▶ RUNNING ", "bar_run")
    if snapshot is None:
        return BarItem(" · ", "bar")
    if snapshot.tick < snapshot.last_tick:
        return BarItem(" ◀ PAST ", "bar_past")
    word = _REASONS[snapshot.stop.reason].upper()
    bad = snapshot.stop.reason in (StopReason.EXCEPTION, StopReason.TRIPLE_FAULT, StopReason.ERROR)
    glyph = "✗" if bad else "■" if snapshot.stop.reason.final else "▶"
    return BarItem(f" {glyph} {word} ", "bar_fault" if bad else "bar_run")


def status(bench: Workbench) -> tuple[BarItem, ...]:
    """The problem of the cursor's line, else what the machine ran into, else what the reproducer is about."""
    note = bench.editor.problem_at(bench.editor.line)
    if note is not None and (bench.editing or bench.editor.has_focus):
        style = "bar_error" if note.severity is Severity.ERROR else "bar_warn"
        hint = f"  ({note.hint})" if note.hint else ""
        return (
            BarItem(f" {note.line}:{note.column} ", "bar"),
            BarItem(note.message, style),
            BarItem(" ".join(hint.split("\n"))),
        )
    view = bench.view
    if view is not None and not bench.stale:
        if view.explanation is not None:
            bad = view.snapshot.stop.reason in (StopReason.EXCEPTION, StopReason.TRIPLE_FAULT, StopReason.UNSUPPORTED)
            return (BarItem(f" {view.explanation.title}", "bar_error" if bad else "bar_strong"),)
        if view.snapshot.stop.detail:
            return (BarItem(f" {view.snapshot.stop.detail}", "bar_strong"),)
    result = bench.assembled
    if result is not None and result.errors:
        return (BarItem(f" {result.errors} error{'' if result.errors == 1 else 's'}", "bar_error"), _next_problem())
    if bench.stale and bench.view is not None:
        return (BarItem(f" Changed: {spelled('edit.leave')} assembles it and starts again", "bar"),)
    title = result.reproducer.title if result is not None and result.reproducer is not None else ""
    return (BarItem(f" {title}", "bar"),)


def _next_problem() -> BarItem:
    return BarItem(f"  {spelled('edit.next_problem')} goes to the next one", "bar", BY_ID["edit.next_problem"].method)


def footer(bench: Workbench) -> tuple[list[BarItem], list[BarItem]]:
    """The keys that help here."""
    typing = bench.editing and bench.editor.has_focus
    if typing:
        ids = ["edit.leave", "edit.start", "file.save", "edit.find", "edit.next_problem", "app.palette", "app.quit"]
    elif bench.controller.busy and not bench.controller.busy_with.startswith("step"):
        ids = ["run.stop"]
    else:
        ids = [action.id for action in ACTIONS if action.where is Where.RUN and action.short]
        ids.append("app.help")
    items: list[BarItem] = []
    panel = bench.focused_panel
    if panel is not None and panel.current_key is not None and ids[0] != "run.stop":
        items += [BarItem(" Enter", "bar_key"), BarItem(f" {panel.enter_does(panel.current_key)} ", "bar")]
    for name in ids:
        action = BY_ID[name]
        word = action.short or action.title.lower()
        items.append(BarItem(f" {spelled(name, typing=typing)}", "bar_key", action.method))
        items.append(BarItem(f" {word} ", "bar", action.method))
    return items, [BarItem(f" {spelled('app.help', typing=True)}", "bar_key", "help"), BarItem(" help ", "bar", "help")]
