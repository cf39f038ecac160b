"""A real terminal for tests: the tool on a pty, its screen kept by pyte."""

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
from collections.abc import Callable, Mapping
from pathlib import Path

import pyte

__all__ = ["Terminal"]


class Terminal:
    """``kvmscope ARGS`` running on a pty of ``columns`` x ``rows``."""

    def __init__(
        self, args: list[str], cwd: Path, columns: int = 120, rows: int = 40, env: Mapping[str, str] | None = None
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.chdir(cwd)
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", HOME=str(cwd), XDG_STATE_HOME=str(cwd))
            for name in ("TMUX", "COLUMNS", "LINES", "NO_COLOR"):
                os.environ.pop(name, None)
            os.environ.update(env or {})
            os.execv(sys.executable, [sys.executable, "-m", "kvmscope", *args])

    def pump(self, seconds: float) -> None:
        """Read what comes for at most ``seconds``."""
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return
            self.raw += data
            self._stream.feed(data)

    def text(self) -> str:
        """The screen, one string."""
        return "\n".join(self.screen.display)

    def wait(self, what: str | Callable[[str], bool], limit: float = 30.0) -> str:
        """Wait until the screen shows ``what``; fails with the screen as it is."""
        end = time.monotonic() + limit
        check = what if callable(what) else (lambda text: what in text)
        while not check(self.text()):
            if time.monotonic() > end:
                raise AssertionError(f"never saw {what!r}; the screen is:\n{self.text()}")
            self.pump(0.2)
        return self.text()

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self.fd, keys.encode())

    def settle(self, quiet: float = 0.4, limit: float = 10.0) -> str:
        """Wait until nothing has been drawn for ``quiet`` seconds."""
        end = time.monotonic() + limit
        while time.monotonic() < end and select.select([self.fd], [], [], quiet)[0]:
            self.pump(0)
        return self.text()

    def wait_exit(self, limit: float = 15.0) -> int:
        """Wait for the tool to end by itself; its exit status."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            self.pump(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"did not end; the screen is:\n{self.text()}")

    def close(self) -> None:
        """End it, whatever it does."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
