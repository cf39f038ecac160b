from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from kvmscope.reproducer import pool, runner, suite
from kvmscope.reproducer.suite import Job, Outcome
from kvmscope.reproducer.verdict import Verdict


def _act(job: Job) -> Outcome:
    """Stands in for a run: the file's name says what becomes of the process."""
    match job.path.name:
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leaves":
            os._exit(3)
        case "hangs":
            time.sleep(600)
    return Outcome(str(job.path), Verdict.PASS, str(os.getpid()))


@pytest.fixture(autouse=True)
def _acted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "run_job", _act)
    monkeypatch.setattr(pool, "_budget", lambda job: 0.2 if job.path.name == "hangs" else 60.0)
    monkeypatch.setattr(pool, "_GRACE", 0.0)


def run(*names: str) -> list[Outcome]:
    return list(pool.run_pool([Job(Path(name)) for name in names], 2))


def test_outcomes_come_in_order_from_several_processes() -> None:
    names = [str(number) for number in range(40)]
    outcomes = run(*names)
    assert [outcome.name for outcome in outcomes] == names
    assert {outcome.verdict for outcome in outcomes} == {Verdict.PASS}
    assert str(os.getpid()) not in {outcome.summary for outcome in outcomes}


def test_a_death_or_a_hang_costs_one_verdict() -> None:
    outcomes = run("a", "dies", "b", "leaves", "hangs", "c", "d")
    verdicts = {outcome.name: outcome.verdict for outcome in outcomes}
    assert verdicts == dict.fromkeys("abcd", Verdict.PASS) | dict.fromkeys(("dies", "leaves", "hangs"), Verdict.ERROR)
    words = {outcome.name: outcome.summary for outcome in outcomes}
    assert "signal 9" in words["dies"]
    assert "status 3" in words["leaves"]
    assert "hung" in words["hangs"]


def test_no_process_is_left_when_the_reader_stops_early() -> None:
    outcomes = pool.run_pool([Job(Path(name)) for name in ("a", "hangs", "b")], 2)
    first = next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert first.name == "a"
    with pytest.raises(ProcessLookupError):
        os.kill(int(first.summary), 0)


def test_a_defect_of_ours_is_one_files_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AttributeError("no such thing")

    path = tmp_path / "a.asm"
    path.write_text("hlt\n")
    monkeypatch.setattr(runner, "run", fail)
    outcome = suite.run_job(Job(path))
    assert (outcome.verdict, outcome.summary) == (Verdict.ERROR, "internal error: AttributeError: no such thing")
    assert "please report" in outcome.details[0]
