"""What the hardware did, as records: the rows of the timeline and of ``run --json``.

``tick`` is the machine's clock: the count of instruction starts since boot (see docs/machine.md), so
event and history positions compare directly.  ``rip`` is the instruction that caused the event.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kvmscope.x86.state import CpuState

__all__ = [
    "ControlRegisterEvent",
    "Event",
    "ExceptionEvent",
    "ExceptionSource",
    "MmioEvent",
    "ModeEvent",
    "MsrEvent",
    "PortEvent",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Common part: when, where, on which vCPU."""

    tick: int
    rip: int
    vcpu: int


class ExceptionSource(StrEnum):
    """How a vector was raised."""

    FAULT = "exception"
    SOFTWARE = "software interrupt"
    EXTERNAL = "external interrupt"


@dataclass(frozen=True, slots=True)
class ExceptionEvent(Event):
    """An exception or interrupt at the moment of delivery.

    ``before`` is the state at the faulting instruction, before anything was pushed.  ``delivered`` is False
    when delivery itself faulted (the next event of the same tick is the consequence: #DF or shutdown) or
    when the machine stopped instead because the guest has no handler of its own.  ``parent`` is the vector
    whose delivery raised this one.
    """

    vector: int
    source: ExceptionSource
    error_code: int | None
    cr2: int | None
    dr6: int | None
    before: CpuState
    delivered: bool = True
    parent: int | None = None
    handler: int | None = None
    """Offset of the handler entered."""


@dataclass(frozen=True, slots=True)
class PortEvent(Event):
    """One IN or OUT (each element of INS/OUTS apart)."""

    port: int
    size: int
    value: int
    write: bool
    device: str
    """Name of the device that answered; empty: unclaimed."""


@dataclass(frozen=True, slots=True)
class MmioEvent(Event):
    """One access to device memory (a physical address)."""

    address: int
    size: int
    value: int
    write: bool
    device: str


@dataclass(frozen=True, slots=True)
class MsrEvent(Event):
    """RDMSR or WRMSR that completed."""

    index: int
    value: int
    write: bool


@dataclass(frozen=True, slots=True)
class ControlRegisterEvent(Event):
    """A write to CR0, CR3, CR4, CR8, EFER-independent XCR0 or a debug register; ``name`` is ``cr0`` .. ``dr7``."""

    name: str
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class ModeEvent(Event):
    """The processor changed mode or privilege: ``what`` as ``16 -> 32``, ``CPL 0 -> 3``."""

    what: str
