"""DR0-3 (SDM vol. 3B section 17.2): execution, data and I/O breakpoints.

Unicorn's own data breakpoints never fire and its execution breakpoints are host pointers inside the state, so all of
it is done here: execution through the probe, data through memory hooks that exist only while a data breakpoint is
enabled (about 1 million accesses a second then), I/O where the port hooks are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn import decode
from kvmscope.vmm.unicorn.env import CR, HF, HFLAGS, M64, SS_BASE, base_index
from kvmscope.vmm.unicorn.faults import Fault
from kvmscope.vmm.unicorn.lengths import first_instruction
from kvmscope.vmm.unicorn.native import MEM, HookKind
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["DebugRegisters", "is_repeating", "is_repeating_from"]

_EXECUTE, _WRITE, _IO, _ACCESS = range(4)
_LENGTHS: Final = (1, 2, 8, 4)
_MEM_WRITE: Final = 17
"""Unicorn's access type of a store."""
STRING: Final = frozenset({*range(0xA4, 0xA8), *range(0xAA, 0xB0), *range(0x6C, 0x70)})


def is_repeating(cpu: Cpu, address: int, field: int) -> bool:
    """True if a REP string instruction at ``address`` has run already, by the probe's ``field``: iterations are left."""
    return is_repeating_from(cpu, address, cpu.probe.fields[field])


def is_repeating_from(cpu: Cpu, address: int, last: int) -> bool:
    """The same, ``last`` being the instruction that executed before."""
    if last != address:
        return False
    h = cpu.env.d[HFLAGS]
    shape = first_instruction(cpu.memory.peek(address, 15), bool(h & HF.CS64), bool(h & HF.CS32))
    return shape is not None and bool(shape.rep) and shape.opcode in STRING


class DebugRegisters:
    """What the enabled breakpoints watch, and what they have hit since the last #DB."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self.execute: dict[int, int] = {}
        """Linear address to DR6 bits."""
        self._data: list[tuple[int, int, int, bool]] = []
        """(first, last, DR6 bit, reads too), linear."""
        self._ports: list[tuple[int, int, int]] = []
        self._hook: int | None = None
        self.hits = 0
        """DR6 bits of data and I/O breakpoints hit by the instruction that runs."""

    def arm(self) -> None:
        """Take over DR0-3 and DR7; only between two slices."""
        cpu = self._cpu
        self.execute, self._data, self._ports = {}, [], []
        dr7 = cpu.dr[7]
        for i in range(4):
            if not dr7 >> 2 * i & 3:
                continue
            kind, length = dr7 >> 16 + 4 * i & 3, _LENGTHS[dr7 >> 18 + 4 * i & 3]
            # Data and I/O addresses are aligned to the length.
            first = cpu.dr[i] & ~(length - 1)
            if kind == _EXECUTE:
                self.execute[cpu.dr[i]] = self.execute.get(cpu.dr[i], 0) | 1 << i
            elif kind == _IO:
                if cpu.env.q[CR + 4] & 1 << 3:
                    self._ports.append((first & 0xFFFF, (first & 0xFFFF) + length - 1, 1 << i))
            else:
                self._data.append((first, first + length - 1, 1 << i, kind == _ACCESS))
        if bool(self._data) != (self._hook is not None):
            self._switch_hook()

    def _switch_hook(self) -> None:
        native = self._cpu.native
        if self._hook is not None:
            native.unhook(self._hook)
            self._hook = None
        else:
            self._hook = native.hook(HookKind.MEM_READ | HookKind.MEM_WRITE, MEM, self._on_access)
        # Translated code has memory hooks built in, or not.
        native.flush_blocks()

    def take(self) -> int:
        """The hits so far, forgotten now."""
        hits, self.hits = self.hits, 0
        return hits

    def on_port(self, port: int, size: int) -> None:
        """An IN or OUT."""
        for first, last, bit in self._ports:
            if port <= last and port + size > first:
                self.hits |= bit
                self._cpu.break_slice()

    def _on_access(self, _uc: int, kind: int, physical: int, size: int, _value: int, _data: int) -> None:
        write = kind == _MEM_WRITE
        for first, last, bit, reads in self._data:
            if not write and not reads:
                continue
            # Unicorn gives the physical address, whose low 12 bits are those of the linear one.
            delta = (first - physical + 0x800 & 0xFFF) - 0x800
            if delta < size and delta + last - first >= 0 and self._is_linear(first, last, physical, size):
                self.hits |= bit
                self._cpu.break_slice()

    def _is_linear(self, first: int, last: int, physical: int, size: int) -> bool:
        """Whether the access is to [first, last] by its linear address."""
        cpu = self._cpu
        found = [c for c in self._operands() if c & 0xFFF == physical & 0xFFF]
        if found:
            return any(c <= last and c + size > first for c in found)
        # A part of a larger operand, or a structure: go by what the address maps to.
        mapped = cpu.memory.probe(first)
        return mapped is not None and mapped <= physical + size - 1 and mapped + last - first >= physical

    def _operands(self) -> list[int]:
        """Linear addresses where the current instruction's memory operands may start."""
        cpu = self._cpu
        env = cpu.env
        q, h = env.q, env.d[HFLAGS]
        code64 = bool(h & HF.CS64)
        data = cpu.memory.peek(env.linear_ip, 15)
        shape = first_instruction(data, code64, bool(h & HF.CS32))
        if shape is None:
            return []
        out = []
        if 0 < shape.modrm < 0xC0:
            ins = decode.decode(cpu, data[: shape.length], length=shape.length)
            try:
                out.append(decode.linear(cpu, ins, 1))
            except Fault:
                return []
        elif shape.opcode in STRING:
            mask = M64 if code64 else 0xFFFFFFFF if h & HF.CS32 else 0xFFFF
            for register, segment in ((6, Seg.DS), (7, Seg.ES)):
                out.append((q[register] & mask) + (0 if code64 else q[base_index(segment)]))
        stack = 0 if code64 else q[SS_BASE]
        out += [q[4] + stack & M64, *(q[4] - width + stack & M64 for width in (2, 4, 8))]
        return out
