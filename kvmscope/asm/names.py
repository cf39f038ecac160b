"""Registers, directives and operator words of x86 assembly, as tables."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["DIRECTIVES", "GAS_DIRECTIVES", "INTEL_OPERATORS", "REGISTERS", "SIZE_WORDS", "Register"]


class Register(NamedTuple):
    """A register: its class, its width in bits and its number in an encoding."""

    kind: str
    """``gpr``, ``segment``, ``control``, ``debug``, ``xmm``, ``ymm``, ``zmm``, ``mm``, ``st``, ``bnd``, ``mask``,
    ``ip`` (base of an address only)."""
    bits: int
    number: int


_LEGACY: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_LOW: Final = ("al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil")
_HIGH: Final = ("ah", "ch", "dh", "bh")
_SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs")


def _registers() -> dict[str, Register]:
    table: dict[str, Register] = {}
    for number, name in enumerate(_LEGACY):
        table[name] = Register("gpr", 16, number)
        table["e" + name] = Register("gpr", 32, number)
        table["r" + name] = Register("gpr", 64, number)
    table.update({name: Register("gpr", 8, number) for number, name in enumerate(_LOW)})
    table.update({name: Register("gpr", 8, number + 4) for number, name in enumerate(_HIGH)})
    for number in range(8, 16):
        for suffix, bits in (("b", 8), ("w", 16), ("d", 32), ("", 64)):
            table[f"r{number}{suffix}"] = Register("gpr", bits, number)
    table.update({name: Register("segment", 16, number) for number, name in enumerate(_SEGMENTS)})
    for number in range(16):
        table[f"cr{number}"] = Register("control", 0, number)
        table[f"dr{number}"] = table[f"db{number}"] = Register("debug", 0, number)
    for number in range(32):
        table[f"xmm{number}"] = Register("xmm", 128, number)
        table[f"ymm{number}"] = Register("ymm", 256, number)
        table[f"zmm{number}"] = Register("zmm", 512, number)
    for number in range(8):
        table[f"mm{number}"] = Register("mm", 64, number)
        table[f"k{number}"] = Register("mask", 64, number)
    table.update({f"bnd{number}": Register("bnd", 128, number) for number in range(4)})
    table.update({"st": Register("st", 80, 0), "rip": Register("ip", 64, 0), "eip": Register("ip", 32, 0)})
    return table


REGISTERS: Final = _registers()
"""By lower-case name, without ``%``."""

SIZE_WORDS: Final = {
    "byte": 8, "word": 16, "dword": 32, "fword": 48, "qword": 64, "tbyte": 80, "oword": 128, "xmmword": 128,
    "ymmword": 256, "zmmword": 512,
}  # fmt: skip
"""Intel size words (before ``ptr``) -> bits."""

_OPERATOR_WORDS: Final = """
    and or xor not mod shl shr eq ne lt le gt ge offset ptr short near far flat byte word dword fword qword tbyte
    oword xmmword ymmword zmmword mmword
"""
INTEL_OPERATORS: Final = frozenset(_OPERATOR_WORDS.split())
"""Words that GNU as reads as operators in Intel syntax: no good names for a label."""

_DIRECTIVES_WORDS: Final = """
    .byte .word .short .value .hword .2byte .long .int .4byte .quad .8byte .octa .ascii .asciz .string .string8
    .fill .space .skip .zero .align .balign .p2align .org .equ .set .equiv .rept .endr .irp .irpc .macro .endm .exitm
    .if .ifdef .ifndef .ifb .ifnb .ifc .ifnc .ifeq .ifne .ifge .ifgt .ifle .iflt .else .elseif .endif .section .text
    .data .bss .code16 .code32 .code64 .code16gcc .globl .global .local .weak .type .size .end .intel_syntax
    .att_syntax .arch .comm .lcomm .purgem .error .warning .print .err .pushsection .popsection .previous
    .subsection .file .ident .float .single .double .tfloat .uleb128 .sleb128 .noaltmacro .altmacro .hidden
    .include .incbin
"""
DIRECTIVES: Final = frozenset(_DIRECTIVES_WORDS.split())
"""What may follow ``;`` as a statement, and the candidates for a misspelt directive."""

GAS_DIRECTIVES: Final = {
    "db": ".byte", "dw": ".word", "dd": ".long", "dq": ".quad", "resb": ".space", "resw": ".space", "resd": ".space",
    "resq": ".space", "times": ".rept COUNT ... .endr", "equ": ".equ NAME, VALUE", "org": ".org ADDRESS",
    "align": ".balign N", "section": ".section NAME, ADDRESS", "segment": ".section NAME, ADDRESS",
    "global": ".globl NAME", "extern": "nothing: every label is known everywhere", "incbin": "no file can be included",
    "bits": ".code16, .code32 or .code64", "use16": ".code16", "use32": ".code32", "use64": ".code64",
    "%define": ".equ NAME, VALUE", "%macro": ".macro NAME ... .endm", "%endmacro": ".endm", "%include": "nothing",
    "%rep": ".rept COUNT ... .endr", "%endrep": ".endr", "%if": ".if", "%endif": ".endif", "%assign": ".set NAME, VALUE",
}  # fmt: skip
"""NASM and MASM directives -> what to write here."""
