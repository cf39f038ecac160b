"""Which panels have a place of their own at which size; the others share the dock, one at a time.

Sizes are set from here and not by style rules under the breakpoints' classes: parsing those would cost the first paint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = [
    "GRIDS",
    "HORIZONTAL",
    "PANELS",
    "SLOTS",
    "TREE",
    "VERTICAL",
    "WHOLE_ROW",
    "docked",
    "layout_classes",
    "layout_name",
]

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

TREE: Final = (
    "registers", "explanation", "disassembly", "paging", "memory", "timeline",
    "serial", "descriptors", "devices", "console",
)  # fmt: skip
"""Order in the grid, behind the editor: a panel's place in every layout follows from it."""

HORIZONTAL: Final = [(0, "-narrow"), (110, "-medium"), (150, "-wide")]
VERTICAL: Final = [(0, "-short"), (34, "-tall"), (54, "-high")]

GRIDS: Final[Mapping[str, tuple[str, str]]] = {
    "narrow-short": ("36 1fr", "1fr"),
    "narrow-tall": ("36 1fr", "1fr 1fr"),
    "narrow-high": ("36 1fr", "1fr 1fr 7"),
    "medium-short": ("1fr 62", "1fr"),
    "medium-tall": ("1fr 62", "1fr 11"),
    "medium-high": ("1fr 62", "1fr 15 7"),
    "wide-short": ("1fr 62", "1fr"),
    "wide-tall": ("1fr 62 1fr", "1fr 15"),
    "wide-high": ("1fr 62 1fr", "1fr 18 6"),
}
"""Layout -> widths of the columns, heights of the rows, as CSS writes them.  The dock comes below."""
WHOLE_ROW: Final[Mapping[str, tuple[str, ...]]] = {
    "narrow-tall": ("disassembly",),
    "narrow-high": ("disassembly", "timeline"),
    "medium-high": ("timeline",),
    "wide-high": ("timeline",),
}
"""Panels whose place spans all columns."""

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


def layout_classes(width: int, height: int) -> tuple[str, str]:
    """The classes that the breakpoints set for a terminal of this size."""
    across = [name for least, name in HORIZONTAL if width >= least][-1]
    down = [name for least, name in VERTICAL if height >= least][-1]
    return across, down


def layout_name(width: int, height: int) -> str:
    """The layout for a terminal of this size."""
    across, down = layout_classes(width, height)
    return f"{across[1:]}{down}"


def docked(layout: str) -> tuple[str, ...]:
    """The panels that share the dock, in order."""
    return tuple(name for name in PANELS if name not in SLOTS[layout])
