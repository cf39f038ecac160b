"""Copying: OSC 52 reaches the terminal through ssh; tmux drops it by default and is asked in its own words."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.app import App

__all__ = ["copy"]


def copy(app: App[object], text: str) -> str:
    """Put ``text`` on the clipboard; says where it went."""
    app.copy_to_clipboard(text)
    if not os.environ.get("TMUX"):
        return "copied"
    try:
        # -w hands it on to the terminal's clipboard as well.
        done = subprocess.run(
            ["tmux", "load-buffer", "-w", "-"], input=text.encode(), capture_output=True, timeout=2, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "copied"
    return "copied to the tmux buffer" if done.returncode == 0 else "copied"
