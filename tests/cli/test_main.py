from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvmscope import __version__
from kvmscope.cli import run_command_line
from kvmscope.cli.main import COMMANDS


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_lists_every_command(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line([word]) == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command} " in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["--version"]) == 0
    assert capsys.readouterr().out == f"kvmscope {__version__}\n"


@pytest.mark.parametrize("command", ["run", "test", "doctor", "new"])
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command_line([command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: kvmscope {command}")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["rnu"], ["neither a command nor a file", "kvmscope run"]),
        (["zzzzzz"], ["neither", "--help"]),
        (["run"], ["required: FILE\n"]),
        (["run", ""], ["empty"]),
        (["run", "--jsn", "x.asm"], ["--jsn", "did you mean --json"]),
        (["run", "--timeout=0", "x.asm"], ["seconds"]),
        (["run", "--timeout=nan", "x.asm"], ["seconds"]),
        (["run", "--max-instructions=-1", "x.asm"], ["above 0"]),
        (["run", "--memory=5", "x.asm"], ["1M to 4076M"]),
        (["run", "absent.asm"], ["no such file"]),
        (["test", "absent"], ["no such file or directory"]),
        (["test", "-j", "0"], ["above 0"]),
        (["new", "page-fualt"], ["page-fault"]),
        (["new", "nothing-like-it"], ["known: long64"]),
        (["doctor", "now"], ["now"]),
    ],
)
def test_mistakes_are_messages(argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kvmscope: ")
    assert len(err.splitlines()) <= 3
    for word in words:
        assert word in err


def test_a_near_miss_of_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page-fault.asm").write_text("hlt\n")
    assert run_command_line(["run", str(tmp_path / "pagefault.asm")]) == 2
    assert f"did you mean {tmp_path / 'page-fault.asm'}?" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "data"), [("a.flat", b"x"), ("a.elf", b"x"), ("a", b"\x7fELF\x02")])
def test_images_are_refused_plainly(name: str, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(data)
    assert run_command_line(["run", str(tmp_path / name)]) == 2
    assert "image" in capsys.readouterr().err


def test_a_directory_is_for_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["run", str(tmp_path)]) == 2
    assert f"kvmscope test {tmp_path}" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "kvmscope", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() in (0, 141)


TOLD = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize(
    ("words", "redirection", "status", "told"),
    [
        ("asm good.asm", ">/dev/full", 2, "kvmscope: No space left on device\n"),
        ("asm good.asm --json", ">/dev/full", 2, "kvmscope: No space left on device\n"),
        ("run talks.asm", ">/dev/full", 2, "kvmscope: No space left on device\n"),
        ("run talks.asm --json", ">/dev/full", 2, "kvmscope: No space left on device\n"),
        ("asm bad.asm", "2>/dev/full", 2, ""),
        ("asm good.asm", ">&-", 0, ""),
        ("run good.asm", ">&- 2>&-", 0, ""),
        ("asm -", "<&-", 0, ""),
        ("run good.asm", "<&-", 0, "PASS good.asm: ended well, stopped by hlt (1 instructions)\n"),
    ],
)
def test_a_stream_that_takes_nothing_is_a_message(
    words: str, redirection: str, status: int, told: str, tmp_path: Path
) -> None:
    (tmp_path / "good.asm").write_text("hlt\n")
    (tmp_path / "bad.asm").write_text("hlz\n")
    (tmp_path / "talks.asm").write_text("mov dx, 0x3f8\nmov al, 'x'\nout dx, al\nhlt\n")
    command = f"{shlex.quote(sys.executable)} -m kvmscope {words} {redirection}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, cwd=tmp_path, env=TOLD, timeout=60, check=False)
    assert (done.returncode, done.stderr.decode()) == (status, told)


def test_an_interrupt_ends_an_endless_guest_at_once(tmp_path: Path) -> None:
    (tmp_path / "loop.asm").write_text(
        "mov dx, 0x3f8\nmov al, 'x'\nout dx, al\nx: jmp x\n; one byte says that it runs\n"
    )
    command = [sys.executable, "-m", "kvmscope", "run", "loop.asm", "--max-instructions", "0x7fffffffffff"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")
