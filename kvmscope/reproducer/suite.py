"""Many reproducers: each to an `Outcome`, in this process or in several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvmscope.errors import KvmscopeError
from kvmscope.reproducer.verdict import Verdict

__all__ = ["Job", "Outcome", "run_job", "run_suite"]


@dataclass(frozen=True, slots=True)
class Job:
    """One file to run, and how."""

    path: Path
    engine: str = "unicorn"
    cross_check: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is kept of a run when there are many: plain values, cheap to send between processes."""

    name: str
    verdict: Verdict
    summary: str
    details: tuple[str, ...] = ()
    expectations: int = 0
    instructions: int = 0
    seconds: float = 0.0
    serial: str = ""
    out_of_budget: bool = False

    @property
    def line(self) -> str:
        """As run_tests.sh prints it: ``PASS name (3 expectations, 123 instructions)``."""
        head = f"{self.verdict.value.upper()} {self.name}"
        if self.verdict is Verdict.PASS:
            plural = "" if self.expectations == 1 else "s"
            return f"{head} ({self.expectations} expectation{plural}, {self.instructions} instructions)"
        return f"{head} ({self.summary})"


def run_job(job: Job) -> Outcome:
    """Run one file.  A user's mistake is an ERROR outcome, and so is a defect of ours: the other files still have their turn."""
    try:
        return _run_job(job)
    except Exception as error:
        import traceback

        details = ("this is a defect of kvmscope: please report it with the file", *traceback.format_exc().splitlines())
        return Outcome(str(job.path), Verdict.ERROR, f"internal error: {type(error).__name__}: {error}", details)


def _run_job(job: Job) -> Outcome:
    from kvmscope.reproducer.document import load
    from kvmscope.reproducer.runner import run

    name = str(job.path)
    try:
        reproducer = load(job.path)
    except KvmscopeError as error:
        rest = f"{error.detail}\n{f'hint: {error.hint}' if error.hint else ''}"
        return Outcome(name, Verdict.ERROR, error.title, tuple(filter(None, rest.split("\n"))))
    result = run(reproducer, engine=job.engine, cross_check=job.cross_check)
    passed = result.verdict is Verdict.PASS
    return Outcome(
        name,
        result.verdict,
        result.summary,
        () if passed else tuple(result.details(name)),
        len(reproducer.expectations),
        result.instructions,
        result.seconds,
        result.serial_text,
        result.out_of_budget,
    )


def run_suite(jobs: Sequence[Job], processes: int = 1) -> Iterator[Outcome]:
    """Outcomes in the order of ``jobs``, each as soon as it and all before it are there."""
    if processes <= 1 or len(jobs) <= 1:
        yield from map(run_job, jobs)
        return
    from kvmscope.reproducer.pool import run_pool

    yield from run_pool(jobs, min(processes, len(jobs)))
