"""Run all benchmarks, or those named."""

from __future__ import annotations

import compileall
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.measure import Row, print_rows

MODULES = ("engine", "history", "headless", "startup", "frame", "gdbstub")


def main(names: list[str]) -> int:
    unknown = [n for n in names if n not in MODULES]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(MODULES)}", file=sys.stderr)
        return 2
    # As an installation does; the files of a working tree may have changed since.
    compileall.compile_dir(str(Path(__file__).resolve().parents[1] / "kvmscope"), quiet=2)
    rows: list[Row] = []
    try:
        for name in names or MODULES:
            print(f"... {name}", file=sys.stderr)
            rows += import_module(f"benchmarks.{name}").rows()
    finally:
        print_rows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
