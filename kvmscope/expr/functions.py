"""The functions of the language, as a table: what a scope's ``call`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FUNCTIONS", "Function"]


@dataclass(frozen=True, slots=True)
class Function:
    """A function of one argument; ``takes`` are the types it accepts."""

    name: str
    takes: tuple[type, ...]
    meaning: str
    size: int = 0
    """Bytes read, for the memory functions."""
    physical: bool = False


def _memory() -> tuple[Function, ...]:
    out = []
    for letter, space, physical in (("u", "linear", False), ("p", "physical", True)):
        for bits in (8, 16, 32, 64):
            meaning = f"the {bits}-bit little-endian value at a {space} address"
            out.append(Function(f"{letter}{bits}", (int,), meaning, bits // 8, physical))
    return tuple(out)


FUNCTIONS: Final = {
    function.name: function
    for function in (
        *_memory(),
        Function("msr", (int, str), "the value of an MSR, by index or name"),
        Function("count", (int, str), "how often an exception ('#PF') or a vector (0x80) was raised"),
    )
}
