from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kvmscope.cli import run_command_line
from kvmscope.cli.run import harmless

CODE = """\
; /// kvmscope
; expect = [
;   "eax == 7",
;   "serial == 'hi'",
; ]
; ///
        mov     dx, 0x3f8
        mov     al, 'h'
        out     dx, al
        mov     al, 'i'
        out     dx, al
        mov     eax, 7
        hlt
"""


def put(directory: Path, text: str = CODE) -> str:
    path = directory / "t.asm"
    path.write_text(text)
    return str(path)


def test_output_to_stdout_and_one_verdict_line_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = put(tmp_path)
    assert run_command_line(["run", name]) == 0
    out, err = capfd.readouterr()
    assert out == "hi"
    assert err == f"PASS {name}: 2 expectations met, stopped by hlt (7 instructions)\n"


def test_a_failure_names_file_line_and_values(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = put(tmp_path, CODE.replace("eax == 7", "eax == 8"))
    assert run_command_line(["run", name]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[:2] == [f"{name}:3: expected eax == 8", "    eax is 7"]
    assert lines[-1].startswith(f"FAIL {name}: 1 of 2 expectations not met")


def test_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["run", put(tmp_path), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert set(document) == {
        *("verdict", "engine", "instructions", "stop", "exit_status", "registers", "serial", "exceptions"),
        *("vmexits", "expectations", "report"),
    }
    assert (document["verdict"], document["engine"], document["instructions"], document["exit_status"]) == (
        "pass",
        "unicorn",
        7,
        0,
    )
    assert (document["serial"], document["exceptions"], document["vmexits"]) == ("hi", [], [])
    assert document["stop"]["reason"] == "hlt"
    assert all(isinstance(value, int) for value in document["registers"].values())
    assert (document["registers"]["rax"], document["registers"]["rip"]) == (7, document["stop"]["rip"])
    assert document["expectations"][0] == {"text": "eax == 7", "line": 3, "ok": True, "value": True, "message": ""}


def test_json_of_exceptions(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = put(tmp_path, "; /// kvmscope\n; expect = [\"exception == '#PF'\"]\n; ///\nmov rax, [0x7fffffff0008]\n")
    assert run_command_line(["run", "--json", name]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["exceptions"] == [
        {"vector": 14, "name": "#PF", "error_code": 0, "rip": 0x400000, "cr2": 0x7FFFFFFF0008, "vcpu": 0}
    ]
    assert document["stop"]["reason"] == "exception"


@pytest.mark.parametrize(
    ("text", "options", "status", "verdict"),
    [
        ("mvo eax, 1\n", [], 2, "error"),
        ("again: jmp again\n", ["--max-instructions", "100"], 124, "error"),
        ("again: jmp again\n", ["--timeout", "0.05", "--max-instructions", "0xffffffffff"], 124, "error"),
        ("hlt\n", ["--engine", "kvm"], 77, "skip"),
        ("ud2\n", [], 1, "fail"),
        ("hlt\n", ["--memory", "64M", "--cpu", "amd", "--smp", "1", "a", "b"], 0, "pass"),
        ("hlt\n", ["a", "--cross-check", "--", "-b"], 0, "pass"),
    ],
)
def test_exit_statuses(
    text: str, options: list[str], status: int, verdict: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["run", put(tmp_path, text), "--json", *options]) == status
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert (document["verdict"], document["exit_status"]) == (verdict, status)
    assert err.splitlines()[-1].startswith(verdict.upper())


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("; /// kvmscope\n; mdoe = 1\n; ///\n", [], ["t.asm:2", "mode"]),
        ('; /// kvmscope\n; expect = ["rax = 5"]\n; ///\n', [], ["t.asm:2", "^", "=="]),
        ("hlt\n", ["--engine", "unicron"], ["unicorn"]),
        ("hlt\n", ["--cpu", "intle"], ["intel"]),
    ],
)
def test_mistakes_are_messages(
    text: str, options: list[str], words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["run", put(tmp_path, text), *options]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("data", "word"),
    [(None, "no such file"), (b"\xff\n", "UTF-8"), (b"; /// kvmscope\n; mdoe = 1\n; ///\n", "t.asm:2"), (b"", "empty")],
)
def test_json_is_a_document_whatever_is_wrong_with_the_file(
    data: bytes | None, word: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.asm"
    if data is not None:
        path.write_bytes(data)
    assert run_command_line(["run", str(path), "--json"]) == 2
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert (document["verdict"], document["exit_status"], document["stop"]) == ("error", 2, None)
    assert word in err


def test_verbose_explains_the_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = put(tmp_path, "; /// kvmscope\n; expect = [\"exception == '#UD'\"]\n; ///\nud2\n")
    assert run_command_line(["run", name]) == 0
    quiet = capfd.readouterr().err
    assert run_command_line(["run", name, "--verbose"]) == 0
    told = capfd.readouterr().err
    assert quiet.count("\n") == 1
    assert "#UD" in told
    assert told.endswith(quiet)


def test_it_never_loads_the_user_interface(tmp_path: Path) -> None:
    """In a process of its own, and through the whole of a run: assembling, the engine, judging."""
    code = (
        "import sys\n"
        "from kvmscope.cli import run_command_line\n"
        f"status = run_command_line(['run', {put(tmp_path)!r}])\n"
        "print(status, sorted(m for m in sys.modules if m.split('.')[0] in ('textual', 'rich', 'pygments') or m.startswith('kvmscope.ui')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("0 []\n"), done.stdout + done.stderr


def test_a_source_may_come_through_a_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kvmscope", "run", "/dev/stdin"]
    done = subprocess.run(command, input=CODE.encode(), capture_output=True, cwd=tmp_path, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"hi"), done.stderr.decode()


@pytest.mark.parametrize(
    ("header", "options", "place"),
    [
        ('[registers]\n; rbx = 1\n; rax = "nowhere"', [], "t.asm:4: registers: rax = nowhere"),
        ('title = "x"\n; entry = "nowhere"', [], "t.asm:3: entry"),
        ("smp = 17", [], "kvmscope: smp is 1 to 16, not 17\nt.asm:2\n"),
        ("smp = 1", ["--smp", "17"], "kvmscope: argument --smp"),
        ('[handlers]\n; "#PF" = "nowhere"', [], "t.asm:3: "),
        ('[[memory]]\n; address = "nowhere"\n; hex = "90"', [], "t.asm:2: "),
    ],
)
def test_what_the_machine_refuses_has_its_place_in_the_header(
    header: str,
    options: list[str],
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.asm").write_text(f"; /// kvmscope\n; {header}\n; ///\nhlt\n")
    assert run_command_line(["run", "t.asm", *options]) == 2
    assert capfd.readouterr().err.startswith(place)


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (b"PASS: a\tb\r\n", b"PASS: a\tb\r\n"),
        ("caf\u00e9 20\u00b0".encode(), "caf\u00e9 20\u00b0".encode()),
        (b"\x1b[2J", b"\\x1b[2J"),
        ("\u009b2J".encode(), b"\\xc2\\x9b2J"),
        (b"a\xc2", b"a\\xc2"),
        (b"\0\a\x7f", b"\\x00\\x07\\x7f"),
    ],
)
def test_a_terminal_gets_no_control_characters(output, shown):
    assert harmless(output) == shown


SMP = """
; /// kvmscope
; smp = 2
; expect = ["exception == '#UD'", "cs.base + rip == bad", "eax == 0x77"]
; [handlers]
; 0x30 = "there"
; ///
        mov     ebx, 0xfee00000
        mov     dword ptr [rbx + 0xf0], 0x1ff
        mov     dword ptr [rbx + 0x310], 1 << 24
        int     0x30
        mov     dword ptr [rbx + 0x300], 0x4500
        mov     dword ptr [rbx + 0x300], 0x4608
spin:   pause
        jmp     spin
there:  iretq
        .section .ap, 0x8000
        .code16
        mov     eax, 0x77
bad:    ud2
"""


def test_json_of_two_processors_names_the_one_that_ended_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["run", "--json", put(tmp_path, SMP)]) == 0
    document = json.loads(capfd.readouterr().out)
    stop = document["stop"]
    assert (stop["reason"], stop["vcpu"], stop["rip"]) == ("exception", 1, 6)
    assert document["registers"]["rip"] == 6
    assert [(event["vector"], event["vcpu"]) for event in document["exceptions"]] == [(0x30, 0), (6, 1)]


def test_json_of_two_processors_that_wait(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert (
        run_command_line(["run", "--json", put(tmp_path, "; /// kvmscope\n; smp = 2\n; ///\nmov ebx, 5\nhlt\n")]) == 0
    )
    document = json.loads(capfd.readouterr().out)
    assert (document["stop"]["reason"], document["stop"]["vcpu"]) == ("hlt", 0)
    assert document["stop"]["detail"] == "every vCPU waits: 0 halted, 1 wait-for-SIPI"
    assert document["registers"]["rbx"] == 5
