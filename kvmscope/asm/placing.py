"""Where sections lie: what may not be."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from kvmscope.asm.image import Diagnostic, Severity

__all__ = ["align_problems", "overlaps"]


def overlaps(runs: Iterable[tuple[str, int, int]]) -> list[Diagnostic]:
    """An error for every two neighbours of ``(name, address, size)`` that share an address."""
    ordered = sorted((address, name, size) for name, address, size in runs if size)
    found = []
    for (address, name, size), (other, other_name, other_size) in pairwise(ordered):
        if address + size > other:
            message = (
                f"section {name} ({address:#x}-{address + size - 1:#x}) overlaps "
                f"section {other_name} ({other:#x}-{other + other_size - 1:#x})"
            )
            found.append(Diagnostic(1, 1, Severity.ERROR, message, "give one of them another address"))
    return found


def align_problems(sections: Iterable[tuple[str, int, int]]) -> list[Diagnostic]:
    """A warning for every ``(name, address, alignment)`` that does not begin at a multiple of its alignment."""
    return [
        Diagnostic(
            1, 1, Severity.WARNING,
            f"section {name} wants an alignment of {align} but begins at {address:#x}",
            ".align and .balign count from the beginning of the section; choose an origin that is a multiple",
        )
        for name, address, align in sections
        if address % align
    ]  # fmt: skip
