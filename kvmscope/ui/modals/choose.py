"""Choosing one of several things, by typing a part of its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

__all__ = ["Choice", "Choose"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """One thing to choose: its name, a few words about it, and what it stands for."""

    name: str
    about: str
    value: T


class Choose(ModalScreen[T | None], Generic[T]):
    """A list with a filter; Enter takes, Escape leaves with None."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, priority=True, id="choose.cancel", tooltip="Close"),
        Binding("down", "move(1)", "Down", show=False, priority=True, id="choose.down", tooltip="Next"),
        Binding("up", "move(-1)", "Up", show=False, priority=True, id="choose.up", tooltip="Previous"),
    ]

    def __init__(self, title: str, choices: Sequence[Choice[T]]) -> None:
        super().__init__(classes="dialog")
        self._title = title
        self._choices = list(choices)
        self._shown = list(choices)

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self._title, classes="dialog-title")
            yield Input(placeholder="type to narrow down", compact=True, classes="dialog-input")
            yield OptionList(classes="dialog-list", compact=True)
            yield Static("↑↓ choose   Enter take   Esc cancel", classes="dialog-keys")

    def on_mount(self) -> None:
        self._fill("")

    def _fill(self, needle: str) -> None:
        words = needle.lower().split()
        self._shown = [c for c in self._choices if all(word in f"{c.name} {c.about}".lower() for word in words)]
        room = max((len(choice.name) for choice in self._choices), default=0)
        listing = self.query_one(OptionList)
        listing.clear_options()
        listing.add_options(
            Option(Text.assemble(f"{choice.name:<{room}}  ", (choice.about, "dim"), no_wrap=True, overflow="ellipsis"))
            for choice in self._shown
        )
        if self._shown:
            listing.highlighted = 0

    def on_input_changed(self, message: Input.Changed) -> None:
        self._fill(message.value)

    def on_input_submitted(self) -> None:
        self._take(self.query_one(OptionList).highlighted)

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        self._take(message.option_index)

    def _take(self, index: int | None) -> None:
        if index is not None and index < len(self._shown):
            self.dismiss(self._shown[index].value)

    def action_move(self, step: int) -> None:
        """Move the highlight; the filter keeps the focus."""
        listing = self.query_one(OptionList)
        if self._shown:
            listing.highlighted = ((listing.highlighted or 0) + step) % len(self._shown)

    def action_cancel(self) -> None:
        """Leave without a choice."""
        self.dismiss(None)
