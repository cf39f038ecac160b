"""The table of docs/kvm-unit-tests.md."""

from __future__ import annotations

from docs.suite_table import BEGIN, END, PAGE, table

OURS = {
    "entries": [
        {"name": "a", "verdict": "pass", "stop": "debug-exit", "summary": "2 tests", "seconds": 0.25,
         "checks": {"pass": 2, "fail": 0, "skip": 0}},
        {"name": "b", "verdict": "fail", "stop": "hlt", "summary": "x | y", "seconds": 1.0,
         "checks": {"pass": 1, "fail": 1, "skip": 0}},
        {"name": "c", "verdict": "skip", "stop": "", "summary": "i386 only", "seconds": 0.0,
         "checks": {"pass": 0, "fail": 0, "skip": 0}},
    ]
}  # fmt: skip
QEMU = {"qemu": "QEMU 1.2", "rows": [{"name": "b", "word": "PASS", "status": 0, "lines": [3, 0, 0], "seconds": 2.0}]}


def test_rows_and_totals():
    text = table(OURS, QEMU)
    assert "| `a` | PASS | 2/0/0 | 0.2 |  |  |  |  |" in text
    assert "| `b` | FAIL | 1/1/0 | 1.0 | x \\| y | PASS | 3/0/0 | 2.0 |" in text
    assert "| `c` | SKIP |  |  | i386 only |  |  |  |" in text
    assert "- kvmscope: 1 PASS, 1 FAIL, 1 SKIP; lines: 3 PASS, 1 FAIL, 0 SKIP" in text
    assert "- QEMU TCG: 1 PASS; lines: 3 PASS, 0 FAIL, 0 SKIP" in text


def test_the_page_has_the_marks():
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert page.index(BEGIN) < page.index(END)
