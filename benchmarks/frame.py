"""From a key written to the last byte of its frame, on a real pty at 160x50 with six panels."""

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
from statistics import median

from benchmarks.measure import Row, percentile

ROOT = Path(__file__).resolve().parents[1]
STEPS = 60


def _drain(fd: int, quiet: float, limit: float = 5.0) -> float:
    """Read until nothing came for ``quiet`` seconds; the moment of the last byte."""
    last = time.perf_counter()
    end = last + limit
    while time.perf_counter() < end:
        if not select.select([fd], [], [], quiet)[0]:
            return last
        if not os.read(fd, 65536):
            return last
        last = time.perf_counter()
    return last


def rows() -> list[Row]:
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        os.environ.pop("COLUMNS", None)
        os.environ.pop("LINES", None)
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
        os.execv(
            sys.executable,
            [sys.executable, "-m", "kvmscope", str(ROOT / "reproducers" / "self-modifying.asm")],
        )
    out = []
    try:
        _drain(fd, 2.0, 20)
        for key in (b"\x1b", b"s", b"s"):
            os.write(fd, key)
            _drain(fd, 0.5)
        for name, key in (("forward", b"s"), ("back", b"S")):
            times = []
            for _ in range(STEPS):
                start = time.perf_counter()
                os.write(fd, key)
                times.append(_drain(fd, 0.12) - start)
            p50, p95 = median(times), percentile(times, 95)
            out.append(
                Row(f"key to frame, {name}", f"{p50 * 1e3:.1f} ms", f"{p95 * 1e3:.1f} ms", "its own p95", p50 / p95)
            )
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)
    return out
