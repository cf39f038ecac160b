"""Whether the branch at RIP will be taken, read from the flags (SDM vol. 1 appendix B, vol. 2A Jcc, LOOPcc)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from kvmscope.x86.state import CpuState, Gpr

__all__ = ["branch_target", "is_branch", "taken"]

_Condition = Callable[[int], bool]


def _flag(bit: int) -> _Condition:
    return lambda flags: bool(flags >> bit & 1)


def _not(condition: _Condition) -> _Condition:
    return lambda flags: not condition(flags)


def _less(flags: int) -> bool:
    return bool((flags >> 7 ^ flags >> 11) & 1)


def _less_or_equal(flags: int) -> bool:
    return _less(flags) or bool(flags >> 6 & 1)


def _below_or_equal(flags: int) -> bool:
    return bool(flags & 0x41)


_BASE: Final[tuple[tuple[tuple[str, ...], tuple[str, ...], _Condition], ...]] = (
    (("o",), ("no",), _flag(11)),
    (("b", "c", "nae"), ("ae", "nb", "nc"), _flag(0)),
    (("e", "z"), ("ne", "nz"), _flag(6)),
    (("be", "na"), ("a", "nbe"), _below_or_equal),
    (("s",), ("ns",), _flag(7)),
    (("p", "pe"), ("np", "po"), _flag(2)),
    (("l", "nge"), ("ge", "nl"), _less),
    (("le", "ng"), ("g", "nle"), _less_or_equal),
)
_CONDITIONS: Final[Mapping[str, _Condition]] = MappingProxyType(
    {f"j{name}": test for names, _, test in _BASE for name in names}
    | {f"j{name}": _not(test) for _, names, test in _BASE for name in names}
)
_COUNTED: Final = frozenset({"loop", "loope", "loopne", "loopz", "loopnz", "jcxz", "jecxz", "jrcxz"})
_ALWAYS: Final = frozenset({"jmp", "call"})


def is_branch(mnemonic: str) -> bool:
    """True for near jumps, calls and loops."""
    return mnemonic in _CONDITIONS or mnemonic in _COUNTED or mnemonic in _ALWAYS


def taken(mnemonic: str, cpu: CpuState, data: bytes = b"") -> bool | None:
    """Whether the branch will be taken now; None for what is no conditional branch.

    ``data`` are the instruction's bytes: an address-size prefix changes the width of LOOP's counter.
    """
    condition = _CONDITIONS.get(mnemonic)
    if condition is not None:
        return condition(cpu.rflags)
    if mnemonic not in _COUNTED:
        return None
    bits = cpu.mode
    if 0x67 in data[:4]:
        bits = {64: 32, 32: 16, 16: 32}[bits]
    count = cpu.gpr[Gpr.RCX] & (1 << bits) - 1
    if mnemonic.startswith("j"):
        return count == 0
    left = (count - 1) & (1 << bits) - 1
    zero = bool(cpu.rflags >> 6 & 1)
    if mnemonic in ("loope", "loopz"):
        return left != 0 and zero
    if mnemonic in ("loopne", "loopnz"):
        return left != 0 and not zero
    return left != 0


def branch_target(mnemonic: str, operands: str) -> int | None:
    """The address written in a direct branch; None for others."""
    if not is_branch(mnemonic):
        return None
    text = operands.strip().lstrip("*$")
    try:
        return int(text, 0)
    except ValueError:
        return None
