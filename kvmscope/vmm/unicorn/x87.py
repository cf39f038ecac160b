"""Unmasked x87 exceptions (SDM vol. 1 section 8.6-8.7): which instructions report a pending one as #MF.

Unicorn raises #MF at WAIT only.  While the control word unmasks an exception, every x87 and MMX instruction that waits
is looked at before it executes; the control word is rarely otherwise than all masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn.env import CR
from kvmscope.vmm.unicorn.faults import Fault
from kvmscope.vmm.unicorn.layout import ENV

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.vmm.unicorn.lengths import Shape

__all__ = ["check", "sets_control_word", "unmasked", "waits"]

_MF: Final = 16
_STATUS: Final = ENV["fpus"] // 2
_CONTROL: Final = ENV["fpuc"] // 2
_EXCEPTIONS: Final = 0x3F
_MP, _EM, _TS = 1 << 1, 1 << 2, 1 << 3

_WAIT: Final = 0x9B
# Opcode to the ModRM.reg values of memory forms, and to whole ModRM bytes, that do not wait.
_NO_WAIT: Final = {0xD9: (6, 7), 0xDD: (6, 7)}
_NO_WAIT_BYTES: Final = {0xDB: (0xE0, 0xE1, 0xE2, 0xE3, 0xE4), 0xDF: (0xE0,)}
_MMX: Final = frozenset(
    {0x12A, 0x12C, 0x12D, *range(0x160, 0x178), 0x17E, 0x17F, 0x1C4, 0x1C5, *range(0x1D1, 0x1FF)}
    | {*range(0x200, 0x20C), *range(0x21C, 0x21F), 0x30F}
)
"""MMX instructions, where no prefix makes them SSE's."""
_CONVERSIONS: Final = frozenset({0x12A, 0x12C, 0x12D})
"""These are MMX's with a 66 prefix too (CVTPI2PD, CVTTPD2PI, CVTPD2PI)."""


def unmasked(cpu: Cpu) -> bool:
    """The control word unmasks an exception."""
    return cpu.env.w[_CONTROL] & _EXCEPTIONS != _EXCEPTIONS


def waits(shape: Shape) -> bool:
    """Whether the instruction reports a pending exception before it executes."""
    opcode = shape.opcode
    if opcode == _WAIT:
        return True
    if 0xD8 <= opcode <= 0xDF:
        if shape.modrm >= 0xC0:
            return shape.modrm not in _NO_WAIT_BYTES.get(opcode, ())
        return shape.modrm >> 3 & 7 not in _NO_WAIT.get(opcode, ())
    return opcode in _MMX and not shape.rep and (not shape.sized or opcode in _CONVERSIONS)


def sets_control_word(shape: Shape) -> bool:
    """FLDENV, FLDCW, FRSTOR."""
    operation = shape.modrm >> 3 & 7
    if shape.modrm >= 0xC0:
        return False
    return operation in (4, 5) if shape.opcode == 0xD9 else shape.opcode == 0xDD and operation == 4


def check(cpu: Cpu, opcode: int) -> None:
    """Raise `Fault` (#MF) where an unmasked exception is pending and nothing comes first.

    CR0.NE = 0 asks for FERR# and IRQ 13 instead, which no board has wired any more: #MF as under KVM, whose tests ask
    for it.
    """
    cr0 = cpu.env.q[CR]
    if cr0 & _TS and cr0 & _MP if opcode == _WAIT else cr0 & (_TS | _EM):
        return
    if cpu.env.w[_STATUS] & ~cpu.env.w[_CONTROL] & _EXCEPTIONS:
        raise Fault(_MF)
