"""Dialogs: only where an answer is needed before anything else can happen.

Names are imported on first use: dialogs are not needed for the first paint.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvmscope.ui.modals.ask_path import AskPath
    from kvmscope.ui.modals.choose import Choice, Choose
    from kvmscope.ui.modals.confirm import Confirm
    from kvmscope.ui.modals.help import Help

__all__ = ["AskPath", "Choice", "Choose", "Confirm", "Help"]

_HOMES: Final = {"AskPath": "ask_path", "Choice": "choose", "Choose": "choose", "Confirm": "confirm", "Help": "help"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
