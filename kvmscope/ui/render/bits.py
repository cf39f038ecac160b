"""Bit fields as words: set bits upper case and bold, clear ones lower case and faint, changed ones marked as well."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from kvmscope.ui.line_panel import Span
from kvmscope.ui.render.text import width_of, wrap_words
from kvmscope.x86.bitfields import BIT_TABLES, Bit, defined_mask

__all__ = ["bit_lines", "flag_words"]

_INVERTED: Final = {("dr6", "BLD"), ("dr6", "RTM")}
"""Bits whose 0 says that something happened (SDM vol. 3B section 18.2.3): shown as ``RTM=0`` then, and not at all else."""

_ALWAYS_ONE: Final = {"rflags": 2, "dr6": 0xFFFE07F0, "dr7": 0x400}
"""Reserved bits that read as 1 and are no news."""

_BASIC: Final = frozenset({"OF", "DF", "IF", "TF", "SF", "ZF", "AF", "PF", "CF"})


def _word(register: str, bit: Bit, value: int, old: int) -> tuple[Span, ...] | None:
    """One field; None when it is not worth a word whatever the room."""
    now, before = bit.of(value), bit.of(old)
    inverted = (register, bit.name) in _INVERTED
    if inverted and now and before:
        return None
    style = "changed" if now != before else "flag_on" if now or inverted else "flag_off"
    if bit.width > 1 or inverted:
        return (Span(f"{bit.name if now or inverted else bit.name.lower()}={now:x}", style),)
    return (Span(bit.name if now else bit.name.lower(), style),)


def _fields(register: str) -> tuple[Bit, ...]:
    return tuple(reversed(BIT_TABLES[register]))


@lru_cache(maxsize=512)
def bit_lines(register: str, value: int, old: int, first: int, width: int) -> tuple[tuple[Span, ...], ...]:
    """The fields of a register, high bits first, in lines of ``first`` and then ``width`` cells.

    All fields where one line holds them; otherwise those that are set or have just changed, in as many lines as they
    take.  Bits that the table does not name but that are set come as ``bit22``.
    """
    table = BIT_TABLES[register]
    words = [(bit, _word(register, bit, value, old)) for bit in _fields(register)]
    unnamed = (value | old) & ~(defined_mask(table) | _ALWAYS_ONE.get(register, 0))
    extra = [
        (Span(f"bit{n}" if value >> n & 1 else f"-bit{n}", "changed" if (value ^ old) >> n & 1 else "warn"),)
        for n in range(unnamed.bit_length() - 1, -1, -1)
        if unnamed >> n & 1
    ]
    every = [word for _, word in words if word is not None] + extra
    if sum(width_of(word) + 1 for word in every) - 1 <= first:
        return (_joined(every),)
    some = [
        word
        for bit, word in words
        if word is not None and (bit.of(value) or bit.of(old) or (register, bit.name) in _INVERTED)
    ] + extra
    return tuple(tuple(line) for line in wrap_words(some, first, width))


@lru_cache(maxsize=512)
def flag_words(value: int, old: int, first: int, width: int) -> tuple[tuple[Span, ...], ...]:
    """RFLAGS in lines: the nine that instructions test are always there, the others when set, changed, or room is."""
    everything = bit_lines("rflags", value, old, first, width)
    if len(everything) == 1 and len([s for s in everything[0] if s.text.strip()]) >= len(_fields("rflags")):
        return everything
    basic: list[tuple[Span, ...]] = []
    rare: list[tuple[Span, ...]] = []
    for bit in _fields("rflags"):
        word = _word("rflags", bit, value, old)
        if word is None:
            continue
        if bit.name in _BASIC:
            basic.append(word)
        elif bit.of(value) or bit.of(old):
            rare.append(word)
    unnamed = value & ~(defined_mask(BIT_TABLES["rflags"]) | 2)
    rare += [(Span(f"bit{n}", "warn"),) for n in range(63, -1, -1) if unnamed >> n & 1]
    lines = wrap_words(basic, first, width)
    if rare and sum(width_of(word) + 1 for word in rare) + width_of(lines[-1]) <= (first if len(lines) == 1 else width):
        lines[-1] = [span for word in rare for span in (*word, Span(" "))] + lines[-1]
    elif rare:
        lines += wrap_words(rare, width, width)
    return tuple(tuple(line) for line in lines)


def _joined(words: Sequence[tuple[Span, ...]]) -> tuple[Span, ...]:
    out: list[Span] = []
    for word in words:
        if out:
            out.append(Span(" "))
        out.extend(word)
    return tuple(out)
