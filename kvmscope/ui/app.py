"""The Textual application: themes, the one screen, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from textual.app import App

from kvmscope.errors import KvmscopeError
from kvmscope.ui.document import Document
from kvmscope.ui.files import state_dir, write_atomically
from kvmscope.ui.keymap import spelled
from kvmscope.ui.screen import MainScreen
from kvmscope.ui.theme import THEMES

if TYPE_CHECKING:
    from kvmscope.suite.tree import Tree
    from kvmscope.ui.suite.screen import SuiteScreen

__all__ = ["KvmscopeApp"]

_SIGNALS: Final = (signal.SIGHUP, signal.SIGTERM)


class KvmscopeApp(App[int]):
    """kvmscope's terminal UI on one document."""

    CSS_PATH = "style.tcss"
    TITLE = "kvmscope"
    ENABLE_COMMAND_PALETTE = False
    """The screen has its own binding for it."""
    NOTIFICATION_TIMEOUT = 8

    def __init__(self, document: Document, *, theme: str = "", tree: Tree | None = None) -> None:
        # Without colours the terminal's own must be used from the start: Textual chooses its filter here.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self.animation_level = "none"
        for ours in THEMES:
            self.register_theme(ours)
        self.theme = theme or ("ansi-dark" if self.no_color else "kvmscope-dark")
        self.main = MainScreen(document)
        self._tree = tree
        self.suite: SuiteScreen | None = None
        """The browser of a kvm-unit-tests tree, when one was opened."""
        self.failure = ""
        """What to tell the user after an unexpected end."""

    def get_default_screen(self) -> MainScreen:
        return self.main

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our style sheet's variables for themes that are not ours: Textual's 16-colour ones do not know them."""
        return {
            "rule": "ansi_bright_black",
            "soft": "ansi_default",
            "raised": "ansi_default",
            "selection": "ansi_bright_black",
        }

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # A closed terminal or a polite kill: what was typed is kept.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self._end_by_signal, number)

    def on_resize(self) -> None:
        """The terminal's size is known, or another one."""
        tree, self._tree = self._tree, None
        if tree is not None:
            # A screen that is pushed earlier keeps the size that was guessed.
            self.call_after_refresh(self._browse, tree)

    def _browse(self, tree: Tree) -> None:
        """Put the suite browser over the workbench; it stays when one leaves it."""
        from kvmscope.ui.suite.screen import SuiteScreen

        self.suite = SuiteScreen(tree, self.main.open_entry)
        self.install_screen(self.suite, "suite")
        self.push_screen("suite")

    def _end_by_signal(self, number: int) -> None:
        self.keep_text()
        self.exit(return_code=128 + number)

    def keep_text(self) -> bool:
        """Write unsaved text to its recovery file; True when there was some."""
        text = self.main.editor.text
        document = self.main.document
        if document.program is not None or text in (document.saved, document.text):
            return False
        with suppress(KvmscopeError):
            self.main.recovery.save(text)
        return True

    async def action_quit(self) -> None:
        """Textual binds ctrl+q itself, before any screen: leave the way we do, asking about changes."""
        if self.suite is not None and self.screen is self.suite:
            # The workbench below asks about text that is not saved.
            self.pop_screen()
        if self.screen is self.main:
            self.main.action_leave()

    def action_help_quit(self) -> None:
        """Ctrl+C does not end an editor."""
        self.main.say(f"{spelled('app.quit')} leaves kvmscope")

    def on_unmount(self) -> None:
        if self.suite is not None:
            self.suite.close()
        self.main.close()

    def _handle_exception(self, error: Exception) -> None:
        """A defect of ours: keep what was typed, say so in a few lines, leave the details in a file."""
        if self.is_headless:
            super()._handle_exception(error)
            return
        kept = self.keep_text()
        report = state_dir() / f"crash-{time.strftime('%Y%m%d-%H%M%S')}.txt"
        with suppress(OSError, KvmscopeError):
            report.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(report, "".join(traceback.format_exception(error)))
        self.failure = f"kvmscope met a defect of its own and had to end: {type(error).__name__}: {error}\n"
        if kept:
            self.failure += "What you typed is kept and will be offered when you open the file again.\n"
        self.failure += f"Please report it with {report}"
        self.exit(return_code=70)
