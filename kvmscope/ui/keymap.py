"""The keys, as data: action -> keys, in Textual's names.

Lowercase goes forward, the same letter in uppercase goes backwards.  A function key is never the only one (desktops take
F1, F10 and F11), nor ctrl+a and ctrl+b (multiplexers); ctrl+i, ctrl+m and ctrl+h are tab, enter and backspace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from textual.binding import Binding, BindingType

from kvmscope.ui.actions import ACTIONS

__all__ = ["KEYMAP", "PANEL_KEYS", "bindings", "spelled"]

KEYMAP: Final[Mapping[str, str]] = {
    "run.step": "s,f11",
    "run.over": "n,f10",
    "run.step_line": "x",
    "run.over_line": "o",
    "run.finish": "f",
    "run.to_cursor": "u",
    "run.continue": "c,f5",
    "run.stop": "space",
    "run.restart": "r,ctrl+r",
    "run.next_event": "]",
    "run.breakpoint": "b,f9",
    "back.step": "S",
    "back.over": "N",
    "back.step_line": "X",
    "back.over_line": "O",
    "back.entry": "F",
    "back.to_cursor": "U",
    "back.continue": "C",
    "back.previous_event": "[",
    "look.memory": "m",
    "look.walk": "p",
    "look.decode": "t",
    "look.watch": "w",
    "look.goto": "g",
    "look.copy": "y",
    "look.command": ":",
    "look.zoom": "z",
    "look.next_panel": "tab,f6",
    "look.previous_panel": "shift+tab,shift+f6",
    "look.picture": "P",
    "look.theme": "ctrl+t",
    "vcpu.next": "v",
    "vcpu.previous": "V",
    "vcpu.lock": "L",
    "edit.edit": "i",
    "edit.leave": "escape",
    "edit.start": "ctrl+r,f5",
    "edit.find": "/,ctrl+f",
    "edit.find_next": "ctrl+g,f3",
    "edit.next_problem": "ctrl+l,f8",
    "file.save": "ctrl+s",
    "file.open": "ctrl+o",
    "file.new": "ctrl+n",
    "file.suite": "T",
    "file.export": "e",
    "app.palette": "ctrl+p",
    "app.help": "?,f1",
    "app.quit": "ctrl+q",
}
"""An action that is missing here is reached through the palette."""

PANEL_KEYS: Final = "1234567890"
"""Digits that bring a panel to the front, in the order of `kvmscope.ui.layouts.PANELS`."""

_SPELLED: Final = {
    "space": "space",
    "escape": "Esc",
    "shift+tab": "shift+Tab",
    "tab": "Tab",
    "enter": "Enter",
}


def bindings() -> list[BindingType]:
    """The screen's bindings: one for each action that has keys, and the panel digits."""
    made: list[BindingType] = [
        Binding(
            KEYMAP[action.id],
            action.method,
            action.title,
            show=False,
            id=action.id,
            tooltip=action.help,
            # Escape belongs to the text area otherwise, which moves the focus with it.
            priority=action.id == "edit.leave",
        )
        for action in ACTIONS
        if action.id in KEYMAP
    ]
    for digit in PANEL_KEYS:
        made.append(
            Binding(
                digit, f"panel({digit})", f"Panel {digit}", show=False, id=f"panel.{digit}", tooltip="To this panel"
            )
        )
    made += [
        Binding("less_than_sign", "dock(-1)", "Dock: previous", show=False, id="dock.previous", tooltip="Previous tab"),
        Binding("greater_than_sign", "dock(1)", "Dock: next", show=False, id="dock.next", tooltip="Next tab"),
    ]
    return made


def spelled(action_id: str, *, all_keys: bool = False, typing: bool = False) -> str:
    """The keys of an action as a user reads them: ``s F11``, or only the first one.

    ``typing``: the first one that is not a letter, since letters are typed.
    """
    keys = KEYMAP.get(action_id, "").split(",")
    if typing:
        keys = [key for key in keys if len(key) > 1 and key != "space"] or keys
    words = [_spell(key) for key in keys if key]
    return " ".join(words if all_keys else words[:1])


def _spell(key: str) -> str:
    if key in _SPELLED:
        return _SPELLED[key]
    head, plus, last = key.rpartition("+")
    if len(last) > 1 and last[0] == "f" and last[1:].isdigit():
        last = last.upper()
    if head == "ctrl" and len(last) == 1:
        return f"^{last.upper()}"
    return f"{head}{plus}{last}"
