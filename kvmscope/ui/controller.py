"""Between the screen and the machine: commands go to the session's thread, views come back as messages.

Keys may repeat faster than a machine steps.  A repeatable command is dropped while two are waiting, so that holding a key
never runs on after it is let go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Final, TypeAlias

from textual.message import Message

from kvmscope.ui.machine_news import CommandDone, FromSession, MachineFailed, MachineProgress, MachineStopped
from kvmscope.ui.session_side import (
    ReportingMachine,
    delete_breakpoints,
    displays_of,
    to_explain,
    toggle_address_breakpoint,
    toggle_line_breakpoint,
)

if TYPE_CHECKING:
    from kvmscope.asm.image import Image
    from kvmscope.debug.breakpoints import Breakpoints
    from kvmscope.debug.commands import CommandContext
    from kvmscope.debug.debugger import Debugger
    from kvmscope.debug.explain import Explanation
    from kvmscope.ui.view import View
    from kvmscope.vmm import session as vmm
    from kvmscope.vmm.config import MachineConfig
    from kvmscope.vmm.engine import Stop
    from kvmscope.vmm.events import ExceptionEvent
    from kvmscope.vmm.snapshot import Delta, Snapshot

__all__ = ["Controller", "Work", "load_debugger"]

_WAITING: Final = 2
"""Repeatable commands that may wait behind the running one."""


Work: TypeAlias = "Callable[[Debugger, threading.Event], Stop | None]"
"""Something to do with the debugger, on the session's thread."""


@dataclass
class _Current:
    """One machine and what belongs to it."""

    number: int
    session: vmm.Session
    image: Image
    config: MachineConfig
    debugger: Debugger | None = None
    context: CommandContext | None = None
    breakpoints: frozenset[int] = frozenset()
    lines: dict[int, int | None] = field(default_factory=dict)
    kept: Breakpoints | None = None
    """Breakpoints of the machine before."""
    kept_lines: dict[int, int] = field(default_factory=dict)
    """Their lines as the text stands now, by number."""
    wanted: frozenset[int] = frozenset()
    """Lines that wait for a breakpoint."""
    explained: Stop | ExceptionEvent | None = None
    """What ``explanation`` is about."""
    explanation: Explanation | None = None

    def carry_over(self, debugger: Debugger) -> None:
        """Breakpoints of the machine before: those on lines follow their lines to new addresses."""
        image = self.image
        if self.kept is not None:
            debugger.breakpoints = self.kept
        places = {number: image.address_of_line(line) for number, line in self.kept_lines.items()}
        addresses = {number: address for number, address in places.items() if address is not None}
        debugger.breakpoints.moved(addresses, self.kept_lines)
        for line in sorted(self.wanted):
            address = image.address_of_line(line)
            if address is not None:
                debugger.breakpoints.add(address, f"line {line}", line=line)
        debugger.machine.set_breakpoints(debugger.breakpoints.addresses())


