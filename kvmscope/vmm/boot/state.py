"""The processor's state at entry, one table row a mode (SDM vol. 3A section 9)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from kvmscope.errors import ReproducerError
from kvmscope.vmm.boot.layout import (
    GDT_BASE,
    IDT_BASE,
    IVT_BASE,
    IVT_SIZE,
    LDT_BASE,
    REAL_STACK_TOP,
    RING0_STACK_TOP,
    RING3_STACK_TOP,
    SELECTORS,
)
from kvmscope.vmm.boot.memory import BootMemory
from kvmscope.vmm.boot.tables import TableLimits
from kvmscope.vmm.config import MachineConfig, Mode, Paging
from kvmscope.x86.descriptors import decode, segment_of
from kvmscope.x86.state import CpuState, DescriptorTable, Gpr, Seg, SegmentRegister

__all__ = ["initial_state", "load_segment"]

_CR0_PE: Final = 1 << 0
_CR0_MP: Final = 1 << 1
_CR0_ET: Final = 1 << 4
_CR0_NE: Final = 1 << 5
_CR0_WP: Final = 1 << 16
_CR0_PG: Final = 1 << 31
_CR4_PSE: Final = 1 << 4
_CR4_PAE: Final = 1 << 5
_CR4_OSFXSR: Final = 1 << 9
_CR4_OSXMMEXCPT: Final = 1 << 10
_CR4_LA57: Final = 1 << 12
_EFER_SCE: Final = 1 << 0
_EFER_LME: Final = 1 << 8
_EFER_LMA: Final = 1 << 10
_EFER_NXE: Final = 1 << 11
_MSR_STAR: Final = 0xC0000081
# SYSCALL loads CS 0x08 and SS 0x10; SYSRET CS 0x28 | 3 (0x18 | 3 to 32-bit code) and SS 0x20 | 3.
_STAR: Final = (0x18 | 3) << 48 | 0x08 << 32

_UNUSABLE: Final = 1 << 16
_RFLAGS: Final = 1 << 1
_DR: Final = (0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400)
_MXCSR: Final = 0x1F80


@dataclass(frozen=True, slots=True)
class _Mode:
    """What a mode starts with."""

    cr0: int
    cr4: int
    efer: int
    code: tuple[int, int]
    """CS selector in ring 0 and ring 3."""


_PROTECTED_CR0: Final = _CR0_PE | _CR0_MP | _CR0_ET | _CR0_NE | _CR0_WP
_SSE_CR4: Final = _CR4_OSFXSR | _CR4_OSXMMEXCPT
_MODES: Final = {
    Mode.REAL16: _Mode(_CR0_ET, 0, 0, (0, 0)),
    Mode.PROT32: _Mode(_PROTECTED_CR0, _SSE_CR4, 0, (SELECTORS.code32, SELECTORS.user_code32)),
    Mode.LONG64: _Mode(
        _PROTECTED_CR0, _SSE_CR4, _EFER_SCE | _EFER_LME | _EFER_LMA, (SELECTORS.code64, SELECTORS.user_code64)
    ),
}
# CR0, CR4 and EFER bits that a paging mode adds.
_PAGING: Final = {
    Paging.NONE: (0, 0, 0),
    Paging.BITS32: (_CR0_PG, _CR4_PSE, 0),
    Paging.PAE: (_CR0_PG, _CR4_PAE, _EFER_NXE),
    Paging.LEVEL4: (_CR0_PG, _CR4_PAE, _EFER_NXE),
    Paging.LEVEL5: (_CR0_PG, _CR4_PAE | _CR4_LA57, _EFER_NXE),
}


def load_segment(memory: BootMemory, limits: TableLimits, selector: int, *, long: bool) -> SegmentRegister | None:
    """What loading ``selector`` from the boot GDT or LDT gives; None where the table ends before it."""
    if selector & 0xFFFC == 0:
        return SegmentRegister(selector, 0, 0, _UNUSABLE)
    base, limit = (LDT_BASE, limits.ldt) if selector & 4 else (GDT_BASE, limits.gdt)
    if (selector | 7) > limit:
        return None
    return segment_of(selector, decode(memory.read(base + (selector & ~7), 16), long=long))


def initial_state(config: MachineConfig, memory: BootMemory, limits: TableLimits, cr3: int, entry: int) -> CpuState:
    """The state before declared registers are applied.  Raises ReproducerError for an entry out of the mode's reach."""
    mode = _MODES[config.mode]
    cr0, cr4, efer = (
        a | b for a, b in zip((mode.cr0, mode.cr4, mode.efer), _PAGING[config.effective_paging], strict=True)
    )
    real = config.mode is Mode.REAL16
    gpr = [0] * 16
    if real:
        segments, rip = _real_segments(entry)
        gpr[Gpr.RSP] = REAL_STACK_TOP
    else:
        if entry >> (32 if config.mode is Mode.PROT32 else 64):
            raise ReproducerError("The entry lies beyond the mode's reach", f"entry {entry:#x}")
        segments, rip = _flat_segments(config, memory, limits, mode), entry
        gpr[Gpr.RSP] = RING3_STACK_TOP if config.ring == 3 else RING0_STACK_TOP
    state = CpuState(
        gpr=tuple(gpr),
        rip=rip,
        rflags=_RFLAGS,
        segments=segments,
        gdtr=DescriptorTable(GDT_BASE, limits.gdt),
        idtr=DescriptorTable(IVT_BASE, IVT_SIZE - 1) if real else DescriptorTable(IDT_BASE, _idt_limit(config.mode)),
        cr0=cr0,
        cr2=0,
        cr3=cr3,
        cr4=cr4,
        cr8=0,
        efer=efer,
        dr=_DR,
        xcr0=1,
        mxcsr=_MXCSR,
        xmm=(0,) * 16,
        cpl=0 if real else config.ring,
    )
    return replace(state, msrs={_MSR_STAR: _STAR}) if config.mode is Mode.LONG64 else state


def _idt_limit(mode: Mode) -> int:
    return 256 * (16 if mode is Mode.LONG64 else 8) - 1


def _real_segments(entry: int) -> tuple[tuple[SegmentRegister, ...], int]:
    """Segments of real mode (limits as after reset, SDM vol. 3A table 9-1) and IP: CS is 0 where IP reaches."""
    if entry > 0xFFFFF:
        raise ReproducerError(
            "Real mode reaches the first MiB only", f"entry {entry:#x}", "origin = 0x7c00 is the usual place"
        )
    selector, ip = (0, entry) if entry <= 0xFFFF else (entry >> 4, entry & 0xF)
    data = SegmentRegister(0, 0, 0xFFFF, 0x93)
    code = SegmentRegister(selector, selector << 4, 0xFFFF, 0x9B)
    ldtr = SegmentRegister(0, 0, 0xFFFF, 0x82)
    tr = SegmentRegister(0, 0, 0xFFFF, 0x8B)
    return (data, code, data, data, data, data, ldtr, tr), ip


def _flat_segments(
    config: MachineConfig, memory: BootMemory, limits: TableLimits, mode: _Mode
) -> tuple[SegmentRegister, ...]:
    user = config.ring == 3
    data = SELECTORS.user_data if user else SELECTORS.data
    chosen = {Seg.CS: mode.code[user], Seg.LDTR: SELECTORS.ldt, Seg.TR: SELECTORS.tss}
    out = []
    for seg in Seg:
        found = load_segment(memory, limits, chosen.get(seg, data), long=config.mode is Mode.LONG64)
        assert found is not None, "the boot GDT holds all its own selectors"
        out.append(found)
    return tuple(out)
