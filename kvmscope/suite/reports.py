"""Rows of a suite as documents: TAP 13 as run_tests.sh -t writes it, JUnit XML, JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from kvmscope.reproducer.kut import Kind, Word, count
from kvmscope.reproducer.reports import write_junit as write_outcomes
from kvmscope.reproducer.suite import Outcome as TestOutcome
from kvmscope.reproducer.verdict import Verdict
from kvmscope.suite.runner import Outcome

__all__ = ["document", "tap_lines", "totals", "write_junit"]

_VERDICTS: Final = {
    Word.PASS: Verdict.PASS,
    Word.FAIL: Verdict.FAIL,
    Word.SKIP: Verdict.SKIP,
    Word.ERROR: Verdict.ERROR,
}
_WORDS: Final = {Word.PASS: "passed", Word.FAIL: "failed", Word.ERROR: "not run", Word.SKIP: "skipped"}


def tap_lines(outcome: Outcome) -> Iterator[str]:
    """``ok``/``not ok`` lines without their numbers: one for each check that the guest reported, and one for a bad end.

    >>> list(tap_lines(skipped_check))      # doctest: +SKIP
    ['ok TEST_NUMBER - pku: set # skip']
    """
    for line in outcome.lines:
        ok = "not ok" if line.kind is Kind.FAIL else "ok"
        skip = " # skip" if line.kind is Kind.SKIP else ""
        yield f"{ok} TEST_NUMBER - {_plain(f'{outcome.name}: {line.text}')}{skip}"
    if outcome.word.bad and (outcome.reason or not outcome.failures):
        reason = outcome.reason or f"status {outcome.status}"
        yield f"not ok TEST_NUMBER - {_plain(f'{outcome.name}: {reason}')}"


def _plain(text: str) -> str:
    """What TAP would take for a directive, spelled out."""
    return text.replace("#", "\\#").replace("\n", " ").replace("\r", " ")


def totals(outcomes: Sequence[Outcome], seconds: float) -> str:
    """``52 passed, 1 failed, 30 skipped in 61.2 s; checks: 1204 PASS, 1 FAIL, 7 SKIP``."""
    words = Counter(outcome.word for outcome in outcomes)
    parts = [f"{words[word]} {text}" for word, text in _WORDS.items() if words[word]] or ["nothing to run"]
    counts = count([line for outcome in outcomes for line in outcome.lines])
    return (
        f"{', '.join(parts)} in {seconds:.1f} s; "
        f"checks: {counts.passed} PASS, {counts.failed} FAIL, {counts.skipped} SKIP"
    )


def write_junit(path: Path, outcomes: Sequence[Outcome], seconds: float) -> None:
    """Write a JUnit report.  Raises UsageError when it cannot be written."""
    write_outcomes(path, [_as_test(outcome) for outcome in outcomes], seconds)


def _as_test(outcome: Outcome) -> TestOutcome:
    failures = [f"FAIL: {line.text}" for line in outcome.failures]
    return TestOutcome(
        f"kvm-unit-tests/{outcome.name}",
        _VERDICTS[outcome.word],
        outcome.summary.strip("()") or outcome.stop or outcome.word.value.lower(),
        (*failures, *outcome.details, *outcome.notes),
        instructions=outcome.instructions,
        seconds=outcome.seconds,
        serial=outcome.output.decode("utf-8", "backslashreplace"),
    )


def document(tree: str, outcomes: Sequence[Outcome], seconds: float) -> dict[str, object]:
    """The document of ``kvmscope suite --json``; its keys are a contract (docs/command-line.md)."""
    words = Counter(outcome.word for outcome in outcomes)
    return {
        "tree": tree,
        "seconds": round(seconds, 3),
        "totals": {word.value.lower(): words[word] for word in Word},
        "entries": [_entry(outcome) for outcome in outcomes],
    }


def _entry(outcome: Outcome) -> dict[str, object]:
    counts = count(outcome.lines)
    return {
        "name": outcome.name,
        "verdict": outcome.word.value.lower(),
        "summary": outcome.summary.strip("()"),
        "status": outcome.status,
        "stop": outcome.stop,
        "instructions": outcome.instructions,
        "seconds": round(outcome.seconds, 3),
        "checks": {"pass": counts.passed, "fail": counts.failed, "skip": counts.skipped},
        "lines": [{"kind": line.kind.value.lower(), "text": line.text} for line in outcome.lines],
        "notes": list(outcome.notes),
        "details": list(outcome.details),
        "serial": outcome.output.decode("utf-8", "backslashreplace"),
    }
