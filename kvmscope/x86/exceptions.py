"""Exceptions and interrupts as a table (SDM vol. 3A chapter 6; AMD's vectors from APM vol. 2 section 8.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kvmscope.x86.descriptors import SelectorErrorCode

__all__ = [
    "BY_MNEMONIC",
    "EXCEPTIONS",
    "PAGE_FAULT_BITS",
    "ExceptionClass",
    "ExceptionType",
    "Outcome",
    "VectorInfo",
    "decode_error_code",
    "double_fault",
    "exception",
    "has_error_code",
    "mnemonic",
    "vector_of",
]


class ExceptionType(StrEnum):
    """Where the saved instruction pointer points (SDM vol. 3A section 6.5)."""

    FAULT = "fault"
    TRAP = "trap"
    FAULT_OR_TRAP = "fault or trap"
    ABORT = "abort"
    INTERRUPT = "interrupt"


class ExceptionClass(StrEnum):
    """Class for the double-fault rule (SDM vol. 3A table 6-4)."""

    BENIGN = "benign"
    CONTRIBUTORY = "contributory"
    PAGE_FAULT = "page fault"
    DOUBLE_FAULT = "double fault"


class Outcome(StrEnum):
    """What a second exception during the delivery of a first one leads to (SDM vol. 3A table 6-5)."""

    SERIAL = "handled serially"
    DOUBLE_FAULT = "double fault"
    TRIPLE_FAULT = "triple fault"


@dataclass(frozen=True, slots=True)
class VectorInfo:
    """One vector.  ``error_code`` tells whether delivery pushes one (in protected and IA-32e mode)."""

    vector: int
    mnemonic: str
    name: str
    type: ExceptionType
    error_code: bool = False
    class_: ExceptionClass = ExceptionClass.BENIGN
    note: str = ""


_F, _T, _A = ExceptionType.FAULT, ExceptionType.TRAP, ExceptionType.ABORT
_FT, _I = ExceptionType.FAULT_OR_TRAP, ExceptionType.INTERRUPT
_C, _P, _B = ExceptionClass.CONTRIBUTORY, ExceptionClass.PAGE_FAULT, ExceptionClass.BENIGN

EXCEPTIONS: Final = (
    VectorInfo(0, "#DE", "divide error", _F, class_=_C, note="DIV or IDIV by zero, or the quotient does not fit"),
    VectorInfo(
        1,
        "#DB",
        "debug",
        _FT,
        note="fault: instruction breakpoint, general detect; trap: data breakpoint, single step, task switch, ICEBP",
    ),
    VectorInfo(2, "NMI", "non-maskable interrupt", _I),
    VectorInfo(3, "#BP", "breakpoint", _T, note="INT3"),
    VectorInfo(4, "#OF", "overflow", _T, note="INTO with OF = 1"),
    VectorInfo(5, "#BR", "BOUND range exceeded", _F),
    VectorInfo(6, "#UD", "invalid opcode", _F),
    VectorInfo(7, "#NM", "device not available", _F, note="CR0.EM, or CR0.TS with MP or an SSE instruction"),
    VectorInfo(8, "#DF", "double fault", _A, True, ExceptionClass.DOUBLE_FAULT, note="error code always 0"),
    VectorInfo(9, "CSO", "coprocessor segment overrun", _A, note="not raised since the 80486"),
    VectorInfo(10, "#TS", "invalid TSS", _F, True, _C),
    VectorInfo(11, "#NP", "segment not present", _F, True, _C),
    VectorInfo(12, "#SS", "stack-segment fault", _F, True, _C),
    VectorInfo(13, "#GP", "general protection", _F, True, _C),
    VectorInfo(14, "#PF", "page fault", _F, True, _P),
    VectorInfo(16, "#MF", "x87 floating-point error", _F),
    VectorInfo(17, "#AC", "alignment check", _F, True, note="error code 0, or EXT alone"),
    VectorInfo(18, "#MC", "machine check", _A),
    VectorInfo(19, "#XM", "SIMD floating-point error", _F),
    VectorInfo(20, "#VE", "virtualization exception", _F, class_=_P, note="EPT violation turned into an exception"),
    VectorInfo(21, "#CP", "control protection", _F, True, _C),
    VectorInfo(28, "#HV", "hypervisor injection", _I, note="AMD SEV-SNP"),
    VectorInfo(29, "#VC", "VMM communication", _F, True, _C, note="AMD SEV-ES"),
    VectorInfo(30, "#SX", "security", _F, True, _C, note="AMD"),
)
"""The architectural vectors in order; all others below 32 are reserved."""

_BY_VECTOR: Final = {e.vector: e for e in EXCEPTIONS}
BY_MNEMONIC: Final = {e.mnemonic: e for e in EXCEPTIONS}

PAGE_FAULT_BITS: Final = (
    (0, "P", "protection violation", "not present"),
    (1, "W/R", "write", "read"),
    (2, "U/S", "user", "supervisor"),
    (3, "RSVD", "reserved bit set", ""),
    (4, "I/D", "instruction fetch", ""),
    (5, "PK", "protection key", ""),
    (6, "SS", "shadow stack", ""),
    (15, "SGX", "SGX access control", ""),
    (31, "RMP", "RMP check (AMD)", ""),
)
"""(bit, name, meaning when 1, meaning when 0) of #PF's error code (SDM vol. 3A figure 4-12, APM vol. 2 section 8.4.2)."""


