"""How the program ends, in a real terminal: by a signal, by a defect, without colours."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

from kvmscope.ui.app import KvmscopeApp
from kvmscope.ui.document import Document
from tests.ui.support import FAULTING

_DEFECT = """
import sys
from kvmscope.ui.look_actions import LookActions
def broken(self): raise RuntimeError("a defect")
LookActions.action_zoom = broken
from kvmscope.__main__ import main
sys.argv = ["kvmscope", "mine.asm"]
sys.exit(main())
"""


class Terminal:
    """A program on a pty of 80x24, and everything it has written."""

    def __init__(self, *argv: str) -> None:
        self.output = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLUMNS="80", LINES="24")
            os.execv(sys.executable, [sys.executable, *argv])

    def wait_for(self, *words: str) -> None:
        """Read until all of ``words`` were written."""
        deadline = time.monotonic() + 30
        while not all(word.encode() in self.output for word in words):
            assert time.monotonic() < deadline, (words, self.output[-2000:])
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.output += os.read(self.fd, 1 << 16)
                except OSError:
                    break
        assert all(word.encode() in self.output for word in words), (words, self.output[-2000:])

    def send(self, keys: str) -> None:
        self.output = b""
        os.write(self.fd, keys.encode())

    def end(self) -> int:
        """The exit status; what is written meanwhile is kept."""
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except OSError:
                break
            if not data:
                break
            self.output += data
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def _recovered() -> list[Path]:
    return list(Path("state/kvmscope/recovery").glob("*.json"))


def test_a_signal_keeps_what_was_typed() -> None:
    Path("mine.asm").write_text(FAULTING)
    terminal = Terminal("-m", "kvmscope", "mine.asm")
    terminal.wait_for("READY", "rax")
    terminal.send("i")
    terminal.wait_for("EDIT")
    terminal.send("; kept")
    terminal.wait_for("kept")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.end() == 128 + signal.SIGTERM
    assert "; kept" in _recovered()[0].read_text()
    assert Path("mine.asm").read_text() == FAULTING


def test_a_defect_ends_with_words_and_a_report() -> None:
    Path("mine.asm").write_text(FAULTING)
    terminal = Terminal("-c", _DEFECT)
    terminal.wait_for("READY", "rax")
    terminal.send("i")
    terminal.wait_for("EDIT")
    terminal.send("; kept")
    terminal.wait_for("kept")
    terminal.send("\x1b")
    terminal.wait_for("READY")
    terminal.send("z")
    assert terminal.end() == 70
    text = terminal.output.decode()
    assert "met a defect of its own" in text
    assert "What you typed is kept" in text
    assert "Traceback" not in text
    assert "a defect" in next(Path("state/kvmscope").glob("crash-*.txt")).read_text()
    assert "; kept" in _recovered()[0].read_text()


def test_without_colours_the_terminals_own_are_used(monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = KvmscopeApp(Document.blank(FAULTING))
    assert app.theme == "ansi-dark"
    # Textual's other filter would make the terminal's own colours black on black.
    assert [type(item).__name__ for item in app._filters if type(item).__name__ in ("NoColor", "Monochrome")] == [
        "NoColor"
    ]


def test_leaving_by_key_is_quiet() -> None:
    Path("mine.asm").write_text(FAULTING)
    terminal = Terminal("-m", "kvmscope", "mine.asm")
    terminal.wait_for("READY", "rax")
    terminal.send("\x11")
    assert terminal.end() == 0
    assert _recovered() == []
