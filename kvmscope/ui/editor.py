"""The source: a text area with a gutter that says where the machine is and what does not assemble.

Gutter, from the left: ``●`` breakpoint, the line's number, ``▶`` the next instruction (``◀`` while standing in the past) or
``✗`` an error.  Behind the code, where there is room: the message of a wrong line, or the address and bytes that the line
became.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.document._edit import Edit
from textual.message import Message
from textual.strip import Strip
from textual.widgets import TextArea
from textual.widgets.text_area import EditResult

from kvmscope.ui.highlight import Highlighter, Lexer
from kvmscope.ui.theme import Palette, palette_for

if TYPE_CHECKING:
    from kvmscope.asm.image import Diagnostic, Image, Syntax

__all__ = ["Editor", "GutterClicked", "Listing", "listing_of"]

_MARKS: Final = 2
"""Cells of the gutter beside the number: breakpoint before it, position or error behind it."""
_LISTING_BYTES: Final = 6
_GAP: Final = 2
_LISTING_FROM: Final = 60
"""Cells beside the gutter from which addresses and bytes are shown."""


_AT_ONCE: Final[Mapping[str, str]] = {
    key: binding.action
    for binding in TextArea.BINDINGS
    if isinstance(binding, Binding) and binding.action.startswith(("cursor_", "delete_", "undo", "redo"))
    for key in binding.key.split(",")
}
"""Keys of the text area that act in the order they were typed."""


@dataclass
class GutterClicked(Message):
    """A click beside a line; ``line`` counts from 1."""

    line: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What one line became: its first address and all its bytes."""

    address: int
    data: bytes

    def text(self) -> str:
        """``401000  48 89 d8`` with an ellipsis for more than fits."""
        shown = self.data[:_LISTING_BYTES].hex(" ")
        return f"{self.address:x}  {shown}{'…' if len(self.data) > _LISTING_BYTES else ''}"


