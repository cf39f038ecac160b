"""Calls and deliveries that have not returned, told by instructions and the stack pointer alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmscope.x86.state import CpuState, Seg

__all__ = ["CALLS", "RETURNS", "Frame", "follow", "stack_pointer"]

CALLS: Final = frozenset({"call", "lcall", "int", "int3", "into", "syscall", "sysenter"})
"""Instructions that lead to code which returns behind them."""
RETURNS: Final = frozenset({"ret", "retf", "retfq", "iret", "iretd", "iretq", "sysret", "sysretq", "sysexit"})


@dataclass(frozen=True, slots=True)
class Frame:
    """A call (or delivery) seen while replaying: where it was made, and the stack pointer its return finds."""

    tick: int
    inner: int
    """RSP inside, before the return instruction takes the return address."""


def follow(frames: list[Frame], tick: int, mnemonic: str, before: CpuState, after: CpuState, delivered: bool) -> None:
    """Bring ``frames`` up to date with one step made at ``tick``; ``delivered``: it delivered an exception or interrupt."""
    if delivered or mnemonic in CALLS:
        frames.append(Frame(tick, stack_pointer(after)))
    elif mnemonic in RETURNS:
        pointer = stack_pointer(before)
        # A handler drops the error code before its IRET.
        slot = before.mode // 8 if mnemonic.startswith("iret") else 0
        for index in range(len(frames) - 1, -1, -1):
            if pointer in (frames[index].inner, frames[index].inner + slot):
                del frames[index:]
                break


def stack_pointer(cpu: CpuState) -> int:
    """RSP as the stack segment's size takes it."""
    if cpu.mode == 64:
        return cpu.gpr[4]
    return cpu.gpr[4] & (0xFFFFFFFF if cpu.segments[Seg.SS].db else 0xFFFF)
