"""What a machine is made of before it runs: the value a reproducer's header becomes.

Nothing here touches an engine; `kvmscope.vmm.boot` turns it into memory contents and an initial state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from kvmscope.vmm.engine import QUANTUM

__all__ = [
    "DEVICES",
    "Budget",
    "DescriptorInit",
    "HandlerInit",
    "MachineConfig",
    "MemoryInit",
    "Mode",
    "PageInit",
    "Paging",
]


MAX_VCPUS: Final = 16
MAX_QUANTUM: Final = 1_000_000

DEVICES: Final = ("edu", "intel-iommu", "pci-testdev")
"""Devices that a machine can be given; with the IOMMU its chipset is a Q35, else an i440FX."""


class Mode(StrEnum):
    """How a guest starts."""

    REAL16 = "real16"
    PROT32 = "prot32"
    LONG64 = "long64"
    MULTIBOOT = "multiboot"
    """As a boot loader starts a multiboot image: 32-bit protected mode, EBX -> what it is told."""
    ROM = "rom"
    """As after reset: the image ends below 4 GiB and starts at F000:FFF0."""

    @property
    def bits(self) -> int:
        """Code size in bits at entry."""
        return {"real16": 16, "prot32": 32, "long64": 64, "multiboot": 32, "rom": 16}[self.value]

    @property
    def declared(self) -> bool:
        """Boot makes the state that a header declares; False for an image that brings its own tables."""
        return self not in (Mode.MULTIBOOT, Mode.ROM)


class Paging(StrEnum):
    """Paging mode at entry (SDM vol. 3A section 4.1.1)."""

    NONE = "none"
    BITS32 = "32bit"
    PAE = "pae"
    LEVEL4 = "4level"
    LEVEL5 = "5level"


@dataclass(frozen=True, slots=True)
class PageInit:
    """One declared mapping: ``count`` 4 KiB pages from ``linear`` to ``physical``.

    ``flags`` are the entry's low and high flag bits as written in the header, a sequence of
    ``P RW US PWT PCD A D PAT G NX`` names and raw reserved bits ``bit51``; the upper levels get P, RW and US.
    """

    linear: int
    physical: int
    flags: tuple[str, ...]
    count: int = 1
    pkey: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class DescriptorInit:
    """One declared descriptor at ``table``[``index``] (8-byte slots; vectors in the IDT): raw ``value``, or ``kind`` with ``fields``.

    Kinds and field names are those of `kvmscope.x86.descriptors` (code, data, tss, ldt, call-gate, interrupt-gate, trap-gate,
    task-gate; base, limit, dpl, selector, offset, ...); a string in ``fields`` is a label, resolved at boot.
    """

    table: str
    """``gdt``, ``idt`` or ``ldt``."""
    index: int
    value: int | None = None
    size: int = 8
    kind: str = ""
    fields: Mapping[str, int | str] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True, slots=True)
class HandlerInit:
    """A guest handler put into the boot IDT (or IVT in real mode): a gate for ``vector`` to label or address ``target``."""

    vector: int
    target: str | int
    ist: int = 0
    dpl: int = 0
    kind: str = "interrupt"
    """``interrupt``, ``trap`` or ``task``."""
    line: int = 0


@dataclass(frozen=True, slots=True)
class MemoryInit:
    """Memory contents put at a physical address (or label) before the guest starts: ``data``, then ``words``."""

    address: int | str
    data: bytes = b""
    words: tuple[tuple[int, int | str], ...] = ()
    """(size in bytes, value or label) after each other."""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits that end a run with a clear reason; a guest can never exceed one."""

    instructions: int = 10_000_000
    seconds: float = 30.0
    output: int = 1 << 20
    """Bytes of serial and debugcon output kept, together."""
    events: int = 200_000
    """Event records kept; older ones are dropped, counted."""


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """A machine to be: mode, CPU profile, memory and every declared piece of initial state."""

    mode: Mode = Mode.LONG64
    paging: Paging | None = None
    """None: the mode's usual (real16 and prot32 none, long64 4level)."""
    ring: int = 0
    cpu: str = "intel"
    memory: int = 16 << 20
    """Bytes of RAM from physical address 0; a multiple of 4 KiB, 1 MiB to 4 GiB."""
    smp: int = 1
    """vCPUs, 1 to 16; all but the first wait for a start-up IPI."""
    quantum: int = QUANTUM
    """Ticks of a vCPU's turn where there are several."""
    devices: tuple[str, ...] = ()
    """What is plugged in beyond a plain PC: names of `DEVICES`."""
    entry: str | int | None = None
    """Label or address; None: the first byte of the first section."""
    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """What a multiboot image gets as its one module, ``NAME=value`` a line."""
    registers: Mapping[str, int | str] = field(default_factory=dict)
    """By name: GPRs, rip, rflags, cr0, cr2-4, cr8, efer, dr0-3, dr6, dr7, xcr0, mxcsr, xmmN, segment
    selectors, ``gdtr.base``, ``idtr.limit``, ``cs.base`` and so on; applied last, unchecked by the mode.
    A string is a label."""
    msrs: Mapping[int, int] = field(default_factory=dict)
    descriptors: tuple[DescriptorInit, ...] = ()
    pages: tuple[PageInit, ...] = ()
    contents: tuple[MemoryInit, ...] = ()
    handlers: tuple[HandlerInit, ...] = ()
    io_permission: tuple[tuple[int, int], ...] = ()
    """Port ranges (first, last) allowed to ring 3 in the boot TSS's I/O bitmap."""
    budget: Budget = Budget()

    @property
    def effective_paging(self) -> Paging:
        """The paging mode the guest starts with."""
        if self.paging is not None:
            return self.paging
        return Paging.LEVEL4 if self.mode is Mode.LONG64 else Paging.NONE

    @property
    def own_stubs(self) -> bool:
        """Boot's exception stubs stand in the guest's tables: an exception that leads to one ends the run."""
        return self.mode.declared

    def with_(self, **changes: object) -> MachineConfig:
        """A copy with fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]
