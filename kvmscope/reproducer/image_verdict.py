"""The verdict of an image that judges itself, as kvm-unit-tests do: by its exit status, and the lines it reports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kvmscope.reproducer.kut import ABORTED, SKIPPED, Kind, ReportLine, count, report_lines
from kvmscope.reproducer.verdict import Result, Verdict

if TYPE_CHECKING:
    from kvmscope.vmm.engine import Stop

__all__ = ["GuestReport", "guest_status", "judge_image", "read_report"]

_PASSED: Final = 1
_SHOWN: Final = 20
"""Failed lines told in the details of a verdict."""


@dataclass(frozen=True, slots=True)
class GuestReport:
    """What a guest says of itself.  ``status`` is QEMU's exit status, None when the guest did not end by itself."""

    status: int | None
    lines: tuple[ReportLine, ...]

    @property
    def failed(self) -> tuple[ReportLine, ...]:
        """The checks that failed."""
        return tuple(line for line in self.lines if line.kind is Kind.FAIL)

    def __str__(self) -> str:
        counts = count(self.lines)
        parts = ((counts.passed, "passed"), (counts.failed, "failed"), (counts.skipped, "skipped"))
        return ", ".join(f"{number} {word}" for number, word in parts if number) or "no checks reported"


def guest_status(code: int) -> int:
    """The status with which QEMU's isa-debug-exit ends after a write of ``code``, as a shell sees it.

    kvm-unit-tests (lib/report.c, lib/abort.c): 1 passed, 3 failed, 77 all skipped, 127 aborted.
    """
    return (code << 1 | 1) & 0xFF


def read_report(serial: bytes, code: int | None) -> GuestReport:
    """The report in a guest's serial output; ``code`` is what it wrote to the debug-exit port."""
    return GuestReport(None if code is None else guest_status(code), report_lines(serial))


def judge_image(result: Result, stop: Stop) -> Result:
    """``result`` with the verdict of a self-judging image that has come to ``stop``."""
    from kvmscope.vmm.engine import StopReason

    report = read_report(result.serial, result.debug_exit)
    notes = tuple(f"FAIL: {line.text}" for line in report.failed[:_SHOWN])
    if len(report.failed) > _SHOWN:
        notes += (f"... and {len(report.failed) - _SHOWN} more",)
    result = replace(result, guest=report, notes=(*result.notes, *notes))
    if stop.reason is StopReason.BUDGET:
        summary = f"out of budget: {stop.detail or 'limit reached'} ({report})"
        return replace(result, verdict=Verdict.ERROR, summary=summary, out_of_budget=True)
    if stop.reason is StopReason.ERROR:
        return replace(result, verdict=Verdict.ERROR, summary=f"the engine failed: {stop.detail}")
    if stop.reason is StopReason.DEBUG_EXIT and report.status is not None:
        verdict = {_PASSED: Verdict.PASS, SKIPPED: Verdict.SKIP}.get(report.status, Verdict.FAIL)
        word = "aborted: " if report.status == ABORTED else ""
        return replace(result, verdict=verdict, summary=f"{word}{report}, exit status {report.status}")
    how = f"{stop.reason.value}{f': {stop.detail}' if stop.detail else ''}"
    return replace(result, verdict=Verdict.FAIL, summary=f"ended without an exit status, by {how} ({report})")
