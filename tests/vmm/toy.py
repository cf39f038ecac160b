"""A processor simple enough to be surely right, with the one thing that makes replays hard: hidden state.

Each tick it scrambles RAX and, by its value, stores to RAM, loads through a cache that is never invalidated by stores
(as a TLB is not), writes ports or raises an event.  `restore` and nothing else drops the cache.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from dataclasses import replace

from kvmscope.vmm.engine import Activity, Capability, EngineHost, Stop, StopReason
from kvmscope.vmm.events import ModeEvent
from kvmscope.x86.state import CpuState

__all__ = ["ToyEngine"]

_WINDOW = 1 << 16


class ToyEngine:
    name = "toy"
    capabilities = frozenset({Capability.STEP, Capability.EXACT_COUNT})

    def __init__(self, ram: mmap.mmap, host: EngineHost) -> None:
        self._ram = ram
        self._host = host
        self._cache: dict[int, int] = {}
        self._state: CpuState | None = None
        self._regs = [0, 0, 0]
        """RAX, RBX, RIP."""
        self.clock = 0
        self._breakpoints: frozenset[int] = frozenset()
        self._request: Stop | None = None
        self.executed = 0
        """Ticks ever executed, replays included."""

    vcpu = 0
    vcpus = 1
    frozen: frozenset[int] = frozenset()

    def activity(self, vcpu: int) -> Activity:
        return Activity.ACTIVE

    def get_state(self, vcpu: int | None = None) -> CpuState:
        assert self._state is not None
        rax, rbx, rip = self._regs
        gpr = self._state.gpr
        return replace(self._state, gpr=(rax, gpr[1], gpr[2], rbx, *gpr[4:]), rip=rip)

    def set_state(self, state: CpuState, vcpu: int | None = None) -> None:
        self._state = state
        self._regs = [state.gpr[0], state.gpr[3], state.rip]

    def _tick(self) -> Stop | None:
        self.clock += 1
        self.executed += 1
        rax = (self._regs[0] * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
        self._regs[0] = rax
        self._regs[2] = 0x400000 + (rax >> 33) % 64
        action, address = rax >> 60, 0x200000 + (rax >> 20) % _WINDOW // 8 * 8
        if action < 6:
            struct.pack_into("<Q", self._ram, address, rax)
        elif action < 12:
            if address not in self._cache:
                self._cache[address] = struct.unpack_from("<Q", self._ram, address)[0]
            self._regs[1] = (self._regs[1] + self._cache[address]) & (1 << 64) - 1
        elif action == 12:
            self._host.port_write(0x3F8 if rax & 1 else 0xE9, 1, rax >> 8 & 0xFF, self._regs[2])
        elif action == 13:
            self._regs[1] ^= self._host.port_read(0xE0, 4, self._regs[2])
            self._host.port_write(0xE0, 4, self._regs[1], self._regs[2])
        elif action == 14:
            self._host.mmio_write(0xFF000000 + (rax >> 8) % 65528, 8, rax, self._regs[2])
        elif rax & 0xFFF == 7:
            return Stop(StopReason.EXCEPTION, self.clock, "toy")
        else:
            self._host.record(ModeEvent(self.clock, self._regs[2], 0, "toy"))
        return None

    def run(self, ticks: int) -> Stop:
        for done in range(ticks):
            if done and self._regs[2] in self._breakpoints:
                return Stop(StopReason.BREAKPOINT, self.clock, breakpoint=self._regs[2])
            stop = self._tick() or self._request
            if stop is not None:
                self._request = None
                return stop
        return Stop(StopReason.SLICE, self.clock)

    def step(self, vcpu: int | None = None) -> Stop:
        stop = self._tick() or self._request or Stop(StopReason.STEP, self.clock)
        self._request = None
        return stop

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        self._breakpoints = frozenset(linear)

    def request_stop(self, stop: Stop) -> None:
        self._request = self._request or stop

    def capture(self) -> bytes:
        return struct.pack("<3Q", *self._regs)

    def decode(self, raw: bytes) -> CpuState:
        raise NotImplementedError

    def restore(self, raw: bytes, clock: int, dirty_pages: Iterable[int]) -> None:
        self._regs = list(struct.unpack("<3Q", raw))
        self.clock = clock
        self._cache.clear()

    def memory_written(self, physical: int, size: int) -> None:
        pass

    def close(self) -> None:
        pass
