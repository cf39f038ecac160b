"""The walk of one linear address: every entry decoded, the rights that result, and why an access would fault.

The matrix has a cell for each kind of access (SDM vol. 3A section 4.6); the access that did fault stands in brackets.
"""

from __future__ import annotations

import textwrap
from functools import lru_cache
from typing import Final, NamedTuple

from kvmscope.ui.line_panel import Key, Kind, Row, Span
from kvmscope.ui.render.reader import Reader
from kvmscope.ui.render.text import CHANGED, UNCHANGED, hex_spans, message, row, size_words
from kvmscope.ui.view import View
from kvmscope.vmm.events import ExceptionEvent
from kvmscope.x86.paging import PF_FETCH, PF_USER, PF_WRITE, PageFault, Step, Walk, walk

__all__ = ["WalkTarget", "entry_words", "walk_of", "walk_rows", "walk_target"]

_RECENT: Final = 64
"""Events looked back through for the last page fault."""
_PKRS: Final = 0x6E1
_KINDS: Final = ("read", "write", "fetch")


class WalkTarget(NamedTuple):
    """The address walked, why this one, and the error code of the fault that it caused, if it did."""

    linear: int
    why: str
    error_code: int | None = None


def walk_target(view: View) -> WalkTarget:
    """The address chosen, else that of the last page fault, else RIP."""
    if view.focus.walk is not None:
        return WalkTarget(view.focus.walk, "chosen")
    snapshot = view.snapshot
    stop = snapshot.stop.exception
    recent = [stop] if stop is not None else []
    events = snapshot.events
    for i in range(len(events) - 1, max(-1, len(events) - 1 - _RECENT), -1):
        event = events[i]
        if isinstance(event, ExceptionEvent):
            recent.append(event)
    for event in recent:
        if event.vector == 14 and event.cr2 is not None:
            return WalkTarget(event.cr2, f"#PF at tick {event.tick}", event.error_code)
    if snapshot.cpu.cr2:
        return WalkTarget(snapshot.cpu.cr2, "CR2")
    return WalkTarget(snapshot.cpu.pc, "RIP")


def walk_of(reader: Reader, linear: int) -> Walk:
    """The walk of a supervisor read with the processor's present control registers."""
    cpu = reader.cpu
    return walk(
        reader.memory, cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer, linear, user=False, ac=bool(cpu.rflags >> 18 & 1),
        pkru=cpu.pkru, pkrs=cpu.msrs.get(_PKRS, 0),
    )  # fmt: skip


def entry_words(flags: tuple[str, ...], rights: bool) -> list[Span]:
    """The flags of an entry: P, RW and US upper case when set and lower case when not, the others when set."""
    spans: list[Span] = []
    for name in ("P", "RW", "US") if rights else ("P",):
        on = name in flags
        spans += (Span(name if on else name.lower(), "flag_on" if on else "flag_off"), Span(" "))
    for name in flags:
        if name not in ("P", "RW", "US"):
            spans += (Span(name, "warn" if name == "NX" else "dim"), Span(" "))
    return spans


def walk_rows(reader: Reader, width: int, target: WalkTarget, plain: Walk | None = None) -> list[Row]:
    """All rows of the walk; ``plain`` is the outcome of `walk_of` where the caller has it."""
    head = row(
        width,
        (
            Span(" walk of ", "title"),
            *hex_spans(target.linear, 16 if target.linear >> 32 else 8, None, "accent"),
            Span(f" {reader.symbols.words(target.linear)}".rstrip() + f"  {target.why}", "comment"),
        ),
        key=Key(Kind.WALK, target.linear, f"{target.linear:#x}", target.linear),
    )
    if plain is None:
        plain = walk_of(reader, target.linear)
    rows = [head, *(_step_row(reader, step, width) for step in plain.steps)]
    rows += _result_rows(plain, width)
    rows += _matrix_rows(reader, target, width, plain)
    return rows


def _step_row(reader: Reader, step: Step, width: int) -> Row:
    digits = 2 * step.size
    key = Key(Kind.PHYSICAL, step.address, f"{step.address:#x}")
    spans = [UNCHANGED, Span(f"{step.level:<5} {step.index:03x} ", "name")]
    where = Span(f"@{step.address:<6x} ", "addr")
    if step.value is None:
        return row(width, (*spans, where, Span("✗ outside of RAM", "error")), key=key)
    old = reader.old_bytes(step.address, step.value.to_bytes(step.size, "little")) if reader.changes else None
    if old is not None:
        spans[0] = CHANGED
    if width >= 52:
        spans.append(where)
    spans += (*hex_spans(step.value, digits, int.from_bytes(old, "little") if old is not None else None), Span(" "))
    rights = not (step.level == "PDPTE" and not any(flag in step.flags for flag in ("RW", "US", "A")))
    if step.target is None:
        spans += (Span("✗ ", "error"), Span(step.note, "error"))
    else:
        spans += entry_words(step.flags, rights or "P" not in step.flags)
        spans.append(Span(f"→ {step.target:x}", "comment"))
    return row(width, spans, key=key)


