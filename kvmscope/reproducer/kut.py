"""The conventions of kvm-unit-tests: from what a guest printed and how it ended to the word for it.

As its run_tests.sh decides (scripts/runtime.bash and scripts/vmm.bash there).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = [
    "ABORTED",
    "SKIPPED",
    "TIMED_OUT",
    "Counts",
    "Kind",
    "ReportLine",
    "Word",
    "count",
    "process_status",
    "report_lines",
    "summary",
    "word_of",
]

SKIPPED: Final = 77
"""report_summary() when every test was skipped."""
TIMED_OUT: Final = 124
"""timeout(1)."""
ABORTED: Final = 127
"""abort() of the guest's library."""
_SIGNAL: Final = 128


class Word(StrEnum):
    """The first word of a row."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIP = "SKIP"
    ERROR = "ERROR"
    """There is no answer: the process that ran it died.  run_tests.sh has no such word, and counts none."""

    @property
    def bad(self) -> bool:
        """It makes the suite fail."""
        return self in (Word.FAIL, Word.ERROR)


class Kind(StrEnum):
    """How a line that reports one check begins (``process_test_output`` of run_tests.sh looks at these four letters)."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One check as the guest reported it."""

    kind: Kind
    text: str
    """Behind ``PASS: ``, prefixes and all."""
    number: int
    """Line of the output, from 0."""
    begin: int
    """Offset in the output of its first byte."""
    end: int
    """Offset of the first byte behind it, its end included."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Lines of each kind."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        return f"{self.passed}/{self.failed}/{self.skipped}"


_KINDS: Final = {kind.value.encode(): kind for kind in Kind}


def _lines(output: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """(number, line without its end, offset of its first byte, offset behind it); the last may have no end."""
    at = number = 0
    while at < len(output):
        end = output.find(b"\n", at)
        stop, after = (len(output), len(output)) if end < 0 else (end, end + 1)
        yield number, output[at:stop].rstrip(b"\r"), at, after
        at, number = after, number + 1


def report_lines(output: bytes) -> tuple[ReportLine, ...]:
    """The lines of a guest's output that report a check."""
    return tuple(
        ReportLine(_KINDS[line[:4]], line[6:].decode("utf-8", "backslashreplace"), number, begin, end)
        for number, line, begin, end in _lines(output)
        if line[:4] in _KINDS
    )


def count(lines: Sequence[ReportLine]) -> Counts:
    """How many of each kind."""
    kinds = [line.kind for line in lines]
    return Counts(kinds.count(Kind.PASS), kinds.count(Kind.FAIL), kinds.count(Kind.SKIP))


def summary(output: bytes) -> str:
    """``(10 tests, 1 skipped)`` from report_summary()'s line among the last five; empty without one."""
    prefix = b"SUMMARY: "
    found = [line for _, line, _, _ in _lines(output)][-5:]
    parts = [
        f"({line.removeprefix(prefix).decode('utf-8', 'backslashreplace')})"
        for line in found
        if line.startswith(prefix)
    ]
    return "\n".join(parts)


def process_status(debug_exit: int) -> int:
    """Exit status as run_tests.sh sees it after a guest's exit(code): isa-debug-exit gives 2 * code + 1, of which 8 bits remain;
    1 stands for success and becomes 0, and 0 cannot be."""
    status = (debug_exit << 1 | 1) & 0xFF
    return 0 if status == 1 else status


def word_of(status: int, duration: str = "") -> tuple[Word, str]:
    """The row's word and, where the status itself is the reason, that reason."""
    if status == 0:
        return Word.PASS, ""
    if status == SKIPPED:
        return Word.SKIP, ""
    if status == TIMED_OUT:
        return Word.FAIL, f"timeout; duration={duration}"
    if status > _SIGNAL - 1:
        return Word.FAIL, f"terminated on {_signal_name(status - _SIGNAL)}"
    return Word.FAIL, "aborted" if status == ABORTED else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
