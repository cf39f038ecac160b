"""Pieces of C text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvmscope.export.kut.conditions import KUT_VECTORS
from kvmscope.x86.exceptions import has_error_code

__all__ = ["bit_names", "chain", "coded_mask", "indent", "is_wrapped", "wrapped"]

_BITS: Final[Mapping[str, tuple[tuple[int, str], ...]]] = {
    "CR0": ((31, "X86_CR0_PG"), (18, "X86_CR0_AM"), (16, "X86_CR0_WP"), (5, "X86_CR0_NE"), (4, "X86_CR0_ET"),
            (3, "X86_CR0_TS"), (2, "X86_CR0_EM"), (1, "X86_CR0_MP"), (0, "X86_CR0_PE")),
    "CR4": ((5, "X86_CR4_PAE"), (9, "X86_CR4_OSFXSR"), (10, "X86_CR4_OSXMMEXCPT"), (7, "X86_CR4_PGE"),
            (11, "X86_CR4_UMIP"), (16, "X86_CR4_FSGSBASE"), (17, "X86_CR4_PCIDE"), (18, "X86_CR4_OSXSAVE"),
            (20, "X86_CR4_SMEP"), (21, "X86_CR4_SMAP"), (22, "X86_CR4_PKE"), (2, "X86_CR4_TSD"), (3, "X86_CR4_DE"),
            (4, "X86_CR4_PSE"), (6, "X86_CR4_MCE"), (8, "X86_CR4_PCE")),
    "EFER": ((0, "EFER_SCE"), (8, "EFER_LME"), (10, "EFER_LMA"), (11, "EFER_NX"), (12, "EFER_SVME")),
}  # fmt: skip


def bit_names(register: str, value: int) -> str:
    """``X86_CR0_PG | X86_CR0_WP``; bits without a name as a number."""
    names = []
    for bit, name in _BITS[register]:
        if value >> bit & 1:
            names.append(name)
            value &= ~(1 << bit)
    if value:
        names.append(f"{value:#x}ul")
    return " | ".join(names) or "0"


def chain(blocks: list[tuple[str, list[str]]]) -> str:
    """``if`` .. ``else if`` .. ``else``, with braces where one branch has more than one statement."""
    braces = any(len(body) > 1 for _, body in blocks)
    text = ""
    for head, body in blocks:
        lead = "" if not text else " else" if braces else "\nelse"
        text += " ".join(part for part in (lead, head, "{" if braces else "") if part) + "\n"
        text += "\n".join(f"\t{line}" for line in body) + ("\n}" if braces else "")
    return text


def coded_mask() -> str:
    """Vectors that push an error code, as a mask."""
    mask = sum(1 << vector for vector in KUT_VECTORS if has_error_code(vector))
    return f"{mask:#x}"


def indent(text: str) -> str:
    """``text`` one tab further in."""
    return "\n".join(f"\t{line}" if line else "" for line in text.split("\n"))


def is_wrapped(text: str) -> bool:
    """True when one pair of parentheses encloses all of ``text``."""
    if not text.startswith("(") or not text.endswith(")"):
        return False
    depth = 0
    for number, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return number == len(text) - 1
    return False


def wrapped(text: str, width: int = 100) -> str:
    """Break a long initializer behind commas."""
    words, lines = text.split(" "), [""]
    for word in words:
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("\t")
        lines[-1] += word if not lines[-1].strip() else f" {word}"
    return "\n".join(lines)
