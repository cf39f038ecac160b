"""What header, status line and footer say.

Stop reasons are compared as the words they are: this module draws the first paint, before the machine's are imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kvmscope.ui.actions import BY_ID
from kvmscope.ui.bars import BarItem
from kvmscope.ui.keymap import spelled
from kvmscope.ui.vcpu_texts import guest_time, vcpu_items

if TYPE_CHECKING:
    from kvmscope.ui.view import View
    from kvmscope.ui.workbench import Workbench
    from kvmscope.vmm.events import Event
    from kvmscope.vmm.snapshot import Snapshot

__all__ = ["clock", "displays", "event_text", "footer", "header", "status"]

_RULE: Final = BarItem(" │ ", "bar_rule")
_WIDE: Final = 100
"""Cells from which on the program's name has room beside several vCPUs."""
_RUN_KEYS: Final = (
    "run.step", "back.step", "run.over", "run.continue", "run.breakpoint", "run.next_event", "look.goto", "edit.edit",
    "look.command", "run.restart", "file.export", "app.palette", "app.quit",
)  # fmt: skip
"""The footer's keys while running, the ones first that a newcomer needs."""
_REASONS: Final = {
    "ready": "ready",
    "step": "stopped",
    "slice": "stopped",
    "paused": "stopped",
    "breakpoint": "breakpoint",
    "watchpoint": "watchpoint",
    "exception": "fault",
    "triple-fault": "triple fault",
    "debug-exit": "exited",
    "hlt": "halted",
    "reset": "reset",
    "budget": "out of budget",
    "unsupported": "unsupported",
    "error": "engine error",
}


def event_text(event: Event) -> str:
    """A few words for an event: ``#PF(0x2)``, ``out 0xe9 = 0x41``, ``wrmsr 0x10``."""
    from kvmscope.debug.explain.names import event_title
    from kvmscope.vmm import events

    match event:
        case events.ExceptionEvent():
            return event_title(event)
        case events.PortEvent():
            return f"{'out' if event.write else 'in'} {event.port:#x} = {event.value:#x}"
        case events.MmioEvent():
            return f"mmio {'write' if event.write else 'read'} {event.address:#x}"
        case events.MsrEvent():
            return f"{'wrmsr' if event.write else 'rdmsr'} {event.index:#x}"
        case events.ControlRegisterEvent():
            return f"{event.name} = {event.new:#x}"
        case events.ModeEvent():
            return event.what
    return "event"


def header(bench: Workbench, progress: int | None, width: int) -> tuple[list[BarItem], list[BarItem]]:
    """File, vCPUs where there are several, mode and CPL, step k/n, last event; at the right end the state."""
    snapshot = bench.view.snapshot if bench.view else None
    several = snapshot is not None and bool(snapshot.vcpus)
    right = [_state(bench, snapshot, progress)]
    left = [BarItem(" kvmscope ", "bar_strong"), BarItem("│ ", "bar_rule")]
    if several and width < _WIDE:
        left = [BarItem(" ")]
    left.append(BarItem(f"{bench.document.name}{' *' if bench.modified else ''}", "bar_strong"))
    if snapshot is None:
        return left, right
    tick = snapshot.tick if progress is None else progress
    last = max(snapshot.last_tick, tick)
    rest = [_RULE, BarItem(_mode(snapshot), "bar"), _RULE, BarItem(f"step {tick:,}/{last:,}", "bar")]
    if several:
        room = width - sum(len(item.text) for item in (*left, _RULE, *rest, *right))
        left += [_RULE, *vcpu_items(snapshot, room)]
    left += rest
    if snapshot.events:
        left += [_RULE, BarItem(event_text(snapshot.events[-1]), "bar")]
    return left, right


def _mode(snapshot: Snapshot) -> str:
    cpu = snapshot.cpu
    if not cpu.cr0 & 1:
        return "real mode"
    virtual = "v86 " if cpu.rflags >> 17 & 1 else ""
    return f"{virtual}{cpu.mode}-bit CPL {cpu.cpl}"


def _state(bench: Workbench, snapshot: Snapshot | None, progress: int | None) -> BarItem:
    if bench.editing:
        return BarItem(" ✎ EDIT ", "bar_edit")
    if progress is not None or (bench.view is not None and bench.controller.busy_with in ("continue", "continue back")):
        return BarItem(" ▶▶ RUNNING ", "bar_run")
    if snapshot is None:
        return BarItem(" · ", "bar")
    if snapshot.tick < snapshot.last_tick:
        return BarItem(" ◀ PAST ", "bar_past")
    word = _REASONS[snapshot.stop.reason].upper()
    bad = snapshot.stop.reason in ("exception", "triple-fault", "error")
    glyph = "✗" if bad else "■" if snapshot.stop.reason.final else "▶"
    return BarItem(f" {glyph} {word} ", "bar_fault" if bad else "bar_run")