class Controller:
    """Owns the session.  All methods are for the UI's thread unless they say otherwise."""

    def __init__(self, post: Callable[[Message], object]) -> None:
        self._post = post
        self._current: _Current | None = None
        self._number = 0
        self._lines: dict[int, int | None] = {}
        self._wanted: set[int] = set()
        self._kept: Breakpoints | None = None
        self._outstanding = 0
        self.busy_with = ""

    # The machine's life.

    @property
    def ready(self) -> bool:
        """There is a machine."""
        return self._current is not None

    @property
    def busy(self) -> bool:
        """A command has not been answered yet."""
        return self._outstanding > 0

    @property
    def image(self) -> Image | None:
        """The program of the machine."""
        return self._current.image if self._current else None

    def start(self, image: Image, config: MachineConfig) -> None:
        """Boot a machine; the one before ends.  `MachineStopped` or `MachineFailed` follows."""
        from kvmscope.vmm.machine import Machine
        from kvmscope.vmm.session import Session

        self.close()
        self._number += 1
        number = self._number
        self._outstanding = 1
        self.busy_with = "booting"
        ready = threading.Event()

        def listener(message: vmm.Message) -> None:
            ready.wait()
            self._heard(number, message)

        session = Session(lambda: Machine(config, image), listener)
        lines = {number: line for number, line in self._lines.items() if line is not None}
        self._current = _Current(
            number, session, image, config, kept=self._kept, kept_lines=lines, wanted=frozenset(self._wanted)
        )
        ready.set()
        # The debugger is made at once: breakpoints kept from the machine before are seen, and labels can be completed.
        self._outstanding += 1
        session.submit(self._make_debugger)

    def close(self) -> None:
        """End the machine, if there is one."""
        current, self._current = self._current, None
        self._outstanding = 0
        if current is not None:
            if current.debugger is not None:
                self._kept = current.debugger.breakpoints
            current.session.close()

    def forget(self) -> None:
        """End the machine and drop its breakpoints: another document follows."""
        self.close()
        self._kept = None
        self._lines.clear()
        self._wanted.clear()

    def answered(self, message: FromSession) -> bool:
        """Take note of a message that has arrived; False when it is about a machine that is no more."""
        if self._current is None or message.machine != self._current.number:
            return False
        if isinstance(message, (MachineStopped, MachineFailed)):
            self._outstanding = max(0, self._outstanding - 1)
            if not self._outstanding:
                self.busy_with = ""
        if isinstance(message, MachineStopped) and message.lines is not None:
            # A line that is known already may have been moved by an edit since.
            self._lines = {number: self._lines.get(number, line) for number, line in message.lines.items()}
            self._wanted -= {line for line in self._lines.values() if line is not None}
        elif isinstance(message, MachineFailed) and message.view is None:
            self.close()
        return True

    # Commands.

    def submit(self, name: str, work: Work, *, repeatable: bool = False) -> bool:
        """Have ``work`` done; False when it was dropped because too much waits already."""
        current = self._current
        if current is None or (self.busy and (not repeatable or self._outstanding > _WAITING)):
            return False

        def command(context: vmm.Context) -> Stop | None:
            return work(self._debugger(current, context), context.cancel)

        self._outstanding += 1
        self.busy_with = name
        current.session.submit(command)
        return True

    def edit_memory(self, physical: int, data: bytes) -> bool:
        """Change RAM; an event of history, which cuts the future when done in the past."""
        from kvmscope.vmm.session import Edit

        return self._send("edit", Edit(address=physical, data=data))

    def select_vcpu(self, vcpu: int) -> bool:
        """Look at another vCPU."""
        from kvmscope.vmm.session import Select

        return self._send("select", Select(vcpu))

    def freeze(self, vcpus: frozenset[int]) -> bool:
        """Give these vCPUs no turn; an event of history too."""
        from kvmscope.vmm.session import Freeze

        return self._send("freeze", Freeze(vcpus))

    def _send(self, name: str, command: vmm.Command) -> bool:
        """Have the session do something; False while it is busy."""
        current = self._current
        if current is None or self.busy:
            return False
        self._outstanding += 1
        self.busy_with = name
        current.session.submit(command)
        return True

    def execute(self, line: str) -> bool:
        """Carry out a line of the command line; `CommandDone` comes before the stop."""
        current = self._current
        if current is None or self.busy:
            return False

        def command(context: vmm.Context) -> Stop | None:
            from kvmscope.debug.commands import execute

            self._debugger(current, context)
            assert current.context is not None
            current.context.cancel = context.cancel
            result = execute(line, current.context)
            self._post(CommandDone(current.number, line, result))
            return result.stop

        self._outstanding += 1
        self.busy_with = line.split(" ", 1)[0]
        current.session.submit(command)
        return True

    def complete(self, line: str) -> list[str]:
        """What ``line`` may become; reads the machine only while it stands."""
        from kvmscope.debug.commands import complete

        return complete(line, self._current.context if self._current and not self.busy else None)

    def stop(self) -> None:
        """End the running command at once and drop those that wait."""
        if self._current is not None:
            self._current.session.stop()
            # Dropped commands are never answered; the running one is.
            self._outstanding = min(self._outstanding, 1)

    # Breakpoints on lines; they outlive the machine.

    def toggle_line(self, line: int, *, stale: bool = False) -> None:
        """Set or clear a breakpoint on a source line.

        ``stale``: the text is no longer the machine's program; a new breakpoint then waits for the next start.
        """
        numbers = [number for number, known in self._lines.items() if known == line]
        if line in self._wanted:
            self._wanted.discard(line)
        elif numbers and self.ready:
            self.submit("breakpoint", lambda debugger, cancel: delete_breakpoints(debugger, numbers))
        elif stale or not self.ready:
            self._wanted.add(line)
        else:
            self.submit("breakpoint", lambda debugger, cancel: toggle_line_breakpoint(debugger, line))

    def toggle_address(self, address: int) -> None:
        """Set or clear a breakpoint at a linear address."""
        self.submit("breakpoint", lambda debugger, cancel: toggle_address_breakpoint(debugger, address))

    def move_lines(self, moved: Callable[[int], int]) -> None:
        """Source lines were moved by an edit."""
        self._lines = {number: moved(line) if line is not None else None for number, line in self._lines.items()}
        self._wanted = {moved(line) for line in self._wanted}

    def breakpoint_lines(self) -> set[int]:
        """Lines (from 1) with an enabled breakpoint, as the text stands now."""
        return {line for line in self._lines.values() if line is not None} | self._wanted

    # On the session's thread.

    def _debugger(self, current: _Current, context: vmm.Context) -> Debugger:
        if current.debugger is None:
            from kvmscope.debug.commands import CommandContext
            from kvmscope.debug.debugger import Debugger

            machine = ReportingMachine(context.machine, context.progress)
            current.debugger = Debugger(machine)
            current.carry_over(current.debugger)
            current.context = CommandContext(machine, current.debugger)
        return current.debugger

    def _make_debugger(self, context: vmm.Context) -> None:
        if self._current is not None:
            self._debugger(self._current, context)

    def _heard(self, number: int, message: vmm.Message) -> None:
        from kvmscope.vmm import session as vmm
        from kvmscope.vmm.snapshot import Delta

        current = self._current
        if current is None or current.number != number:
            return
        if isinstance(message, vmm.Progress):
            self._post(MachineProgress(number, message.tick))
        elif isinstance(message, vmm.Started):
            view = self._view(current, message.snapshot, Delta())
            self._post(MachineStopped(number, view))
        elif isinstance(message, vmm.Stopped):
            view = self._view(current, message.snapshot, message.delta)
            self._post(MachineStopped(number, view, current.lines, displays_of(current.context)))
        else:
            known = self._view(current, message.snapshot, Delta()) if message.snapshot else None
            self._post(MachineFailed(number, message.error, known))

    def _view(self, current: _Current, snapshot: Snapshot, delta: Delta) -> View:
        from kvmscope.ui.view import View

        if current.debugger is not None:
            points = [point for point in current.debugger.breakpoints if point.enabled]
            current.breakpoints = frozenset(point.address for point in points)
            current.lines = {point.number: point.line for point in points}
        view = View(snapshot, delta, current.image, current.config, current.breakpoints)
        if current.image.places is not None:
            # The line table is read here, and not on the thread that draws.
            current.image.place_at(snapshot.cpu.pc)
        what = to_explain(snapshot)
        if what is None:
            return view
        if what is not current.explained:
            from kvmscope.debug.explain import explain

            # Kept for as long as it is the newest one: later the memory that explains it may be another.
            current.explained, current.explanation = what, explain(what, snapshot, current.image)
        return replace(view, explanation=current.explanation)


def load_debugger() -> None:
    """Import what the first step would otherwise wait for; for a thread of its own."""
    for name in (
        "kvmscope.vmm.session",
        "kvmscope.debug.debugger",
        "kvmscope.debug.explain",
        "kvmscope.debug.commands",
    ):
        import_module(name)
