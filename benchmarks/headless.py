"""``kvmscope run`` from start to exit against ``python -c pass``; reproducers a second in one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Row, alternate, seconds

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "reproducers" / "page-fault-write.asm"


def rows() -> list[Row]:
    def run() -> None:
        subprocess.run([sys.executable, "-m", "kvmscope", "run", str(FILE)], check=True, capture_output=True)

    def nothing() -> None:
        subprocess.run([sys.executable, "-c", "pass"], check=True)

    a, b = alternate(run, nothing)
    out = [Row("kvmscope run", f"{a * 1e3:.0f} ms", f"{b * 1e3:.0f} ms", "python -c pass", a / b)]

    many = [str(p) for p in sorted((ROOT / "reproducers").glob("*.asm"))] * 10

    def suite() -> None:
        subprocess.run([sys.executable, "-m", "kvmscope", "test", *many], check=False, capture_output=True)

    def one() -> None:
        subprocess.run([sys.executable, "-m", "kvmscope", "test", many[0]], check=False, capture_output=True)

    suite()
    each = (seconds(suite) - seconds(one)) / (len(many) - 1)
    out.append(Row("kvmscope test", f"{1 / each:.0f} files/s", f"{each * 1e3:.1f} ms", "a file, one process", None))
    return out
