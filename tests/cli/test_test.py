from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from kvmscope.cli import run_command_line

PASS = '; /// kvmscope\n; expect = ["eax == 5", "ebx == 0"]\n; ///\nmov eax, 5\nhlt\n'


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    files = {
        "a.asm": PASS,
        "b.asm": PASS.replace("== 5", "== 6"),
        "sub/c.asm": PASS.replace("; ///\nmov", '; requires = ["kvm"]\n; ///\nmov'),
        "sub/d.S": "# /// kvmscope\n# ///\n        movl $5, %eax\n        hlt\n",
        "plain.s": "hlt\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize("jobs", ["1", "3"])
@pytest.mark.usefixtures("suite")
def test_one_line_a_file_in_order_and_totals(jobs: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["test", "-j", jobs]) == 1
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert lines[:4] == [
        "PASS a.asm (2 expectations, 2 instructions)",
        "FAIL b.asm (1 of 2 expectations not met, stopped by hlt)",
        "SKIP sub/c.asm (requires a run on real KVM (kvm))",
        "PASS sub/d.S (0 expectations, 2 instructions)",
    ]
    assert lines[4].startswith("2 passed, 1 failed, 1 skipped in ")
    assert "    b.asm:2: expected eax == 6\n        eax is 5\n" in err


@pytest.mark.usefixtures("suite")
def test_exit_statuses_and_filters(suite: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["test", "a.asm", "sub"]) == 0
    assert run_command_line(["test", "-k", "b.asm"]) == 1
    assert run_command_line(["test", "-k", "zzz"]) == 2
    (suite / "sub" / "e.asm").write_text("; /// kvmscope\n; mdoe = 1\n; ///\n")
    assert run_command_line(["test"]) == 2
    out, err = capfd.readouterr()
    assert "ERROR sub/e.asm (unknown key 'mdoe')" in out
    assert "sub/e.asm:2" in err
    assert "matches 'zzz'" in err


@pytest.mark.usefixtures("suite")
def test_list(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["test", "--list", "sub", "a.asm"]) == 0
    assert capfd.readouterr().out == "sub/c.asm\nsub/d.S\na.asm\n"


@pytest.mark.usefixtures("suite")
def test_tap_and_junit(suite: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["test", "--tap", "--junit-xml", "out.xml"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[:3] == ["TAP version 13", "1..4", "ok 1 - a.asm"]
    assert lines[-2].startswith("ok 3 - sub/c.asm # SKIP")
    assert [line for line in lines if line.startswith("not ok")] == ["not ok 2 - b.asm"]
    cases = ET.parse(suite / "out.xml").getroot()[0]
    assert [case.get("name") for case in cases] == ["a", "b", "c", "d"]


def test_the_kvm_engine_skips_honestly(suite: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["test", str(suite), "--engine", "kvm"]) == 0
    out = capfd.readouterr().out
    assert out.count("not built into this version") == 4
    assert "4 skipped" in out
