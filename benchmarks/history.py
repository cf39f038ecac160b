"""A step back against a step forward, from the end of runs of several lengths."""

from __future__ import annotations

from statistics import median

from benchmarks.guests import MIXED, machine
from benchmarks.measure import Row, percentile, seconds


def rows() -> list[Row]:
    out = []
    for ticks in (10_000, 1_000_000, 20_000_000):
        m = machine(MIXED)
        m.run(ticks)
        back, forward = [], []
        for _ in range(60):
            back.append(seconds(lambda: m.goto(m.tick - 1)))  # noqa: B023 - called at once
        for _ in range(60):
            forward.append(seconds(m.step))
        m.close()
        a, b = median(back), median(forward)
        out.append(
            Row(
                f"step back after {ticks:,}",
                f"{a * 1e3:.2f} ms",
                f"{b * 1e3:.3f} ms",
                "step forward",
                a / b if b else None,
                f"p95 {percentile(back, 95) * 1e3:.2f} ms",
            )
        )
    return out
