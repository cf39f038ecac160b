"""Write the table of docs/kvm-unit-tests.md: ``python -m docs.suite_table OURS QEMU``.

OURS is what ``kvmscope suite TREE --json`` printed, QEMU what ``tools/compare_qemu.py`` wrote.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- table: python -m docs.suite_table -->", "<!-- end of the table -->"
PAGE = Path(__file__).with_name("kvm-unit-tests.md")


def cell(text: str) -> str:
    """Text that ends no cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def row_of_ours(entry: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """(verdict, lines, seconds, why)."""
    checks = entry["checks"]
    ran = bool(entry["stop"])
    lines = f"{checks['pass']}/{checks['fail']}/{checks['skip']}" if ran else ""
    bad = entry["verdict"] in ("fail", "error") or not ran
    return entry["verdict"].upper(), lines, f"{entry['seconds']:.1f}" if ran else "", entry["summary"] if bad else ""


def row_of_qemu(row: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """(verdict, lines, seconds)."""
    if row is None:
        return "", "", ""
    ran = "status" in row
    lines = "/".join(map(str, row["lines"])) if ran else ""
    return str(row["word"]), lines, f"{row['seconds']:.1f}" if ran else ""


def table(ours: Mapping[str, Any], qemu: Mapping[str, Any]) -> str:
    """The table, and its totals."""
    theirs = {row["name"]: row for row in qemu["rows"]}
    out = [
        f"PASS/FAIL/SKIP are the lines that the guest reported, s the seconds. The right half is {qemu['qemu']}, TCG.",
        "",
        "| entry | kvmscope | lines | s | | QEMU TCG | lines | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in ours["entries"]:
        cells = (*row_of_ours(entry), *row_of_qemu(theirs.get(entry["name"])))
        out.append("| " + " | ".join([f"`{entry['name']}`", *map(cell, cells)]) + " |")
    return "\n".join(
        [
            *out,
            "",
            totals(
                "kvmscope",
                [entry["verdict"].upper() for entry in ours["entries"]],
                [[entry["checks"][kind] for kind in ("pass", "fail", "skip")] for entry in ours["entries"]],
            ),
            totals("QEMU TCG", [row["word"] for row in qemu["rows"]], [row["lines"] for row in qemu["rows"]]),
        ]
    )


def totals(who: str, words: Sequence[str], lines: Sequence[Sequence[int]]) -> str:
    """One line of sums."""
    count = Counter(words)
    sums = [sum(line[place] for line in lines) for place in range(3)]
    verdicts = ", ".join(f"{count[word]} {word}" for word in ("PASS", "FAIL", "ERROR", "SKIP") if count[word])
    return f"- {who}: {verdicts}; lines: {sums[0]} PASS, {sums[1]} FAIL, {sums[2]} SKIP"


def main(argv: Sequence[str]) -> None:
    """Put the table between its marks."""
    ours, qemu = (json.loads(Path(name).read_text(encoding="utf-8")) for name in argv)
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    PAGE.write_text(f"{head}{BEGIN}\n{table(ours, qemu)}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
