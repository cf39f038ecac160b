"""The engine contract: state in, run within a budget, a reason out (shaped like KVM's own interface).

Port and memory-mapped I/O go to the machine's `Bus`, whichever engine runs.  An engine states its
capabilities; asking for a missing one raises `EngineError`, never silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from kvmscope.vmm.events import Event, ExceptionEvent
from kvmscope.x86.state import CpuState

if TYPE_CHECKING:
    from kvmscope.vmm.devices.interrupts import Message, Signals

__all__ = ["EXIT_TIME", "QUANTUM", "RDTSC_TIME", "Activity", "Capability", "Engine", "EngineHost", "Stop", "StopReason"]

QUANTUM: Final = 2_000
"""Ticks of a vCPU's turn by default, where a machine has several."""


EXIT_TIME: Final = 10_000
"""Nanoseconds of guest time that an instruction takes, beyond its tick, where a hypervisor would have to act: port
and device access, CPUID, writes of CR0, CR4, CR8 and of local APIC registers, VMCALL.  The order of magnitude is that
of an exit to user space; without it a guest that waits for time to pass would take the host a thousand times as long."""


RDTSC_TIME: Final = 20
"""Nanoseconds that RDTSC takes beyond its tick: loops that wait by it are short loops."""


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
    """Every processor waits and nothing that could wake one is to come."""
    RESET = "reset"
    """The guest asked for a reset or for power-off; ``detail`` says how."""
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
    StopReason.RESET,
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


class Activity(StrEnum):
    """What a vCPU does (SDM vol. 3C section 25.4.2 for the words)."""

    ACTIVE = "active"
    HALTED = "halted"
    """HLT: an interrupt, NMI or INIT wakes it."""
    WAIT_FOR_SIPI = "wait-for-SIPI"
    """After reset on every processor but the first, and after INIT: only a start-up IPI starts it."""


class EngineHost(Protocol):
    """What an engine calls back into: implemented by `kvmscope.vmm.board.Board`.

    Accesses are those of the vCPU that runs, `Engine.vcpu`.
    """

    between: bool
    """The engine acts on signals between two instructions: what is recorded now asks for no synchronization, because a
    run that ends at this tick may or may not have come so far."""

    def port_read(self, port: int, size: int, rip: int) -> int: ...
    def port_write(self, port: int, size: int, value: int, rip: int) -> None: ...
    def mmio_read(self, address: int, size: int, rip: int) -> int: ...
    def mmio_write(self, address: int, size: int, value: int, rip: int) -> None: ...
    def record(self, event: Event) -> None: ...
    def has_own_handler(self, vector: int, handler: int) -> bool:
        """False when ``handler`` (linear) is the boot stub of ``vector``: the machine stops instead of delivering."""
        ...

    # time

    def now(self) -> int:
        """Guest time in nanoseconds; the time-stamp counters count it."""
        ...

    def next_deadline(self) -> int | None:
        """The engine's clock at which `run_timers` is to be called; None while no timer runs."""
        ...

    def run_timers(self) -> None:
        """Expire the timers that are due; between two instructions."""
        ...

    def skip_idle(self) -> bool:
        """No vCPU can go on: let guest time pass to the next deadline.  False when there is none."""
        ...

    def spend(self, nanoseconds: int) -> None:
        """An instruction takes this long beyond its tick: guest time goes on."""
        ...

    def spin(self) -> None:
        """PAUSE with nobody else to run: some guest time passes, but not beyond the next deadline."""
        ...

    # interrupts

    def signals(self, vcpu: int) -> Signals:
        """The pins of a vCPU, live."""
        ...

    def acknowledge(self, vcpu: int) -> int | None:
        """The vCPU takes its interrupt: the vector, or None when it has gone."""
        ...

    def initialized(self, vcpu: int, *, power: bool = False) -> None:
        """The vCPU has been through INIT (with ``power``: a reset): so goes its local APIC."""
        ...

    # registers that live outside of the processor's core

    def read_msr(self, vcpu: int, index: int) -> int | None:
        """Value of an MSR of the local APIC; None for others.  Raises `MsrFault`."""
        ...

    def write_msr(self, vcpu: int, index: int, value: int) -> bool:
        """True when the MSR was the local APIC's.  Raises `MsrFault`."""
        ...

    def get_cr8(self, vcpu: int) -> int: ...
    def set_cr8(self, vcpu: int, value: int) -> None: ...
    def tsc_written(self, vcpu: int) -> None:
        """The vCPU's TSC was changed: deadlines in its terms move."""
        ...

    def apic_enabled(self, vcpu: int) -> bool:
        """IA32_APIC_BASE.EN, which CPUID shows."""
        ...

    def send_ipi(self, message: Message) -> bool:
        """KVM's hypercall sends an interrupt; False when no processor accepts it."""
        ...


class Engine(Protocol):
    """The virtual processors and their view of guest memory.

    ``run`` executes exactly ``ticks`` instruction starts, of all vCPUs together, unless something stops it earlier, and
    returns why; `clock` is exact at every return.  Which vCPU's turn it is follows from the guest's history alone.
    ``request_stop`` may be called from a bus callback or another thread and ends the run at the next instruction
    boundary.
    """

    name: str
    vcpus: int

    @property
    def capabilities(self) -> frozenset[Capability]: ...
    @property
    def clock(self) -> int:
        """Instruction starts since boot; exact inside callbacks too."""
        ...

    @property
    def vcpu(self) -> int:
        """The vCPU that runs, or that ran last."""
        ...

    def get_state(self, vcpu: int | None = None) -> CpuState:
        """Registers of a vCPU (None: of `vcpu`)."""
        ...

    def set_state(self, state: CpuState, vcpu: int | None = None) -> None: ...
    def activity(self, vcpu: int) -> Activity: ...
    def set_activity(self, vcpu: int, activity: Activity) -> None: ...
    def tsc(self, vcpu: int) -> int:
        """The time-stamp counter of a vCPU."""
        ...

    def run(self, ticks: int) -> Stop: ...
    def step(self, vcpu: int | None = None) -> Stop:
        """Execute one instruction (one iteration of a REP instruction), delivering what it raises.

        With ``vcpu``, go on until that vCPU has executed one; the others run as their turns come.  A vCPU that waits
        lets the others' turns pass for a while, and then it returns all the same.
        """
        ...

    def due_at(self, tick: int) -> None:
        """The next deadline has come nearer, to this tick: be back by then; from a callback."""
        ...

    @property
    def frozen(self) -> frozenset[int]:
        """The vCPUs that get no turn; a part of what `capture` keeps."""
        ...

    def freeze(self, vcpus: frozenset[int]) -> None:
        """These vCPUs get no turn until further notice."""
        ...

    def look_again(self, vcpu: int | None = None) -> None:
        """Signals (of ``vcpu``) have changed: take notice at the next instruction boundary."""
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
