"""``kvmscope run`` from start to exit against ``python -c pass``; reproducers a second in one process."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Row, alternate

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "reproducers" / "page-fault-write.asm"
FEW, MANY = 20, 420


def _cpu(work: Callable[[], object]) -> float:
    """CPU seconds of the processes that ``work`` starts, which a busy machine does not stretch as much."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    work()
    return used() - before


def rows() -> list[Row]:
    def run() -> None:
        subprocess.run([sys.executable, "-m", "kvmscope", "run", str(FILE)], check=True, capture_output=True)

    def nothing() -> None:
        subprocess.run([sys.executable, "-c", "pass"], check=True)

    a, b = alternate(run, nothing, 9)
    cpu = min(_cpu(run) for _ in range(5))
    note = f"CPU {cpu * 1e3:.0f} ms"
    return [Row("kvmscope run", f"{a * 1e3:.0f} ms", f"{b * 1e3:.0f} ms", "python -c pass", a / b, note), *_suites()]


def _suites() -> list[Row]:
    """What one file more costs; files differ, so nothing can be remembered from one to the next."""
    text = FILE.read_text()
    out = []
    with tempfile.TemporaryDirectory() as directory:
        paths = []
        for number in range(MANY):
            path = Path(directory) / f"r{number:03}.asm"
            path.write_text(f"{text}\n        .long   {number}\n")
            paths.append(str(path))

        def suite(count: int, *more: str) -> Callable[[], None]:
            def work() -> None:
                command = [sys.executable, "-m", "kvmscope", "test", *more, *paths[:count]]
                subprocess.run(command, check=True, capture_output=True)

            return work

        for name, more in (("one process", ()), ("-j 2", ("-j", "2"))):
            many, few = alternate(suite(MANY, *more), suite(FEW, *more), 3)
            each = (many - few) / (MANY - FEW)
            row = Row(
                f"kvmscope test, {name}", f"{1 / each:.0f} files/s", f"{each * 1e3:.1f} ms", "the same, a file", None
            )
            out.append(row)
    return out
