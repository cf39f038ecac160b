"""What the screen is made of and how news reach it; the actions stand in the modules beside.

One screen for everything: editing and running differ by one reactive, layouts by what is displayed.  A view is shown by
telling every panel; hidden ones only take note.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from textual.app import ComposeResult
from textual.containers import Container
from textual.message import Message
from textual.reactive import reactive
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import TextArea

from kvmscope.errors import KvmscopeError
from kvmscope.ui import bar_texts
from kvmscope.ui.arrangement import Arrangement
from kvmscope.ui.bars import Bar, BarClicked, BarItem
from kvmscope.ui.document import Document, line_mover
from kvmscope.ui.editor import Editor, GutterClicked, listing_of
from kvmscope.ui.highlight import Lexer
from kvmscope.ui.layouts import HORIZONTAL, TREE, VERTICAL, docked, layout_classes
from kvmscope.ui.outcome import outcome
from kvmscope.ui.source_view import SourceView
from kvmscope.ui.vcpu_texts import Since, since

if TYPE_CHECKING:
    from kvmscope.reproducer.document import Reproducer
    from kvmscope.ui.command_line import CommandLine
    from kvmscope.ui.controller import Controller
    from kvmscope.ui.line_panel import LinePanel, TabChosen
    from kvmscope.ui.live import Assembled, LiveAssembler
    from kvmscope.ui.machine_news import MachineFailed, MachineProgress, MachineStopped
    from kvmscope.ui.recovery import Recovery
    from kvmscope.ui.view import Focus, View

__all__ = ["AssemblyArrived", "LexerArrived", "Workbench"]

_AUTOSAVE: Final = 0.8
"""Seconds without a change before the recovery file is written."""


@dataclass
class AssemblyArrived(Message):
    """The assembler's thread has an answer."""

    result: Assembled


@dataclass
class LexerArrived(Message):
    """The lexer was imported."""

    lexer: Lexer


@dataclass
class PanelsArrived(Message):
    """The panels were imported; ``make`` makes them, on the UI's thread."""

    make: Callable[[], list[LinePanel]]


