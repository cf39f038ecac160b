"""What the workbench has to do with the suite browser: open its entries, and go back to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from kvmscope.errors import KvmscopeError
from kvmscope.ui.document import Document
from kvmscope.ui.file_actions import FileActions

if TYPE_CHECKING:
    import threading

    from kvmscope.debug.debugger import Debugger
    from kvmscope.reproducer.kut import ReportLine
    from kvmscope.ui.suite.model import Entry
    from kvmscope.vmm.engine import Stop

__all__ = ["SuiteActions", "Told"]


@dataclass
class Told(Message):
    """Words for the status line from the session's thread."""

    text: str
    good: bool = True


class SuiteActions(FileActions):
    """Mixed into the screen."""

    def action_suite(self) -> None:
        """Back to the browser."""
        from kvmscope.ui.app import KvmscopeApp

        app = self.app
        if not isinstance(app, KvmscopeApp) or app.suite is None:
            self.say("No tree of kvm-unit-tests is open: kvmscope TREE opens one", "bar_warn")
        else:
            app.push_screen(app.suite)

    def open_entry(self, entry: Entry, check: int | None) -> None:
        """Work on an entry's test: at its start, or at the call that reported the check of that number."""
        line = entry.lines[check] if check is not None else None
        self.run_worker(self._open_entry(entry, line), group="file", exclusive=True)

    async def _open_entry(self, entry: Entry, line: ReportLine | None) -> None:
        from kvmscope.suite.runner import entry_program

        if self.app.screen is not self:
            self.app.pop_screen()
        try:
            program, notes = entry_program(entry.job)
        except KvmscopeError as error:
            self.complain(error)
            return
        if not await self._may_leave():
            return
        self.take_document(Document.of_program(entry.job.image, program, _about(entry, line, notes)))
        if line is None:
            return

        def work(debugger: Debugger, cancel: threading.Event) -> Stop | None:
            return self._to_report(debugger, cancel, line)

        # Behind what the start itself has the session do.
        self.move("continue", work, repeatable=True)

    def _to_report(self, debugger: Debugger, cancel: threading.Event, line: ReportLine) -> Stop | None:
        """On the session's thread."""
        from kvmscope.suite.failing import to_report
        from kvmscope.ui.session_side import ReportingMachine

        reporting = debugger.machine
        assert isinstance(reporting, ReportingMachine)
        machine = reporting.machine
        try:
            found = to_report(machine, line.begin, line.end, cancel=cancel, progress=reporting.progress)
        finally:
            machine.set_breakpoints(debugger.breakpoints.addresses())
        if found is None:
            self.post_message(Told("Stopped on the way", good=False))
        else:
            self.post_message(Told(f"{line.kind.value}: {line.text}  │  {found.what}", good=found.exact))
        return machine.stop

    def on_told(self, message: Told) -> None:
        """News of a search."""
        self.say(message.text, "bar_strong" if message.good else "bar_warn")


def _about(entry: Entry, line: ReportLine | None, notes: tuple[str, ...]) -> str:
    """What stands in the place of a source."""
    about = entry.selected.entry
    rows = [
        f"; {about.name}: {about.file} of kvm-unit-tests",
        f"; arguments: {about.append or '(none)'}",
        f"; QEMU's options: {' '.join(about.params) or '(none)'}",
        *(f"; note: {note}" for note in notes),
    ]
    if line is not None:
        rows += [
            ";",
            f"; {line.kind.value}: {line.text}",
            "; stopped at the call that reported it; S and C go back from there",
        ]
    return "\n".join("".join(char if char.isprintable() else " " for char in row) for row in rows) + "\n"
