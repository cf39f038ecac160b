"""Asking for a file name, with the directory's files below."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

__all__ = ["AskPath"]

_SHOWN: Final = 200
_SUFFIXES: Final = (".asm", ".s", ".S")


class AskPath(ModalScreen[Path | None]):
    """Type a name; Tab completes, Enter takes it, a directory is entered."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, priority=True, id="path.cancel", tooltip="Close"),
        Binding("tab", "complete", "Complete", show=False, priority=True, id="path.complete", tooltip="Complete"),
        Binding("down", "move(1)", "Down", show=False, priority=True, id="path.down", tooltip="Next"),
        Binding("up", "move(-1)", "Up", show=False, priority=True, id="path.up", tooltip="Previous"),
    ]

    def __init__(self, title: str, start: str, *, must_exist: bool, either: bool = False) -> None:
        super().__init__(classes="dialog")
        self._title = title
        self._start = start
        self._must_exist = must_exist
        self._either = either
        """A directory may be the answer too."""
        self._shown: list[Path] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self._title, classes="dialog-title")
            yield Input(self._start, compact=True, classes="dialog-input", select_on_focus=False)
            yield Static("", classes="dialog-error")
            yield OptionList(classes="dialog-list", compact=True)
            yield Static("Tab complete   ↑↓ choose   Enter take   Esc cancel", classes="dialog-keys")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_position = len(self._start)
        self._fill(self._start)

    def _fill(self, text: str) -> None:
        """List what the name may become."""
        head, slash, tail = text.rpartition("/")
        directory = Path(head + slash or ".").expanduser()
        try:
            found = sorted(directory.iterdir(), key=lambda path: (not path.is_dir(), path.name))
        except OSError:
            found = []
        self._shown = [path for path in found if path.name.startswith(tail) and self._wanted(path, tail)][:_SHOWN]
        listing = self.query_one(OptionList)
        listing.clear_options()
        listing.add_options(Option(path.name + ("/" if path.is_dir() else "")) for path in self._shown)
        self.query_one(".dialog-error", Static).update("")

    def _wanted(self, path: Path, tail: str) -> bool:
        if path.name.startswith(".") and not tail.startswith("."):
            return False
        return path.is_dir() or path.suffix in _SUFFIXES

    def _typed(self, path: Path) -> str:
        head, slash, _tail = self.query_one(Input).value.rpartition("/")
        return f"{head}{slash}{path.name}" + ("/" if path.is_dir() else "")

    def on_input_changed(self, message: Input.Changed) -> None:
        self._fill(message.value)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        marked = self.query_one(OptionList).highlighted
        if marked is not None and marked < len(self._shown):
            self._choose(self._shown[marked])
        else:
            self._take(Path(message.value.strip()).expanduser())

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        self._choose(self._shown[message.option_index])

    def _choose(self, path: Path) -> None:
        if path.is_dir():
            line = self.query_one(Input)
            line.value = self._typed(path)
            line.cursor_position = len(line.value)
            line.focus()
        else:
            self._take(path)

    def _take(self, path: Path) -> None:
        problem = ""
        if not str(path) or str(path) == ".":
            problem = "A name is missing"
        elif path.is_dir() and not self._either:
            problem = "That is a directory"
        elif self._must_exist and not path.exists():
            problem = "There is no such file"
        elif not self._must_exist and not path.absolute().parent.is_dir():
            problem = f"There is no directory {path.parent}"
        if problem:
            self.query_one(".dialog-error", Static).update(problem)
        else:
            self.dismiss(path)

    def action_complete(self) -> None:
        """Complete as far as all names agree."""
        if not self._shown:
            return
        names = [self._typed(path) for path in self._shown]
        first, last = min(names), max(names)
        shared = next((first[:i] for i, char in enumerate(first) if i >= len(last) or last[i] != char), first)
        line = self.query_one(Input)
        if len(shared) > len(line.value):
            line.value = shared
            line.cursor_position = len(shared)

    def action_move(self, step: int) -> None:
        """Move the highlight; the name keeps the focus."""
        listing = self.query_one(OptionList)
        if self._shown:
            at = listing.highlighted
            listing.highlighted = (0 if at is None else at + step) % len(self._shown)

    def action_cancel(self) -> None:
        """Leave without a name."""
        self.dismiss(None)
