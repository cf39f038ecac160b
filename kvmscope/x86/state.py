"""The architectural state of one logical processor, frozen.

Register order is the hardware's (SDM vol. 2A table 3-1: the ModRM/REX numbering), segment order is
that of the Sreg field (ES CS SS DS FS GS) followed by LDTR and TR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

__all__ = ["GPR_NAMES", "SEGMENT_NAMES", "CpuState", "DescriptorTable", "Gpr", "Seg", "SegmentRegister"]


class Gpr(IntEnum):
    """General-purpose registers by encoding."""

    RAX = 0
    RCX = 1
    RDX = 2
    RBX = 3
    RSP = 4
    RBP = 5
    RSI = 6
    RDI = 7
    R8 = 8
    R9 = 9
    R10 = 10
    R11 = 11
    R12 = 12
    R13 = 13
    R14 = 14
    R15 = 15


class Seg(IntEnum):
    """Segment registers by Sreg encoding, then the two system segments."""

    ES = 0
    CS = 1
    SS = 2
    DS = 3
    FS = 4
    GS = 5
    LDTR = 6
    TR = 7


GPR_NAMES: Final = tuple(g.name.lower() for g in Gpr)
SEGMENT_NAMES: Final = tuple(s.name.lower() for s in Seg)


@dataclass(frozen=True, slots=True)
class SegmentRegister:
    """A segment register with its hidden part (SDM vol. 3A section 3.4.3).

    ``attributes`` has the layout of the descriptor's second doubleword shifted right by 8, as the VMCS
    access-rights field keeps it (SDM vol. 3C section 24.4.1): bits 3:0 type, 4 S, 6:5 DPL, 7 P, 12 AVL,
    13 L, 14 D/B, 15 G, 16 unusable.  ``limit`` is in bytes, already scaled by G.
    """

    selector: int
    base: int
    limit: int
    attributes: int

    @property
    def type(self) -> int:
        """Descriptor type, 4 bits."""
        return self.attributes & 0xF

    @property
    def s(self) -> int:
        """1 for code or data, 0 for a system segment."""
        return self.attributes >> 4 & 1

    @property
    def dpl(self) -> int:
        """Descriptor privilege level."""
        return self.attributes >> 5 & 3

    @property
    def present(self) -> int:
        """P bit."""
        return self.attributes >> 7 & 1

    @property
    def long(self) -> int:
        """L bit: 64-bit code segment."""
        return self.attributes >> 13 & 1

    @property
    def db(self) -> int:
        """D/B bit: default operation size 32 bits."""
        return self.attributes >> 14 & 1

    @property
    def g(self) -> int:
        """G bit: limit counted in 4 KiB units in the descriptor."""
        return self.attributes >> 15 & 1

    @property
    def rpl(self) -> int:
        """Requested privilege level, bits 1:0 of the selector."""
        return self.selector & 3


@dataclass(frozen=True, slots=True)
class DescriptorTable:
    """GDTR or IDTR."""

    base: int
    limit: int


@dataclass(frozen=True, slots=True)
class CpuState:
    """One processor's registers between two instructions.

    All values are unsigned and at full width; ``rip`` is the offset in CS (not the linear address).
    ``msrs`` holds the model's MSRs that are not fields here, by index.
    """

    gpr: tuple[int, ...]
    rip: int
    rflags: int
    segments: tuple[SegmentRegister, ...]
    gdtr: DescriptorTable
    idtr: DescriptorTable
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    dr: tuple[int, ...]
    """DR0-DR7; indices 4 and 5 are always 0."""
    xcr0: int
    mxcsr: int
    xmm: tuple[int, ...]
    """XMM0-XMM15, 128-bit integers."""
    fpu: bytes = b""
    """FXSAVE image bytes 0-159 (FCW .. ST7) where the engine gives it."""
    pkru: int = 0
    cpl: int = 0
    halted: bool = False
    interrupt_shadow: int = 0
    """0 none, 1 blocking by STI, 2 blocking by MOV SS (SDM vol. 3C table 24-3, bits 0 and 1)."""
    msrs: Mapping[int, int] = field(default_factory=dict)

    @property
    def mode(self) -> int:
        """Code size in bits: 16, 32 or 64 (CS.L in IA-32e mode, else CS.D; 16 in real and virtual-8086 mode)."""
        if not self.cr0 & 1 or self.rflags >> 17 & 1:
            return 16
        cs = self.segments[Seg.CS]
        if self.efer >> 10 & 1 and cs.long:
            return 64
        return 32 if cs.db else 16

    @property
    def pc(self) -> int:
        """Linear address of the next instruction."""
        mode = self.mode
        if mode == 64:
            return self.rip
        return self.segments[Seg.CS].base + self.rip & 0xFFFFFFFF
