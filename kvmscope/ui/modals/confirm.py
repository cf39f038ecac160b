"""A question with a few answers, each by one key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

__all__ = ["Confirm"]


class Confirm(ModalScreen[str]):
    """Answers are words whose first letters are their keys; Escape gives the empty word."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "answer('')", "Cancel", show=False, priority=True, id="confirm.cancel", tooltip="Cancel"),
        Binding("left", "app.focus_previous", "Left", show=False, id="confirm.left", tooltip="The answer before"),
        Binding("right", "app.focus_next", "Right", show=False, id="confirm.right", tooltip="The next answer"),
    ]

    def __init__(self, title: str, text: str, answers: Mapping[str, str]) -> None:
        super().__init__(classes="dialog")
        self._title = title
        self._text = text
        self._answers = dict(answers)
        """Word -> label; the first is the harmless one and has the focus."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box -small"):
            yield Static(self._title, classes="dialog-title")
            yield Static(self._text, classes="dialog-text", markup=False)
            with Horizontal(classes="dialog-buttons"):
                for word, label in self._answers.items():
                    yield Button(f"{word[0]}  {label}", id=f"answer-{word}", compact=True)

    def on_mount(self) -> None:
        self.query(Button).first().focus()

    def on_key(self, event: events.Key) -> None:
        for word in self._answers:
            if event.character == word[0]:
                event.stop()
                self.dismiss(word)
                return

    def on_button_pressed(self, message: Button.Pressed) -> None:
        self.dismiss((message.button.id or "").removeprefix("answer-"))

    def action_answer(self, word: str) -> None:
        """Leave with an answer."""
        self.dismiss(word)