class Editor(TextArea):
    """The source editor; ``read_only`` is the run mode."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("h", "cursor_left", "Left", show=False, id="editor.left", tooltip="Cursor left (run mode)"),
        Binding("j", "cursor_down", "Down", show=False, id="editor.down", tooltip="Cursor down (run mode)"),
        Binding("k", "cursor_up", "Up", show=False, id="editor.up", tooltip="Cursor up (run mode)"),
        Binding("l", "cursor_right", "Right", show=False, id="editor.right", tooltip="Cursor right (run mode)"),
        # The text area has other uses for these keys.
        Binding("ctrl+f", "screen.find", "Find", show=False, id="editor.find", tooltip="Find text"),
        Binding("f6", "screen.next_panel", "Next panel", show=False, id="editor.next", tooltip="Focus the next panel"),
    ]

    def __init__(self, text: str, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(
            text,
            id=id,
            soft_wrap=False,
            show_line_numbers=True,
            read_only=True,
            tab_behavior="indent",
            show_cursor=True,
            max_checkpoints=500,
        )
        self.indent_width = 8
        self.cursor_blink = False
        self.highlighter = Highlighter()
        self._inks: Palette = palette_for("kvmscope-dark")
        self._breakpoints: frozenset[int] = frozenset()
        self._current: int | None = None
        self._in_past = False
        self._notes: dict[int, Diagnostic] = {}
        self._listing: Mapping[int, Listing] = {}

    # What the screen tells it.

    def mark_position(self, line: int | None, *, in_past: bool = False) -> None:
        """Show ``line`` (from 1) as the next one to execute."""
        if (line, in_past) == (self._current, self._in_past):
            return
        old, self._current, self._in_past = self._current, line, in_past
        self._repaint(at for at in (old, line) if at is not None)

    def mark_breakpoints(self, lines: Iterable[int]) -> None:
        """Show breakpoints on these lines (from 1)."""
        new = frozenset(lines)
        old, self._breakpoints = self._breakpoints, new
        self._repaint(old ^ new)

    def mark_problems(self, diagnostics: Sequence[Diagnostic]) -> None:
        """Show what does not assemble; the first and heaviest message of a line counts."""
        notes: dict[int, Diagnostic] = {}
        for item in diagnostics:
            known = notes.get(item.line)
            if known is None or (known.severity != "error" and item.severity == "error"):
                notes[item.line] = item
        if notes != self._notes:
            lines = {line for line in notes.keys() | self._notes.keys() if notes.get(line) != self._notes.get(line)}
            self._notes = notes
            self.notify_style_update()
            self._repaint(lines)

    def mark_listing(self, listing: Mapping[int, Listing]) -> None:
        """Show addresses and bytes behind these lines (from 1)."""
        if listing != self._listing:
            self._listing = listing
            self.refresh()

    def set_lexer(self, lexer: Lexer) -> None:
        """Colour the text from now on."""
        self.highlighter.lexer = lexer
        self.highlighter.invalidate()
        self.notify_style_update()
        self.refresh()

    def set_syntax(self, syntax: Syntax) -> None:
        """The syntax that the header names."""
        if syntax is not self.highlighter.syntax:
            self.highlighter.syntax = syntax
            self.highlighter.invalidate()
            self.notify_style_update()
            self.refresh()

    @property
    def line(self) -> int:
        """The cursor's line, from 1."""
        return self.cursor_location[0] + 1

    def problem_at(self, line: int) -> Diagnostic | None:
        """The message of a line (from 1)."""
        return self._notes.get(line)

    def next_problem(self) -> int | None:
        """The next wrong line behind the cursor, or the first one."""
        lines = sorted(line for line, item in self._notes.items() if item.severity == "error")
        return next((line for line in lines if line > self.line), lines[0] if lines else None)

    def go_to(self, line: int, column: int = 1) -> None:
        """Put the cursor on a line (from 1), in view."""
        row = max(0, min(line - 1, self.document.line_count - 1))
        first, last = self.scroll_offset.y, self.scroll_offset.y + self.size.height
        self.move_cursor((row, column - 1), center=not first + 1 <= row < last - 1)

    def find(self, needle: str, *, again: bool = False) -> bool:
        """Select the next place of ``needle`` from the cursor on, from the top behind the end; letter case counts only
        when ``needle`` has capitals."""
        if not needle:
            return False
        fold = needle.islower()
        lines = [self.document.get_line(row) for row in range(self.document.line_count)]
        if fold:
            lines = [text.lower() for text in lines]
        row, column = self.selection.end if again else self.selection.start
        for step in range(len(lines) + 1):
            at = (row + step) % len(lines)
            found = lines[at].find(needle, column if step == 0 else 0)
            if found >= 0:
                self.go_to(at + 1, found + 1)
                self.move_cursor((at, found + len(needle)), select=True)
                return True
        return False

    def replace_all(self, text: str) -> None:
        """Put another text in place of this one, as one change that can be undone."""
        self.replace(text, (0, 0), self.document.end)

    # Text changes: what hangs on lines follows.

    def edit(self, edit: Edit) -> EditResult:
        self.highlighter.invalidate(min(edit.from_location[0], edit.to_location[0]))
        return super().edit(edit)

    def undo(self) -> None:
        self.highlighter.invalidate()
        super().undo()

    def redo(self) -> None:
        self.highlighter.invalidate()
        super().redo()

    def load_text(self, text: str) -> None:
        if hasattr(self, "highlighter"):  # The base class loads before our own attributes exist.
            self.highlighter.invalidate()
        super().load_text(text)

    async def on_key(self, event: events.Key) -> None:
        """Enter keeps the indentation; keys that move or delete act at once.

        As bindings they would act after the letters that came with them in one read, as type-ahead over ssh does, and
        the letters would land in the wrong place.
        """
        if self.read_only:
            return
        action = _AT_ONCE.get(event.key)
        if action is not None:
            event.stop()
            event.prevent_default()
            await self.run_action(action)
        elif event.key == "enter":
            event.stop()
            event.prevent_default()
            row, column = self.selection.start if self.selection.start < self.selection.end else self.selection.end
            text = self.document.get_line(row)[:column]
            indent = text[: len(text) - len(text.lstrip(" \t"))]
            self._replace_via_keyboard("\n" + indent, *self.selection)

    async def on_mouse_down(self, event: events.MouseDown) -> None:
        """A click in the gutter is for a breakpoint, not for the cursor."""
        if event.x < self.gutter_width + self.gutter.left:
            row = event.y - self.gutter.top + self.scroll_offset.y
            event.prevent_default()
            event.stop()
            if 0 <= row < self.document.line_count:
                self.post_message(GutterClicked(row + 1))

    # Drawing.

    def on_mount(self) -> None:
        self._inks = palette_for(self.app.theme)
        self.app.theme_changed_signal.subscribe(self, self._theme_changed)

    def _theme_changed(self, theme: object) -> None:
        self._inks = palette_for(getattr(theme, "name", ""))
        self.notify_style_update()
        self.refresh()

    @property
    def gutter_width(self) -> int:
        return super().gutter_width + _MARKS - 1

    def get_line(self, line_index: int) -> Text:
        text = super().get_line(line_index)
        for span in self.highlighter.spans(line_index, self.document.get_line):
            text.stylize(self._inks[span.style], span.start, span.end)
        note = self._notes.get(line_index + 1)
        if note is not None:
            start = max(0, note.column - 1)
            text.stylize(self._inks["squiggle"], start, max(start + 1, start + note.length))
        return text

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        width = self.scrollable_content_region.width
        row = y + self.scroll_offset.y
        if row >= self.document.line_count:
            return strip
        line = row + 1
        current = line == self._current
        body = strip.crop(self.gutter_width, max(width, self.gutter_width))
        segments = [*self._gutter(line, current), *self._with_note(body, row, width - self.gutter_width)]
        if current:
            over = self._inks["current"]
            segments = [Segment(text, (style or Style()) + over) for text, style, _ in segments]
        return Strip(segments)

    def _gutter(self, line: int, current: bool) -> list[Segment]:
        note = self._notes.get(line)
        digits = self.gutter_width - 3
        mark = "●" if line in self._breakpoints else " "
        where, ink = " ", "gutter"
        if current:
            where, ink = ("◀", "past") if self._in_past else ("▶", "gutter_current")
        elif note is not None:
            where, ink = ("✗", "error") if note.severity == "error" else ("!", "warn")
        return [
            Segment(mark, self._inks["breakpoint"]),
            Segment(f"{line:>{digits}}", self._inks["gutter_current" if current else "gutter"]),
            Segment(f"{where} ", self._inks[ink]),
        ]

    def _with_note(self, body: Strip, row: int, room: int) -> list[Segment]:
        """The line, with its message or its listing where the text leaves room."""
        used = cell_len(self.document.get_line(row).expandtabs(self.indent_width)) - self.scroll_offset.x
        note = self._notes.get(row + 1)
        listing = self._listing.get(row + 1)
        if note is not None:
            text, ink = f"  {note.message}", "error" if note.severity == "error" else "warn"
            start = max(0, used) + _GAP
        elif listing is not None and room >= _LISTING_FROM:
            text, ink = listing.text(), "bytes"
            start = room - self._listing_width
        else:
            return list(body)
        if start < used + _GAP or room - start < (cell_len(text) if note is None else 8):
            return list(body)
        shown = set_cell_size(text, room - start)
        if note is not None and cell_len(text) > room - start:
            shown = shown[:-1] + "…"
        return [*body.crop(0, start), Segment(shown, self._inks[ink])]

    @property
    def _listing_width(self) -> int:
        highest = max((item.address for item in self._listing.values()), default=0)
        return len(f"{highest:x}") + 2 + 3 * _LISTING_BYTES + 1

    def _repaint(self, lines: Iterable[int]) -> None:
        top, height = self.scroll_offset.y, self.size.height
        for line in lines:
            if top <= line - 1 < top + height:
                self.refresh_lines(line - 1)


def listing_of(image: Image) -> dict[int, Listing]:
    """Line -> what it became; a line that became several pieces (a macro) shows them as one."""
    found: dict[int, Listing] = {}
    for entry in image.lines:
        known = found.get(entry.line)
        if known is None:
            found[entry.line] = Listing(entry.address, entry.data)
        elif known.address + len(known.data) == entry.address:
            found[entry.line] = Listing(known.address, known.data + entry.data)
    return found
