"""The session that the README promises, in a real terminal: change, step into a fault, see why, step back, export."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from kvmscope.reproducer.shipped import shipped_dir
from tests.e2e.terminal import Terminal


@pytest.fixture
def lesson(tmp_path):
    return shutil.copy(shipped_dir() / "page-fault-write.asm", tmp_path / "lesson.asm")


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (160, 50)])
def test_change_step_fault_back(lesson, tmp_path, columns, rows):
    terminal = Terminal(["lesson.asm"], tmp_path, columns, rows)
    try:
        terminal.wait("step 0/0")
        terminal.send("s")
        terminal.wait("step 1/1")
        assert "1122334455667788" in terminal.text()
        terminal.send("s")
        terminal.wait("step 2/2")
        terminal.send("s")
        screen = terminal.wait("#PF(0x3)")
        assert "step 3/3" in screen
        # Back, exactly: the registers of before, and the way forward still known.
        terminal.send("S")
        screen = terminal.wait("step 2/3")
        assert "200008" in screen
        terminal.send("S")
        terminal.wait("step 1/3")
        terminal.send("s")
        terminal.wait("step 2/3")
        terminal.send("c")
        terminal.wait("EXITED")
        terminal.wait("PASS 6 expectations met")
    finally:
        terminal.close()


def test_edit_is_assembled_and_saved(lesson, tmp_path):
    terminal = Terminal(["lesson.asm"], tmp_path, 120, 40)
    try:
        terminal.wait("step 0/0")
        terminal.send("i")
        terminal.wait("EDIT")
        # The cursor stands at the first instruction's line: a new instruction before it, typed in one burst, with
        # a slip that is taken back.
        terminal.send("\x1b[Hmov     r15d, 0x4712\x7f1\r")
        terminal.wait("mov     r15d, 0x4711")
        terminal.send("\x1b")
        terminal.wait("READY")
        terminal.send("s")
        terminal.wait("0000000000004711")
        terminal.send("\x13")
        terminal.wait(lambda _: "mov     r15d, 0x4711" in (tmp_path / "lesson.asm").read_text())
        terminal.send("\x11")
        assert terminal.wait_exit() == 0
    finally:
        terminal.close()


def test_exported_pytest_case_passes_and_can_fail(lesson, tmp_path):
    out = tmp_path / "test_lesson.py"
    command = [sys.executable, "-m", "kvmscope", "export", lesson, "--to", "pytest", "-o", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(out)]
    good = subprocess.run(pytest_command, check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert good.returncode == 0, good.stdout
    out.write_text(out.read_text().replace("0x1122334455667788", "0x1122334455667789", 1))
    bad = subprocess.run(pytest_command, check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert bad.returncode == 1, bad.stdout
