"""Instructions without operands: their bytes, by table.

Keystone gets many of these wrong or does not know them (a 66 prefix on ``iret`` in 32-bit code, no ``serialize``), and
nothing is more certain than a fixed opcode.  SDM vol. 2, APM vol. 3.  A row is ``OPCODE SIZE MODES NAMES``:

- SIZE: ``-`` the opcode as it stands; ``w`` ``d`` ``q`` an operand size, for which 66 or REX.W is put in front as the
  mode needs; ``m`` the mode's own size, without prefix; ``Q`` 64-bit by default, without REX.W.
- MODES: digits out of 1 (16-bit), 3 (32-bit), 6 (64-bit).
- NAMES: ``name`` in both syntaxes, ``i:name`` in Intel alone, ``a:name`` in AT&T alone.
"""

from __future__ import annotations

from typing import Final

from kvmscope.asm.image import Syntax

__all__ = ["NEWER_THAN_GAS", "explicit_bytes", "fixed_bytes", "fixed_modes", "fixed_names"]

_ROWS: Final = """
90 - 136 nop
f4 - 136 hlt
fa - 136 cli
fb - 136 sti
f8 - 136 clc
f9 - 136 stc
fc - 136 cld
fd - 136 std
f5 - 136 cmc
9e - 136 sahf
9f - 136 lahf
f390 - 136 pause
cc - 136 int3
f1 - 136 int1 icebp
ce - 13 into
d6 - 13 salc
37 - 13 aaa
3f - 13 aas
27 - 13 daa
2f - 13 das
d40a - 13 aam
d50a - 13 aad
d7 - 136 xlat xlatb
c9 m 136 leave
9b - 136 fwait wait
d9d0 - 136 fnop
dbe3 - 136 fninit
9bdbe3 - 136 finit
dbe2 - 136 fnclex
9bdbe2 - 136 fclex
0f0b - 136 ud2 ud2a
0f77 - 136 emms
0f0e - 136 femms
0f05 - 136 syscall
0f34 - 136 sysenter
0f07 - 13 sysret
0f07 - 36 a:sysretl i:sysretd
0f07 q 6 sysretq
0f35 - 13 sysexit
0f35 - 6 a:sysexitl i:sysexitd
0f35 q 6 sysexitq
0fa2 - 136 cpuid
0f31 - 136 rdtsc
0f01f9 - 136 rdtscp
0f33 - 136 rdpmc
0f32 - 136 rdmsr
0f30 - 136 wrmsr
0f01c6 - 6 wrmsrns
f20f01c6 - 6 rdmsrlist
f30f01c6 - 6 wrmsrlist
0f08 - 136 invd
0f09 - 136 wbinvd
f30f09 - 136 wbnoinvd
0f06 - 136 clts
0f01f8 - 6 swapgs
0faa - 136 rsm
0f37 - 136 getsec
0f01d0 - 136 xgetbv
0f01d1 - 136 xsetbv
0faee8 - 136 lfence
0faef0 - 136 mfence
0faef8 - 136 sfence
0f01ca - 136 clac
0f01cb - 136 stac
0f01c8 - 136 monitor
0f01c9 - 136 mwait
0f01fa - 136 monitorx
0f01fb - 136 mwaitx
0f01fc - 136 clzero
0f01fd - 136 rdpru
f30f01fa - 136 mcommit
0f01ee - 136 rdpkru
0f01ef - 136 wrpkru
0f01c0 - 136 enclv
0f01cf - 136 encls
0f01d7 - 136 enclu
0f01c5 - 136 pconfig
0f01c1 - 136 vmcall
0f01c2 - 136 vmlaunch
0f01c3 - 136 vmresume
0f01c4 - 136 vmxoff
0f01d4 - 136 vmfunc
0f01d5 - 136 xend
0f01d6 - 136 xtest
0f01d8 - 136 vmrun
0f01d9 - 136 vmmcall
f30f01d9 - 136 vmgexit
0f01da - 136 vmload
0f01db - 136 vmsave
0f01dc - 136 stgi
0f01dd - 136 clgi
0f01de - 136 skinit
0f01df - 136 invlpga
0f01fe - 136 invlpgb
0f01ff - 136 tlbsync
f30f01ff - 6 psmash
f20f01ff - 136 pvalidate
f30f01fe - 6 rmpadjust
f20f01fe - 6 rmpupdate
f30f01fd - 6 rmpquery
0f01e8 - 136 serialize
f20f01e8 - 136 xsusldtrk
f20f01e9 - 136 xresldtrk
f30f01e8 - 136 setssbsy
f30f01ea - 136 saveprevssp
f30f1efa - 136 endbr64
f30f1efb - 136 endbr32
f30f01ec - 6 uiret
f30f01ed - 6 testui
f30f01ee - 6 clui
f30f01ef - 6 stui
660f01cc - 6 tdcall
660f01cd - 6 seamret
660f01ce - 6 seamops
660f01cf - 6 seamcall
f20f01ca - 6 erets
f30f01ca - 6 eretu
0f01c7 - 6 pbndkb
98 w 136 cbw a:cbtw
98 d 136 cwde a:cwtl
98 q 6 cdqe a:cltq
99 w 136 cwd a:cwtd
99 d 136 cdq a:cltd
99 q 6 cqo a:cqto
60 m 13 pusha
60 w 13 pushaw
60 d 13 i:pushad a:pushal
61 m 13 popa
61 w 13 popaw
61 d 13 i:popad a:popal
9c m 136 pushf
9c w 136 pushfw
9c d 13 i:pushfd a:pushfl
9c Q 6 pushfq
9d m 136 popf
9d w 136 popfw
9d d 13 i:popfd a:popfl
9d Q 6 popfq
cf m 136 iret
cf w 136 iretw
cf d 136 i:iretd a:iretl
cf q 6 iretq
c3 m 136 ret
cb m 136 i:retf lret
cb w 136 i:retfw a:lretw
cb d 136 i:retfd a:lretl
cb q 6 i:retfq lretq
a4 - 136 movsb
a5 w 136 movsw
a5 d 136 i:movsd a:movsl
a5 q 6 movsq
a6 - 136 cmpsb
a7 w 136 cmpsw
a7 d 136 i:cmpsd a:cmpsl
a7 q 6 cmpsq
aa - 136 stosb
ab w 136 stosw
ab d 136 i:stosd a:stosl
ab q 6 stosq
ac - 136 lodsb
ad w 136 lodsw
ad d 136 i:lodsd a:lodsl
ad q 6 lodsq
ae - 136 scasb
af w 136 scasw
af d 136 i:scasd a:scasl
af q 6 scasq
6c - 136 insb
6d w 136 insw
6d d 136 i:insd a:insl
6e - 136 outsb
6f w 136 outsw
6f d 136 i:outsd a:outsl
"""