def status(bench: Workbench) -> tuple[BarItem, ...]:
    """The problem of the cursor's line, else what the machine ran into, else what the reproducer is about."""
    note = bench.editor.problem_at(bench.editor.line)
    if note is not None and (bench.editing or bench.editor.has_focus):
        style = "bar_error" if note.severity == "error" else "bar_warn"
        hint = f"  ({note.hint})" if note.hint else ""
        return (
            BarItem(f" {note.line}:{note.column} ", "bar"),
            BarItem(note.message, style),
            BarItem(" ".join(hint.split("\n"))),
        )
    view = bench.view
    if view is not None and not bench.stale:
        stop = view.snapshot.stop
        if stop.reason == "breakpoint" and (not view.snapshot.vcpus or view.snapshot.cpu.pc == stop.breakpoint):
            return (*_which(bench), BarItem(f" Breakpoint at {_place(view)}", "bar_strong"))
        if view.outcome is not None:
            return _verdict(view)
        if view.explanation is not None and _news(view):
            bad = stop.reason in ("exception", "triple-fault", "unsupported")
            return (BarItem(f" {view.explanation.title}", "bar_error" if bad else "bar_strong"),)
        if stop.detail:
            return (BarItem(f" {stop.detail}", "bar_strong"),)
    result = bench.assembled
    if result is not None and result.errors:
        return (BarItem(f" {result.errors} error{'' if result.errors == 1 else 's'}", "bar_error"), _next_problem())
    if bench.stale and bench.view is not None:
        return (BarItem(f" Changed: {spelled('edit.leave')} assembles it and starts again", "bar"),)
    title = result.reproducer.title if result is not None and result.reproducer is not None else ""
    return (BarItem(f" {title}", "bar"),)


def _which(bench: Workbench) -> tuple[BarItem, ...]:
    """Of several vCPUs the one that is looked at, and that it was another before the machine stopped."""
    snapshot = bench.view.snapshot if bench.view is not None else None
    if snapshot is None or not snapshot.vcpus:
        return ()
    before = bench.since.switched_from
    items = (BarItem(f" vCPU {snapshot.vcpu}:", "bar_strong"),)
    return items if before is None else (BarItem(f" vCPU {before} →", "bar_warn"), *items)


def clock(bench: Workbench, width: int, beside: Sequence[BarItem]) -> tuple[BarItem, ...]:
    """Guest time for the right end of the status line, where it is not the step and there is room for it."""
    room = width - sum(len(item.text) for item in beside) - 2
    text = guest_time(bench.view.snapshot, bench.since, room) if bench.view is not None else ""
    return (BarItem(f" {text} ", "bar"),) if text else ()


def _verdict(view: View) -> tuple[BarItem, ...]:
    """``PASS 6 expectations met``, and what ended the guest."""
    result = view.outcome
    assert result is not None
    good = result.verdict in ("pass", "xfail", "kfail", "skip")
    title = view.explanation.title if view.explanation else view.snapshot.stop.detail
    return (
        BarItem(f" {'✓' if good else '✗'} {result.verdict.upper()} ", "bar_strong" if good else "bar_error"),
        BarItem(f"{result.summary.partition(', stopped by')[0]} "),
        _RULE,
        BarItem(f" {title}", "bar_strong" if good else "bar_error"),
    )


def _news(view: View) -> bool:
    """What is explained has just happened: the guest ended, or this step raised an exception or stands right behind it."""
    from kvmscope.vmm.events import ExceptionEvent

    snapshot = view.snapshot
    if snapshot.stop.reason.final or snapshot.stop.reason == "budget":
        return True
    last = snapshot.events[-1] if snapshot.events else None
    just_here = isinstance(last, ExceptionEvent) and last.tick == snapshot.tick
    return just_here or any(isinstance(event, ExceptionEvent) for event in view.delta.events)


def displays(lines: Sequence[str], width: int) -> list[BarItem]:
    """Displayed expressions for the right end of the status line, as many as half of it takes."""
    items: list[BarItem] = []
    room = width // 2
    for line in lines:
        text = f" {line.partition(': ')[2] or line} "
        room -= len(text) + 1
        if room < 0:
            break
        items += [BarItem("│", "bar_rule"), BarItem(text, "bar_strong")]
    return items


def _place(view: View) -> str:
    """``0x401000 <label+4>, line 12`` of the next instruction."""
    address = view.snapshot.cpu.pc
    label, line, place = view.image.symbol_at(address), view.line, view.image.place_at(address)
    named = f" <{label[0]}{f'+{label[1]:#x}' if label[1] else ''}>" if label else ""
    return f"{address:#x}{named}" + (f", {place}" if place else f", line {line}" if line else "")


def _next_problem() -> BarItem:
    return BarItem(f"  {spelled('edit.next_problem')} goes to the next one", "bar", BY_ID["edit.next_problem"].method)


def footer(bench: Workbench, width: int) -> tuple[list[BarItem], list[BarItem]]:
    """The keys that help here, as many as there is room for; help is always among them."""
    typing = bench.editing and bench.editor.has_focus
    words: list[tuple[str, str, str]] = []
    panel = bench.focused_panel
    ids: tuple[str, ...] = _RUN_KEYS
    if typing:
        ids = ("edit.leave", "edit.start", "file.save", "edit.find", "edit.next_problem", "app.palette", "app.quit")
    elif bench.view is not None and bench.controller.busy and not bench.controller.busy_with.startswith("step"):
        ids = ("run.stop",)
    elif panel is not None and panel.current_key is not None:
        words.append(("Enter", panel.enter_does(panel.current_key), ""))
    for name in ids:
        action = BY_ID[name]
        words.append((spelled(name, typing=typing), action.short or action.title.lower(), action.method))
    last = [BarItem(f" {spelled('app.help', typing=typing)}", "bar_key", "help"), BarItem(" help ", "bar", "help")]
    room = width - sum(len(item.text) for item in last)
    items: list[BarItem] = []
    for key, word, method in words:
        room -= len(key) + len(word) + 3
        if room < 0:
            break
        items += [BarItem(f" {key}", "bar_key", method), BarItem(f" {word} ", "bar", method)]
    return items, last
