"""The live page tables as a tree: present entries only, neighbours that run on joined to one row, opened on demand.

A table is read when its row is opened; what a table holds is kept by its contents, so that drawing again costs a read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from kvmscope.ui.line_panel import Key, Kind, Row, Span
from kvmscope.ui.render.reader import Reader
from kvmscope.ui.render.text import CHANGED, UNCHANGED, message, row, size_words
from kvmscope.x86.paging import Table, TableEntry, Walk, root_table, table_entries

__all__ = ["path_of", "tree_rows"]

_MOST: Final = 2000
"""Rows drawn at most: a guest may build tables without end."""


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Neighbouring entries that map on with equal rights; one entry alone is a run of itself.

    Compared by identity: `_runs` keeps them, and hashing up to 512 entries for each row drawn would cost more than
    drawing it.
    """

    entries: tuple[TableEntry, ...]

    @property
    def head(self) -> TableEntry:
        return self.entries[0]

    @property
    def last(self) -> TableEntry:
        return self.entries[-1]


class _Frozen:
    """The bytes of one table as memory."""

    def __init__(self, base: int, data: bytes) -> None:
        self._base = base
        self._data = data

    def read(self, physical: int, size: int, /) -> bytes | None:
        at = physical - self._base
        return self._data[at : at + size] if at >= 0 and at + size <= len(self._data) else None


def path_of(walk: Walk) -> tuple[str, ...]:
    """Names of the tables that a walk goes through below the root."""
    names: list[str] = []
    path = ""
    for step in walk.steps[:-1]:
        path = f"{path}/{step.index}"
        names.append(path)
    return tuple(names)


@lru_cache(maxsize=256)
def _runs(table: Table, data: bytes) -> tuple[_Run, ...]:
    entries = table_entries(_Frozen(table.base, data), table) or []
    runs: list[list[TableEntry]] = []
    for entry in entries:
        if runs and _continues(runs[-1][-1], entry):
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return tuple(_Run(tuple(run)) for run in runs)


@lru_cache(maxsize=64)
def _apart(run: _Run) -> tuple[_Run, ...]:
    """The entries of a run, each a run of its own."""
    return tuple(_Run((entry,)) for entry in run.entries)


def _continues(left: TableEntry, right: TableEntry) -> bool:
    size = left.last - left.first + 1
    return (
        left.leaf
        and right.leaf
        and not left.reserved
        and not right.reserved
        and right.index == left.index + 1
        and right.target == left.target + size
        and (left.writable, left.user, left.executable) == (right.writable, right.user, right.executable)
        and _kept(left) == _kept(right)
    )


def _kept(entry: TableEntry) -> tuple[str, ...]:
    """Flags that must agree in a run: all but accessed and dirty."""
    return tuple(flag for flag in entry.flags if flag not in ("A", "D"))


def tree_rows(reader: Reader, width: int, opened: frozenset[str]) -> list[Row]:
    """All rows of the tree with the tables and runs named in ``opened`` open."""
    cpu = reader.cpu
    root = root_table(cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer)
    if root is None:
        return [message(width, "paging is off: linear addresses are physical ones")]
    rows: list[Row] = []
    _table(reader, root, "", width, opened, rows)
    if len(rows) >= _MOST:
        del rows[_MOST - 1 :]
        rows.append(message(width, f"more than {_MOST} rows: close some tables", "warn"))
    return rows


def _table(reader: Reader, table: Table, path: str, width: int, opened: frozenset[str], rows: list[Row]) -> None:
    count = table.entries * table.format.entry_size
    data = reader.memory.read(table.base, count)
    indent = " " * (table.depth + 1)
    if data is None:
        rows.append(message(width, f"{indent}✗ table at {table.base:#x} is outside of RAM", "error"))
        return
    runs = _runs(table, data)
    if not runs:
        rows.append(message(width, f"{indent}no present entry"))
    for run in runs:
        if len(rows) >= _MOST:
            return
        name = f"{path}/{run.head.index}" if len(run.entries) == 1 else f"{path}/{run.head.index}-{run.last.index}"
        is_open = name in opened
        changed = bool(reader.changes) and _changed(reader, table, run)
        rows.append(_run_row(run, name, table.depth, width, is_open, changed))
        if not is_open:
            continue
        if run.head.child is not None:
            _table(reader, run.head.child, name, width, opened, rows)
        elif len(run.entries) > 1:
            rows += [
                _run_row(one, "", table.depth + 1, width, False, _changed(reader, table, one)) for one in _apart(run)
            ]


def _changed(reader: Reader, table: Table, run: _Run) -> bool:
    first, end = run.head.address, run.last.address + table.format.entry_size
    return any(
        change.address < end
        and change.address + len(change.old) > first
        and any(
            first <= change.address + i < end and a != b
            for i, (a, b) in enumerate(zip(change.old, change.new, strict=True))
        )
        for change in reader.changes
    )


@lru_cache(maxsize=4096)
def _run_row(run: _Run, name: str, depth: int, width: int, is_open: bool, changed: bool) -> Row:
    entry = run.head
    many = len(run.entries) > 1
    sign = ("−" if is_open else "+") if (entry.child is not None or many) and name else " "
    index = f"{entry.index:03x}" + (f"-{run.last.index:03x}" if many else "")
    spans = [CHANGED if changed else UNCHANGED, Span(" " * depth + f"{sign} ", "accent")]
    spans.append(Span(f"{entry.level:<5} {index:<7} " if width >= 60 else f"{entry.level} {index} ", "name"))
    spans.append(Span(f"{entry.first:x}-{run.last.last:x}", "addr"))
    if entry.reserved:
        bits = ", ".join(str(bit) for bit in range(63, -1, -1) if entry.reserved >> bit & 1)
        spans.append(Span(f" ✗ reserved bit {bits}", "error"))
    else:
        spans.append(Span(" → " if entry.leaf else " ⇒ ", "operator"))
        spans.append(Span(f"{entry.target:x} ", "value" if entry.leaf else "comment"))
        spans += _rights(entry)
        if entry.leaf:
            size = size_words(entry.last - entry.first + 1)
            spans.append(Span(f" {size}" + (f"×{len(run.entries)}" if many else ""), "comment"))
            spans.append(Span(f" {_accessed(run)}", "dim"))
    key = (
        Key(Kind.FOLD, name, "", entry.first)
        if name and (entry.child is not None or many)
        else Key(Kind.WALK, entry.first, f"{entry.first:#x}", entry.first)
    )
    return row(width, spans, key=key)


def _rights(entry: TableEntry) -> tuple[Span, ...]:
    """``rwxu`` of the entry together with those above it."""
    return tuple(
        Span(letter if on else "-", "flag_on" if on else "flag_off")
        for letter, on in (("r", True), ("w", entry.writable), ("x", entry.executable), ("u", entry.user))
    )


def _accessed(run: _Run) -> str:
    """``A D G``; ``A?`` where the pages of a run differ."""
    words: list[str] = []
    for flag in ("A", "D"):
        having = sum(flag in entry.flags for entry in run.entries)
        if having:
            words.append(flag if having == len(run.entries) else f"{flag}?")
    words += [flag for flag in run.head.flags if flag == "G" or flag.startswith("pkey")]
    return " ".join(words)
