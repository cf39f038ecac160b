"""The register panel: general registers first, then flags, segments, control, debug and vector registers, MSRs.

Names have the width of the running mode (``ax``, ``eax``, ``rax``), widened when a register holds more than that shows.
Every value carries its register's name as the key to edit it by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from kvmscope.ui.line_panel import Key, Kind, Row, Span
from kvmscope.ui.render.bits import bit_lines, flag_words
from kvmscope.ui.render.fpu import fpu_rows
from kvmscope.ui.render.reader import Reader
from kvmscope.ui.render.segments import segment_words
from kvmscope.ui.render.text import CHANGED, UNCHANGED, clip, fold_header, hex_spans, pad, row, width_of
from kvmscope.ui.view import View
from kvmscope.x86.msrs import msr_name
from kvmscope.x86.state import GPR_NAMES, CpuState, DescriptorTable, Gpr, Seg, SegmentRegister

__all__ = ["DEFAULT_FOLDED", "GROUPS", "register_rows"]

GROUPS: Final = ("segments", "control", "debug", "sse", "x87", "msrs")
"""Parts that can be folded, in order."""
DEFAULT_FOLDED: Final = frozenset({"sse", "x87"})

_ORDER: Final = (0, 3, 1, 2, 6, 7, 5, 4, *range(8, 16))
"""RAX RBX RCX RDX RSI RDI RBP RSP R8..R15, as debuggers list them."""
_WIDEST: Final = 46
"""Cells of a column of general registers, whatever the room."""
_SEGMENTS: Final = (Seg.CS, Seg.SS, Seg.DS, Seg.ES, Seg.FS, Seg.GS, Seg.LDTR, Seg.TR)


class _Frame(NamedTuple):
    """What every group needs."""

    view: View
    cpu: CpuState
    old: Mapping[str, object]
    width: int

    def before(self, name: str, now: int) -> int:
        """The value that register ``name`` had before the last command."""
        value = self.old.get(name, now)
        return value if isinstance(value, int) else now


def gpr_names(bits: int) -> tuple[str, ...]:
    """Names of the general registers at a width of 16, 32 or 64 bits, by encoding."""
    if bits == 64:
        return GPR_NAMES
    return tuple(("e" if bits == 32 else "") + name[1:] for name in GPR_NAMES[:8])


def shown_bits(cpu: CpuState) -> int:
    """The mode's width, or the next one that hides nothing of what the general registers hold."""
    most = max(cpu.gpr)
    if any(cpu.gpr[8:]) or most >> 32 or cpu.rip >> 32:
        return 64
    return max(cpu.mode, 32 if most >> 16 else 16)


def register_rows(view: View, width: int, folded: frozenset[str] = DEFAULT_FOLDED) -> list[Row]:
    """All rows of the panel; the caller windows them."""
    cpu = view.snapshot.cpu
    frame = _Frame(view, cpu, view.delta.registers, width)
    reader = Reader(view)
    bits = shown_bits(cpu)
    rows = _general(frame, reader, bits)
    rows += _pointer_and_flags(frame, reader, bits)
    for name in GROUPS:
        title, names, build = _BUILDERS[name]
        if (name == "x87" and not cpu.fpu) or (name == "msrs" and not (cpu.msrs or view.snapshot.msrs)):
            continue
        changed = any(known in frame.old for known in names)
        if name == "msrs":
            changed = any(known.startswith("msr:") for known in frame.old)
        rows.append(fold_header(width, name, title, folded=name in folded, changed=changed))
        if name not in folded:
            rows += build(frame)
    return rows


