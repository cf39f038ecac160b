from __future__ import annotations

from pathlib import Path

import pytest

from kvmscope.cli import run_command_line
from kvmscope.reproducer import parse, run, templates
from kvmscope.reproducer.starting_points import Template
from kvmscope.reproducer.verdict import Verdict


def test_the_list_has_every_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["new"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == [one.name for one in templates()]
    for one in templates():
        assert one.title in out


def test_a_file_is_written_and_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command_line(["new", "page-fault"]) == 0
    path = tmp_path / "page-fault.asm"
    text = path.read_text()
    assert parse(text, str(path)).title == "A page fault that nobody handles"
    path.write_text("mine")
    assert run_command_line(["new", "page-fault"]) == 2
    assert path.read_text() == "mine"
    assert run_command_line(["new", "page-fault", "-o", "other.asm"]) == 0
    assert (tmp_path / "other.asm").read_text() == text
    assert run_command_line(["new", "page-fault", "-o", "absent/other.asm"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["new", "io", "-o", "-"]) == 0
    assert capsys.readouterr().out == next(one.text for one in templates() if one.name == "io")


@pytest.mark.parametrize("one", templates(), ids=lambda one: one.name)
def test_every_template_passes(one: Template) -> None:
    result = run(parse(one.text, f"{one.name}.asm"))
    assert result.verdict is Verdict.PASS, "\n".join(result.report(one.name))
    assert result.expectations
