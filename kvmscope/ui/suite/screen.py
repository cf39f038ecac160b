"""The suite browser: a screen over the workbench, with the entries at the left and the checks of one at the right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.screen import Screen

from kvmscope.suite.pool import Began, Done, Event, Output
from kvmscope.suite.runner import MAX_SMP
from kvmscope.suite.selection import Selection, select
from kvmscope.suite.tree import Tree
from kvmscope.ui import modals as dialogs
from kvmscope.ui.bars import Bar, BarClicked, BarItem
from kvmscope.ui.command_line import CommandLine, LineCancelled, LineEntered
from kvmscope.ui.line_panel import Kind, LinePanel, PanelActivated
from kvmscope.ui.suite.model import Entry, Filter, SuiteModel
from kvmscope.ui.suite.panels import ChecksPanel, EntriesPanel, EntryChosen
from kvmscope.ui.suite.work import SuiteWork

__all__ = ["SuiteNews", "SuiteScreen"]

_KEYS = (
    ("r", "run", "run_one"),
    ("a", "run all listed", "run_listed"),
    ("space", "stop", "stop"),
    ("f", "filter", "next_filter"),
    ("/", "find", "find"),
    ("Enter", "checks, open there", ""),
    ("o", "open at the start", "open_start"),
    ("Esc", "to the machine", "leave"),
)


_BREAKPOINTS = [(0, "-narrow"), (100, "-roomy")]


@dataclass
class SuiteNews(Message):
    """What happened in the worker processes; empty: nothing runs any more."""

    events: Sequence[Event]


Opener = Callable[[Entry, int | None], object]
"""Opens an entry in the machine: at the call that reported the check of that number, or (None) at its start."""


class SuiteScreen(Screen[None]):
    """See the module."""

    CSS = """
    SuiteScreen #halves { layout: horizontal; height: 1fr; width: 100%; }
    SuiteScreen #entries { width: 3fr; }
    SuiteScreen #checks { width: 4fr; margin-left: 1; }
    SuiteScreen.-narrow #halves { layout: vertical; }
    SuiteScreen.-narrow LinePanel { width: 100%; margin-left: 0; }
    """
    AUTO_FOCUS = "#entries"
    HORIZONTAL_BREAKPOINTS = _BREAKPOINTS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "run_one", "Run", show=False, id="suite.run", tooltip="Run the entry under the cursor"),
        Binding("a", "run_listed", "Run all", show=False, id="suite.all", tooltip="Run all entries that are listed"),
        Binding("space", "stop", "Stop", show=False, id="suite.stop", tooltip="End what runs, forget what waits"),
        Binding(
            "f", "next_filter", "Filter", show=False, id="suite.filter", tooltip="List all, failed, passed, skipped"
        ),
        Binding("slash", "find", "Find", show=False, id="suite.find", tooltip="List entries by a part of their names"),
        Binding(
            "o", "open_start", "Open", show=False, id="suite.open", tooltip="Open the entry at its first instruction"
        ),
        Binding("tab", "other_half", "Other half", show=False, id="suite.half", tooltip="To the other half"),
        Binding("escape", "leave", "Back", show=False, id="suite.leave", tooltip="To the machine"),
        Binding("question_mark,f1", "help", "Help", show=False, id="suite.help", tooltip="Keys and panels"),
    ]

    def __init__(self, tree: Tree, opener: Opener) -> None:
        super().__init__(id="suite")
        # Entries marked nodefault are run when one asks for them.
        self.model = SuiteModel(tree, select(tree, Selection(all=True), max_smp=MAX_SMP))
        self._opener = opener
        self.work = SuiteWork(lambda events: self.post_message(SuiteNews(events)))
        self.header, self.keys = Bar(id="header"), Bar(id="keys")
        self.status = Bar(id="status")
        self.entries, self.checks = EntriesPanel(self.model), ChecksPanel(self.model)
        self._number: int | None = None
        self.line = CommandLine(id="line")
        self.line.display = False

    def compose(self) -> ComposeResult:
        yield self.header
        with Container(id="halves"):
            yield self.entries
            yield self.checks
        yield self.status
        yield self.line
        yield self.keys

    def on_mount(self) -> None:
        for warning in self.model.tree.config.warnings[:1]:
            self.say(warning, "bar_warn")
        self._listed_anew()

    # What is shown.

    @property
    def chosen(self) -> Entry | None:
        """The entry under the cursor."""
        number = self.number
        return self.model.entries[number] if number is not None else None

    @property
    def number(self) -> int | None:
        """Its number; asked of the panel itself, whose news may be under way while keys are typed."""
        key = self.entries.current_key
        if key is not None and isinstance(key.value, int):
            self._number = key.value
        return self._number

    def on_entry_chosen(self, _message: EntryChosen) -> None:
        self.checks.look_at(self.chosen)
        self.refresh_bars()

    def say(self, text: str, style: str = "bar") -> None:
        """Put a message into the status line."""
        self.status.show((BarItem(f" {text}", style),))

    def refresh_bars(self) -> None:
        """Header and footer, from what is true now."""
        if not self.is_mounted:
            return
        left = [BarItem(" kvmscope ", "bar_strong"), BarItem("│ ", "bar_rule")]
        left.append(BarItem(f"kvm-unit-tests {self.model.tree.root}", "bar"))
        right = []
        for word, number in self.model.counts():
            right += [
                BarItem(" │ ", "bar_rule"),
                BarItem(f"{number} {word}", "bar_error" if word == "failed" else "bar"),
            ]
        self.header.show(left, [*right, BarItem(" ")])
        items = []
        for key, word, action in _KEYS:
            items += [BarItem(f" {key}", "bar_key", action), BarItem(f" {word} ", "bar", action)]
        self.keys.show(items, (BarItem(" ?", "bar_key", "help"), BarItem(" help ", "bar", "help")))

    def show_all(self) -> None:
        """Draw everything anew."""
        self.entries.redraw()
        self.checks.redraw()
        self.refresh_bars()

    async def on_bar_clicked(self, message: BarClicked) -> None:
        if message.action:
            await self.run_action(message.action)

    # Running.

    def on_suite_news(self, message: SuiteNews) -> None:
        if not message.events:
            self.model.stopped()
        for event in message.events:
            if isinstance(event, Began):
                self.model.began(event.job)
            elif isinstance(event, Output):
                self.model.printed(event.job, event.data)
            elif isinstance(event, Done):
                self.model.done(event.job, event.outcome)
        self.show_all()

    def _run(self, numbers: Sequence[int], *, manual: bool = True) -> None:
        jobs = self.model.to_run(numbers, manual=manual)
        self.work.submit(jobs)
        if jobs:
            self.say("")
        elif numbers and self.chosen is not None and self.chosen.selected.skip and len(numbers) == 1:
            self.say(f"{self.chosen.name} is not run: {self.chosen.selected.skip}", "bar_warn")
        self.show_all()

    def action_run_one(self) -> None:
        """The entry under the cursor."""
        if self.number is not None:
            self._run([self.number])

    def action_run_listed(self) -> None:
        """All entries that are listed; those for manual runs only where a name was looked for."""
        self._run(self.model.shown, manual=bool(self.model.needle))

    def action_stop(self) -> None:
        """End what runs."""
        self.work.stop()

    # What is listed.

    def action_next_filter(self) -> None:
        """All, failed, passed, skipped, not run."""
        order = list(Filter)
        self.model.filter = order[(order.index(self.model.filter) + 1) % len(order)]
        self._listed_anew()

    def action_find(self) -> None:
        """Ask for a part of a name."""
        self.status.display = False
        self.line.display = True
        self.line.ask("/", text=self.model.needle)

    def on_line_entered(self, message: LineEntered) -> None:
        self.model.needle = message.text.strip()
        self._line_closed()
        self._listed_anew()

    def on_line_cancelled(self, _message: LineCancelled) -> None:
        self._line_closed()

    def _line_closed(self) -> None:
        self.line.display = False
        self.status.display = True
        self.entries.focus()

    def _listed_anew(self) -> None:
        self.entries.top = 0
        self.entries.redraw()
        shown = self.model.shown
        if self.number not in shown:
            self._number = shown[0] if shown else None
        self.checks.look_at(self.chosen)
        self.show_all()

    def action_other_half(self) -> None:
        """From the entries to the checks, or back."""
        (self.entries if self.checks.has_focus else self.checks).focus()

    # Into the machine.

    def on_panel_activated(self, message: PanelActivated) -> None:
        message.stop()
        if message.key.kind is Kind.ENTRY:
            self.checks.focus()
        elif message.key.kind is Kind.CHECK and self.chosen is not None and isinstance(message.key.value, int):
            self._opener(self.chosen, message.key.value)

    def action_open_start(self) -> None:
        """The entry under the cursor, at its first instruction."""
        if self.chosen is None:
            return
        if not self.chosen.job.image.is_file():
            self.say(f"{self.chosen.job.image} does not exist", "bar_error")
            return
        self._opener(self.chosen, None)

    # Leaving.

    def action_leave(self) -> None:
        """To the machine; the browser stays as it is."""
        self.app.pop_screen()

    def action_help(self) -> None:
        """Keys of this screen."""
        halves: tuple[LinePanel, ...] = (self.entries, self.checks)
        about = [(panel.TITLE, panel.HELP.split("\n")[0]) for panel in halves]
        here = next(((panel.TITLE, panel.HELP) for panel in halves if panel.has_focus), None)
        self.app.push_screen(dialogs.Help(about, here))

    def close(self) -> None:
        """End the processes."""
        self.work.close()
