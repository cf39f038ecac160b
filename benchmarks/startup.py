"""Time to the first painted frame in a real terminal, against a bare Textual app's."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

from benchmarks.measure import Row, alternate

ROOT = Path(__file__).resolve().parents[1]
BARE = "from textual.app import App\nfrom textual.widgets import Static\nclass A(App):\n def compose(self):\n  yield Static('x' * 40)\nA().run()"


def first_frame(argv: list[str], needle: bytes) -> None:
    """Start ``argv`` on a 160x50 pty and wait until ``needle`` has been drawn; then end it."""
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        os.environ.pop("COLUMNS", None)
        os.environ.pop("LINES", None)
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", TEXTUAL_ANIMATIONS="none")
        os.execv(argv[0], argv)
    seen = b""
    deadline = time.monotonic() + 20
    try:
        while needle not in seen and time.monotonic() < deadline:
            if select.select([fd], [], [], 0.5)[0]:
                seen += os.read(fd, 65536)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)
    if needle not in seen:
        raise RuntimeError(f"{argv} never drew {needle!r}")


def rows() -> list[Row]:
    python = sys.executable
    file = str(ROOT / "reproducers" / "page-fault-write.asm")
    a, b = alternate(
        lambda: first_frame([python, "-m", "kvmscope", file], b"page-fault-write"),
        lambda: first_frame([python, "-c", BARE], b"xxxxxxxx"),
    )
    return [Row("first paint", f"{a * 1e3:.0f} ms", f"{b * 1e3:.0f} ms", "bare Textual app", a / b)]
