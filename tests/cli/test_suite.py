from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from kvmscope.cli import run_command_line, suite
from kvmscope.reproducer.kut import Word, report_lines
from kvmscope.suite.runner import Outcome
from tests.suite.guests import build_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tree(tmp_path_factory.mktemp("tree"))


def run(*argv: object) -> int:
    return run_command_line(["suite", *map(str, argv)])


@pytest.mark.parametrize("jobs", [1, 3])
def test_rows_are_run_tests_sh_s(
    tree: Path, jobs: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(tree, "-j", jobs, "--max-instructions", 1_000_000) == 1
    out, err = capfd.readouterr()
    assert out.splitlines()[:-1] == [
        "PASS good (2 tests)",
        "FAIL bad (3 tests, 1 unexpected failures, 1 skipped)",
        "SKIP skipping (1 tests, 1 skipped)",
        "FAIL aborting (aborted)",
        "FAIL looping (out of budget: instructions: 1000000 were executed)",
        "FAIL faulting (triple fault)",
        "SKIP elsewhere (i386 only)",
    ]
    totals = out.splitlines()[-1]
    assert totals.startswith("1 passed, 4 failed, 2 skipped in ")
    assert totals.endswith("checks: 5 PASS, 1 FAIL, 2 SKIP")
    assert "    FAIL: two: it is # broken" in err
    assert "    note: -device hyperv-testdev: there is no such device" in err
    assert "Traceback" not in err


def test_all_well_is_status_0(tree: Path) -> None:
    assert run(tree, "good", "skipping", "elsewhere") == 0


def test_verbose_prints_what_the_guest_prints(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tree, "good", "-v")
    assert capfd.readouterr().out.splitlines()[:4] == [
        "PASS: one", "PASS: two", "SUMMARY: 2 tests", "PASS good (2 tests)",
    ]  # fmt: skip


def test_tap_is_run_tests_sh_s(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tree, "good", "bad", "aborting", "skipping", "--tap") == 1
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        "TAP version 13",
        "ok 1 - good: one",
        "ok 2 - good: two",
        "ok 3 - bad: one",
        "not ok 4 - bad: two: it is \\# broken",
        "ok 5 - bad: three # skip",
        "ok 6 - skipping: all # skip",
        "not ok 7 - aborting: aborted",
        "1..7",
    ]
    assert "1 passed, 2 failed, 1 skipped" in err


def test_json(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tree, "bad", "elsewhere", "--json") == 1
    document = json.loads(capfd.readouterr().out)
    assert document["totals"] == {"pass": 0, "fail": 1, "skip": 1, "error": 0}
    bad, elsewhere = document["entries"]
    assert (bad["verdict"], bad["status"], bad["checks"]) == ("fail", 3, {"pass": 1, "fail": 1, "skip": 1})
    assert bad["lines"][1] == {"kind": "fail", "text": "two: it is # broken"}
    assert bad["serial"].startswith("enabling apic\n")
    assert (elsewhere["verdict"], elsewhere["summary"], elsewhere["status"]) == ("skip", "i386 only", None)


def test_junit_and_logs(tree: Path, tmp_path: Path) -> None:
    report, logs = tmp_path / "r.xml", tmp_path / "logs"
    run(tree, "good", "bad", "elsewhere", "--junit-xml", report, "--logs", logs)
    suite = ET.parse(report).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    (failure,) = suite.iter("failure")
    assert "FAIL: two" in (failure.text or "")
    assert sorted(path.name for path in logs.iterdir()) == ["bad.log", "good.log"]
    assert (logs / "good.log").read_bytes() == b"PASS: one\nPASS: two\nSUMMARY: 2 tests\n"


def test_list(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tree, "--list", "[ab]*", "-s", "bad") == 0
    assert capfd.readouterr().out == "aborting\n"


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["nowhere"], "no kvm-unit-tests tree"),
        (["TREE", "gooo"], "did you mean 'good'"),
        (["TREE", "--tap", "--json"], "both want stdout"),
        (["TREE", "-g", "vmx"], "group"),
        (["TREE", "--jsn"], "--json"),
        (["TREE", "-j", "0"], "above 0"),
        ([], "TREE"),
    ],
)
def test_usage_errors(tree: Path, argv: list[str], what: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(*(str(tree) if word == "TREE" else word for word in argv)) == 2
    err = capfd.readouterr().err
    assert what in err
    assert "Traceback" not in err


def test_a_wrong_configuration_is_told_with_its_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "unittests.cfg").write_text("[a]\nfile = a.flat\nsmp = $MAX_SMP\n")
    assert run(tmp_path) == 2
    assert "unittests.cfg:3: smp must be a number" in capfd.readouterr().err


def test_it_never_loads_textual(tree: Path) -> None:
    code = (
        "import sys; from kvmscope.cli import run_command_line\n"
        f"status = run_command_line(['suite', {str(tree)!r}, 'good', '--tap'])\n"
        "print(status, sorted(m for m in sys.modules if m.split('.')[0] in ('textual', 'rich', 'unicorn')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The engine is the workers' affair.
    assert done.stdout.splitlines()[-1] == "0 []"


def test_interrupted_it_leaves_no_process(tree: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "kvmscope", "suite", str(tree), "looping", "--timeout-scale", "60", "-v"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"PASS: before\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == b""
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_a_guest_does_not_drive_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = Outcome("x", Word.FAIL, output=b"FAIL: \x1b[2J\nSUMMARY: \x1b]0;t\x07 tests\n")
    outcome = replace(outcome, lines=report_lines(outcome.output))
    monkeypatch.setenv("NO_COLOR", "1")
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    suite._row(outcome, verbose=False)
    suite._tap(outcome, 0)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "FAIL x (\\x1b]0;t\\x07 tests)" in out
    assert "not ok 1 - x: \\x1b[2J" in out


def test_changes_of_the_processor_are_checked(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tree, "--cpu=-pkuu") == 2
    assert "did you mean pku" in capfd.readouterr().err


def test_changes_of_the_processor_follow_the_entry_s_own(tree: Path) -> None:
    from kvmscope.suite.runner import Job, entry_program
    from kvmscope.suite.tree import open_tree

    opened = open_tree(tree)
    entry = next(entry for entry in opened.config.entries if entry.name == "good")
    program, _ = entry_program(Job(entry, opened.image(entry.file), 1.0, cpu="-smap"))
    assert program.config.cpu.endswith(",-smap")


def test_killed_it_leaves_no_process(tree: Path) -> None:
    """SIGKILL leaves no time to end anything: the workers notice by themselves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kvmscope", "suite", str(tree), "looping", "--timeout-scale", "60", "-v"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers: list[str] = []
    for _ in range(600):
        workers = children.read_text().split()
        if workers:
            break
        time.sleep(0.05)
    assert workers
    process.kill()
    process.communicate()
    for _ in range(600):
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            return
        time.sleep(0.05)
    pytest.fail("a worker outlived its parent")
