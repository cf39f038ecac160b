"""Actions that move the machine, forward and back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final

from kvmscope.errors import UsageError

if TYPE_CHECKING:
    from kvmscope.debug.debugger import Debugger
    from kvmscope.ui.command_line import LineCancelled, LineEntered
    from kvmscope.ui.controller import Work
    from kvmscope.ui.line_panel import Key, PanelActivated
    from kvmscope.ui.machine_news import CommandDone
    from kvmscope.ui.workbench import Workbench
    from kvmscope.vmm.engine import Stop
    from kvmscope.vmm.events import Event
else:
    # Actions are mixed into the screen: each widget class in between would cost the first paint 5 ms.
    Workbench = object

__all__ = ["RunActions"]

_EVENT_SLICE: Final = 2_000
"""Ticks between two looks for a new event."""


class RunActions(Workbench):
    """Step, over, out, to cursor, continue; the same backwards; breakpoints; events."""

    def move(self, name: str, work: Work, *, repeatable: bool = False) -> None:
        """Move the machine; a text that it does not run yet is assembled and started instead.

        While a start is under way the move waits for it.
        """
        self.hush()
        if self.stale or not self.controller.ready:
            if not self.when_started(lambda: self.move(name, work, repeatable=repeatable)):
                self.start_machine()
            return
        self.controller.submit(name, work, repeatable=repeatable)
        self.refresh_bars()

    def action_step(self) -> None:
        """One instruction."""
        self.move("step", lambda debugger, cancel: debugger.step(cancel=cancel), repeatable=True)

    def action_over(self) -> None:
        """One instruction, a call as one."""
        self.move("step over", lambda debugger, cancel: debugger.over(cancel=cancel), repeatable=True)

    def action_step_line(self) -> None:
        """To the next source line, into calls."""
        self._move_line("step line", lambda debugger, cancel: lines().step_line(debugger, into=True, cancel=cancel))

    def action_over_line(self) -> None:
        """To the next source line, over calls."""
        self._move_line(
            "step line over", lambda debugger, cancel: lines().step_line(debugger, into=False, cancel=cancel)
        )

    def action_line_back(self) -> None:
        """Back to the beginning of a source line."""
        self._move_line("line back", lambda debugger, cancel: lines().back_line(debugger, into=True, cancel=cancel))

    def action_over_line_back(self) -> None:
        """Back to the beginning of a source line, calls as one."""
        self._move_line(
            "line back over", lambda debugger, cancel: lines().back_line(debugger, into=False, cancel=cancel)
        )

    def _move_line(self, name: str, work: Work) -> None:
        image = self.controller.image
        if image is not None and image.places is None:
            self.complain(
                UsageError("Only an image with a line table has source lines", hint="s and n step instructions")
            )
            return
        self.move(name, work, repeatable=True)

    def action_finish(self) -> None:
        """To the return of the present function."""
        self.move("finish", lambda debugger, cancel: debugger.out(cancel=cancel))

    def action_cont(self) -> None:
        """To a breakpoint or the end."""
        self.move("continue", lambda debugger, cancel: debugger.cont(cancel=cancel))

    def action_step_back(self) -> None:
        """One instruction back."""
        self.move("step back", lambda debugger, cancel: debugger.back(), repeatable=True)

    def action_over_back(self) -> None:
        """One instruction back, a call as one."""
        self.move("step back over", lambda debugger, cancel: debugger.back_over(cancel=cancel), repeatable=True)

    def action_entry(self) -> None:
        """Back to the call."""
        self.move("back to the call", lambda debugger, cancel: debugger.back_out(cancel=cancel))

    def action_cont_back(self) -> None:
        """Back to a breakpoint or the start."""
        self.move("continue back", lambda debugger, cancel: debugger.back_cont(cancel=cancel))

    def action_to_cursor(self) -> None:
        """On to the cursor's instruction."""
        address = self._address_here()
        if address is not None:
            self.move("run to cursor", lambda debugger, cancel: debugger.until(address, cancel=cancel))

    def action_cursor_back(self) -> None:
        """Back to the cursor's instruction."""
        address = self._address_here()
        if address is not None:
            self.move("back to cursor", lambda debugger, cancel: debugger.back_until(address, cancel=cancel))

    def action_next_event(self) -> None:
        """On to the next event."""
        self.move("next event", _to_next_event)

    def action_previous_event(self) -> None:
        """Back to the event before."""
        events = self.view.snapshot.events if self.view else ()
        tick = self.view.snapshot.tick if self.view else 0
        before: Event | None = None
        for event in reversed(events):
            # The first one of its tick: what one vCPU's instruction does to another stands behind it.
            if before is not None and event.tick < before.tick:
                break
            if event.tick < tick:
                before = event
        if before is None:
            self.say("There is no event before this point")
            return
        self.travel(before.tick, before.vcpu)

    def travel(self, tick: int, vcpu: int | None = None) -> None:
        """Go to a point of history, and look at a vCPU there."""

        def work(debugger: Debugger, cancel: threading.Event) -> Stop:
            stop = debugger.machine.goto(tick)
            if vcpu is not None:
                debugger.machine.select(vcpu)
            return stop

        self.move(f"travel to {tick}", work)

    def action_stop_run(self) -> None:
        """End a run at once."""
        if self.controller.busy:
            self.controller.stop()

    def action_restart(self) -> None:
        """Assemble again and start at the first instruction."""
        self.editing = False
        self.start_machine()

    def action_toggle_breakpoint(self) -> None:
        """At the cursor: a line of the source, or an address in a panel."""
        self.hush()
        key = self.focused_panel.current_key if self.focused_panel else None
        if key is None or key.kind not in ("code", "breakpoint"):
            self.toggle_line(self.editor.line)
        else:
            self.controller.toggle_address(int(key.value))

    def _address_here(self) -> int | None:
        """Address of the instruction under the cursor, in a panel or in the source."""
        key = self.focused_panel.current_key if self.focused_panel else None
        if key is not None and key.kind in ("code", "breakpoint"):
            return int(key.value)
        image = self.controller.image
        address: int | None
        if self.document.program is not None:
            address = next(iter(self.source_addresses(self.editor.line)), None)
        else:
            address = image.address_of_line(self.editor.line) if image and not self.stale else None
        if address is None:
            self.complain(UsageError("There is no code at or below the cursor", hint="move it to an instruction"))
        return address

    # The command line.

    def action_command_line(self) -> None:
        """Ask for a command."""
        self.ask_line("command")

    def action_watch(self) -> None:
        """Ask for an expression to show at every stop."""
        key = self.focused_panel.current_key if self.focused_panel else None
        name = f"${key.value}" if key is not None and key.kind == "register" else ""
        self.ask_line("command", f"display/x {name}")

    def ask_line(self, purpose: str, text: str = "") -> None:
        """Open the line at the bottom."""
        self.hush()
        self._return_to = self.focused if self.focused is not self.line else self._return_to
        self.status.display = False
        self.line.display = True
        self.line.border_title = purpose
        self.line.placeholder = _PLACEHOLDERS.get(purpose, "")
        self.line.ask(purpose, text, completer=self.completer_of(purpose))

    def completer_of(self, purpose: str) -> Callable[[str], list[str]] | None:
        """What completes a line of this purpose; the other actions know more purposes."""
        return self.controller.complete if purpose == "command" else None

    def close_line(self) -> None:
        """Close the line at the bottom and the one in place."""
        for line in (self.line, self.inplace):
            line.display = False
        self.status.display = True
        if self._return_to is not None and self._return_to.is_attached:
            self._return_to.focus()
        self._return_to = None

    def on_line_cancelled(self, message: LineCancelled) -> None:
        if self.line.display or self.inplace.display:
            self.close_line()

    def on_line_entered(self, message: LineEntered) -> None:
        self.close_line()
        self.take_line(message.purpose, message.text)

    def take_line(self, purpose: str, text: str) -> None:
        """A line was entered; the other actions know more purposes."""
        if purpose == "command":
            self.run_line(text)

    def run_line(self, text: str) -> None:
        """Carry out a line of the command line."""
        if not text.strip():
            return
        if self.stale or not self.controller.ready:
            self.say("The text has not been started yet: r starts it", "bar_warn")
        elif not self.controller.execute(text):
            self.say(f"{self.controller.busy_with} is still running: space stops it", "bar_warn")

    def on_command_done(self, message: CommandDone) -> None:
        if not self.controller.answered(message):
            return
        lines = message.result.lines
        if lines or message.result.action is None:
            self.console.say(message.line, lines)
        if len(lines) > 1:
            self.bring_up("console", focus=False)
        if message.result.lines:
            self.say(message.result.lines[-1], "bar_strong")
        if message.result.action is not None:
            self.carry_out(message.result.action.kind.value, message.result.action.argument)

    def carry_out(self, kind: str, argument: str) -> None:
        """What a command wants of the front end; the other actions know more kinds."""
        if kind == "run":
            self.start_machine()

    def on_panel_activated(self, message: PanelActivated) -> None:
        self.hush()
        self.open_key(message.key, message)

    def open_key(self, key: Key, message: PanelActivated) -> None:
        """What activating a key does; the other actions know more kinds."""
        if key.kind == "tick":
            self.travel(int(key.value), key.vcpu)
        elif key.kind == "breakpoint":
            self.controller.toggle_address(int(key.value))


def lines() -> ModuleType:
    """`kvmscope.debug.lines`, which nothing needs before the first paint."""
    return import_module("kvmscope.debug.lines")


_PLACEHOLDERS: Final = {
    "command": "break handler · x/4gx $rsp · print $rax + 8 · info registers · until 12 · help",
    "goto": "label · 0x401000 · 12 (line) · @40 (step)",
    "filter": "part of a device's or a register's name; empty: everything",
    "find": "text; capitals count only when there are some",
}


def _to_next_event(debugger: Debugger, cancel: threading.Event) -> Stop:
    """To the first event behind this point: known ones by travelling, new ones by running."""
    machine = debugger.machine
    here = machine.tick
    while True:
        before = machine.tick
        stop = machine.run(_EVENT_SLICE, cancel=cancel)
        snapshot = machine.snapshot()
        found = next((event for event in snapshot.events if event.tick > here), None)
        if found is not None:
            if found.tick < machine.tick:
                stop = machine.goto(found.tick)
            machine.select(found.vcpu)
            return stop
        if stop.reason.final or machine.tick == before or cancel.is_set():
            return stop
