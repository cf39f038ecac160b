"""Where the panels are: places of their own, the dock, one panel zoomed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmscope.ui.keymap import PANEL_KEYS, spelled
from kvmscope.ui.layouts import GRIDS, PANELS, SLOTS, WHOLE_ROW, docked, layout_name

if TYPE_CHECKING:
    from textual.containers import Container
    from textual.screen import Screen

    from kvmscope.ui.console import ConsolePanel
    from kvmscope.ui.editor import Editor
    from kvmscope.ui.line_panel import LinePanel

    Base = Screen[None]
else:
    Base = object

__all__ = ["Arrangement"]


class Arrangement(Base):
    """The part of the workbench that shows and hides; mixed into the screen."""

    bench: Container
    editor: Editor
    panels: dict[str, LinePanel]
    front: str
    zoomed: str
    _front_before: str
    _layout: str

    def refresh_bars(self) -> None:
        """Say in the bars what is true now."""
        raise NotImplementedError

    def place_panels(self) -> None:
        """Show the panels that this size has room for; the others share the dock."""
        width, height = self.app.size
        self._layout = layout_name(width, height)
        slots = SLOTS[self._layout]
        spare = docked(self._layout)
        if self.front not in spare:
            self.front = next((name for name in spare if name == self._front_before), spare[0])
        self._size_grid()
        self.editor.display = not self.zoomed or self.zoomed == "editor"
        for name, panel in self.panels.items():
            in_dock = name in spare
            panel.set_class(in_dock and not self.zoomed, "-dock")
            panel.display = name == self.zoomed if self.zoomed else name in slots or name == self.front
            if panel.display and in_dock and not self.zoomed:
                panel.set_tabs(tuple((n, self._tab_text(n), n == self.front) for n in spare))
            else:
                panel.set_tabs(())

    def _size_grid(self) -> None:
        columns, rows = ("1fr", "1fr") if self.zoomed else GRIDS[self._layout]
        count = len(columns.split())
        styles = self.bench.styles
        styles.grid_size_columns, styles.grid_columns, styles.grid_rows = count, columns, rows
        for name in {name for names in WHOLE_ROW.values() for name in names} & self.panels.keys():
            whole = name in WHOLE_ROW.get(self._layout, ()) and not self.zoomed
            self.panels[name].styles.column_span = count if whole else 1

    def _tab_text(self, name: str) -> str:
        number = PANELS.index(name)
        key = PANEL_KEYS[number] if number < len(PANEL_KEYS) else spelled("look.command")
        return f"{key} {self.panels[name].TITLE}"

    def bring_up(self, name: str, *, focus: bool = True) -> None:
        """Show a panel, in the dock if it has no place of its own, and focus it."""
        if name != "editor" and name not in self.panels:
            return
        if self.zoomed and self.zoomed != name:
            self.zoomed = name
            self.place_panels()
        if name in docked(self._layout) and self.front != name:
            self._front_before, self.front = self.front, name
            self.place_panels()
        if focus:
            self.widget_of(name).focus()
        self.refresh_bars()

    def widget_of(self, name: str) -> Editor | LinePanel:
        """A panel by its name; ``editor`` is one of them."""
        return self.editor if name == "editor" else self.panels[name]

    @property
    def focused_panel(self) -> LinePanel | None:
        """The panel with the focus, the editor aside."""
        return next((panel for panel in self.panels.values() if panel is self.focused), None)

    @property
    def console(self) -> ConsolePanel:
        """Where commands answer."""
        from kvmscope.ui.console import ConsolePanel

        panel = self.panels["console"]
        assert isinstance(panel, ConsolePanel)
        return panel
