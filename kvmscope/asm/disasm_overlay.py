"""Instructions that capstone 5 does not decode, or decodes as something else (SDM vol. 2, APM vol. 3).

One row an instruction; `kvmscope.asm.disasm` matches them by prefix, opcode and ModRM before it believes capstone.
Not here, and so shown as ``(bad)``: APX (REX2 and EVEX map 4), which no CPU profile has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ROWS", "SUSPECTS", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One instruction form.

    ``prefix``: ``-`` no mandatory prefix, ``66``, ``f3``, ``f2``, ``*`` any.  ``opcode``: the opcode bytes in hex; with
    ``vex`` set they follow a VEX prefix of that map (``38`` is 0F38, ``7`` is map 7).  ``modrm``: ``none``, an exact byte
    as ``ca``, or ``/r`` and ``/0`` to ``/7`` with ``m`` or ``r`` appended for memory-only and register-only.
    ``operands``: ``reg16 reg32 reg64 rega`` (ModRM.reg; a: address size), ``rm16 rm32 rm64`` (ModRM.rm, register),
    ``regv rmv`` (operand size), ``mem``, ``xreg xrm`` (XMM), ``treg trm`` and ``tvex`` (AMX tiles), ``imm8 imm32``.
    ``bits``: modes it exists in.
    """

    prefix: str
    opcode: str
    modrm: str
    mnemonic: str
    operands: tuple[str, ...] = ()
    bits: tuple[int, ...] = (16, 32, 64)
    vex: str = ""
    att: str = ""
    """AT&T mnemonic where it differs."""


_64: Final = (64,)


def _fixed(prefix: str, modrm: str, mnemonic: str, bits: tuple[int, ...] = (16, 32, 64)) -> Row:
    """0F 01 with a ModRM byte of its own."""
    return Row(prefix, "0f01", modrm, mnemonic, bits=bits)


