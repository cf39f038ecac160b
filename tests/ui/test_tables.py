"""Actions, keys, layouts, styles and bars as tables."""

from __future__ import annotations

from collections import Counter

import pytest
from rich.style import Style

from kvmscope.ui.actions import ACTIONS, BY_ID, Where
from kvmscope.ui.bars import BarItem, fit
from kvmscope.ui.editor import Editor
from kvmscope.ui.keymap import KEYMAP, bindings, spelled
from kvmscope.ui.layouts import GRIDS, HORIZONTAL, PANELS, SLOTS, TREE, VERTICAL, docked, layout_name
from kvmscope.ui.line_panel import LinePanel
from kvmscope.ui.screen import MainScreen
from kvmscope.ui.theme import STYLE_NAMES, THEMES, palette_for


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
def test_every_action_is_done_by_the_screen(action) -> None:
    assert callable(getattr(MainScreen, f"action_{action.method.partition('(')[0]}"))
    assert action.title
    assert action.help.endswith(".")


def test_every_key_belongs_to_an_action() -> None:
    assert set(KEYMAP) <= set(BY_ID)


def test_no_key_has_two_meanings_in_one_mode() -> None:
    for mode in (Where.RUN, Where.EDIT):
        keys = [
            key
            for action in ACTIONS
            if action.where in (mode, Where.ALWAYS)
            for key in KEYMAP.get(action.id, "").split(",")
            if key
        ]
        assert [key for key, count in Counter(keys).items() if count > 1] == []


def test_every_binding_has_an_id_and_a_tooltip() -> None:
    for owner in (bindings(), Editor.BINDINGS, LinePanel.BINDINGS):
        for binding in owner:
            assert binding.id, binding
            assert binding.tooltip, binding
    ids = [binding.id for binding in bindings()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("keys", KEYMAP.values())
def test_keys_reach_a_terminal_program(keys: str) -> None:
    names = keys.split(",")
    assert not {"ctrl+a", "ctrl+b", "ctrl+i", "ctrl+m", "ctrl+h", "ctrl+j"} & set(names)
    assert any(not (name[0] == "f" and name[1:].isdigit()) for name in names)


def test_forward_and_backward_are_the_same_letter() -> None:
    for forward, back in [
        ("run.step", "back.step"),
        ("run.over", "back.over"),
        ("run.continue", "back.continue"),
        ("run.finish", "back.entry"),
        ("run.to_cursor", "back.to_cursor"),
    ]:
        assert KEYMAP[back] == KEYMAP[forward][0].upper()


def test_keys_are_spelled_as_people_write_them() -> None:
    assert spelled("run.step", all_keys=True) == "s F11"
    assert spelled("file.save") == "^S"
    assert spelled("edit.find", typing=True) == "^F"
    assert spelled("file.recent") == ""


@pytest.mark.parametrize("width", [80, 119, 120, 149, 150, 250])
@pytest.mark.parametrize("height", [24, 33, 34, 60])
def test_every_size_has_a_layout_and_every_panel_a_place(width: int, height: int) -> None:
    name = layout_name(width, height)
    slots = SLOTS[name]
    assert set(slots) | set(docked(name)) == set(PANELS)
    assert set(slots) & set(docked(name)) == set()
    columns, rows = GRIDS[name]
    assert len(slots) <= len(columns.split()) * len(rows.split())


def test_layout_tables_name_the_same_panels() -> None:
    assert {"editor", *TREE} == set(PANELS)
    assert len(SLOTS) == len(HORIZONTAL) * len(VERTICAL) == len(GRIDS)


@pytest.mark.parametrize("theme", [*(theme.name for theme in THEMES), "ansi-dark", "ansi-light", "nord"])
def test_every_theme_has_every_style(theme: str) -> None:
    palette = palette_for(theme)
    assert set(palette) == set(STYLE_NAMES)
    assert all(isinstance(style, Style) for style in palette.values())


@pytest.mark.parametrize("theme", ["ansi-dark", "ansi-light"])
@pytest.mark.parametrize("name", ["changed", "cursor", "cursor_field", "current", "error", "breakpoint", "title_focus"])
def test_highlights_survive_without_colour(theme: str, name: str) -> None:
    style = palette_for(theme)[name]
    assert style.bold or style.underline or style.reverse


@pytest.mark.parametrize("theme", ["ansi-dark", "ansi-light"])
def test_sixteen_colours_are_the_terminals_own(theme: str) -> None:
    for name, style in palette_for(theme).items():
        for color in (style.color, style.bgcolor):
            assert color is None or color.is_default or (color.number is not None and color.number < 16), name


@pytest.mark.parametrize(
    ("texts", "width", "expected"),
    [
        (["abc", "def"], 6, ["abc", "def"]),
        (["abc", "def"], 5, ["abc", "d…"]),
        (["abc", "def"], 4, ["abc"]),
        (["猫猫"], 3, ["猫…"]),
        (["abc"], 0, []),
    ],
)
def test_bars_cut_with_an_ellipsis(texts: list[str], width: int, expected: list[str]) -> None:
    assert [item.text for item in fit([BarItem(text) for text in texts], width)] == expected
