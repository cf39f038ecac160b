from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvmscope.export import export
from kvmscope.reproducer import parse

PROGRAM = """\
; /// kvmscope
; title = "A \\"title\\" with quotes"
; expect = ["rax == 0x2a", "debug_exit == 0", "serial == 'a\\\\n'"]
; ///
        mov     eax, 'a'
        mov     edx, 0x3f8
        out     dx, al
        mov     al, 10
        out     dx, al
        xor     eax, eax
        out     0xf4, eax
"""


def outcome(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run an exported module in a pytest of its own."""
    module = tmp_path / "test_it.py"
    module.write_text(export(parse(text, "it.asm"), "pytest").files[0].text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(module)]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_module_has_a_test_for_each_expectation(tmp_path):
    run = outcome(tmp_path, PROGRAM)
    assert "1 failed, 2 passed" in run.stdout, run.stdout
    assert "rax == 0x2a: rax is 0" in run.stdout


def test_module_passes_when_all_hold(tmp_path):
    run = outcome(tmp_path, PROGRAM.replace("rax == 0x2a", "rax == 0"))
    assert run.returncode == 0, run.stdout
    assert "3 passed" in run.stdout


def test_module_without_expectations(tmp_path):
    assert "1 passed" in outcome(tmp_path, "        xor eax, eax\n        out 0xf4, al\n").stdout
    assert "1 failed" in outcome(tmp_path, "        mov eax, 1\n        out 0xf4, al\n").stdout


def test_known_failures_are_xfail(tmp_path):
    text = PROGRAM.replace("; ///\n        mov", "; xfail = 'not yet'\n; ///\n        mov")
    assert "1 xfailed" in outcome(tmp_path, text).stdout


@pytest.mark.parametrize("tail", ['; """\n', "; \\\n", "; \x01\n", "# it's\n"])
def test_any_source_survives_the_quotes(tmp_path, tail):
    text = PROGRAM.replace("rax == 0x2a", "rax == 0") + tail
    module = export(parse(text, "it.asm"), "pytest").files[0].text
    names: dict[str, object] = {}
    exec(compile(module.split("@pytest.fixture")[0], "it", "exec"), names)
    assert names["SOURCE"] == text