_EXPLICIT_ROWS: Final = """
0f01d8 6 vmrun rax
0f01d8 3 vmrun eax
0f01da 6 vmload rax
0f01da 3 vmload eax
0f01db 6 vmsave rax
0f01db 3 vmsave eax
0f01de 136 skinit eax
0f01df 6 invlpga rax ecx
0f01df 3 invlpga eax ecx
0f01c8 6 monitor rax ecx edx
0f01c8 6 monitor rax rcx rdx
0f01c8 3 monitor eax ecx edx
0f01c9 136 mwait eax ecx
0f01c9 6 mwait rax rcx
0f01fa 6 monitorx rax ecx edx
0f01fa 3 monitorx eax ecx edx
0f01fb 136 mwaitx eax ecx ebx
0f01fc 6 clzero rax
0f01fc 3 clzero eax
"""
"""``OPCODE MODES NAME REGISTERS``: operands that can only be written in one way (APM vol. 3; SDM vol. 2)."""

NEWER_THAN_GAS: Final = frozenset({"erets", "eretu", "icebp", "pbndkb", "salc"})
"""Not in binutils 2.40; handed to it as bytes."""

_MODE_DIGITS: Final = {"1": 16, "3": 32, "6": 64}
_SIZES: Final = {"w": 16, "d": 32, "q": 64}


def _table() -> dict[tuple[str, int, Syntax], bytes]:
    table: dict[tuple[str, int, Syntax], bytes] = {}
    for row in _ROWS.strip().split("\n"):
        opcode, size, modes, *names = row.split()
        for mode in (_MODE_DIGITS[digit] for digit in modes):
            code = _prefix(size, mode) + bytes.fromhex(opcode)
            for name in names:
                for syntax, mark in ((Syntax.INTEL, "i"), (Syntax.ATT, "a")):
                    left, _, right = name.rpartition(":")
                    if left in ("", mark):
                        table[right, mode, syntax] = code
    return table


def _prefix(size: str, mode: int) -> bytes:
    bits = _SIZES.get(size)
    if bits is None:
        return b""
    if bits == 64:
        return b"\x48"
    return b"\x66" if (bits == 16) != (mode == 16) else b""


def _explicit() -> dict[tuple[str, tuple[str, ...], int], bytes]:
    table = {}
    for row in _EXPLICIT_ROWS.strip().split("\n"):
        opcode, modes, name, *registers = row.split()
        for digit in modes:
            table[name, tuple(registers), _MODE_DIGITS[digit]] = bytes.fromhex(opcode)
    return table


_TABLE: Final = _table()
_EXPLICIT: Final = _explicit()


def explicit_bytes(name: str, registers: tuple[str, ...], bits: int) -> bytes | None:
    """The bytes of an instruction whose registers are fixed, written with them; None for any other."""
    return _EXPLICIT.get((name, registers, bits))


def fixed_bytes(name: str, bits: int, syntax: Syntax) -> bytes | None:
    """The bytes of the operand-less instruction ``name`` (lower case) in ``bits``-bit code; None if there is none."""
    return _TABLE.get((name, bits, syntax))


def fixed_modes(name: str) -> frozenset[int]:
    """The modes in which ``name`` is in the table, in either syntax; empty for what is not in it."""
    return frozenset(mode for other, mode, _ in _TABLE if other == name)


def fixed_names(bits: int, syntax: Syntax) -> list[str]:
    """Every name of the table in this mode and syntax."""
    return sorted(name for name, mode, other in _TABLE if mode == bits and other is syntax)
