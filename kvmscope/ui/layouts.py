"""Which panels have a place of their own at which size; the others share the dock, one at a time.

Sizes of rows and columns are in ``style.tcss``, under the classes that the breakpoints set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["HORIZONTAL", "PANELS", "SLOTS", "TITLES", "TREE", "VERTICAL", "docked", "layout_name"]

PANELS: Final = (
    "editor",
    "registers",
    "disassembly",
    "memory",
    "paging",
    "timeline",
    "serial",
    "explanation",
    "descriptors",
    "devices",
    "console",
)
"""In the order of the digit keys; the console, the last one, is reached through its command line."""

TITLES: Final[Mapping[str, str]] = {
    "registers": "Registers",
    "disassembly": "Disassembly",
    "memory": "Memory",
    "paging": "Paging",
    "timeline": "Timeline",
    "serial": "Serial",
    "explanation": "Explanation",
    "descriptors": "Descriptors",
    "devices": "Devices",
    "console": "Console",
}
"""Titles by name, for the first paint: the panels themselves are loaded after it."""
TREE: Final = (
    "registers", "explanation", "disassembly", "paging", "memory", "timeline",
    "serial", "descriptors", "devices", "console",
)  # fmt: skip
"""Order in the grid, behind the editor: a panel's place in every layout follows from it."""

HORIZONTAL: Final = [(0, "-narrow"), (110, "-medium"), (150, "-wide")]
VERTICAL: Final = [(0, "-short"), (34, "-tall"), (54, "-high")]

SLOTS: Final[Mapping[str, tuple[str, ...]]] = {
    "narrow-short": ("editor", "registers"),
    "narrow-tall": ("editor", "registers", "disassembly"),
    "narrow-high": ("editor", "registers", "disassembly", "timeline"),
    "medium-short": ("editor", "registers"),
    "medium-tall": ("editor", "registers", "disassembly", "paging"),
    "medium-high": ("editor", "registers", "disassembly", "paging", "timeline"),
    "wide-short": ("editor", "registers"),
    "wide-tall": ("editor", "registers", "explanation", "disassembly", "paging", "memory"),
    "wide-high": ("editor", "registers", "explanation", "disassembly", "paging", "memory", "timeline"),
}
"""Layout -> panels with a place of their own."""


def layout_name(width: int, height: int) -> str:
    """The layout for a terminal of this size."""
    across = [name for least, name in HORIZONTAL if width >= least][-1]
    down = [name for least, name in VERTICAL if height >= least][-1]
    return f"{across[1:]}{down}"


def docked(layout: str) -> tuple[str, ...]:
    """The panels that share the dock, in order."""
    return tuple(name for name in PANELS if name not in SLOTS[layout])
