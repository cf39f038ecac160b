"""`MainScreen`: the workbench with all its actions."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from kvmscope.ui import modals as dialogs
from kvmscope.ui.keymap import bindings
from kvmscope.ui.suite.actions import SuiteActions
from kvmscope.ui.workbench import Workbench

__all__ = ["MainScreen"]


class MainScreen(SuiteActions, Workbench):
    """The one screen; what is left here is moving between editing and running."""

    BINDINGS: ClassVar[list[BindingType]] = bindings()

    def action_edit(self) -> None:
        """Type in the source."""
        self.hush()
        if self.document.program is not None:
            self.say(f"{self.document.name} is an image: there is no source to edit", "bar_warn")
            return
        if self.zoomed and self.zoomed != "editor":
            self.zoomed = ""
            self.place_panels()
        self.editing = True
        self.editor.focus()

    def action_leave_edit(self) -> None:
        """Back to running; a changed text is assembled and started.  Elsewhere: back to the source."""
        self.hush()
        if self.editing:
            self.editing = False
            if self.stale:
                self.start_machine()
        elif self.zoomed:
            self.action_zoom()
        else:
            self.editor.focus()
        self.refresh_bars()

    def action_help(self) -> None:
        """Keys and panels."""
        panel = self.focused_panel
        here = (panel.TITLE, panel.HELP) if panel is not None and panel.HELP else None
        about = [(panel.TITLE, panel.HELP.split("\n")[0]) for panel in self.panels.values()]
        self.app.push_screen(dialogs.Help(about, here))

    def action_palette(self) -> None:
        """Find an action by name."""
        from textual.command import CommandPalette

        from kvmscope.ui.palette import ActionProvider

        self.app.push_screen(CommandPalette(providers=[ActionProvider], placeholder="what to do"))

    def action_show_panel(self, name: str) -> None:
        """Bring up a panel by its name."""
        self.bring_up(name)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Escape is the line's while a line is open."""
        if action == "leave_edit" and self.focused is not None and self.focused.id in ("line", "inplace"):
            return False
        return super().check_action(action, parameters)
