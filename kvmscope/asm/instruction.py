"""A decoded instruction, and what it does to the flow of control."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = [
    "BAD",
    "Instruction",
    "branch_target",
    "is_branch",
    "is_call",
    "is_conditional",
    "is_rep",
    "is_ret",
    "is_software_interrupt",
]

BAD: Final = "(bad)"
"""Mnemonic of a byte that is no instruction."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction, or one byte that is none (``known`` False, mnemonic ``(bad)``)."""

    address: int
    data: bytes
    mnemonic: str
    """With its prefix, as ``rep movsb`` and ``lock add``."""
    operands: str
    known: bool = True

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    @property
    def text(self) -> str:
        """Mnemonic and operands."""
        return f"{self.mnemonic} {self.operands}".rstrip()


_NUMBER: Final = re.compile(r"0x[0-9a-f]+|\d+")
_STRINGS: Final = ("movs", "stos", "lods", "cmps", "scas", "ins", "outs")
_RETURNS: Final = frozenset(
    [
        "ret",
        "retw",
        "retl",
        "retq",
        "retf",
        "retfq",
        "lret",
        "lretw",
        "lretl",
        "lretq",
        "iret",
        "iretw",
        "iretl",
        "iretd",
        "iretq",
        "sysret",
        "sysretl",
        "sysretq",
        "sysexit",
        "sysexitl",
        "sysexitq",
        "uiret",
        "erets",
        "eretu",
    ]
)
_CALLS: Final = frozenset(["call", "callw", "calll", "callq", "lcall", "lcallw", "lcalll", "lcallq"])
_INTERRUPTS: Final = frozenset(["int", "int1", "int3", "into"])


def _word(instruction: Instruction) -> str:
    """The mnemonic without prefixes."""
    return instruction.mnemonic.rsplit(" ", 1)[-1]


def is_call(instruction: Instruction) -> bool:
    """A near or far CALL: what steps over enter and what a return comes back behind."""
    return _word(instruction) in _CALLS


def is_ret(instruction: Instruction) -> bool:
    """A return of any kind: RET, far RET, IRET, SYSRET, SYSEXIT, ..."""
    return _word(instruction) in _RETURNS


def is_rep(instruction: Instruction) -> bool:
    """A string instruction with a repeat prefix: one instruction, many steps."""
    first, _, rest = instruction.mnemonic.partition(" ")
    return first.startswith("rep") and rest.startswith(_STRINGS)


def is_conditional(instruction: Instruction) -> bool:
    """A conditional jump, LOOP included."""
    word = _word(instruction)
    return (word[:1] == "j" and not word.startswith("jmp")) or word.startswith("loop")


def is_branch(instruction: Instruction) -> bool:
    """A jump, conditional or not, near or far; calls and returns are not."""
    return is_conditional(instruction) or _word(instruction).startswith(("jmp", "ljmp", "xbegin"))


def is_software_interrupt(instruction: Instruction) -> bool:
    """INT n, INT3, INTO or INT1."""
    return _word(instruction) in _INTERRUPTS


def branch_target(instruction: Instruction) -> int | None:
    """Where a direct near jump or call goes; None for indirect and far ones and for all other instructions."""
    if not (is_branch(instruction) or is_call(instruction)):
        return None
    return int(instruction.operands, 0) if _NUMBER.fullmatch(instruction.operands) else None
