"""From a key to the last byte of its frame on a real pty, 160x50 with six panels; against an app with one label."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.measure import Row, percentile
from benchmarks.terminal import Terminal

STEPS = 60
STOPS = 15
BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    count = 0
    def compose(self):
        yield Static("step 0/")
    def on_key(self):
        self.count += 1
        self.query_one(Static).update(f"step {self.count}/")
Bare().run()
"""
GUEST = """# /// kvmscope
# max_instructions = 1000000000000
# timeout = 3600
# ///
_start: mov     edi, 0x200000
again:  mov     [rdi], rcx
        mov     rax, [rdi]
        push    rax
        pop     rbx
        add     rdx, rax
        dec     rcx
        jne     again
        hlt
"""


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "guest.asm"
        path.write_text(GUEST)
        with (
            Terminal([sys.executable, "-m", "kvmscope", str(path)]) as ours,
            Terminal([sys.executable, "-c", BARE]) as bare,
        ):
            ours.wait("step 0/0")
            bare.wait("step 0/")
            ours.settle()
            bare.settle()
            return [*_steps(ours, bare), _stops(ours), _typing(ours)]


def _steps(ours: Terminal, bare: Terminal) -> list[Row]:
    """Keys in turn to both."""
    # The first steps load what stepping needs.
    for tick in range(1, 6):
        ours.key(b"s", f"step {tick}/")
        bare.key(b"s", f"step {tick}/")
    forward, back, label = [], [], []
    before = ours.cpu()
    for tick in range(6, STEPS + 6):
        forward.append(ours.key(b"s", f"step {tick}/"))
        label.append(bare.key(b"s", f"step {tick}/"))
    used = (ours.cpu() - before) / STEPS
    for tick in range(STEPS + 4, 4, -1):
        back.append(ours.key(b"S", f"step {tick}/"))
    return [
        _row("key to frame, step", forward, label, f"ours: six panels; {used * 1e3:.0f} ms CPU a step"),
        _row("key to frame, step back", back, label),
    ]


def _row(what: str, ours: list[float], bare: list[float], note: str = "") -> Row:
    a, b = median(ours), median(bare)
    tail = f"p95 {percentile(ours, 95) * 1e3:.1f} ms, yardstick's {percentile(bare, 95) * 1e3:.1f} ms"
    note = f"{tail}; {note}" if note else tail
    return Row(what, f"{a * 1e3:.1f} ms", f"{b * 1e3:.1f} ms", "a Textual app with one label", a / b, note)


def _stops(ours: Terminal) -> Row:
    """Continue a guest without an end, stop it; until the screen that says so is complete."""
    times = []
    for _ in range(STOPS):
        ours.send(b"c")
        ours.wait("RUNNING")
        times.append(ours.key(b" ", "STOPPED", 0.3))
    p50, p95 = median(times), percentile(times, 95)
    return Row("space to stopped frame", f"{p50 * 1e3:.1f} ms", f"{p95 * 1e3:.1f} ms", "its own p95", p50 / p95)


def _typing(ours: Terminal) -> Row:
    """Letters in the source at a fast typist's pace, each until its own frame; assembling goes on meanwhile."""
    ours.key(b"i", "EDIT")
    text = ""
    times = []
    for letter in "; assembled while typing; " + "nop " * 3:
        text += letter
        times.append(ours.key(letter.encode(), text.rstrip(), 0.04))
    p50, p95 = median(times), percentile(times, 95)
    return Row("key to frame, typing", f"{p50 * 1e3:.1f} ms", f"{p95 * 1e3:.1f} ms", "its own p95", p50 / p95)
