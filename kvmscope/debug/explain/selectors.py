"""Descriptors by selector, and the checks that loading one has to pass (SDM vol. 3A sections 5.4 to 5.8).

Each load is a sequence of named checks in the manual's order; the first that fails is the cause, and it says with
which error code the processor reports it, so that a cause which does not fit the event is never given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kvmscope.debug.explain.model import Guest
from kvmscope.x86.descriptors import Descriptor, decode
from kvmscope.x86.state import Seg

__all__ = [
    "CODE_FAR",
    "CODE_RETURN",
    "DATA",
    "LDT",
    "STACK",
    "TSS",
    "Entry",
    "Failure",
    "check",
    "describe",
    "entry_of",
]

_NULL: Final = Descriptor(0)


@dataclass(frozen=True, slots=True)
class Entry:
    """A descriptor as it stands in memory, with where it stands."""

    selector: int
    """Selector; for the IDT the vector."""
    table: str
    """``GDT``, ``LDT`` or ``IDT``."""
    address: int
    """Linear."""
    found: Descriptor | None
    """None when beyond the table's limit or unreadable."""
    limit: int
    """Limit of the table."""
    beyond: bool = False

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor, a null one when there is none to read."""
        return self.found or _NULL

    @property
    def place(self) -> str:
        """``GDT[0x70] at 0x1070``."""
        index = self.selector if self.table == "IDT" else self.selector & 0xFFF8
        return f"{self.table}[{index:#x}] at {self.address:#x}"


def entry_of(guest: Guest, selector: int) -> Entry:
    """The descriptor that ``selector`` names."""
    if selector & 4:
        ldt = guest.cpu.segments[Seg.LDTR]
        # A null or unusable LDTR has no table: every index is beyond its limit.
        usable = ldt.selector & 0xFFFC and ldt.present
        table, base, limit = "LDT", ldt.base, ldt.limit if usable else -1
    else:
        table, base, limit = "GDT", guest.cpu.gdtr.base, guest.cpu.gdtr.limit
    offset = selector & 0xFFF8
    address = base + offset
    if offset + 7 > limit:
        return Entry(selector, table, address, None, max(limit, 0), beyond=True)
    data = guest.read(address, 8)
    if data is not None and guest.long_mode and offset + 15 <= limit:
        data = guest.read(address, 16) or data
    found = None if data is None else decode(data, long=guest.long_mode)
    return Entry(selector, table, address, found, limit)


def describe(entry: Entry) -> str:
    """One line: place, raw value, meaning."""
    if entry.beyond:
        return f"{entry.place} is beyond the {entry.table} limit {entry.limit:#x}"
    if entry.found is None:
        return f"{entry.place} cannot be read"
    return f"{entry.place} = {entry.found.raw:#0{2 + 2 * entry.found.size}x}: {entry.found.describe()}"


@dataclass(frozen=True, slots=True)
class Failure:
    """A check that failed: the vector, whether the selector is the error code (else 0), and why."""

    vector: int
    selector_code: bool
    words: str


@dataclass(frozen=True, slots=True)
class _Load:
    """What a check looks at."""

    guest: Guest
    entry: Entry
    selector: int
    cpl: int

    @property
    def rpl(self) -> int:
        return self.selector & 3

    @property
    def null(self) -> bool:
        return self.selector & 0xFFFC == 0

    @property
    def segment(self) -> Descriptor:
        return self.entry.descriptor

    @property
    def code(self) -> bool:
        return bool(self.segment.s and self.segment.type & 8)


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: ``failed`` on the load, the fault it raises and the words for it."""

    failed: Callable[[_Load], bool]
    vector: int
    selector_code: bool
    words: str


_GP, _NP, _SS = 13, 11, 12


_BEYOND: Final = Check(lambda x: x.entry.beyond, _GP, True, "the selector is beyond the {table} limit {limit:#x}")
_NOT_PRESENT: Final = Check(lambda x: not x.segment.present, _NP, True, "P = 0")

DATA: Final[tuple[Check, ...]] = (
    _BEYOND,
    Check(lambda x: not x.segment.s, _GP, True, "it is {kind}, not data or readable code"),
    Check(lambda x: x.code and not x.segment.type & 2, _GP, True, "it is execute-only code"),
    Check(lambda x: not (x.code and x.segment.type & 4) and max(x.rpl, x.cpl) > x.segment.dpl, _GP, True,
          "privilege: CPL = {cpl}, RPL = {rpl}, DPL = {dpl} (both must be <= DPL)"),
    _NOT_PRESENT,
)  # fmt: skip
"""Loading DS, ES, FS or GS (SDM vol. 2B MOV)."""

STACK: Final[tuple[Check, ...]] = (
    Check(lambda x: x.null and (x.guest.bits != 64 or x.cpl == 3 or x.rpl != x.cpl), _GP, False,
          "SS cannot be loaded with a null selector here (CPL = {cpl}, RPL = {rpl}, {bits}-bit code)"),
    _BEYOND,
    Check(lambda x: x.rpl != x.cpl, _GP, True, "RPL = {rpl} differs from CPL = {cpl}"),
    Check(lambda x: not x.segment.s or x.code or not x.segment.type & 2, _GP, True,
          "it is {kind}, not writable data"),
    Check(lambda x: x.segment.dpl != x.cpl, _GP, True, "DPL = {dpl} differs from CPL = {cpl}"),
    Check(lambda x: not x.segment.present, _SS, True, "P = 0"),
)  # fmt: skip
"""Loading SS (SDM vol. 2B MOV, POP, LSS)."""

