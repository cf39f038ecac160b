"""The two halves of the suite browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.message import Message

from kvmscope.ui.line_panel import Key, Kind, LinePanel, Row
from kvmscope.ui.render.suite import check_rows, entry_rows
from kvmscope.ui.suite.model import Entry, SuiteModel
from kvmscope.ui.view import View

__all__ = ["ChecksPanel", "EntriesPanel", "EntryChosen"]


class _SuitePanel(LinePanel):
    """A panel about the suite: it draws whether or not there is a machine."""

    def __init__(self, model: SuiteModel) -> None:
        super().__init__()
        self.model = model

    def suite_rows(self, width: int) -> list[Row]:
        """All rows."""
        raise NotImplementedError

    def suite_subtitle(self) -> str:
        """A few words at the right end of the title line."""
        return ""

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        return self.suite_rows(width)

    def _compute(self, width: int, room: int) -> tuple[list[Row], Row]:
        rows = self.suite_rows(width)
        return self.windowed(rows, width, room, self.suite_subtitle())

    def on_focus(self) -> None:
        super().on_focus()
        # The cursor appears at the first thing there is to open; only then does the panel know that it has the focus.
        self.call_later(self.redraw)

    def enter_does(self, key: Key) -> str:
        return "its checks" if key.kind is Kind.ENTRY else "open there"


@dataclass
class EntryChosen(Message):
    """The cursor of the entries stands on another one."""

    number: int


class EntriesPanel(_SuitePanel):
    """The entries that the filter lets through."""

    _told: Key | None = None

    KIND: ClassVar[str] = "entries"
    TITLE: ClassVar[str] = "Entries"
    HELP: ClassVar[str] = (
        "The entries of unittests.cfg, as run_tests.sh runs them: what came of each, or why it is not run.\n"
        "r runs the one under the cursor, a all that are listed; space stops. f and / choose what is listed."
    )

    def suite_rows(self, width: int) -> list[Row]:
        return entry_rows(self.model, width)

    def suite_subtitle(self) -> str:
        words = [self.model.filter.value] if self.model.filter.value != "all" else []
        words += [f"/{self.model.needle}"] if self.model.needle else []
        return " ".join(words)

    def cursor_moved(self, key: Key) -> None:
        self._tell()

    def redraw(self) -> None:
        super().redraw()
        self._tell()

    def _tell(self) -> None:
        """The cursor may stand on another entry, which scrolling and filtering can do too."""
        key = self.current_key
        if key is not None and key != self._told and isinstance(key.value, int):
            self._told = key
            self.post_message(EntryChosen(key.value))


class ChecksPanel(_SuitePanel):
    """The entry under the cursor: its checks, failures first, and the end of its output."""

    KIND: ClassVar[str] = "checks"
    TITLE: ClassVar[str] = "Checks"
    HELP: ClassVar[str] = (
        "What the guest reported, failures first, then the end of its output.\n"
        "Enter on a check opens the test in the machine, stopped at the call that reported it, with all history before it."
    )

    def __init__(self, model: SuiteModel) -> None:
        super().__init__(model)
        self.entry: Entry | None = None

    def suite_rows(self, width: int) -> list[Row]:
        return check_rows(self.entry, width)

    def look_at(self, entry: Entry | None) -> None:
        """Show another entry."""
        if entry is not self.entry:
            self.entry = entry
            self.top = 0
            self._cursor = self._marked = None
        self.redraw()