def _result_rows(done: Walk, width: int) -> list[Row]:
    if done.mapped is None:
        return []
    words = [
        f"{size_words(done.page_size)} page" if done.page_size else "paging off",
        f"r{'w' if done.writable else '-'}{'x' if done.executable else '-'}{'u' if done.user else '-'}",
    ]
    words += ["A" if done.accessed else "a", "D" if done.dirty else "d"] + ["G"] * done.global_
    if done.pkey is not None:
        words.append(f"key {done.pkey}")
    spans = (
        Span(" → physical ", "title"),
        *hex_spans(done.mapped, 8, None, "accent"),
        Span("  " + " ".join(words), "value"),
    )
    return [row(width, spans, key=Key(Kind.PHYSICAL, done.mapped, f"{done.mapped:#x}"))]


def _faulting_cell(code: int | None) -> tuple[bool, str] | None:
    """(user, kind) of the access that an error code tells of."""
    if code is None:
        return None
    return bool(code & PF_USER), "fetch" if code & PF_FETCH else "write" if code & PF_WRITE else "read"


class _Entries:
    """The entries that a walk read, as memory: all that its other accesses can read."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._values = {
            step.address: step.value.to_bytes(step.size, "little") for step in steps if step.value is not None
        }

    def read(self, physical: int, size: int, /) -> bytes | None:
        return self._values.get(physical)


class _Cell(NamedTuple):
    """One kind of access and what becomes of it."""

    user: bool
    kind: str
    fault: PageFault | None


@lru_cache(maxsize=64)
def _cells(steps: tuple[Step, ...], linear: int, registers: tuple[int, ...], ac: bool) -> tuple[_Cell, ...]:
    """Every kind of access; kept by what it depends on, which few steps change."""
    cr0, cr3, cr4, efer, pkru, pkrs = registers
    memory = _Entries(steps)
    cells = []
    for user in (False, True):
        for kind in _KINDS:
            done = walk(
                memory, cr0, cr3, cr4, efer, linear, cpl=3 if user else 0, user=user, write=kind == "write",
                fetch=kind == "fetch", ac=ac, pkru=pkru, pkrs=pkrs,
            )  # fmt: skip
            cells.append(_Cell(user, kind, done.fault))
    return tuple(cells)


def _matrix_rows(reader: Reader, target: WalkTarget, width: int, plain: Walk) -> list[Row]:
    if plain.unbacked is not None:
        return [message(width, f"✗ unknown: {plain.reason}", "error")]
    if not reader.paged:
        return []
    faulting = _faulting_cell(target.error_code)
    cpu = reader.cpu
    registers = (cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer, cpu.pkru, cpu.msrs.get(_PKRS, 0))
    cells = _cells(plain.steps, target.linear, registers, bool(cpu.rflags >> 18 & 1))
    return list(_drawn_matrix(cells, faulting, width))


@lru_cache(maxsize=64)
def _drawn_matrix(cells: tuple[_Cell, ...], faulting: tuple[bool, str] | None, width: int) -> tuple[Row, ...]:
    reasons: dict[str, list[str]] = {}
    head = (Span(" " * 12), *(Span(f" {kind:<7}", "comment") for kind in _KINDS), Span(" error code", "zero"))
    rows = [row(width, head)]
    for user in (False, True):
        who = "user" if user else "supervisor"
        spans = [Span(f" {who:<11}", "name")]
        for cell in cells:
            if cell.user is not user:
                continue
            sign, style = ("✓", "ok") if cell.fault is None else ("✗", "error")
            text = f"[{sign}]" if faulting == (user, cell.kind) else f" {sign} "
            if cell.fault is not None:
                text += f"{cell.fault.error_code:x}" if cell.fault.vector == 14 else "#GP"
                reasons.setdefault(cell.fault.reason, []).append(f"{who} {cell.kind}")
            spans.append(Span(f"{text:<8}", style))
        rows.append(row(width, spans))
    for reason, accesses in reasons.items():
        who = "any access" if len(accesses) == len(cells) else ", ".join(_grouped(accesses))
        rows += _wrapped(who, reason, width)
    return tuple(rows)


def _grouped(accesses: list[str]) -> list[str]:
    """``user access`` for all three of a kind."""
    out: list[str] = []
    for who in ("supervisor", "user"):
        mine = [access for access in accesses if access.startswith(who)]
        out += [f"{who} access"] if len(mine) == 3 else mine
    return out


def _wrapped(who: str, reason: str, width: int) -> list[Row]:
    """``✗ user write: PTE at ...`` in as many lines as it takes."""
    lines = textwrap.wrap(f"{who}: {reason}", max(10, width - 3), break_on_hyphens=False)
    rows = []
    for i, line in enumerate(lines):
        head = who + ":" if line.startswith(who + ":") and not i else ""
        spans = (Span(" ✗ " if not i else "   ", "error"), Span(head, "bad"), Span(line[len(head) :], "value"))
        rows.append(row(width, spans))
    return rows