ROWS: Final[tuple[Row, ...]] = (
    # FRED
    _fixed("f2", "ca", "erets", _64),
    _fixed("f3", "ca", "eretu", _64),
    Row("f2", "0f00", "/6r", "lkgs", ("rm16",), _64),
    Row("f2", "0f00", "/6m", "lkgs", ("mem",), _64),
    # TDX
    _fixed("66", "cc", "tdcall", _64),
    _fixed("66", "cd", "seamret", _64),
    _fixed("66", "ce", "seamops", _64),
    _fixed("66", "cf", "seamcall", _64),
    # User interrupts
    _fixed("f3", "ec", "uiret", _64),
    _fixed("f3", "ed", "testui", _64),
    _fixed("f3", "ee", "clui", _64),
    _fixed("f3", "ef", "stui", _64),
    Row("f3", "0fc7", "/6r", "senduipi", ("rm64",), _64),
    # Serialisation, TSX tracking, history reset, total storage encryption
    _fixed("-", "e8", "serialize"),
    _fixed("f2", "e8", "xsusldtrk"),
    _fixed("f2", "e9", "xresldtrk"),
    _fixed("-", "c7", "pbndkb", _64),
    Row("f3", "0f3af0", "c0", "hreset", ("imm8",)),
    # MSR access
    _fixed("-", "c6", "wrmsrns"),
    _fixed("f3", "c6", "wrmsrlist", _64),
    _fixed("f2", "c6", "rdmsrlist", _64),
    Row("f2", "0f38f8", "/rr", "urdmsr", ("rm64", "reg64"), _64),
    Row("f3", "0f38f8", "/rr", "uwrmsr", ("reg64", "rm64"), _64),
    Row("f2", "f6", "/0r", "rdmsr", ("rm64", "imm32"), _64, "7"),
    Row("f3", "f6", "/0r", "wrmsrns", ("imm32", "rm64"), _64, "7"),
    Row("f2", "f8", "/0r", "urdmsr", ("rm64", "imm32"), _64, "7"),
    Row("f3", "f8", "/0r", "uwrmsr", ("imm32", "rm64"), _64, "7"),
    # AMD: SEV, TLB broadcast, RDPRU, MCOMMIT
    _fixed("f3", "d9", "vmgexit"),
    _fixed("f2", "d9", "vmgexit"),
    _fixed("f3", "fa", "mcommit"),
    _fixed("-", "fd", "rdpru"),
    _fixed("-", "fe", "invlpgb"),
    _fixed("-", "ff", "tlbsync"),
    _fixed("f3", "fd", "rmpquery", _64),
    _fixed("f2", "fd", "rmpread", _64),
    _fixed("f3", "fe", "rmpadjust", _64),
    _fixed("f2", "fe", "rmpupdate", _64),
    _fixed("f3", "ff", "psmash", _64),
    _fixed("f2", "ff", "pvalidate"),
    # Command submission
    Row("f2", "0f38f8", "/rm", "enqcmd", ("rega", "mem")),
    Row("f3", "0f38f8", "/rm", "enqcmds", ("rega", "mem")),
    # Key Locker
    Row("f3", "0f38dc", "/rr", "loadiwkey", ("xreg", "xrm")),
    Row("f3", "0f38fa", "/rr", "encodekey128", ("reg32", "rm32")),
    Row("f3", "0f38fb", "/rr", "encodekey256", ("reg32", "rm32")),
    Row("f3", "0f38dc", "/rm", "aesenc128kl", ("xreg", "mem")),
    Row("f3", "0f38dd", "/rm", "aesdec128kl", ("xreg", "mem")),
    Row("f3", "0f38de", "/rm", "aesenc256kl", ("xreg", "mem")),
    Row("f3", "0f38df", "/rm", "aesdec256kl", ("xreg", "mem")),
    Row("f3", "0f38d8", "/0m", "aesencwide128kl", ("mem",)),
    Row("f3", "0f38d8", "/1m", "aesdecwide128kl", ("mem",)),
    Row("f3", "0f38d8", "/2m", "aesencwide256kl", ("mem",)),
    Row("f3", "0f38d8", "/3m", "aesdecwide256kl", ("mem",)),
    # Undefined by definition; both have a ModRM byte
    Row("*", "0fff", "/r", "ud0", ("regv", "rmv")),
    Row("*", "0fb9", "/r", "ud1", ("regv", "rmv")),
    # Hints in register form (reserved NOPs), and the reserved prefetches: executed as NOP
    Row("f3", "0f1e", "fa", "endbr64", (), (16,)),
    Row("f3", "0f1e", "fb", "endbr32", (), (16,)),
    *(Row("*", f"0f{opcode:x}", "/rr", "nop", ("rmv",)) for opcode in (0x18, 0x1A, 0x1B, 0x1C, 0x1D, 0x1E)),
    Row("*", "0f1c", "/rm", "nop", ("mem",)),
    *(Row("*", "0f0d", f"/{field}m", "prefetch", ("mem",)) for field in range(3, 8)),
    # MOVSXD without REX.W
    Row("*", "63", "/rm", "movsxd", ("regv", "mem"), _64, att="movslq"),
    Row("*", "63", "/rr", "movsxd", ("regv", "rm32"), _64, att="movslq"),
    # Capstone ignores the mode here
    Row("66", "0fc7", "/6m", "vmclear", ("mem",), (16,)),
    Row("-", "98", "none", "cbw", (), (16,), att="cbtw"),
    Row("-", "99", "none", "cwd", (), (16,), att="cwtd"),
    # AMX
    Row("-", "49", "c0", "tilerelease", (), _64, "38"),
    Row("-", "49", "/0m", "ldtilecfg", ("mem",), _64, "38"),
    Row("66", "49", "/0m", "sttilecfg", ("mem",), _64, "38"),
    Row("f2", "49", "/rr", "tilezero", ("treg",), _64, "38"),
    Row("f2", "4b", "/rm", "tileloadd", ("treg", "mem"), _64, "38"),
    Row("66", "4b", "/rm", "tileloaddt1", ("treg", "mem"), _64, "38"),
    Row("f3", "4b", "/rm", "tilestored", ("mem", "treg"), _64, "38"),
    Row("f2", "5e", "/rr", "tdpbssd", ("treg", "trm", "tvex"), _64, "38"),
    Row("f3", "5e", "/rr", "tdpbsud", ("treg", "trm", "tvex"), _64, "38"),
    Row("66", "5e", "/rr", "tdpbusd", ("treg", "trm", "tvex"), _64, "38"),
    Row("-", "5e", "/rr", "tdpbuud", ("treg", "trm", "tvex"), _64, "38"),
    Row("f3", "5c", "/rr", "tdpbf16ps", ("treg", "trm", "tvex"), _64, "38"),
    Row("f2", "5c", "/rr", "tdpfp16ps", ("treg", "trm", "tvex"), _64, "38"),
)

SUSPECTS: Final = frozenset(
    [
        "clac",
        "stac",
        "encls",
        "rdpkru",
        "wrpkru",
        "vmmcall",
        "monitorx",
        "ud0",
        "ud1",
        "ud2",
        "cwde",
        "cdq",
        "cwtl",
        "cltd",
        "vmptrld",
        "vmclear",
        "aesenc",
        "aesdec",
        "aesenclast",
        "aesdeclast",
        "aesimc",
        "crc32",
        "movbe",
        "rdrand",
        "rdseed",
        "rdpid",
        "swapgs",
        "rdtscp",
        "xsusldtrk",
        "xresldtrk",
        "pconfig",
        "enclv",
        "encls",
    ]
)
"""What capstone may call an instruction of the table."""
