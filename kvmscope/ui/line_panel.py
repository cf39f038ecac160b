"""`LinePanel`: a panel that draws lines, and nothing but the lines that changed.

One step must reach the eye within a frame, so a panel never lays out: it has no virtual size, it windows its own rows,
compares the new rows with those on screen and repaints the lines that differ.  A subclass says what to draw:

    class SerialPanel(LinePanel):
        KIND = "serial"
        TITLE = "Serial"

        def rows(self, view: View, width: int, height: int) -> list[Row]:
            return [Row((Span(line, "value"),)) for line in text(view)]

Rules for `rows`:

- Pure in ``view`` and the panel's own position; called only while the panel is visible.
- More rows than ``height``: the base shows those from `top` on and scrolls.  A panel without an end (memory,
  disassembly) returns exactly ``height`` rows and overrides `scroll_lines`.
- A `Key` on a row or a span makes it something the cursor stops at; Enter, or a double click posts
  `PanelActivated` with it.
- A span's style is a name of `kvmscope.ui.theme`; ``Row.overlay`` (``current``, ``selection``) colours a whole row.

The first line of a panel is its title, drawn here; `subtitle` stands at its right end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from kvmscope.ui.rows import Key, Kind, PanelTab, Row, Span, plain, title_row
from kvmscope.ui.theme import Palette, palette_for
from kvmscope.ui.view import View

__all__ = ["Key", "Kind", "LinePanel", "PanelActivated", "PanelTab", "Row", "Span", "TabChosen", "plain"]


@dataclass
class PanelActivated(Message):
    """The user chose something in a panel; the screen decides what happens."""

    panel: LinePanel
    key: Key
    region: Region
    """Where it is drawn, in screen coordinates: an edit happens in place."""

    @property
    def control(self) -> LinePanel:
        """The panel that sent this."""
        return self.panel


@dataclass
class TabChosen(Message):
    """A tab in a title line was clicked."""

    kind: str


class _Spot(NamedTuple):
    """A place the cursor can stand at: window row, first column, width."""

    row: int
    column: int
    width: int
    key: Key


class LinePanel(ScrollView, can_focus=True):
    """Base of every panel; see the module."""

    KIND: ClassVar[str] = ""
    """Identifies the panel in layouts, tests and the help."""
    TITLE: ClassVar[str] = ""
    HELP: ClassVar[str] = ""
    """What the panel shows and what its keys do; stands in the help screen."""
    EMPTY: ClassVar[str] = "Press s to assemble and start."
    """Shown while there is no machine yet."""

    DEFAULT_CSS = "LinePanel { overflow: hidden hidden; width: 1fr; height: 1fr; padding: 0; }"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="panel.up", tooltip="Cursor to the row above"),
        Binding("down,j", "move(1)", "Down", show=False, id="panel.down", tooltip="Cursor to the row below"),
        Binding("left,h", "field(-1)", "Left", show=False, id="panel.left", tooltip="Cursor to the field before"),
        Binding("right,l", "field(1)", "Right", show=False, id="panel.right", tooltip="Cursor to the next field"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="panel.pageup", tooltip="One window up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="panel.pagedown", tooltip="One window down"),
        Binding("home", "edge(-1)", "Top", show=False, id="panel.home", tooltip="To the first row"),
        Binding("end", "edge(1)", "End", show=False, id="panel.end", tooltip="To the last row"),
        Binding("enter", "activate", "Open or edit", show=False, id="panel.activate", tooltip="Open or edit it"),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id or self.KIND or None, classes=classes)
        self.view: View | None = None
        self.top = 0
        """First row shown, where the panel has more rows than lines."""
        self._palette: Palette = palette_for("kvmscope-dark")
        self._tabs: tuple[PanelTab, ...] = ()
        self._rows: list[Row] = []
        self._total = 0
        self._title = Row()
        self._spots: list[_Spot] = []
        self._cursor: tuple[int, int] | None = None
        self._marked: _Spot | None = None
        self._strips: list[Strip | None] = []
        self._stale = True
        self._drawn_for = (0, 0)
        self._blend: dict[tuple[str, str], Style] = {}

    # What a subclass defines.

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        """The rows for a window of ``width`` cells and ``height`` lines."""
        raise NotImplementedError

    def subtitle(self, view: View) -> str:
        """A few words at the right end of the title line."""
        return ""

    def enter_does(self, key: Key) -> str:
        """A word for what Enter does on ``key``, for the footer."""
        return _ENTER.get(key.kind, "open")

    def scroll_lines(self, lines: int) -> None:
        """Move the window by ``lines`` (wheel, paging, cursor at an edge); a panel without an end overrides this."""
        self.top = max(0, min(self.top + lines, self._total - self.window_height))
        self.redraw()

    def edge_reached(self, direction: int) -> None:
        """Home (-1) or End (1); a panel without an end overrides this."""
        self.scroll_lines(direction * max(self._total, 1))

    # What the screen calls.

    def show(self, view: View) -> None:
        """Draw another stop; costs nothing while the panel is hidden."""
        self.view = view
        self.redraw()

    def current_text(self) -> str:
        """The text of the cursor's row, for copying; of all rows when nothing is selected."""
        rows = self._rows if self._marked is None else [self._rows[self._marked.row]]
        return "\n".join(line.rstrip() for line in plain(rows))

    def set_tabs(self, shown: Sequence[tuple[str, str, bool]]) -> None:
        """Show these tabs (kind, text, whether it is the one shown) in place of the title: the panel shares its place."""
        tabs = tuple(PanelTab(*tab) for tab in shown)
        if tabs != self._tabs:
            self._tabs = tabs
            self.redraw()

    @property
    def window_height(self) -> int:
        """Lines below the title."""
        return max(0, self.size.height - 1)

    @property
    def current_key(self) -> Key | None:
        """What the cursor stands on."""
        return self._marked.key if self._marked else None

    def redraw(self) -> None:
        """Recompute the rows and repaint those that differ; call after a change of the panel's own position."""
        self._stale = True
        if self.is_mounted and self.size.height > 0 and self.display:
            self._update()

    def select(self, key: Key) -> bool:
        """Put the cursor on the first place with this key's kind and value; False when it is not on screen."""
        for spot in self._spots:
            if spot.key[:2] == key[:2]:
                self._set_cursor(spot)
                return True
        return False

    # Drawing.

    def on_mount(self) -> None:
        self._palette = palette_for(self.app.theme)
        self.app.theme_changed_signal.subscribe(self, self._theme_changed)

    def _theme_changed(self, theme: object) -> None:
        self._palette = palette_for(getattr(theme, "name", ""))
        self._blend.clear()
        self._strips = [None] * len(self._strips)
        self.refresh()

    def on_resize(self) -> None:
        self.redraw()

    def on_show(self) -> None:
        self.redraw()

    def on_focus(self) -> None:
        self._repaint_cursor()

    def on_blur(self) -> None:
        self._repaint_cursor()

    def _update(self) -> None:
        width, height = self.size
        room = max(0, height - 1)
        rows, title = self._compute(width, room)
        changed = [
            i
            for i in range(room)
            if (rows[i] if i < len(rows) else None) != (self._rows[i] if i < len(self._rows) else None)
        ]
        whole = self._drawn_for != (width, height) or not self._strips
        old_title, old_mark = self._title, self._marked
        self._rows, self._title, self._drawn_for, self._stale = rows, title, (width, height), False
        self._find_spots()
        if whole:
            self._strips = [None] * height
            self.refresh()
            return
        dirty = {i + 1 for i in changed}
        if title != old_title:
            dirty.add(0)
        if old_mark != self._marked:
            dirty.update(spot.row + 1 for spot in (old_mark, self._marked) if spot is not None)
        self._repaint(dirty)

    def _compute(self, width: int, room: int) -> tuple[list[Row], Row]:
        if self.view is None:
            self._total = 0
            rows = [Row((Span(f" {self.EMPTY}", "dim"),))] if self.EMPTY else []
            return rows[:room], self._title_row(width, "")
        return self.windowed(self.rows(self.view, width, room), width, room, self.subtitle(self.view))

    def windowed(self, rows: list[Row], width: int, room: int, words: str) -> tuple[list[Row], Row]:
        """The rows from `top` on that there is ``room`` for, and the title with ``words`` and the place at its end."""
        self._total = len(rows)
        place = ""
        if len(rows) > room:
            self.top = max(0, min(self.top, len(rows) - room))
            last = min(self.top + room, len(rows))
            place = f"{self.top + 1}-{last}/{len(rows)}"
            rows = rows[self.top : last]
        else:
            self.top = 0
        return rows, self._title_row(width, " · ".join(word for word in (words, place) if word))

    def _title_row(self, width: int, right: str) -> Row:
        return title_row(self.TITLE, self._tabs, right, width, focused=self.has_focus)

    def _repaint(self, lines: set[int]) -> None:
        """Repaint these lines of the widget; neighbours share a region."""
        if not lines:
            return
        regions: list[Region] = []
        start = last = -2
        for y in sorted(lines):
            if y < len(self._strips):
                self._strips[y] = None
            if y == last + 1:
                last = y
                continue
            if start >= 0:
                regions.append(Region(0, start, self.size.width, last - start + 1))
            start = last = y
        regions.append(Region(0, start, self.size.width, last - start + 1))
        self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        if self._stale or self._drawn_for != (width, height):
            # Became visible or changed size within this very paint.
            self._rows, self._title = self._compute(width, max(0, height - 1))
            self._drawn_for, self._stale = (width, height), False
            self._strips = [None] * height
            self._find_spots()
        strip = self._strips[y] if y < len(self._strips) else Strip.blank(width, self._palette["text"])
        if strip is None:
            strip = self._strips[y] = self._draw(y, width)
        return strip

    def _draw(self, y: int, width: int) -> Strip:
        if y == 0:
            row: Row | None = self._title
        else:
            row = self._rows[y - 1] if y - 1 < len(self._rows) else None
        base = self._palette["text"]
        if row is None:
            return Strip.blank(width, base)
        mark = self._marked if self.has_focus and self._marked and self._marked.row == y - 1 else None
        segments: list[Segment] = []
        column = 0
        for text, name, _key in row.spans:
            size = cell_len(text)
            if not size:
                continue
            over = row.overlay
            if mark and mark.column <= column < mark.column + mark.width:
                over = "cursor" if mark.width >= width else "cursor_field"
            segments.append(Segment(text, self._mix(name, over)))
            column += size
        if column < width:
            fill = row.overlay
            if mark and mark.width >= width:
                fill = "cursor"
            segments.append(Segment(" " * (width - column), self._mix("text", fill)))
            column = width
        strip = Strip(segments, column)
        return strip if column == width else strip.crop(0, width)

    def _mix(self, name: str, over: str) -> Style:
        style = self._blend.get((name, over))
        if style is None:
            style = self._palette.get(name, self._palette["text"])
            if over:
                style = style + self._palette[over]
            self._blend[name, over] = style
        return style

    # The cursor.

    def _find_spots(self) -> None:
        width = self.size.width
        spots: list[_Spot] = []
        for i, row in enumerate(self._rows):
            column = 0
            found = False
            for text, _style, key in row.spans:
                size = cell_len(text)
                if key is not None:
                    last = spots[-1] if found else None
                    if last is not None and last.key == key and last.column + last.width == column:
                        spots[-1] = _Spot(i, last.column, last.width + size, key)
                    else:
                        spots.append(_Spot(i, column, size, key))
                    found = True
                column += size
            if not found and row.key is not None:
                spots.append(_Spot(i, 0, width, row.key))
        self._spots = spots
        self._marked = self._nearest(*self._cursor) if self._cursor is not None and spots else None
        if self._marked is None and spots and self.has_focus:
            self._marked = spots[0]

    def _nearest(self, row: int, column: int) -> _Spot | None:
        return min(self._spots, key=lambda s: (abs(s.row - row), abs(s.column - column)), default=None)

    def _set_cursor(self, spot: _Spot) -> None:
        old, self._marked = self._marked, spot
        self._cursor = spot.row, spot.column
        self._repaint({s.row + 1 for s in (old, spot) if s is not None})
        self.cursor_moved(spot.key)

    def cursor_moved(self, key: Key) -> None:
        """Called after the cursor reached another place; a subclass may take note."""

    def _repaint_cursor(self) -> None:
        if self._marked is None and self._spots and self.has_focus:
            self._marked = self._spots[0]
            self._cursor = self._marked.row, self._marked.column
        swap = _FOCUSED if self.has_focus else _BLURRED
        self._title = Row(tuple(Span(text, swap.get(style, style)) for text, style, _key in self._title.spans))
        self._repaint({0} | ({self._marked.row + 1} if self._marked else set()))

    def action_move(self, step: int) -> None:
        """Up or down; the window follows at its edges."""
        if not self._spots:
            self.scroll_lines(step)
            return
        mark = self._marked or self._spots[0]
        rows = sorted({s.row for s in self._spots if (s.row - mark.row) * step > 0}, key=lambda r: abs(r - mark.row))
        if rows:
            beside = [s for s in self._spots if s.row == rows[0]]
            self._set_cursor(min(beside, key=lambda s: abs(s.column - mark.column)))
        else:
            self._cursor = mark.row, mark.column
            self.scroll_lines(step)

    def action_field(self, step: int) -> None:
        """To the next or previous field, across rows."""
        if self._spots:
            at = self._spots.index(self._marked) if self._marked in self._spots else 0
            self._set_cursor(self._spots[max(0, min(at + step, len(self._spots) - 1))])

    def action_page(self, step: int) -> None:
        """One window up or down."""
        self.scroll_lines(step * max(1, self.window_height - 1))

    def action_edge(self, step: int) -> None:
        """First or last row."""
        self.edge_reached(step)
        if self._spots:
            self._set_cursor(self._spots[0 if step < 0 else -1])

    def action_activate(self) -> None:
        """Open or edit what the cursor stands on."""
        if self._marked is not None:
            self.activate(self._marked.key, self._region_of(self._marked))

    def activate(self, key: Key, region: Region) -> None:
        """Act on ``key``: by default tell the screen; a panel may fold or unfold instead."""
        self.post_message(PanelActivated(self, key, region))

    def _region_of(self, spot: _Spot) -> Region:
        left, top = self.content_region.offset
        width = min(spot.width, self.size.width - spot.column)
        return Region(left + spot.column, top + spot.row + 1, max(1, width), 1)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        row, column = event.y - 1, event.x
        if row < 0:
            self._tab_clicked(column)
            return
        spot = next((s for s in self._spots if s.row == row and s.column <= column < s.column + s.width), None)
        if spot is None:
            return
        again = spot == self._marked and self.has_focus and event.chain > 1
        self._set_cursor(spot)
        if again:
            self.action_activate()

    def _tab_clicked(self, column: int) -> None:
        tabs = iter(self._tabs)
        at = 0
        for text, style, _key in self._title.spans:
            at += cell_len(text)
            if style in ("tab", "tab_focus", "title_off"):
                tab = next(tabs)
                if at - cell_len(text) - 1 <= column <= at:
                    self.post_message(TabChosen(tab.kind))
                    return

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        event.prevent_default()
        self.scroll_lines(-3)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        event.prevent_default()
        self.scroll_lines(3)


_ENTER: Final = {
    Kind.REGISTER: "edit",
    Kind.BYTE: "edit",
    Kind.BREAKPOINT: "break",
    Kind.CODE: "go there",
    Kind.TICK: "travel there",
    Kind.LINE: "go there",
    Kind.WALK: "walk it",
}
_FOCUSED: Final = {"title": "title_focus", "tab": "tab_focus"}
_BLURRED: Final = {focused: plain for plain, focused in _FOCUSED.items()}