class Workbench(Arrangement, SourceView, Screen[None]):
    """The one screen, without its actions."""

    HORIZONTAL_BREAKPOINTS = HORIZONTAL
    VERTICAL_BREAKPOINTS = VERTICAL
    AUTO_FOCUS = "#editor"

    editing: reactive[bool] = reactive(False, init=False)

    def __init__(self, document: Document) -> None:
        super().__init__(id="main")
        self.document = document
        self._recovery: Recovery | None = None
        self.generation = 0
        self.assembled: Assembled | None = None
        self.started: Reproducer | None = None
        """What the machine runs, as its header stood when it was started."""
        self.started_text: str | None = None
        """The text that the machine runs."""
        self.view: View | None = None
        self.since = Since()
        """What the last command did beside the view's delta."""
        self.where: Focus | None = None
        """What the user looks at; None until something was chosen."""
        self.front = "disassembly"
        """The panel that the dock shows."""
        self.zoomed = ""
        self._front_before = ""
        self._layout = ""
        self._start_wanted = 0
        self._once_started: Callable[[], object] | None = None
        """A move asked for while a start was under way."""
        self._lines: list[str] = []
        self._autosave: Timer | None = None
        self.displays: tuple[str, ...] = ()
        """What the user wants to see at every stop."""
        self._message: tuple[BarItem, ...] = ()
        self._progress: int | None = None
        self._return_to: Widget | None = None
        """Where the focus was before a line was asked for."""
        self._needle = ""
        """Text looked for last."""
        self.editor = Editor(document.text, id="editor")
        self.panels: dict[str, LinePanel] = {}
        """By name; empty until they are loaded."""
        self.bench = Container(id="bench")
        self.header, self.status, self.keys = Bar(id="header"), Bar(id="status"), Bar(id="keys")

    # Parts that nothing needs before the first paint are made when they are asked for.

    @cached_property
    def controller(self) -> Controller:
        """The way to the machine."""
        from kvmscope.ui.controller import Controller

        return Controller(self.post_message)

    @cached_property
    def assembler(self) -> LiveAssembler:
        """The thread that assembles what is typed."""
        from kvmscope.ui.live import LiveAssembler

        return LiveAssembler(lambda result: self.post_message(AssemblyArrived(result)))

    @cached_property
    def line(self) -> CommandLine:
        """The line at the bottom, in the place of the status line."""
        return self._hidden_line("line")

    @cached_property
    def inplace(self) -> CommandLine:
        """The line over a value that is edited in place."""
        line = self._hidden_line("inplace")
        line.add_class("-in-place")
        return line

    @staticmethod
    def _hidden_line(name: str) -> CommandLine:
        from kvmscope.ui.command_line import CommandLine

        line = CommandLine(id=name)
        line.display = False
        return line

    @property
    def recovery(self) -> Recovery:
        """The document's recovery file."""
        if self._recovery is None:
            from kvmscope.ui.recovery import Recovery

            self._recovery = Recovery(self.document.path)
        return self._recovery

    @property
    def focus_of_user(self) -> Focus:
        """What the user looks at."""
        from kvmscope.ui.view import Focus

        return self.where or Focus()

    def compose(self) -> ComposeResult:
        # The breakpoints would set these after a first layout without them.
        self.add_class(*layout_classes(*self.app.size))
        yield self.header
        with self.bench:
            # Panels come into the cells beside it once they are loaded.
            yield self.editor
        yield self.status
        yield self.keys

    def on_mount(self) -> None:
        self._lines = self.editor.text.split("\n")
        # What was read is what the text area holds, unless it had unusual line ends: those would change on saving.
        if self.document.saved and self.editor.text != self.document.saved:
            self.say("Line ends are mixed or unusual: saving makes them uniform", "bar_warn")
        self.editor.border_title = f" {self.document.name} "
        self.place_panels()
        self.refresh_bars()
        self.call_after_refresh(self.warm_up)

    async def warm_up(self) -> None:
        """After the first paint: everything that takes time to load."""
        await self.mount(self.line, before=self.keys)
        await self.mount(self.inplace)
        self.remember_file()
        self.run_worker(self._load_parts, thread=True, group="parts")

    def _load_parts(self) -> None:
        from kvmscope.ui.controller import load_debugger
        from kvmscope.ui.highlight import load_lexer
        from kvmscope.ui.panel_set import make_panels

        self.post_message(PanelsArrived(make_panels))
        self.post_message(LexerArrived(load_lexer()))
        load_debugger()

    def remember_file(self) -> None:
        """Put the document among the recent files; the screen with files overrides this."""

    def offer_recovery(self) -> None:
        """Ask about text of an earlier session that was never saved; the screen with dialogs overrides this."""

    async def on_panels_arrived(self, message: PanelsArrived) -> None:
        """Put the panels into their places and start."""
        made = sorted(message.make(), key=lambda panel: TREE.index(panel.KIND))
        self.panels = {panel.KIND: panel for panel in made}
        self.place_panels()
        await self.bench.mount_all(made)
        # What is here now stays: the collector need not walk it again in the middle of a step.
        gc.freeze()
        gc.enable()
        self.start_machine()
        self.offer_recovery()

    def on_lexer_arrived(self, message: LexerArrived) -> None:
        if not self.source_file:
            self.editor.set_lexer(message.lexer)

    # Layout.

    def on_resize(self) -> None:
        self.place_panels()
        self.refresh_bars()

    def on_tab_chosen(self, message: TabChosen) -> None:
        self.bring_up(message.kind)

    def on_descendant_focus(self) -> None:
        self.refresh_bars()

    # The text.

    def watch_editing(self, editing: bool) -> None:
        self.editor.read_only = not editing
        self.set_class(editing, "-editing")
        self.refresh_bars()

    @property
    def modified(self) -> bool:
        """There is something to save."""
        return self.document.program is None and self.editor.text != self.document.saved

    @property
    def stale(self) -> bool:
        """The text is no longer what the machine runs."""
        if self.document.program is not None:
            return self.started is not self.document.program
        return self.editor.text != self.started_text

    def on_text_area_changed(self, message: TextArea.Changed) -> None:
        message.stop()
        text = self.editor.text
        lines = text.split("\n")
        moved = line_mover(self._lines, lines)
        if lines == self._lines:
            return
        self._lines = lines
        if self.document.program is not None:
            return  # Another source of an image is shown.
        if moved is not None:
            self.controller.move_lines(moved)
            self.editor.mark_breakpoints(self.controller.breakpoint_lines())
        self.editor.mark_listing({})
        self.editor.mark_position(None)
        self.generation += 1
        self._once_started = None
        self.assembler.submit(self.generation, text, self.document.filename, program=self.document.program)
        if self._autosave is not None:
            self._autosave.stop()
        self._autosave = self.set_timer(_AUTOSAVE, self._keep_recovery)
        self._message = ()
        self.refresh_bars()

    def on_text_area_selection_changed(self, message: TextArea.SelectionChanged) -> None:
        message.stop()
        self.refresh_bars()

    def _keep_recovery(self) -> None:
        text = self.editor.text
        if text == self.document.saved:
            self.recovery.discard()
            return
        self.run_worker(lambda: self._save_recovery(text), thread=True, group="autosave", exclusive=True)

    def _save_recovery(self, text: str) -> None:
        try:
            self.recovery.save(text)
        except KvmscopeError as error:
            self.app.call_from_thread(self.complain, error)

    def on_assembly_arrived(self, message: AssemblyArrived) -> None:
        result = message.result
        if result.generation != self.generation:
            return
        self.assembled = result
        self.editor.mark_problems(result.diagnostics)
        if result.reproducer is not None:
            self.editor.set_syntax(result.reproducer.syntax)
        image = result.assembly.image if result.assembly else None
        self.editor.mark_listing(listing_of(image) if image else {})
        if self._start_wanted == result.generation and self._start_wanted:
            self._start_wanted = 0
            self._start(result)
        self.refresh_bars()

    # The machine.

    def start_machine(self) -> None:
        """Assemble what stands here and boot it; errors are shown at their lines."""
        if not self.panels:
            return  # It is started when they have come.
        self.generation += 1
        self._start_wanted = self.generation
        self._message = ()
        self.assembler.submit(
            self.generation, self.editor.text, self.document.filename, now=True, program=self.document.program
        )

    def when_started(self, move: Callable[[], object]) -> bool:
        """Have ``move`` done after the start that is under way; False when there is none."""
        if self.panels and not self._start_wanted:
            return False
        self._once_started = move
        return True

    def _start(self, result: Assembled) -> None:
        image = result.assembly.image if result.assembly else None
        if image is None or result.reproducer is None or not result.ok:
            self._once_started = None
            first = next((item for item in result.diagnostics if item.severity == "error"), None)
            if first is not None and not self.editing:
                # The message of the cursor's line then stands in the status line.
                self.editor.go_to(first.line, first.column)
            elif result.problem is not None:
                self.complain(result.problem)
            else:
                count = result.errors
                self.say(f"{count} line{'' if count == 1 else 's'} to mend before this can run", "bar_error")
            return
        self.started_text = result.text
        self.started = result.reproducer
        self.where = None
        self.controller.start(image, result.reproducer.config)

    def on_machine_stopped(self, message: MachineStopped) -> None:
        if not self.controller.answered(message):
            return
        self._progress = None
        if message.displays and message.displays != self.displays:
            self.console.say("", message.displays)
        self.displays = message.displays
        self.since = since(self.view, message.view)
        view = replace(message.view, outcome=outcome(self.started, message.view))
        self.show_view(view.looking_at(self.focus_of_user), follow=True)
        if self.document.program is None:
            self.editor.mark_breakpoints(self.controller.breakpoint_lines())
        move, self._once_started = self._once_started, None
        if move is not None:
            move()

    def on_machine_progress(self, message: MachineProgress) -> None:
        if self.controller.answered(message):
            self._progress = message.tick
            self.refresh_bars()

    def on_machine_failed(self, message: MachineFailed) -> None:
        if not self.controller.answered(message):
            return
        self._progress = None
        self.complain(message.error)
        if message.view is not None:
            self.show_view(message.view.looking_at(self.focus_of_user))

    def show_view(self, view: View, *, follow: bool = False) -> None:
        """Draw a stop; ``follow`` moves the source to the next instruction."""
        self.view = view
        ended = view.snapshot.stop.reason in ("exception", "triple-fault")
        self._show_why(ended and follow, ended)
        if self.document.program is not None:
            self.show_source(view, follow=follow)
        else:
            line = view.line if not self.stale else None
            self.editor.mark_position(line, in_past=view.in_past)
            if follow and line is not None and not self.editing:
                self.editor.go_to(line)
        for panel in self.panels.values():
            panel.show(view)
        self.refresh_bars()

    def _show_why(self, fault: bool, ended: bool) -> None:
        """Bring the explanation of a fault to the front of the dock; take it away when the fault is undone."""
        if self.zoomed or "explanation" not in docked(self._layout):
            return
        if fault and self.front != "explanation":
            self.bring_up("explanation", focus=False)
        elif ended or self.front != "explanation" or self.panels["explanation"].has_focus:
            return
        elif self._front_before:
            self.bring_up(self._front_before, focus=False)

    def look_at(self, where: Focus) -> None:
        """Look elsewhere without moving the machine."""
        self.where = where
        if self.view is not None:
            self.show_view(self.view.looking_at(where))

    # Words for the user.

    def say(self, text: str, style: str = "bar") -> None:
        """Put a message into the status line; it stays until something else happens."""
        self._message = (BarItem(f" {text}", style),)
        self.refresh_bars()

    def complain(self, error: KvmscopeError) -> None:
        """Put an error into the status line, with its way out."""
        parts = [BarItem(f" ✗ {error.title}", "bar_error")]
        detail = " ".join(error.detail.split())
        if detail:
            parts.append(BarItem(f": {detail}", "bar_strong"))
        if error.hint:
            parts.append(BarItem(f"  ({error.hint})", "bar"))
        self._message = tuple(parts)
        self.refresh_bars()

    def hush(self) -> None:
        """Take the message away: the user has gone on."""
        self._message = ()

    def refresh_bars(self) -> None:
        """Header, status line and footer, from what is true now."""
        if not self.is_mounted:
            return
        width = self.app.size.width
        self.header.show(*bar_texts.header(self, self._progress, width))
        words = self._message or bar_texts.status(self)
        shown = bar_texts.displays(self.displays, width)
        self.status.show(words, (*shown, *bar_texts.clock(self, width, (*words, *shown))))
        self.keys.show(*bar_texts.footer(self, width))

    async def on_bar_clicked(self, message: BarClicked) -> None:
        await self.run_action(message.action)

    def on_gutter_clicked(self, message: GutterClicked) -> None:
        self.toggle_line(message.line)

    def toggle_line(self, line: int) -> None:
        """Set or clear a breakpoint on a line of the source."""
        if self.document.program is not None:
            try:
                self.toggle_source_line(line)
            except KvmscopeError as error:
                self.complain(error)
            return
        self.controller.toggle_line(line, stale=self.stale)
        self.editor.mark_breakpoints(self.controller.breakpoint_lines())

    def close(self) -> None:
        """End the threads, those that were made."""
        if "assembler" in self.__dict__:
            self.assembler.close()
        if "controller" in self.__dict__:
            self.controller.close()