_CODE_TYPE: Final = (
    Check(lambda x: x.null, _GP, False, "CS cannot be loaded with a null selector"),
    _BEYOND,
)
_LONG_AND_DEFAULT: Final = Check(
    lambda x: x.code and bool(x.guest.long_mode and x.segment.raw >> 53 & 1 and x.segment.raw >> 54 & 1),
    _GP,
    True,
    "both L = 1 and D = 1",
)

# System types that a far JMP or CALL may name, by IA-32e mode.
_FAR_SYSTEM: Final[dict[bool, frozenset[int]]] = {False: frozenset({1, 4, 5, 9, 12}), True: frozenset({12})}

CODE_FAR: Final[tuple[Check, ...]] = (
    *_CODE_TYPE,
    Check(lambda x: bool(x.segment.s) and not x.code, _GP, True, "it is {kind}, not code"),
    Check(lambda x: not x.segment.s and x.segment.type not in _FAR_SYSTEM[x.guest.long_mode], _GP, True,
          "it is {kind}, which a far transfer cannot use here"),
    Check(lambda x: not x.segment.s and (x.segment.dpl < x.cpl or x.rpl > x.segment.dpl), _GP, True,
          "gate or TSS privilege: CPL = {cpl}, RPL = {rpl}, DPL = {dpl} (both must be <= DPL)"),
    _LONG_AND_DEFAULT,
    Check(lambda x: x.code and bool(x.segment.type & 4) and x.segment.dpl > x.cpl, _GP, True,
          "conforming code: DPL = {dpl} exceeds CPL = {cpl}"),
    Check(lambda x: x.code and not x.segment.type & 4 and (x.rpl > x.cpl or x.segment.dpl != x.cpl), _GP, True,
          "nonconforming code: CPL = {cpl}, RPL = {rpl}, DPL = {dpl} (DPL must equal CPL, RPL <= CPL)"),
    _NOT_PRESENT,
)  # fmt: skip
"""Far JMP and CALL (SDM vol. 2A CALL)."""

CODE_RETURN: Final[tuple[Check, ...]] = (
    *_CODE_TYPE,
    Check(lambda x: not x.code, _GP, True, "it is {kind}, not code"),
    _LONG_AND_DEFAULT,
    Check(lambda x: x.rpl < x.cpl, _GP, True, "RPL = {rpl} is below CPL = {cpl}: a return cannot raise privilege"),
    Check(lambda x: bool(x.segment.type & 4) and x.segment.dpl > x.rpl, _GP, True,
          "conforming code: DPL = {dpl} exceeds RPL = {rpl}"),
    Check(lambda x: not x.segment.type & 4 and x.segment.dpl != x.rpl, _GP, True,
          "nonconforming code: DPL = {dpl} differs from RPL = {rpl}"),
    _NOT_PRESENT,
)  # fmt: skip
"""Far RET and IRET (SDM vol. 2A IRET, vol. 2B RET)."""

TSS: Final[tuple[Check, ...]] = (
    Check(lambda x: x.null, _GP, False, "TR cannot be loaded with a null selector"),
    Check(lambda x: bool(x.selector & 4), _GP, True, "the selector names the LDT (TI = 1)"),
    _BEYOND,
    Check(lambda x: bool(x.segment.s) or x.segment.type not in (1, 9), _GP, True, "it is {kind}, not an available TSS"),
    _NOT_PRESENT,
)
"""LTR (SDM vol. 2A LTR)."""

LDT: Final[tuple[Check, ...]] = (
    Check(lambda x: bool(x.selector & 4), _GP, True, "the selector names the LDT (TI = 1)"),
    _BEYOND,
    Check(lambda x: bool(x.segment.s) or x.segment.type != 2, _GP, True, "it is {kind}, not an LDT"),
    _NOT_PRESENT,
)
"""LLDT (SDM vol. 2A LLDT)."""


def _kind(descriptor: Descriptor) -> str:
    return f"a {descriptor.kind} descriptor" + (f" ({descriptor.bits}-bit)" if descriptor.bits else "")


def check(guest: Guest, selector: int, checks: Sequence[Check], *, cpl: int | None = None) -> Failure | None:
    """The first of ``checks`` that loading ``selector`` fails; None when it passes them all."""
    entry = entry_of(guest, selector)
    load = _Load(guest, entry, selector, guest.cpu.cpl if cpl is None else cpl)
    if checks in (DATA, LDT) and load.null:
        return None
    if checks is STACK and load.null and not STACK[0].failed(load):
        return None
    for rule in checks:
        if rule is not _BEYOND and not entry.beyond and entry.found is None:
            return None
        if rule.failed(load):
            segment = load.segment
            words = rule.words.format(
                cpl=load.cpl,
                rpl=load.rpl,
                dpl=segment.dpl,
                kind=_kind(segment),
                table=entry.table,
                limit=entry.limit,
                bits=guest.bits,
            )
            return Failure(rule.vector, rule.selector_code, words)
    return None
