"""The engine contract: state in, run within a budget, a reason out (shaped like KVM's own interface).

Port and memory-mapped I/O go to the machine's `Bus`, whichever engine runs.  An engine states its
capabilities; asking for a missing one raises `EngineError`, never silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from kvmscope.vmm.events import Event, ExceptionEvent
from kvmscope.x86.state import CpuState

__all__ = ["Capability", "Engine", "EngineHost", "Stop", "StopReason"]


class StopReason(StrEnum):
    """Why the machine is not running."""

    READY = "ready"
    STEP = "step"
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    EXCEPTION = "exception"
    """An exception without a handler of the guest's own; state is at the faulting instruction."""
    TRIPLE_FAULT = "triple-fault"
    DEBUG_EXIT = "debug-exit"
    HLT = "hlt"
    """HLT with nothing that could wake the processor."""
    BUDGET = "budget"
    """Out of instructions, wall time or output; ``detail`` says which."""
    PAUSED = "paused"
    SLICE = "slice"
    """The number of ticks asked for has passed."""
    UNSUPPORTED = "unsupported"
    """The engine cannot execute this instruction exactly, and says so instead of guessing."""
    ERROR = "error"

    @property
    def final(self) -> bool:
        """True when the guest cannot go on."""
        return self in _FINAL


_FINAL = {
    StopReason.EXCEPTION,
    StopReason.TRIPLE_FAULT,
    StopReason.DEBUG_EXIT,
    StopReason.HLT,
    StopReason.UNSUPPORTED,
    StopReason.ERROR,
}


@dataclass(frozen=True, slots=True)
class Stop:
    """A reason with its particulars."""

    reason: StopReason
    tick: int = 0
    detail: str = ""
    exception: ExceptionEvent | None = None
    code: int | None = None
    """Value written to the debug-exit port."""
    breakpoint: int | None = None
    """Linear address of the breakpoint hit."""


class Capability(StrEnum):
    """What an engine may or may not be able to do."""

    STEP = "single-step"
    EXACT_COUNT = "exact instruction count"
    DATA_BREAKPOINTS = "data breakpoints"
    PAGING_LEGACY = "32-bit and PAE paging"
    CHECKPOINT = "checkpoints"


class EngineHost(Protocol):
    """What an engine calls back into: implemented by `kvmscope.vmm.machine.Machine`."""

    def port_read(self, port: int, size: int, rip: int) -> int: ...
    def port_write(self, port: int, size: int, value: int, rip: int) -> None: ...
    def mmio_read(self, address: int, size: int, rip: int) -> int: ...
    def mmio_write(self, address: int, size: int, value: int, rip: int) -> None: ...
    def record(self, event: Event) -> None: ...
    def has_own_handler(self, vector: int, handler: int) -> bool:
        """False when ``handler`` (linear) is the boot stub of ``vector``: the machine stops instead of delivering."""
        ...


class Engine(Protocol):
    """One virtual processor and its view of guest memory.

    ``run`` executes exactly ``ticks`` instruction starts unless something stops it earlier, and returns why;
    `clock` is exact at every return.  ``request_stop`` may be called from a bus callback or another thread and ends the
    run at the next instruction boundary.
    """

    name: str

    @property
    def capabilities(self) -> frozenset[Capability]: ...
    @property
    def clock(self) -> int:
        """Instruction starts since boot; exact inside callbacks too."""
        ...

    def get_state(self) -> CpuState: ...
    def set_state(self, state: CpuState) -> None: ...
    def run(self, ticks: int) -> Stop: ...
    def step(self) -> Stop:
        """Execute one instruction (one iteration of a REP instruction), delivering what it raises."""
        ...

    def set_breakpoints(self, linear: Iterable[int]) -> None: ...
    def request_stop(self, stop: Stop) -> None: ...
    def capture(self) -> bytes:
        """The processor's whole state, cheaply, in the engine's own layout: for history, not for reading."""
        ...

    def decode(self, raw: bytes) -> CpuState: ...
    def restore(self, raw: bytes, clock: int, dirty_pages: Iterable[int]) -> None:
        """Put back a `capture`; ``dirty_pages`` are the physical page numbers whose RAM the caller just replaced."""
        ...

    def memory_written(self, physical: int, size: int) -> None:
        """The VMM (not the guest) changed RAM: drop stale translations of it."""
        ...

    def close(self) -> None: ...
