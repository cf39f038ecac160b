"""Rows of the suite browser: the entries, and what one of them reported."""

from __future__ import annotations

from typing import Final

from kvmscope.reproducer.kut import Kind as CheckKind
from kvmscope.reproducer.kut import Word
from kvmscope.ui.render.text import clip, pad
from kvmscope.ui.rows import Key, Kind, Row, Span
from kvmscope.ui.suite.model import Entry, State, SuiteModel

__all__ = ["check_rows", "entry_rows"]

_WORDS: Final = {
    Word.PASS: ("✓ PASS", "ok"),
    Word.FAIL: ("✗ FAIL", "error"),
    Word.ERROR: ("✗ ERROR", "error"),
    Word.SKIP: ("- SKIP", "dim"),
}
_STATES: Final = {State.IDLE: ("  ", "dim"), State.WAITING: ("· wait", "dim"), State.RUNNING: ("▶ run", "accent")}
_CHECKS: Final = {CheckKind.PASS: ("✓", "ok"), CheckKind.FAIL: ("✗", "error"), CheckKind.SKIP: ("-", "dim")}
_WORD_ROOM: Final = 8
_MOST_NAME: Final = 34


def _visible(text: str) -> str:
    """What a terminal would obey, spelled out."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def entry_rows(model: SuiteModel, width: int) -> list[Row]:
    """One row an entry that is listed."""
    numbers = model.shown
    room = min(_MOST_NAME, max((len(model.entries[number].name) for number in numbers), default=0)) + 1
    return [Row(clip(_entry(model.entries[number], room), width), Key(Kind.ENTRY, number)) for number in numbers]


def _entry(entry: Entry, room: int) -> tuple[Span, ...]:
    word, style = _WORDS[entry.word] if entry.word is not None else _STATES[entry.state]
    name = entry.name if len(entry.name) < room else entry.name[: room - 2] + "…"
    return (
        Span(f" {word:<{_WORD_ROOM}}", style),
        Span(f"{name:<{room}}", "value" if entry.word is not Word.SKIP else "dim"),
        Span(_about(entry), "dim"),
    )


def _about(entry: Entry) -> str:
    if entry.state is State.RUNNING:
        lines = entry.lines
        return f"{len(lines)} checks" if lines else ""
    if entry.outcome is not None and entry.state is State.DONE:
        text = _visible(entry.outcome.summary.strip("()"))
        return f"{text} · {entry.outcome.seconds:.1f} s" if text else f"{entry.outcome.seconds:.1f} s"
    return entry.selected.skip or " ".join(entry.selected.entry.groups)


def check_rows(entry: Entry | None, width: int) -> list[Row]:
    """What an entry is, what it did not get, what it reported, and the end of its output."""
    if entry is None:
        return [Row((Span(" Nothing is listed: f and / choose what is.", "dim"),))]
    rows = [*_what_it_is(entry, width)]
    outcome = entry.outcome if entry.state is State.DONE else None
    if entry.selected.skip:
        rows.append(Row(clip((Span(f" not run: {entry.selected.skip}", "warn"),), width)))
    if outcome is not None:
        rows += [Row(clip((Span(f" note: {_visible(note)}", "warn"),), width)) for note in outcome.notes]
        if outcome.word.bad and outcome.reason:
            rows.append(Row(clip((Span(f" {_visible(outcome.reason)}", "error"),), width)))
        rows += [Row(clip((Span(f"   {_visible(text)}", "dim"),), width)) for text in outcome.details]
    lines = entry.lines
    if lines:
        rows.append(Row())
    # Failures first: they are what one came for.
    ordered = sorted(range(len(lines)), key=lambda index: (lines[index].kind is not CheckKind.FAIL, index))
    for index in ordered:
        line = lines[index]
        glyph, style = _CHECKS[line.kind]
        key = Key(Kind.CHECK, index)
        rows.append(Row(clip((Span(f" {glyph} ", style), Span(_visible(line.text), "value")), width), key))
    return [*rows, *_tail(entry, width)]


def _what_it_is(entry: Entry, width: int) -> list[Row]:
    about = entry.selected.entry
    words = [about.file, f"smp {about.smp}" if about.smp > 1 else "", f"{about.duration} at most"]
    rows = [
        Row(clip((Span(f" {about.name}", "label"), Span("  " + "  ".join(filter(None, words)), "dim")), width)),
    ]
    for name, text in (("args", about.append or ""), ("qemu", " ".join(about.params))):
        if text:
            rows.append(Row(clip((Span(pad(f" {name}", 6), "name"), Span(_visible(text), "value")), width)))
    return rows


_TAIL: Final = 12


def _tail(entry: Entry, width: int) -> list[Row]:
    """The end of the output, where a bad end usually says why."""
    text = bytes(entry.output[-4096:]).decode("utf-8", "backslashreplace")
    lines = [line for line in text.replace("\r", "").split("\n") if line][-_TAIL:]
    if not lines:
        return []
    head = Row((Span(" output", "name"),))
    return [Row(), head, *(Row(clip((Span(f" {_visible(line)}", "dim"),), width)) for line in lines)]
