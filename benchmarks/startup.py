"""Time to the first painted frame in a real terminal, against a bare Textual app's."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measure import Row, alternate
from benchmarks.terminal import Terminal

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "reproducers" / "page-fault-write.asm"
BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("painted")
Bare().run()
"""


def first_frame(argv: list[str], what: str) -> None:
    """Start, wait for the frame, end."""
    with Terminal(argv) as terminal:
        terminal.wait(what)


def rows() -> list[Row]:
    ours = [sys.executable, "-m", "kvmscope", str(FILE)]
    a, b = alternate(lambda: first_frame(ours, FILE.name), lambda: first_frame([sys.executable, "-c", BARE], "painted"))
    c, d = alternate(
        lambda: first_frame(ours, "step 0/0"), lambda: first_frame([sys.executable, "-c", BARE], "painted")
    )
    return [
        Row("first paint", f"{a * 1e3:.0f} ms", f"{b * 1e3:.0f} ms", "bare Textual app", a / b),
        Row("ready to step", f"{c * 1e3:.0f} ms", f"{d * 1e3:.0f} ms", "bare Textual app's paint", c / d),
    ]
