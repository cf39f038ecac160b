"""The registers of the local APIC as a table (SDM vol. 3A tables 11-1 and 11-6, figures 11-8 to 11-30)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

__all__ = [
    "DIVISORS",
    "LVTS",
    "LVT_LEVEL",
    "LVT_MASKED",
    "LVT_REMOTE_IRR",
    "MAX_LVT",
    "REGISTERS",
    "STORED",
    "SVR_ENABLED",
    "VERSION",
    "ApicError",
    "Reg",
    "Register",
]

MAX_LVT: Final = 5
"""Highest LVT entry: timer, thermal, performance counters, LINT0, LINT1, error.  So there is no CMCI register (0x2f0)."""
VERSION: Final = MAX_LVT << 16 | 0x14
"""Integrated xAPIC; bit 24 is clear: EOI broadcasts cannot be suppressed."""

LVT_REMOTE_IRR: Final = 1 << 14
LVT_LEVEL: Final = 1 << 15
LVT_MASKED: Final = 1 << 16
SVR_ENABLED: Final = 1 << 8

DIVISORS: Final = {0b0000: 2, 0b0001: 4, 0b0010: 8, 0b0011: 16, 0b1000: 32, 0b1001: 64, 0b1010: 128, 0b1011: 1}
"""Divide configuration register, bits 3 and 1:0, to what the timer's clock is divided by (figure 11-10)."""


class Reg(IntEnum):
    """Offsets in the register page; the x2APIC MSR of a register is 0x800 + offset / 16."""

    ID = 0x020
    VERSION = 0x030
    TPR = 0x080
    APR = 0x090
    PPR = 0x0A0
    EOI = 0x0B0
    RRD = 0x0C0
    LDR = 0x0D0
    DFR = 0x0E0
    SVR = 0x0F0
    ISR = 0x100
    TMR = 0x180
    IRR = 0x200
    ESR = 0x280
    ICR = 0x300
    ICR_HIGH = 0x310
    LVT_TIMER = 0x320
    LVT_THERMAL = 0x330
    LVT_PERFORMANCE = 0x340
    LVT_LINT0 = 0x350
    LVT_LINT1 = 0x360
    LVT_ERROR = 0x370
    INITIAL_COUNT = 0x380
    CURRENT_COUNT = 0x390
    DIVIDE = 0x3E0
    SELF_IPI = 0x3F0


class ApicError(IntFlag):
    """Bits of the error status register that these processors set (figure 11-9)."""

    SEND_ILLEGAL_VECTOR = 1 << 5
    RECEIVE_ILLEGAL_VECTOR = 1 << 6
    ILLEGAL_REGISTER = 1 << 7


class Register(NamedTuple):
    """One register.

    ``writable`` are the bits that a write sets; the others read as they are in xAPIC mode and raise #GP when set by
    WRMSR in x2APIC mode, unless they are in ``ignored`` (read-only status bits).  ``xapic`` and ``x2apic`` say how it may
    be accessed in each mode: letters of ``rw``, empty where it is not there.
    """

    offset: int
    name: str
    xapic: str
    x2apic: str
    writable: int = 0
    reset: int = 0
    ignored: int = 0


_LVT_VECTOR: Final = 0xFF
_LVT_MODE: Final = 0x700
_LVT_STATUS: Final = 1 << 12
_LVT_POLARITY: Final = 1 << 13
_TIMER_PERIODIC: Final = 1 << 17


def _lvt(offset: int, name: str, writable: int, ignored: int = _LVT_STATUS) -> Register:
    return Register(offset, name, "rw", "rw", _LVT_VECTOR | LVT_MASKED | writable, LVT_MASKED, ignored)


def _rows() -> Iterator[Register]:
    yield Register(Reg.ID, "ID", "rw", "r", 0xFF000000)
    yield Register(Reg.VERSION, "VERSION", "r", "r")
    yield Register(Reg.TPR, "TPR", "rw", "rw", 0xFF)
    # Gone since the Pentium 4, but accesses are not errors (footnote of table 11-1).
    yield Register(Reg.APR, "APR", "r", "")
    yield Register(Reg.PPR, "PPR", "r", "r")
    yield Register(Reg.EOI, "EOI", "w", "w")
    yield Register(Reg.RRD, "RRD", "r", "")
    yield Register(Reg.LDR, "LDR", "rw", "r", 0xFF000000)
    yield Register(Reg.DFR, "DFR", "rw", "", 0xF0000000, 0xFFFFFFFF)
    # Bit 9, focus checking, is stored and does nothing; bit 12 belongs to suppressed EOI broadcasts.
    yield Register(Reg.SVR, "SVR", "rw", "rw", 0x3FF, 0xFF)
    for first, name in ((Reg.ISR, "ISR"), (Reg.TMR, "TMR"), (Reg.IRR, "IRR")):
        for word in range(8):
            yield Register(first + 0x10 * word, f"{name}{word}", "r", "r")
    yield Register(Reg.ESR, "ESR", "rw", "rw")
    # Delivery status, bit 12: read-only in xAPIC mode; WRMSR ignores it, as Intel's processors do.
    yield Register(Reg.ICR, "ICR", "rw", "rw", 0x000CCFFF, ignored=_LVT_STATUS)
    yield Register(Reg.ICR_HIGH, "ICR_HIGH", "rw", "", 0xFF000000)
    yield _lvt(Reg.LVT_TIMER, "LVT timer", _TIMER_PERIODIC)
    yield _lvt(Reg.LVT_THERMAL, "LVT thermal", _LVT_MODE)
    yield _lvt(Reg.LVT_PERFORMANCE, "LVT performance", _LVT_MODE)
    pin = _LVT_MODE | _LVT_POLARITY | LVT_LEVEL
    yield _lvt(Reg.LVT_LINT0, "LVT LINT0", pin, _LVT_STATUS | LVT_REMOTE_IRR)
    yield _lvt(Reg.LVT_LINT1, "LVT LINT1", pin, _LVT_STATUS | LVT_REMOTE_IRR)
    yield _lvt(Reg.LVT_ERROR, "LVT error", 0)
    yield Register(Reg.INITIAL_COUNT, "INITIAL_COUNT", "rw", "rw", 0xFFFFFFFF)
    yield Register(Reg.CURRENT_COUNT, "CURRENT_COUNT", "r", "r")
    yield Register(Reg.DIVIDE, "DIVIDE", "rw", "rw", 0b1011)
    yield Register(Reg.SELF_IPI, "SELF_IPI", "", "w", 0xFF)


REGISTERS: Final = {register.offset: register for register in _rows()}
"""By offset; an offset that is not here is reserved."""

LVTS: Final = (
    Reg.LVT_TIMER,
    Reg.LVT_THERMAL,
    Reg.LVT_PERFORMANCE,
    Reg.LVT_LINT0,
    Reg.LVT_LINT1,
    Reg.LVT_ERROR,
)
STORED: Final = (Reg.ID, Reg.TPR, Reg.LDR, Reg.DFR, Reg.SVR, Reg.ESR, Reg.ICR, Reg.ICR_HIGH, *LVTS, Reg.DIVIDE)
"""Registers that hold what was written; the others are computed or live elsewhere."""
