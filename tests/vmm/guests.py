"""Guests for the machine's tests: each does much of one thing that could spoil a replay."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from kvmscope.asm import assemble
from kvmscope.asm.image import Image
from kvmscope.vmm.config import Budget, HandlerInit, MachineConfig, Mode, PageInit, Paging

__all__ = ["GUESTS", "Guest", "build"]


@dataclass(frozen=True)
class Guest:
    """A program and how it boots; ``ticks`` is how far the tests look."""

    name: str
    source: str
    mode: Mode = Mode.LONG64
    paging: Paging | None = None
    ring: int = 0
    handlers: tuple[HandlerInit, ...] = ()
    pages: tuple[PageInit, ...] = ()
    ticks: int = 3000
    registers: dict[str, int | str] = field(default_factory=dict)
    smp: int = 1

    def config(self, **changes: object) -> MachineConfig:
        config = MachineConfig(
            mode=self.mode,
            paging=self.paging,
            ring=self.ring,
            handlers=self.handlers,
            pages=self.pages,
            registers=self.registers,
            smp=self.smp,
            quantum=150,
            memory=5 << 20,
            budget=Budget(instructions=1 << 40),
        )
        return config.with_(**changes)


@lru_cache
def build(source: str, mode: Mode) -> Image:
    """The assembled program.  Raises AssertionError with the diagnostics."""
    origin = 0x7C00 if mode is Mode.REAL16 else 0x400000
    assembly = assemble(source, bits=mode.bits, origin=origin, cross_check=False)
    assert assembly.image is not None, assembly.diagnostics
    return assembly.image


_WRITE_DIGIT = """
        mov     dx, 0x3f8
        mov     al, cl
        and     al, 15
        add     al, 'a'
        out     dx, al
"""

GUESTS = (
    Guest(
        "faults with a handler",
        f"""
start:  mov     ebx, 0x200000
again:  mov     [rbx], rax              # not writable: the handler makes it so
        inc     eax
        mov     rdx, [0x200ff8]
        xor     edi, edi
        mov     cr3, rbp
        mov     cl, al
{_WRITE_DIGIT}
        ud2
        jmp     again
on_pf:  add     rsp, 8
        mov     rsi, cr2
        xor     dword ptr [r15], 2      # toggle R/W of the page
        invlpg  [rbx]
        inc     r14
        iretq
on_ud:  add     qword ptr [rsp], 2
        xor     dword ptr [r15], 2
        invlpg  [rbx]
        iretq
""",
        handlers=(HandlerInit(14, "on_pf"), HandlerInit(6, "on_ud")),
        pages=(PageInit(0x200000, 0x200000, ("P",)),),
        registers={"rbp": 0x90000, "r15": 0x98000},
    ),
    Guest(
        "stale translations",
        # The page moves back and forth without INVLPG; what a load sees is the TLB's business, but always the same.
        """
start:  mov     ebx, 0x210000
        mov     dword ptr [0x211000], 0x11111111
        mov     dword ptr [0x212000], 0x22222222
again:  mov     eax, [rbx]
        add     r8, rax
        rol     r8, 3
        inc     ecx
        test    ecx, 31
        jnz     again
        xor     dword ptr [r15], 0x3000
        jmp     again
""",
        pages=(PageInit(0x210000, 0x211000, ("P", "RW")), PageInit(0x211000, 0x211000, ("P", "RW"), count=2)),
        registers={"r15": 0x98000 + 8 * 0x10},
    ),
    Guest(
        "self-modifying code",
        """
start:  lea     rbx, [rip + patched]
again:  inc     ecx
        mov     [rbx + 1], cl
patched: mov    al, 0
        add     r8, rax
        mov     byte ptr [rip + next], 0x90
next:   nop
        xor     byte ptr [rip + flip + 1], 1
flip:   mov     dl, 0
        add     r9, rdx
        jmp     again
""",
    ),
    Guest(
        "strings, ports and device memory",
        """
start:  cld
        mov     edi, 0x200ff0
        mov     ecx, 40
        mov     eax, ebp
        rep stosb
        mov     esi, 0x200ff0
        mov     edi, 0x300ff8
        mov     ecx, 5
        rep movsq
        mov     esi, 0x200ff0
        mov     edx, 0xe9
        mov     ecx, 9
        rep outsb
        mov     edx, 0xe0
        mov     edi, 0x220ffe
        mov     ecx, 3
        rep insd
        mov     edi, 0xff000000
        add     [rdi + rbp], rbp
        lock xadd [rdi + 4], ebp
        inc     ebp
        and     ebp, 0xff
        in      eax, 0x60
        jmp     start
""",
    ),
    Guest(
        "single-step and breakpoint registers",
        """
start:  mov     rax, offset target
        mov     dr0, rax
        mov     eax, 0x401
        mov     dr7, rax
