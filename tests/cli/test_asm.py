"""The contract of ``kvmscope asm``."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvmscope.cli import asm
from kvmscope.errors import UsageError

HEADER = '; /// kvmscope\n; mode = "real16"\n; ///\n'


def run_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, *options: str
) -> tuple[int, Any]:
    stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    status = asm.main(["-", "--json", *options])
    return status, json.loads(capsys.readouterr().out)


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = "K = 7\nstart: mov eax, K\n.byte 1, 2\njmp start\n"
    status, out = run_json(monkeypatch, capsys, text, "--mode", "32", "--syntax", "intel", "--origin", "0x1000")
    assert status == 0
    assert out["ok"] is True
    assert out["backend"] in ("keystone", "gas")
    assert out["bytes"] == "b8070000000102ebf7"
    assert out["lines"] == [
        {"line": 2, "address": 0x1000, "bytes": "b807000000"},
        {"line": 3, "address": 0x1005, "bytes": "0102"},
        {"line": 4, "address": 0x1007, "bytes": "ebf7"},
    ]
    assert out["symbols"] == {"K": 7, "start": 0x1000}
    assert out["sections"] == [{"name": ".text", "address": 0x1000, "bytes": "b8070000000102ebf7"}]
    assert out["diagnostics"] == []


def test_json_of_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run_json(monkeypatch, capsys, "nop\n  mvo eax, 1\n", "--mode", "64", "--syntax", "intel")
    assert status == 2
    assert (out["ok"], out["bytes"], out["lines"], out["symbols"]) == (False, "", [], {})
    found = out["diagnostics"][0]
    assert (found["line"], found["column"], found["severity"], found["hint"]) == (2, 3, "error", "did you mean 'mov'?")
    assert "mvo" in found["message"]


def test_sections_come_in_the_order_of_their_addresses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "nop\n.section .low, 0x10\n.byte 1\n"
    _, out = run_json(monkeypatch, capsys, text, "--mode", "64", "--origin", "0x14")
    assert out["bytes"] == "0100000090"
    _, out = run_json(monkeypatch, capsys, text, "--mode", "64", "--origin", "0x40000000")
    assert out["bytes"] == "0190"
    assert [section["address"] for section in out["sections"]] == [0x10, 0x40000000]


def test_the_header_gives_the_defaults_and_options_override_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = run_json(monkeypatch, capsys, HEADER + "x: mov ax, 5\n")
    assert (out["bytes"], out["symbols"]) == ("b80500", {"x": 0x7C00})
    _, out = run_json(monkeypatch, capsys, HEADER + "x: mov ax, 5\n", "--mode", "32", "--origin", "0")
    assert (out["bytes"], out["symbols"]) == ("66b80500", {"x": 0})


def test_a_wrong_header_is_a_diagnostic(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run_json(monkeypatch, capsys, '# /// kvmscope\n# mode = "real17"\n# ///\nnop\n')
    assert status == 2
    assert [found["line"] for found in out["diagnostics"]] == [2]


def test_listing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "x.asm"
    source.write_text("start:\tnop\n.fill 20, 1, 0xaa\n.fill 400\n")
    assert asm.main([str(source), "--mode", "64"]) == 0
    out = capsys.readouterr().out
    assert "00000000  90" in out
    assert "start:\tnop" in out
    assert "00000009  aa aa aa aa aa aa aa aa\n" in out
    assert "more bytes" in out
    assert "421 bytes by" in out


def test_errors_of_a_person_stand_below_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "x.asm"
    source.write_text("nop\n\tmvo eax, 1\n")
    assert asm.main([str(source)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{source}:2:2: error:" in captured.err
    assert "    \tmvo eax, 1\n    \t^^^\n    hint: did you mean 'mov'?" in captured.err


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [(None, 1, "x.asm: No such file"), (b"nop\n\xff\n", 2, "byte 0xff is not UTF-8")],
)
def test_json_of_a_file_that_cannot_be_read(
    data: bytes | None, line: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "x.asm"
    if data is not None:
        source.write_bytes(data)
    assert asm.main([str(source), "--json"]) == 2
    out = json.loads(capsys.readouterr().out)
    assert out["ok"] is False
    assert [found["line"] for found in out["diagnostics"]] == [line]
    assert message in out["diagnostics"][0]["message"]


@pytest.mark.parametrize(
    "argv", [["/nonexistent/x.asm"], ["-", "--mode", "8"], ["-", "--syntax", "masm"], ["-", "--bogus"], [], ["/"]]
)
def test_usage_errors(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"nop")))
    with pytest.raises(UsageError):
        asm.main(argv)


def test_a_wrong_origin_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"nop")))
    with pytest.raises(UsageError):
        asm.main(["-", "--origin", "here"])


def test_not_utf8(tmp_path: Path) -> None:
    source = tmp_path / "x.asm"
    source.write_bytes(b"nop\n\xff\n")
    with pytest.raises(UsageError, match="0xff"):
        asm.main([str(source)])


def test_the_command_itself() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "kvmscope", "asm", "-", "--mode", "64", "--syntax", "att", "--json"],
        input="mov $10, %eax\n", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0
    assert json.loads(run.stdout)["bytes"] == "b80a000000"
    assert run.stderr == ""
