"""Traps at instruction starts: the user's breakpoints."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kvmscope.vmm.engine import Stop, StopReason
from kvmscope.vmm.unicorn.native import EDGE, HookKind
from kvmscope.vmm.unicorn.probe import COUNTER

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["Traps"]


class Traps:
    """All addresses whose instruction start calls back into Python."""

    def __init__(self) -> None:
        self._cpu: Cpu
        self._breakpoints: frozenset[int] = frozenset()
        self._resumed = False

    def attach(self, cpu: Cpu) -> None:
        """Set the processor; once."""
        self._cpu = cpu
        cpu.native.hook(HookKind.EDGE, EDGE, self._on_block)

    def resume(self) -> None:
        """A run begins: the breakpoint it stands at does not stop it again."""
        self._resumed = True

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """Replace the user's breakpoints."""
        self._breakpoints = frozenset(linear)
        self.arm()

    def arm(self) -> None:
        """Fill the probe's table anew."""
        self._cpu.debug_changed = False
        probe = self._cpu.probe
        probe.clear()
        for address in self._breakpoints:
            probe.add(address)

    def _on_block(self, _uc: int, block: int, _previous: int, _data: int) -> None:
        """A block was translated: note the pages its code is in."""
        cpu = self._cpu
        start = ctypes.c_uint64.from_address(block).value
        size = ctypes.c_uint16.from_address(block + 10).value
        pages = cpu.memory.code_pages
        for linear in {start & ~0xFFF, start + size - 1 & ~0xFFF}:
            physical = cpu.memory.probe(linear)
            if physical is not None:
                pages.add(physical >> 12)

    def on_start(self, address: int) -> None:
        """The probe trapped the instruction at ``address``."""
        cpu = self._cpu
        fields = cpu.probe.fields
        if address in self._breakpoints and not (self._resumed and fields[COUNTER] == 1):
            fields[COUNTER] -= 1
            cpu.pending = cpu.pending or Stop(StopReason.BREAKPOINT, cpu.clock, breakpoint=address)
            cpu.native.stop()
            return
        self._resumed = False
