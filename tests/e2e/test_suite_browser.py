"""The suite browser on a real terminal."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.terminal import Terminal
from tests.suite.guests import build_tree


def test_from_the_tree_to_the_failing_call(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    build_tree(tmp_path / "tree", ("good", "bad"))
    terminal = Terminal(["tree"], tmp_path)
    try:
        terminal.wait("i386 only")
        # Side by side: the terminal is wide enough, and the browser knows it.
        terminal.wait(lambda text: any("Entries" in line and "Checks" in line for line in text.splitlines()))
        terminal.send("jr")
        terminal.wait("two: it is # broken")
        terminal.wait("FAIL  bad")
        terminal.send("\r")
        terminal.settle()
        terminal.send("\r")
        terminal.wait("call of report")
        terminal.wait("PAST")
    finally:
        terminal.close()