again:  pushfq
        or      dword ptr [rsp], 0x100
        popfq
        nop
        inc     ecx
target: xor     ebx, ecx
        mov     ax, ss
        mov     ss, ax
        nop
        pushfq
        and     dword ptr [rsp], 0xfffffeff
        popfq
        jmp     again
on_db:  inc     r8
        mov     rax, dr6
        add     r9, rax
        xor     eax, eax
        mov     dr6, rax
        or      dword ptr [rsp + 16], 0x10000
        iretq
""",
        handlers=(HandlerInit(1, "on_db"),),
    ),
    Guest(
        "ring 3 and back",
        """
start:  mov     eax, 7
again:  int     0x80
        inc     ecx
        mov     edx, 0
        div     dl                      # always #DE
        jmp     again
on_int: inc     r8
        mov     edx, 0x3f8
        out     dx, al
        rdtsc
        cpuid
        iretq
on_de:  add     qword ptr [rsp], 2
        mov     cr2, r8
        mov     r9, cr2
        iretq
""",
        ring=3,
        handlers=(HandlerInit(0x80, "on_int", dpl=3, ist=1), HandlerInit(0, "on_de")),
    ),
    Guest(
        "real mode",
        """
start:  mov     word ptr [0x84], offset handler
        mov     word ptr [0x86], 0
again:  int     0x21
        push    cx
        rep stosb
        pop     cx
        inc     cx
        and     cx, 7
        sti
        nop
        cli
        jmp     again
handler: inc    bx
        mov     dx, 0x3f8
        mov     al, bl
        out     dx, al
        iret
""",
        mode=Mode.REAL16,
        registers={"edi": 0x9000},
    ),
    Guest(
        "32-bit paging, segments and the FPU",
        """
start:  mov     ax, 0x48
        mov     gs, ax
        fninit
        fldpi
        mov     ebp, 0x300000
again:  fld1
        faddp   st(1), st
        fst     qword ptr [ebp]
        movups  xmm1, [ebp]
        paddd   xmm2, xmm1
        mov     eax, cr0
        xor     eax, 0x10000
        mov     cr0, eax
        mov     gs:[0x700], ecx
        inc     ecx
        push    ecx
        call    sub
        pop     edx
        jmp     again
sub:    lock inc dword ptr [0x300100]
        xchg    eax, [0x300104]
        ret
""",
        mode=Mode.PROT32,
        paging=Paging.BITS32,
    ),
    Guest(
        "timers, HLT and interrupts of one processor",
        """
start:  mov     r12d, 0xfee00000
        mov     dword ptr [r12+0xf0], 0x1ff
        mov     dword ptr [r12+0x3e0], 0xb
        mov     dword ptr [r12+0x320], 0x20040
        mov     dword ptr [r12+0x380], 20011
        mov     al, 0x34
        out     0x43, al
        mov     al, 50
        out     0x40, al
        mov     al, 0
        out     0x40, al
again:  hlt
        cpuid
        pause
        cli
        inc     r8
        test    r8b, 3
        sti
        jnz     again
        in      al, 0x40
        mov     ecx, 50
spin:   add     r9, rcx
        loop    spin
        jmp     again
tick:   push    rax
        inc     r10
        rdtsc
        mov     [0x300000], eax
        mov     eax, [r12+0x390]
        mov     [0x300008+r10*8], eax
        and     r10d, 0xff
        mov     dword ptr [r12+0xb0], 0
        pop     rax
        iretq
""",
        handlers=(HandlerInit(0x40, "tick"),),
        registers={"rflags": 0x202},
    ),
    Guest(
        "four processors with IPIs",
        """
start:  mov     ebx, 0xfee00000
        mov     dword ptr [rbx+0xf0], 0x1ff
        mov     dword ptr [rbx+0x300], 0xc4500
        mov     dword ptr [rbx+0x300], 0xc4608
again:  lock inc dword ptr [0x9000]
        mov     ecx, 30
spin:   pause
        add     eax, [0x9004]
        loop    spin
        mov     dword ptr [rbx+0x300], 0xc4400
        inc     esi
        test    esi, 7
        jnz     again
        mov     dword ptr [rbx+0x310], 2 << 24
        mov     dword ptr [rbx+0x300], 0x4500
        mov     dword ptr [rbx+0x300], 0x4608
        jmp     again

        .section .ap, 0x8000
        .code16
ap:     xor     ax, ax
        mov     ds, ax
        mov     word ptr [8], 0x8100
        mov     word ptr [10], 0
        mov     sp, 0x7000
        lock inc word ptr [0x9008]
rest:   hlt
        mov     cx, 100
work:   add     word ptr [0x900c], cx
        xchg    ax, [0x9010]
        loop    work
        jmp     rest
        .org    ap + 0x100
nmi:    lock inc dword ptr [0x9004]
        iret
""",
        smp=4,
    ),
)
