"""The processor after reset, INIT and a start-up IPI (SDM vol. 3A table 10-1, section 9.4.3; APM vol. 2 table 14-1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kvmscope.x86.state import CpuState, DescriptorTable, Gpr, SegmentRegister

__all__ = ["RESET_STATE", "init_state", "reset_state", "startup_state"]

_DATA: Final = SegmentRegister(0, 0, 0xFFFF, 0x93)
_CODE: Final = SegmentRegister(0xF000, 0xFFFF0000, 0xFFFF, 0x9B)
_LDTR: Final = SegmentRegister(0, 0, 0xFFFF, 0x82)
_TR: Final = SegmentRegister(0, 0, 0xFFFF, 0x8B)
_CD_NW: Final = 3 << 29

RESET_STATE: Final = CpuState(
    gpr=(0,) * 16,
    rip=0xFFF0,
    rflags=2,
    segments=(_DATA, _CODE, _DATA, _DATA, _DATA, _DATA, _LDTR, _TR),
    gdtr=DescriptorTable(0, 0xFFFF),
    idtr=DescriptorTable(0, 0xFFFF),
    cr0=0x60000010,
    cr2=0,
    cr3=0,
    cr4=0,
    cr8=0,
    efer=0,
    dr=(0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400),
    xcr0=1,
    mxcsr=0x1F80,
    xmm=(0,) * 16,
)
"""After power-up, but for RDX, which holds the processor's signature."""


def reset_state(signature: int) -> CpuState:
    """After power-up; RDX holds ``signature``, EAX of CPUID leaf 1."""
    gpr = [0] * 16
    gpr[Gpr.RDX] = signature
    return replace(RESET_STATE, gpr=tuple(gpr))


def init_state(state: CpuState, signature: int) -> CpuState:
    """After INIT: as after reset, with CR0.CD and NW, the x87, SSE and XSAVE state and the MSRs kept; EFER is 0.

    ``signature`` is EAX of CPUID leaf 1, which RDX gets.
    """
    return replace(
        reset_state(signature),
        cr0=state.cr0 & _CD_NW | 1 << 4,
        xcr0=state.xcr0,
        mxcsr=state.mxcsr,
        xmm=state.xmm,
        fpu=state.fpu,
        pkru=state.pkru,
        msrs=state.msrs,
    )


def startup_state(state: CpuState, cs: int, ip: int) -> CpuState:
    """Started in real-address mode at ``cs``:``ip`` (a start-up IPI's vector is bits 19:12 of the address)."""
    segments = list(state.segments)
    segments[1] = SegmentRegister(cs, cs << 4, 0xFFFF, 0x9B)
    return replace(state, segments=tuple(segments), rip=ip)
