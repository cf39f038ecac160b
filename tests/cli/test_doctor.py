from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kvmscope import asm
from kvmscope.cli import doctor, findings, run_command_line
from kvmscope.cli.findings import Finding, State


def found(capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, dict[str, object]]:
    assert run_command_line(["doctor", "--json"]) == status
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (status == 0)
    return {finding["name"]: finding for finding in document["findings"]}


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    machine = found(capsys)
    assert machine["unicorn"]["found"] == "2.1.4, its state is where it should be"
    for name in ("python", "textual", "unicorn", "capstone", "assembler"):
        assert machine[name]["state"] == "found", name
        assert machine[name]["required"] is True
    assert {"ziglang", "GNU as", "ld", "gcc", "KVM", "userfaultfd", "terminal", "clipboard"} <= machine.keys()


def test_the_lines_have_glyphs_and_hints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Finding("good", State.FOUND, "1.0", "much"),
        Finding("gone", State.ABSENT, "not installed", hint="install it"),
        Finding("bad", State.WRONG, "0.1", required=True),
    ]
    monkeypatch.setattr(doctor, "all_findings", lambda: rows)
    assert run_command_line(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "✓ good         1.0",
        "               much",
        "– gone         not installed",
        "               hint: install it",
        "✗ bad          0.1",
        "needed and not usable: bad",
    ]


def test_a_missing_package_and_no_assembler(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = findings._version
    monkeypatch.setattr(findings, "_version", lambda name: None if name == "textual" else version(name))
    monkeypatch.setattr(asm, "backends", lambda: [asm.BackendInfo("gas", False, "", "install binutils")])
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = found(capsys, 1)
    assert machine["textual"]["hint"] == "pip install textual"
    assert machine["assembler"]["state"] == "absent"
    assert machine["GNU as"]["hint"] == "install binutils"
    assert machine["gcc"]["state"] == "absent"


def test_a_tool_that_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = tmp_path / "gcc"
    tool.write_text("#!/bin/sh\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert found(capsys)["gcc"]["state"] == "wrong"