def exception(vector: int) -> VectorInfo | None:
    """The architectural exception of ``vector``, None for interrupts and reserved vectors."""
    return _BY_VECTOR.get(vector)


def mnemonic(vector: int) -> str:
    """``#PF``, ``NMI``, or ``INT 0x80`` for a vector without a name."""
    found = _BY_VECTOR.get(vector)
    return found.mnemonic if found else f"INT {vector:#x}"


def vector_of(name: str) -> int | None:
    """Vector of ``#PF``, ``pf`` or ``nmi`` (any case, ``#`` optional); None when unknown."""
    bare = name.strip().lstrip("#").upper()
    found = BY_MNEMONIC.get("#" + bare) or BY_MNEMONIC.get(bare)
    return found.vector if found else None


def has_error_code(vector: int) -> bool:
    """Whether the exception of ``vector`` pushes an error code (outside of real-address mode)."""
    found = _BY_VECTOR.get(vector)
    return found is not None and found.error_code


def _class(vector: int) -> ExceptionClass:
    found = _BY_VECTOR.get(vector)
    return found.class_ if found else _B


def double_fault(first: int, second: int) -> Outcome:
    """What follows when ``second`` is raised while ``first`` is being delivered (SDM vol. 3A table 6-5).

    >>> double_fault(14, 13)
    <Outcome.DOUBLE_FAULT: 'double fault'>
    """
    one, two = _class(first), _class(second)
    if two is _B:
        return Outcome.SERIAL
    if one is ExceptionClass.DOUBLE_FAULT:
        return Outcome.TRIPLE_FAULT
    if two is ExceptionClass.DOUBLE_FAULT:
        return Outcome.SERIAL
    if one is _P or (one is _C and two is _C):
        return Outcome.DOUBLE_FAULT
    return Outcome.SERIAL


def decode_error_code(vector: int, code: int) -> tuple[str, ...]:
    """The error code's meaning in words: ``("protection violation", "write", "user")`` or ``("selector 0x28 (GDT[5])",)``."""
    if vector == 14:
        words = [one if code >> bit & 1 else zero for bit, _, one, zero in PAGE_FAULT_BITS]
        return tuple(word for word in words if word)
    if vector == 21:
        kinds = {1: "near RET", 2: "far RET or IRET", 3: "missing ENDBRANCH", 4: "RSTORSSP", 5: "SETSSBSY"}
        return (kinds.get(code & 0x7FFF, "reserved kind"), *(["enclave"] * (code >> 15 & 1)))
    if vector == 8 or vector == 17:
        return ("EXT",) if code & 1 else ("always 0",)
    if not has_error_code(vector):
        return ()
    return (str(SelectorErrorCode(code)),)
