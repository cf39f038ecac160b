"""A stopped machine as a value (`Snapshot`), and what one command changed (`Delta`).

Panels get these two and nothing else.  Registers are frozen; `GuestMemory` reads the live RAM, which stands
still while the machine is stopped (and can be torn, never harmful, if drawn while it runs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kvmscope.vmm.engine import Activity, Stop
from kvmscope.vmm.events import Event
from kvmscope.x86.state import CpuState

__all__ = ["Delta", "DeviceField", "DeviceView", "GuestMemory", "MemoryChange", "Snapshot", "VcpuView", "diff_states"]


class GuestMemory(Protocol):
    """Physical memory without side effects: device memory is not read, unbacked bytes are absent."""

    size: int

    def read(self, physical: int, size: int) -> bytes | None:
        """``size`` bytes of RAM (or ROM, or RAM-like device memory); None if any byte is not backed."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceField:
    """One decoded register of a device: ``name = value  (meaning)``."""

    name: str
    value: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device as the panel shows it."""

    name: str
    where: str
    fields: tuple[DeviceField, ...]


@dataclass(frozen=True, slots=True)
class VcpuView:
    """One vCPU of several."""

    index: int
    cpu: CpuState
    activity: Activity
    frozen: bool = False
    """It gets no turn: the user wants it so."""
    next: bool = False
    """The next instruction of the machine is its."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The machine between two instructions."""

    tick: int
    cpu: CpuState
    memory: GuestMemory
    stop: Stop
    events: Sequence[Event]
    """All events up to ``tick``, oldest first (bounded by the budget; ``events_dropped`` says how many went)."""
    serial: bytes = b""
    debugcon: bytes = b""
    devices: tuple[DeviceView, ...] = ()
    msrs: Mapping[int, int] = field(default_factory=dict)
    last_tick: int = 0
    """The furthest tick that history holds: ``tick < last_tick`` means we stand in the past."""
    vcpu: int = 0
    """The vCPU that ``cpu`` and ``msrs`` are of."""
    vcpus: tuple[VcpuView, ...] = ()
    """All of them, where there are several."""
    time: int = 0
    """Guest time in nanoseconds (the tick, and what was skipped while every vCPU waited)."""
    events_dropped: int = 0
    profile: str = ""
    """Name of the CPU profile (`kvmscope.x86.profiles`); empty: not known."""


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """Bytes of RAM that differ: ``old`` before, ``new`` now (same length)."""

    address: int
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class Delta:
    """What differs between the previous stop and this one.

    ``registers`` maps a `CpuState` name (``rax`` .. ``r15``, ``rip``, ``rflags``, ``cs`` .. ``tr``, ``gdtr``, ``idtr``,
    ``cr0`` .. ``cr8``, ``efer``, ``dr0`` .. ``dr7``, ``xmm0`` .., ``mxcsr``, ``xcr0``, ``pkru``, ``msr:0x10``) to its old
    value; segments and tables give the old `SegmentRegister` / `DescriptorTable`.
    """

    registers: Mapping[str, object] = field(default_factory=dict)
    memory: tuple[MemoryChange, ...] = ()
    memory_truncated: bool = False
    """More pages changed than are listed (a long run)."""
    events: tuple[Event, ...] = ()
    serial: bytes = b""
    debugcon: bytes = b""
    ticks: int = 0
    """Negative when the command went backwards."""


_SCALARS = ("rip", "rflags", "cr0", "cr2", "cr3", "cr4", "cr8", "efer", "xcr0", "mxcsr", "pkru", "gdtr", "idtr", "cpl")
_GPRS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16)))
_SEGS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")


def diff_states(old: CpuState, new: CpuState) -> dict[str, object]:
    """Names of the registers that differ, with their old values."""
    out: dict[str, object] = {}
    if old.gpr != new.gpr:
        out.update((n, a) for n, a, b in zip(_GPRS, old.gpr, new.gpr, strict=True) if a != b)
    for name in _SCALARS:
        before = getattr(old, name)
        if before != getattr(new, name):
            out[name] = before
    if old.segments != new.segments:
        out.update((n, a) for n, a, b in zip(_SEGS, old.segments, new.segments, strict=True) if a != b)
    if old.dr != new.dr:
        out.update((f"dr{i}", a) for i, (a, b) in enumerate(zip(old.dr, new.dr, strict=True)) if a != b)
    if old.xmm != new.xmm:
        out.update((f"xmm{i}", a) for i, (a, b) in enumerate(zip(old.xmm, new.xmm, strict=True)) if a != b)
    if old.fpu != new.fpu:
        out["fpu"] = old.fpu
    if old.msrs != new.msrs:
        for index in sorted(old.msrs.keys() | new.msrs.keys()):
            if old.msrs.get(index) != new.msrs.get(index):
                out[f"msr:{index:#x}"] = old.msrs.get(index)
    return out
