"""Keys and panels, made from the tables that the program itself works by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from rich.style import Style
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from kvmscope.ui.actions import ACTIONS
from kvmscope.ui.keymap import spelled
from kvmscope.ui.theme import palette_for

__all__ = ["Help"]

_GROUPS: Final = {
    "run": "Forward",
    "back": "The same backwards",
    "look": "Looking",
    "vcpu": "Several processors",
    "edit": "The source",
    "file": "Files",
    "app": "kvmscope",
}
_PANEL_KEYS: Final = (
    ("1-9 0", "Panel of that number, to the front"),
    ("< >", "Previous and next panel of the dock"),
    ("↑↓ j k, ←→ h l", "Move in a panel"),
    ("a", "Another view: kinds of events, memory as pointers, all registers of all devices"),
    ("Enter", "Open, travel to or edit what the cursor stands on"),
)


class Help(ModalScreen[None]):
    """One page to scroll."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1", "close", "Close", show=False, priority=True, id="help.close", tooltip="Close"),
        Binding("j,down", "scroll(1)", "Down", show=False, id="help.down", tooltip="Down"),
        Binding("k,up", "scroll(-1)", "Up", show=False, id="help.up", tooltip="Up"),
    ]  # fmt: skip

    def __init__(self, panels: Iterable[tuple[str, str]], here: tuple[str, str] | None = None) -> None:
        super().__init__(classes="dialog")
        self._panels = list(panels)
        self._here = here
        """Title and help of the focused panel, shown first."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box -wide"):
            yield Static("Help", classes="dialog-title")
            with VerticalScroll():
                yield Static(self._table(), classes="dialog-text")
            yield Static("↑↓ scroll   Esc close", classes="dialog-keys")

    def _table(self) -> Table:
        key_ink = Style(color=palette_for(self.app.theme)["accent"].color, bold=True)
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, min_width=14, style=key_ink)
        table.add_column()

        def heading(words: str) -> None:
            if table.row_count:
                table.add_row()
            table.add_row(Text(words, "bold underline not dim"))

        if self._here is not None:
            heading(self._here[0])
            table.add_row("here", self._here[1])
        for group, title in _GROUPS.items():
            heading(title)
            for action in ACTIONS:
                if action.group == group:
                    table.add_row(spelled(action.id, all_keys=True), action.help)
        heading("Panels")
        for keys, what in _PANEL_KEYS:
            table.add_row(keys, what)
        table.add_row()
        for name, about in self._panels:
            table.add_row(name, about)
        table.add_row()
        table.add_row(spelled("app.palette"), "All actions, those without a key too.")
        table.add_row(f"{spelled('look.command')}help", "The commands.")
        return table

    def action_close(self) -> None:
        """Back to work."""
        self.dismiss(None)

    def action_scroll(self, step: int) -> None:
        """One line up or down."""
        self.query_one(VerticalScroll).scroll_relative(y=step, animate=False)
