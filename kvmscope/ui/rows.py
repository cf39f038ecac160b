"""What panels draw: rows of styled text, and what stands behind them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

__all__ = ["Key", "Kind", "PanelTab", "Row", "Span", "plain", "title_row"]


class Kind(StrEnum):
    """What a `Key` stands for, hence what activating it does."""

    CODE = "code"
    """Linear address of an instruction: show it in source and disassembly."""
    BREAKPOINT = "breakpoint"
    """Linear address: set or clear a breakpoint there."""
    MEMORY = "memory"
    """Linear address: show it in the memory panel."""
    PHYSICAL = "physical"
    """Physical address: show it in the memory panel."""
    WALK = "walk"
    """Linear address: show its page walk."""
    TICK = "tick"
    """Go to this point of history."""
    REGISTER = "register"
    """Name of a register (as `write_register` takes it): edit it in place."""
    BYTE = "byte"
    """Physical address of a byte: edit it in place."""
    LINE = "line"
    """Source line, from 1: put the editor's cursor there."""
    FOLD = "fold"
    """Name of a part of the panel: open or close it; the panel does that itself."""
    ENTRY = "entry"
    """Number of an entry of a suite."""
    CHECK = "check"
    """Number of a check that the suite's entry reported."""


class Key(NamedTuple):
    """What a row or a span stands for."""

    kind: Kind
    value: int | str
    text: str = ""
    """For what can be edited: the text to begin with, as a user would type it."""
    address: int | None = None
    """Linear address or register value that `goto`, `m` and the like may use; None: nothing of that sort."""
    vcpu: int | None = None
    """Whose it is, where a machine has several vCPUs."""


class Span(NamedTuple):
    """A run of text in one style."""

    text: str
    style: str = "value"
    key: Key | None = None


class Row(NamedTuple):
    """One line; compared by value to find what to repaint."""

    spans: tuple[Span, ...] = ()
    key: Key | None = None
    overlay: str = ""


class PanelTab(NamedTuple):
    """One of the panels that share a place: what its tab says and whether it is the one shown."""

    kind: str
    text: str
    shown: bool


def plain(rows: Sequence[Row]) -> list[str]:
    """The text of rows, for tests and copying."""
    return ["".join(span.text for span in row.spans) for row in rows]


def title_row(title: str, tabs: Sequence[PanelTab], right: str, width: int, *, focused: bool) -> Row:
    """A panel's first line: its title, or the tabs of the panels that share its place, and a few words at the end."""
    head = _head(title, tabs, width, focused)
    used = sum(cell_len(span.text) for span in head)
    room = width - used - 4
    if right and cell_len(right) > room:
        right = set_cell_size(right, room - 1).rstrip() + "…" if room > 8 else ""
    end = (Span(" "), Span(right, "dim"), Span(" ─", "rule")) if right else ()
    fill = width - used - (cell_len(right) + 3 if right else 0)
    return Row((*head, Span("─" * max(0, fill), "rule"), *end))


def _head(title: str, tabs: Sequence[PanelTab], width: int, focused: bool) -> list[Span]:
    """The title, or the tabs; tabs that do not fit are named by their keys only."""
    if not tabs:
        return [Span("─ ", "rule"), Span(title, "title_focus" if focused else "title"), Span(" ", "rule")]
    words = {tab.kind: tab.text for tab in tabs}
    for tab in reversed(tabs):
        if sum(len(word) + 3 for word in words.values()) + 2 <= width:
            break
        if not tab.shown:
            words[tab.kind] = tab.text.partition(" ")[0]
    spans = [Span("─", "rule")]
    for tab in tabs:
        style = ("tab_focus" if focused else "tab") if tab.shown else "title_off"
        spans += [Span(" ", "rule"), Span(words[tab.kind], style), Span(" ", "rule")]
    return spans