def _general(frame: _Frame, reader: Reader, bits: int) -> list[Row]:
    cpu, width = frame.cpu, frame.width
    names = gpr_names(bits)
    digits = bits // 4
    order = [n for n in _ORDER if n < len(names)]
    longest = max(len(name) for name in names)
    cell = 1 + longest + 1 + digits
    columns = max(1, min(2, (width + 1) // (cell + 1)))
    per_column = (len(order) + columns - 1) // columns
    share = min((width - columns + 1) // columns, _WIDEST)
    rows = []
    for line in range(per_column):
        spans: list[Span] = []
        for column in range(columns):
            at = column * per_column + line
            if at >= len(order):
                break
            number = order[at]
            value = cpu.gpr[number]
            before = frame.before(GPR_NAMES[number], value)
            note = "" if number == Gpr.RSP else _note(reader, value, share - cell - 1)
            spans += _gpr_cell(names[number], longest, value, before, digits, note, share, column < columns - 1)
        rows.append(row(width, spans))
    return rows


@lru_cache(maxsize=2048)
def _gpr_cell(
    name: str, longest: int, value: int, before: int, digits: int, note: str, share: int, filled: bool
) -> tuple[Span, ...]:
    key = Key(Kind.REGISTER, name, f"{value:#x}", value)
    changed = value != before
    spans = [CHANGED if changed else UNCHANGED, Span(name.ljust(longest + 1), "name")]
    spans += hex_spans(value, digits, before if changed else None, "value", key)
    if note:
        spans += (Span(" "), Span(note, "symbol" if note.startswith("<") else "comment"))
    cut = clip(spans, share)
    return (*cut, Span(" " * (share + 1 - width_of(cut)))) if filled else cut


def _note(reader: Reader, value: int, room: int) -> str:
    """What a value may stand for: a label, a number, text; empty where it would only repeat the digits."""
    if room < 4:
        return ""
    found = reader.symbols.words(value)
    if not found and 9 < value < 100_000:
        found = f"{value}"
    elif not found and value >> 63:
        negative = (1 << 64) - value
        found = f"-{negative}" if negative < 1_000_000 else ""
    return pad(found, room).rstrip() if len(found) > room else found


def _pointer_and_flags(frame: _Frame, reader: Reader, bits: int) -> list[Row]:
    cpu, width = frame.cpu, frame.width
    name = {64: "rip", 32: "eip", 16: "ip"}[bits]
    before = frame.before("rip", cpu.rip)
    spans = [CHANGED if before != cpu.rip else UNCHANGED, Span(f"{name} ".rjust(3), "name")]
    key = Key(Kind.REGISTER, name, f"{cpu.rip:#x}", cpu.pc)
    spans += hex_spans(cpu.rip, bits // 4, before if before != cpu.rip else None, "value", key)
    words = reader.symbols.words(cpu.pc)
    if words:
        spans += (Span(" "), Span(words, "symbol"))
    if cpu.pc != cpu.rip:
        spans += (Span("  linear "), Span(f"{cpu.pc:x}", "addr"))
    line = frame.view.line
    if line is not None:
        spans += (Span(" "), Span(f":{line}", "comment", Key(Kind.LINE, line)))
    state = [word for word, on in (("halted", cpu.halted), ("STI shadow", cpu.interrupt_shadow == 1)) if on]
    state += ["MOV SS shadow"] * (cpu.interrupt_shadow == 2)
    if state:
        spans += (Span("  "), Span(", ".join(state), "warn"))
    rows = [row(width, spans)]

    flags, flags_before = cpu.rflags, frame.before("rflags", cpu.rflags)
    label = {64: "rflags", 32: "eflags", 16: "flags"}[bits]
    key = Key(Kind.REGISTER, label if bits != 16 else "flags", f"{flags:#x}")
    digits = max(4 if bits == 16 and not flags >> 16 else 6, (flags.bit_length() + 3) // 4)
    changed = flags != flags_before
    head = [CHANGED if changed else UNCHANGED, Span(f"{label} ", "name")]
    head += (*hex_spans(flags, digits, flags_before if changed else None, "value", key), Span(" "))
    indent = 3
    lines = flag_words(flags, flags_before, width - width_of(head), width - indent)
    rows.append(row(width, (*head, *lines[0])))
    rows += [row(width, (Span(" " * indent), *line)) for line in lines[1:]]
    return rows


def _segment_rows(frame: _Frame) -> list[Row]:
    cpu = frame.cpu
    wide = 16 if any(cpu.segments[s].base >> 32 for s in _SEGMENTS) else 8
    long, real = bool(cpu.efer >> 10 & 1), not cpu.cr0 & 1 or bool(cpu.rflags >> 17 & 1)
    rows = [row(frame.width, (Span(f"      {'sel':4} {'base':{wide}} {'limit':8} hidden part", "comment"),))]
    for which in _SEGMENTS:
        now = cpu.segments[which]
        name = which.name.lower()
        old = frame.old.get(name)
        before = old if isinstance(old, SegmentRegister) else now
        rows.append(_segment_row(frame.width, which, name, now, before, wide, long, real))
    for name, table in (("gdtr", cpu.gdtr), ("idtr", cpu.idtr)):
        previous = frame.old.get(name)
        rows.append(
            _table_row(frame.width, name, table, previous if isinstance(previous, DescriptorTable) else table, wide)
        )
    return rows


@lru_cache(maxsize=256)
def _segment_row(
    width: int, which: Seg, name: str, now: SegmentRegister, before: SegmentRegister, wide: int, long: bool, real: bool
) -> Row:
    changed = now != before
    spans = [CHANGED if changed else UNCHANGED, Span(f"{name:4} ", "name")]
    for part, digits in (("selector", 4), ("base", wide), ("limit", 8)):
        value, was = getattr(now, part), getattr(before, part)
        full = name if part == "selector" else f"{name}.{part}"
        key = Key(Kind.REGISTER, full, f"{value:#x}", value if part == "base" else None)
        spans += (*hex_spans(value, digits, was if changed else None, "value", key), Span(" "))
    words, were = segment_words(now, which, long, real), segment_words(before, which, long, real)
    key = Key(Kind.REGISTER, f"{name}.attributes", f"{now.attributes:#x}")
    spans.append(Span(words, "changed" if changed and words != were else "dim", key))
    return row(width, spans)


@lru_cache(maxsize=64)
def _table_row(width: int, name: str, now: DescriptorTable, before: DescriptorTable, wide: int) -> Row:
    changed = now != before
    spans = [CHANGED if changed else UNCHANGED, Span(f"{name:4} ", "name"), Span("     ")]
    for part, digits in (("base", wide), ("limit", 8)):
        value, was = getattr(now, part), getattr(before, part)
        key = Key(Kind.REGISTER, f"{name}.{part}", f"{value:#x}", value if part == "base" else None)
        spans += (*hex_spans(value, digits, was if changed else None, "value", key), Span(" "))
    return row(width, spans)


@lru_cache(maxsize=512)
def _bits_rows(width: int, name: str, value: int, before: int, digits: int, with_bits: bool) -> tuple[Row, ...]:
    """``▸cr0 80050033 PG WP NE ET MP PE``, continued below where the line is full."""
    changed = value != before
    key = Key(Kind.REGISTER, name, f"{value:#x}", value)
    head = [CHANGED if changed else UNCHANGED, Span(f"{name:5} ", "name")]
    head += hex_spans(value, digits, before if changed else None, "value", key)
    if not with_bits:
        return (row(width, head),)
    head.append(Span(" "))
    indent = 8
    lines = bit_lines(name, value, before, width - width_of(head), width - indent)
    return (
        row(width, (*head, *lines[0])),
        *(row(width, (Span(" " * indent), *line)) for line in lines[1:]),
    )


def _control_rows(frame: _Frame) -> list[Row]:
    cpu = frame.cpu
    rows: list[Row] = []
    values = (
        ("cr0", cpu.cr0, 8, True), ("cr2", cpu.cr2, 16, False), ("cr3", cpu.cr3, 16, False), ("cr4", cpu.cr4, 8, True),
        ("cr8", cpu.cr8, 1, False), ("efer", cpu.efer, 8, True), ("xcr0", cpu.xcr0, 8, True),
        ("pkru", cpu.pkru, 8, True),
    )  # fmt: skip
    for name, value, digits, with_bits in values:
        rows += _bits_rows(frame.width, name, value, frame.before(name, value), digits, with_bits)
    return rows


_ACCESS: Final = ("execute", "write", "I/O", "read or write")
_LENGTHS: Final = (1, 2, 8, 4)


def breakpoint_words(dr7: int, number: int) -> str:
    """What DR7 makes of breakpoint register ``number``: ``execute``, ``write 4``, ``off``; ``L``/``G`` tells the enable bit."""
    enabled = ("L" if dr7 >> 2 * number & 1 else "") + ("G" if dr7 >> 2 * number + 1 & 1 else "")
    if not enabled:
        return "off"
    access = dr7 >> 16 + 4 * number & 3
    size = "" if access == 0 else f" {_LENGTHS[dr7 >> 18 + 4 * number & 3]}"
    return f"{enabled} {_ACCESS[access]}{size}"


def _debug_rows(frame: _Frame) -> list[Row]:
    cpu = frame.cpu
    digits = 16 if any(value >> 32 for value in cpu.dr) or cpu.mode == 64 else 8
    dr7_before = frame.before("dr7", cpu.dr[7])
    rows: list[Row] = []
    for number in range(4):
        name, value = f"dr{number}", cpu.dr[number]
        head = _bits_rows(frame.width, name, value, frame.before(name, value), digits, False)[0]
        words, were = breakpoint_words(cpu.dr[7], number), breakpoint_words(dr7_before, number)
        style = "changed" if words != were else "flag_off" if words == "off" else "flag_on"
        rows.append(row(frame.width, (*head.spans, Span(" "), Span(words, style))))
    for name, value in (("dr6", cpu.dr[6]), ("dr7", cpu.dr[7])):
        rows += _bits_rows(frame.width, name, value, frame.before(name, value), 8, True)
    return rows


def _sse_rows(frame: _Frame) -> list[Row]:
    cpu = frame.cpu
    rows = list(_bits_rows(frame.width, "mxcsr", cpu.mxcsr, frame.before("mxcsr", cpu.mxcsr), 8, True))
    for number, value in enumerate(cpu.xmm):
        rows += _bits_rows(frame.width, f"xmm{number}", value, frame.before(f"xmm{number}", value), 32, False)
    return rows


def _x87_rows(frame: _Frame) -> list[Row]:
    old = frame.old.get("fpu")
    return fpu_rows(frame.cpu.fpu, old if isinstance(old, bytes) else frame.cpu.fpu, frame.width)


def _msr_rows(frame: _Frame) -> list[Row]:
    """MSRs that are set or have just changed, by index; how many are 0 is said, not shown."""
    msrs = dict(frame.view.snapshot.msrs) | dict(frame.cpu.msrs)
    rows: list[Row] = []
    zero = 0
    names = {index: msr_name(index) for index in msrs}
    longest = min(max((len(name) for name in names.values()), default=0), max(8, frame.width - 19))
    for index in sorted(msrs):
        value = msrs[index]
        old = frame.old.get(f"msr:{index:#x}", value)
        before = old if isinstance(old, int) else 0
        if not value and before == value:
            zero += 1
            continue
        rows.append(_msr_row(frame.width, index, names[index], longest, value, before))
    if zero:
        rows.append(row(frame.width, (Span(f"  {zero} more are 0", "comment"),)))
    return rows


@lru_cache(maxsize=512)
def _msr_row(width: int, index: int, name: str, longest: int, value: int, before: int) -> Row:
    changed = value != before
    # Not a register that can be written by name; many hold an address, which can be looked at.
    key = Key(Kind.MEMORY, value, f"{value:#x}", value)
    return row(
        width,
        (
            CHANGED if changed else UNCHANGED,
            Span(pad(name, longest) + " ", "name"),
            *hex_spans(value, 16, before if changed else None, "value", key),
            Span(f" {index:#x}" if name != f"{index:#x}" else "", "comment"),
        ),
    )


_BUILDERS: Final[dict[str, tuple[str, frozenset[str], Callable[[_Frame], list[Row]]]]] = {
    "segments": ("segments", frozenset({*(s.name.lower() for s in _SEGMENTS), "gdtr", "idtr"}), _segment_rows),
    "control": (
        "control",
        frozenset({"cr0", "cr2", "cr3", "cr4", "cr8", "efer", "xcr0", "pkru"}),
        _control_rows,
    ),
    "debug": ("debug", frozenset({f"dr{n}" for n in range(8)}), _debug_rows),
    "sse": ("sse", frozenset({"mxcsr", *(f"xmm{n}" for n in range(16))}), _sse_rows),
    "x87": ("x87", frozenset({"fpu"}), _x87_rows),
    "msrs": ("msrs", frozenset(), _msr_rows),
}
