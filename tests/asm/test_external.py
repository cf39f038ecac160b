"""Running an external assembler: what it is given, how its end is told, with pidfd and without."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from kvmscope.asm import external
from kvmscope.asm.external import run_tool

LARGE = "x" * 3_000_000  # more than a pipe holds


@pytest.fixture(params=["pidfd", "polling"], autouse=True)
def waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to wait for the end of the process."""
    if request.param == "polling":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    elif not hasattr(os, "pidfd_open"):
        pytest.skip("this system has no pidfd_open")


def python(directory: Path, code: str, text: str) -> external.ToolRun:
    return run_tool([sys.executable, "-S", "-c", code], text, str(directory))


@pytest.mark.parametrize("text", ["", "one\n", LARGE], ids=["nothing", "a line", "large"])
def test_the_whole_text_arrives(tmp_path: Path, text: str) -> None:
    run = python(tmp_path, "import sys; sys.stderr.write(str(len(sys.stdin.read())))", text)
    assert (run.status, run.errors, run.failure) == (0, str(len(text)), "")


@pytest.mark.parametrize("text", ["one\n", LARGE], ids=["a line", "large"])
def test_a_tool_that_does_not_read_is_no_error_of_ours(tmp_path: Path, text: str) -> None:
    assert python(tmp_path, "raise SystemExit(3)", text) == external.ToolRun(3, "")


def test_a_signal_is_told(tmp_path: Path) -> None:
    run = python(tmp_path, "import os; os.kill(os.getpid(), 11)", LARGE)
    assert run.status == -11
    assert "signal 11" in run.failure


@pytest.mark.parametrize("text", ["", LARGE], ids=["nothing", "large"])
def test_a_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(external, "TOOL_SECONDS", 1.0)
    run = python(tmp_path, "import time; time.sleep(60)", text)
    assert run.status == -9
    assert "did not end within" in run.failure


def test_nothing_is_left_open(tmp_path: Path) -> None:
    python(tmp_path, "pass", "x")
    before = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
    for _ in range(3):
        python(tmp_path, "pass", LARGE)
    after = sorted(os.listdir("/proc/self/fd")) if before else []
    assert after == before


def test_a_tool_that_is_not_there(tmp_path: Path) -> None:
    run = run_tool([str(tmp_path / "no-such-as")], "", str(tmp_path))
    assert run.status == -1
    assert "no-such-as" in run.errors + run.failure
