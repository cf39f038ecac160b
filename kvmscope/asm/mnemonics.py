"""The mnemonics of x86: which words are instructions, and which one was probably meant.

What the decoder names is in :mod:`kvmscope.asm.decoded_names`; the rest (newer instructions, assembler-only spellings,
AT&T names) is listed here.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from kvmscope.asm.decoded_names import DECODED_NAMES
from kvmscope.asm.names import DIRECTIVES

__all__ = ["intel_name", "is_mnemonic", "mnemonics", "nearest", "nearest_directive"]

_EXTRA_WORDS: Final = """
    ja jae jb jbe jc je jg jge jl jle jna jnae jnb jnbe jnc jne jng jnge jnl jnle jno jnp jns jnz jo jp jpe jpo js jz
    jcxz jecxz jrcxz loop loope loopne loopz loopnz seta setae setb setbe setc sete setg setge setl setle setna setnae
    setnb setnbe setnc setne setng setnge setnl setnle setno setnp setns setnz seto setp setpe setpo sets setz
    cmova cmovae cmovb cmovbe cmovc cmove cmovg cmovge cmovl cmovle cmovna cmovnae cmovnb cmovnbe cmovnc cmovne cmovng
    cmovnge cmovnl cmovnle cmovno cmovnp cmovns cmovnz cmovo cmovp cmovpe cmovpo cmovs cmovz
    int int1 int3 into icebp ud0 ud1 ud2 ud2a ud2b iret iretw iretd iretq retf retn lret ljmp lcall sal xlat xlatb
    movs stos lods scas cmps ins outs movsb movsw movsl movsq pushfd popfd pushfq popfq pushad popad
    rep repe repne repz repnz lock data16 addr32 fwait wait movzx movsx movsxd movabs cbtw cwtl cltq cwtd cltd cqto
    movzb movzw movsb movsw movsl sysretl sysretq sysexitl sysexitq serialize enqcmd enqcmds psmash pvalidate rmpadjust
    rmpupdate rmpquery invlpgb tlbsync wrmsrns rdmsrlist wrmsrlist tdcall seamcall seamret seamops clui stui testui
    uiret senduipi lkgs hreset rdpru eretu erets pbndkb urdmsr uwrmsr vmgexit mcommit rdpid umwait tpause umonitor
    wbnoinvd cldemote movdiri movdir64b pconfig ptwrite setssbsy clrssbsy saveprevssp rstorssp incsspd incsspq rdsspd
    rdsspq wrssd wrssq wrussd wrussq endbr32 endbr64 monitorx mwaitx clzero xresldtrk xsusldtrk
"""
_ALL: Final = DECODED_NAMES | frozenset(_EXTRA_WORDS.split())

_SUFFIXABLE_WORDS: Final = """
    adc add and bsf bsr bt btc btr bts call cmp cmpxchg dec div enter idiv imul in inc invept iret jmp lar lcall lds
    lea leave les lfs lgdt lgs lidt ljmp lldt lmsw lods lret lsl lss ltr mov movs movsx movzx mul neg nop not or out
    outs pop popa popf push pusha pushf rcl rcr ret rol ror sal sar sbb scas sgdt shl shld shr shrd sidt sldt smsw stos
    str sub sysexit sysret test verr verw xadd xchg xor ins cmps cmpxchg8b fild fist fistp fld fst fstp fxsave
    fxrstor xsave xrstor rdfsbase rdgsbase wrfsbase wrgsbase crc32 popcnt lzcnt tzcnt bound bswap
"""
_SUFFIXABLE: Final = frozenset(_SUFFIXABLE_WORDS.split())
"""Intel names that take an AT&T size suffix."""

_LONGEST: Final = 24
"""Letters of a word that can be a slip of the finger; comparing costs their square."""
_ATT_NAMES: Final = {"cbtw": "cbw", "cwtl": "cwde", "cltq": "cdqe", "cwtd": "cwd", "cltd": "cdq", "cqto": "cqo"}


def mnemonics() -> frozenset[str]:
    """Every mnemonic known, lower case, without AT&T suffixes."""
    return _ALL


def is_mnemonic(word: str) -> bool:
    """True for an instruction's name in either syntax (lower case)."""
    return word in mnemonics() or intel_name(word) is not None


def intel_name(word: str) -> str | None:
    """The Intel name of the AT&T mnemonic ``word``; None when it is not one.

    >>> intel_name("movl"), intel_name("lretq"), intel_name("nop")
    ('mov', 'lret', None)
    """
    if word in _ATT_NAMES:
        return _ATT_NAMES[word]
    if word[-1:] in ("b", "w", "l", "q") and word[:-1] in _SUFFIXABLE and word not in mnemonics():
        return word[:-1]
    if word[:4] in ("movz", "movs") and len(word) == 6 and word[4] in "bwl" and word[5] in "wlq":
        return "movzx" if word[3] == "z" else "movsx"
    return None


def nearest(word: str) -> str:
    """The mnemonic that was probably meant by ``word``; empty when none is near."""
    if len(word) > _LONGEST:
        return ""
    known = mnemonics()
    # Transposed letters ("mvo", "pusfh") are the usual slip, and difflib rates them low in short words.
    for i in range(len(word) - 1):
        swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        if swapped != word and is_mnemonic(swapped):
            return swapped
    # A doubled or superfluous letter comes next: the shorter name is the commoner instruction.
    shorter = sorted(shorter for i in range(len(word)) if (shorter := word[:i] + word[i + 1 :]) in known)
    if shorter and len(word) > 3:
        return shorter[0]
    near = get_close_matches(word, sorted(known), n=1, cutoff=0.7)
    if near:
        return near[0]
    # With an AT&T suffix a word can be too far from every name.
    stem = nearest(word[:-1]) if len(word) > 3 and word[-1] in "bwlq" else ""
    return stem + word[-1] if stem and intel_name(stem + word[-1]) else ""


def nearest_directive(word: str) -> str:
    """The directive that was probably meant by ``word`` (with its dot); empty when none is near."""
    near = get_close_matches(word, sorted(DIRECTIVES), n=1, cutoff=0.6) if len(word) <= _LONGEST else []
    return near[0] if near else ""
