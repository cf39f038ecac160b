"""All panels, made together: imported after the first paint, since what they draw with takes a while to load."""

from __future__ import annotations

from kvmscope.ui import panels
from kvmscope.ui.console import ConsolePanel
from kvmscope.ui.line_panel import LinePanel

__all__ = ["make_panels"]


def make_panels() -> list[LinePanel]:
    """One of each, the console among them; for the UI's thread."""
    return [*panels.make_panels(), ConsolePanel()]
