"""Timing in turns: A B A B ..., medians and their ratio."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

__all__ = ["Row", "alternate", "percentile", "print_rows", "seconds"]


@dataclass(frozen=True)
class Row:
    """One line of the table: our figure, the yardstick's, and how many times the yardstick's time ours takes.

    Where the figures are rates, the ratio is still that of the times: above 1 is slower than the yardstick.
    """

    what: str
    ours: str
    against: str
    yardstick: str
    ratio: float | None
    note: str = ""


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(ours: Callable[[], object], yardstick: Callable[[], object], rounds: int = 5) -> tuple[float, float]:
    """Median seconds of both, measured in turn after one warm-up each."""
    ours()
    yardstick()
    a, b = [], []
    for _ in range(rounds):
        a.append(seconds(ours))
        b.append(seconds(yardstick))
    return median(a), median(b)


def percentile(values: list[float], p: float) -> float:
    """The value below which ``p`` percent lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(p / 100 * (len(ordered) - 1)))]


def print_rows(rows: list[Row]) -> None:
    """The table."""
    head = ("what", "kvmscope", "yardstick", "", "times")
    cells = [(r.what, r.ours, r.against, r.yardstick, "-" if r.ratio is None else f"{r.ratio:.2f}") for r in rows]
    widths = [max(len(c[i]) for c in [head, *cells]) for i in range(5)]
    for line, row in [(head, None), *zip(cells, rows, strict=True)]:
        text = "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
        print(text + (f"   {row.note}" if row and row.note else ""))
