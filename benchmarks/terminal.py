"""A program on a pseudo-terminal, and when it had drawn what it had to draw."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from types import TracebackType

import pyte

__all__ = ["COLUMNS", "ROWS", "Terminal"]

COLUMNS, ROWS = 160, 50
QUIET = 0.12
"""Seconds without a byte after which a frame is taken to be over; it is not part of the time measured."""
_TICKS = os.sysconf("SC_CLK_TCK")


class Terminal:
    """``argv`` on a pty of 160x50."""

    def __init__(self, argv: list[str]) -> None:
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            for name in ("COLUMNS", "LINES", "NO_COLOR", "TMUX"):
                os.environ.pop(name, None)
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", TEXTUAL_ANIMATIONS="none")
            os.execv(argv[0], argv)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)

    def text(self) -> str:
        """The screen as it is now."""
        return "\n".join(self._screen.display)

    def cpu(self) -> float:
        """CPU seconds that the program has used."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def send(self, keys: bytes) -> None:
        """Type."""
        os.write(self._fd, keys)

    def wait(self, what: str, limit: float = 30.0) -> None:
        """Wait until the screen shows ``what``.  Raises RuntimeError when it never does."""
        end = time.monotonic() + limit
        while what not in self.text():
            if time.monotonic() > end:
                raise RuntimeError(f"never saw {what!r}; the screen is:\n{self.text()}")
            if select.select([self._fd], [], [], 0.2)[0]:
                self._stream.feed(os.read(self._fd, 65536))

    def settle(self, quiet: float = 1.0, limit: float = 30.0) -> None:
        """Wait until nothing has been drawn for ``quiet`` seconds."""
        end = time.monotonic() + limit
        while time.monotonic() < end and select.select([self._fd], [], [], quiet)[0]:
            self._stream.feed(os.read(self._fd, 65536))

    def key(self, keys: bytes, what: str = "", quiet: float = QUIET) -> float:
        """Type and return the seconds until the last byte drawn, after which the screen must show ``what``.

        The bytes are looked at only when all have come: a terminal emulator in Python is slower than what it shows.
        """
        parts: list[bytes] = []
        start = last = time.perf_counter()
        self.send(keys)
        while select.select([self._fd], [], [], quiet if parts else 5.0)[0]:
            parts.append(os.read(self._fd, 65536))
            last = time.perf_counter()
        self._stream.feed(b"".join(parts))
        if not parts or what not in self.text():
            raise RuntimeError(f"{keys!r} did not lead to {what!r}; the screen is:\n{self.text()}")
        return last - start
