"""Why the machine stopped: the explanation of `kvmscope.debug`, wrapped, or the stop itself where there is none."""

from __future__ import annotations

import re
import textwrap
from typing import Final

from kvmscope.ui.line_panel import Row, Span
from kvmscope.ui.render.text import message, row
from kvmscope.ui.view import View
from kvmscope.vmm.engine import StopReason

__all__ = ["explanation_rows", "stop_words"]

_TOKEN: Final = re.compile(
    r"(?P<num>\b0x[0-9a-fA-F]+\b)|(?P<symbol><[\w.$+@]+>)|(?P<error>#[A-Z]{2}\b)|(?P<name>\b[A-Z][A-Z0-9/]+\b(?:\.\w+)?)"
)
_STYLES: Final = {"num": "num", "symbol": "symbol", "error": "error", "name": "flag_on"}

_REASONS: Final = {
    StopReason.READY: "Ready: nothing has run yet.",
    StopReason.STEP: "Stepped.",
    StopReason.BREAKPOINT: "Breakpoint.",
    StopReason.WATCHPOINT: "Watchpoint.",
    StopReason.EXCEPTION: "An exception that the guest has no handler for.",
    StopReason.TRIPLE_FAULT: "Triple fault: the processor shut down.",
    StopReason.DEBUG_EXIT: "The guest ended itself.",
    StopReason.HLT: "HLT with nothing that could wake the processor.",
    StopReason.BUDGET: "Out of budget.",
    StopReason.PAUSED: "Paused.",
    StopReason.SLICE: "The instructions asked for have run.",
    StopReason.UNSUPPORTED: "The engine cannot execute this exactly, and does not guess.",
    StopReason.ERROR: "The engine failed.",
}


def stop_words(view: View) -> tuple[str, str]:
    """(what happened, particulars) of the stop, for a machine that has no explanation to give."""
    stop = view.snapshot.stop
    words = _REASONS.get(stop.reason, stop.reason.value)
    if stop.code is not None:
        words = f"{words.rstrip('.')} with {stop.code:#x}."
    return words, stop.detail


def explanation_rows(view: View, width: int) -> list[Row]:
    """All rows; the caller windows them."""
    return [*_outcome_rows(view, width), *_reason_rows(view, width)]


def _outcome_rows(view: View, width: int) -> list[Row]:
    """The verdict and each expectation, unmet ones with what was there instead."""
    result = view.outcome
    if result is None:
        return []
    good = result.verdict in ("pass", "xfail", "kfail", "skip")
    summary = result.summary.partition(", stopped by")[0]
    rows = [
        row(width, (Span("✓ " if good else "✗ ", "ok" if good else "error"), Span(result.verdict.upper(), "title"),
                    Span(f" {summary}")))
    ]  # fmt: skip
    for item in result.expectations:
        mark = Span("  ✓ ", "ok") if item.ok else Span("  ✗ ", "error")
        rows += [
            row(width, (mark if not i else Span("    "), *_coloured(piece)))
            for i, piece in enumerate(_wrap(item.text, width - 4, "  "))
        ]
        if not item.ok:
            rows += [row(width, (Span("      "), *_coloured(piece))) for piece in _wrap(item.message, width - 6, "")]
    return [*rows, row(width, (Span("─" * (width - 1), "rule"),))]


def _reason_rows(view: View, width: int) -> list[Row]:
    found = view.explanation
    if found is None:
        words, detail = stop_words(view)
        rows = [row(width, (Span(" "), Span(line, "value"))) for line in _wrap(words, width, "")]
        return rows + [row(width, (Span(" "), *_coloured(line))) for line in _wrap(detail, width, "")]
    bad = view.snapshot.stop.reason.final and view.snapshot.stop.reason not in (StopReason.HLT, StopReason.DEBUG_EXIT)
    style = "error" if bad else "title"
    rows = [
        row(width, (Span("✗ " if bad and not i else "  " if bad else " ", "error"), Span(line, style)))
        for i, line in enumerate(_wrap(found.title, width - bad, ""))
    ]
    for line in found.lines:
        # A line's own indentation is part of its meaning: links of a chain stand below each other.
        inner = line.lstrip(" ")
        margin = " " * (len(line) - len(inner))
        for piece in _wrap(inner, width - len(margin) - 1, "  "):
            rows.append(row(width, (Span("  " + margin), *_coloured(piece))))
    if found.references:
        rows += [
            row(width, (Span("  "), Span(line, "comment")))
            for line in _wrap("; ".join(found.references), width - 1, "")
        ]
    return rows or [message(width, "nothing to explain")]


def _wrap(text: str, width: int, indent: str) -> list[str]:
    """``text`` in lines; words that are too long are cut, nothing is lost."""
    return textwrap.wrap(
        text.replace("\t", " "),
        max(8, width - 2),
        subsequent_indent=indent,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def _coloured(text: str) -> list[Span]:
    """Numbers, labels, exceptions and register names in their colours."""
    spans: list[Span] = []
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() > end:
            spans.append(Span(text[end : match.start()]))
        spans.append(Span(match.group(), _STYLES[match.lastgroup or "num"]))
        end = match.end()
    if end < len(text):
        spans.append(Span(text[end:]))
    return spans
