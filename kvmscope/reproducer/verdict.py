"""What came of a run: verdict, expectations, and the reports of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvmscope.asm.image import Diagnostic
    from kvmscope.debug.explain import Explanation
    from kvmscope.reproducer.image_verdict import GuestReport
    from kvmscope.vmm.engine import Stop
    from kvmscope.vmm.events import Event
    from kvmscope.vmm.snapshot import Snapshot

__all__ = ["EXIT_STATUS", "ExpectationResult", "Result", "Verdict"]


class Verdict(StrEnum):
    """The words of kvm-unit-tests."""

    PASS = "pass"
    FAIL = "fail"
    XFAIL = "xfail"
    """Failed, as the header says it must."""
    KFAIL = "kfail"
    """Failed for the known bug that the header names."""
    SKIP = "skip"
    ERROR = "error"
    """There is no answer: it does not assemble, cannot be built, or is out of budget."""


EXIT_STATUS: Final = {
    Verdict.PASS: 0,
    Verdict.XFAIL: 0,
    Verdict.KFAIL: 0,
    Verdict.FAIL: 1,
    Verdict.ERROR: 2,
    Verdict.SKIP: 77,
}
OUT_OF_BUDGET: Final = 124


@dataclass(frozen=True, slots=True)
class ExpectationResult:
    """One expectation after the run."""

    text: str
    line: int
    ok: bool
    value: int | str | bool | None = None
    """What the expression gave; None when it could not be evaluated."""
    message: str = ""
    """The actual values of what it names, or why it could not be evaluated."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one reproducer on one engine."""

    verdict: Verdict
    engine: str
    summary: str
    """One line: why this verdict."""
    stop: Stop | None = None
    snapshot: Snapshot | None = None
    expectations: tuple[ExpectationResult, ...] = ()
    instructions: int = 0
    events: Sequence[Event] = ()
    serial: bytes = b""
    debug_exit: int | None = None
    registers: Mapping[str, int] = field(default_factory=dict)
    diagnostics: tuple[Diagnostic, ...] = ()
    notes: tuple[str, ...] = ()
    explanation: Explanation | None = None
    guest: GuestReport | None = None
    """What an image says of itself; None for a source."""
    out_of_budget: bool = False
    seconds: float = 0.0

    @property
    def exit_status(self) -> int:
        """Exit status of ``kvmscope run``."""
        return OUT_OF_BUDGET if self.out_of_budget else EXIT_STATUS[self.verdict]

    @property
    def serial_text(self) -> str:
        """Serial output as text; bytes that are not UTF-8 appear as ``\\xNN``."""
        return self.serial.decode("utf-8", "backslashreplace")

    @property
    def failed(self) -> tuple[ExpectationResult, ...]:
        """The expectations that are not met."""
        return tuple(item for item in self.expectations if not item.ok)

    def details(self, filename: str, *, explain: bool = True) -> list[str]:
        """What a person reads beside the verdict: diagnostics, each failed expectation with its place, notes, explanation.

        Without ``explain`` the explanation's title stays, where the verdict is a failure.
        """
        lines = []
        for diagnostic in self.diagnostics:
            where = f"{filename}:{diagnostic.line}:{diagnostic.column}"
            lines.append(f"{where}: {diagnostic.severity.value}: {diagnostic.message}")
            if diagnostic.hint:
                lines.append(f"    hint: {diagnostic.hint}")
        for item in self.failed:
            lines.append(f"{filename}:{item.line}: expected {item.text}")
            lines += [f"    {part}" for part in item.message.split("\n") if part]
        lines += self.notes
        if self.explanation is not None and (explain or self.verdict in (Verdict.FAIL, Verdict.ERROR)):
            lines.append(self.explanation.title)
            if explain:
                lines += [f"    {part}" for part in (*self.explanation.lines, *self.explanation.references)]
        return lines

    def report(self, filename: str) -> list[str]:
        """Verdict and details, for a test report."""
        return [f"{self.verdict.value.upper()}: {self.summary}", *self.details(filename)]
