"""Which exception an instruction raises, with which error code: 64-bit, 32-bit and 16-bit rows."""

from __future__ import annotations

import pytest

from tests.machine.guests import check, g

R16 = 'mode = "real16"'
P32 = 'mode = "prot32"'
P32U = 'mode = "prot32"\nring = 3'
L64 = ""
U64 = "ring = 3"
AMD = 'cpu = "amd"'


def fault(what: str, code: int | None, raised: int = 1) -> tuple[str, ...]:
    """The guest must stop by exception ``what`` with error code ``code`` at the label ``bad``."""
    words = [f"exception == '{what}'", f"exceptions == {raised}", "stop == 'exception'", "rip == bad"]
    if code is not None:
        words.append(f"error_code == {code}")
    return tuple(words)


GP0, SS0, UD, DB = fault("#GP", 0), fault("#SS", 0), fault("#UD", None), ("exception == '#DB'",)
FINE = ("stop == 'hlt'", "exceptions == 0")


def efer(bits: str) -> str:
    return f"mov ecx, 0xc0000080; rdmsr; {bits}; bad: wrmsr; hlt"


GUESTS = {
    # Non-canonical addresses: #GP for data, #SS for the stack, #GP for jumps.
    "data": g(L64, "movabs rbx, 0x800000000000; bad: mov eax, [rbx]; hlt", *GP0),
    "data crossing": g(
        "[[page]]\nlinear = 0x7ffffffff000\nphysical = 0x20000",
        "movabs rbx, 0x7ffffffffffd; bad: mov eax, [rbx]; hlt",
        *GP0,
    ),
    "stack by rbp": g(L64, "movabs rbp, 0x800000000000; bad: mov eax, [rbp]; hlt", *SS0),
    "push": g(L64, "movabs rsp, 0x800000000100; bad: push rax; hlt", *SS0),
    "pop": g(L64, "movabs rsp, 0x800000000100; bad: pop rax; hlt", *SS0),
    "call stack": g(L64, "movabs rsp, 0x800000000100; bad: call next; next: hlt", *SS0),
    "ret stack": g(L64, "movabs rsp, 0x800000000100; bad: ret; hlt", *SS0),
    "jmp": g(L64, "movabs rax, 0x800000000000; bad: jmp rax; hlt", *GP0),
    "call": g(L64, "movabs rax, 0x800000000000; bad: call rax; hlt", *GP0, "rsp == 0x80000"),
    "ret": g(L64, "movabs rax, 0x800000000000; push rax; bad: ret; hlt", *GP0, "rsp == 0x7fff8"),
    "gs base": g(L64, "mov ecx, 0xc0000101; xor eax, eax; mov edx, 0x80000000; bad: wrmsr; hlt", *GP0),
    "fs wrap": g('[registers]\n"fs.base" = 0x7fffffffffff', "bad: mov al, fs:[1]; hlt", *GP0),
    "invlpg": g(L64, "movabs rax, 0x800000000000; bad: invlpg [rax]; hlt", *FINE),
    "5level data": g('paging = "5level"', "movabs rbx, 0x100000000000000; bad: mov eax, [rbx]; hlt", *GP0),
    "5level canonical": g(
        'paging = "5level"', "movabs rbx, 0x800000000000; bad: mov eax, [rbx]; hlt", *fault("#PF", 0)
    ),
    "lgdt base": g(
        L64, "movabs rax, 0x8000000000000000; mov [rsp-8], rax; mov word ptr [rsp-10], 9; bad: lgdt [rsp-10]; hlt", *GP0
    ),
    "lidt base": g(
        L64, "movabs rax, 0x8000000000000000; mov [rsp-8], rax; mov word ptr [rsp-10], 9; bad: lidt [rsp-10]; hlt", *GP0
    ),
    "lldt null": g(L64, "xor eax, eax; lldt ax; bad: hlt", "ldtr == 0", *FINE),
    "ltr null": g(L64, "xor eax, eax; bad: ltr ax; hlt", *GP0),
    "ltr busy": g(L64, "mov eax, 0x50; bad: ltr ax; hlt", *fault("#GP", 0x50)),
    "ltr data": g(L64, "mov eax, 0x10; bad: ltr ax; hlt", *fault("#GP", 0x10)),
    "lldt data": g(L64, "mov eax, 0x10; bad: lldt ax; hlt", *fault("#GP", 0x10)),
    "lldt in ldt": g(L64, "mov eax, 0x64; bad: lldt ax; hlt", *fault("#GP", 0x64)),
    "stack push wrap": g(L64, "movabs rsp, 0x800000000000; bad: push rax; hlt", *fault("#PF", 2)),
    # Control registers.
    "cr0 high": g(L64, "mov rax, cr0; bts rax, 32; bad: mov cr0, rax; hlt", *GP0),
    "cr0 nw": g(L64, "mov rax, cr0; bts rax, 29; bad: mov cr0, rax; hlt", *GP0),
    "cr0 pe off": g(L64, "mov rax, cr0; btr rax, 0; bad: mov cr0, rax; hlt", *GP0),
    "cr0 pg off": g(L64, "mov rax, cr0; btr rax, 31; bad: mov cr0, rax; hlt", *GP0),
    "cr1": g(L64, "bad: .byte 0x0f, 0x22, 0xc8; hlt", *UD),
    "cr5": g(L64, "bad: .byte 0x0f, 0x20, 0xe8; hlt", *UD),
    "cr3 high": g(L64, "mov rax, cr3; bts rax, 52; bad: mov cr3, rax; hlt", *GP0),
    "cr4 bit 31": g(L64, "mov rax, cr4; bts rax, 31; bad: mov cr4, rax; hlt", *GP0),
    "cr4 pae": g(L64, "mov rax, cr4; btr rax, 5; bad: mov cr4, rax; hlt", *GP0),
    "cr4 la57": g(L64, "mov rax, cr4; btc rax, 12; bad: mov cr4, rax; hlt", *GP0),
    "cr8": g(L64, "mov eax, 0x10; bad: mov cr8, rax; hlt", *GP0),
    "dr6 high": g(L64, "movabs rax, 0x100000000; bad: mov dr6, rax; hlt", *GP0),
    "dr7 high": g(L64, "movabs rax, 0x100000000; bad: mov dr7, rax; hlt", *GP0),
    "dr4 with DE": g(L64, "mov rax, cr4; or eax, 8; mov cr4, rax; bad: .byte 0x0f, 0x21, 0xe0; hlt", *UD),
    "dr4 without DE": g(L64, "bad: .byte 0x0f, 0x21, 0xe0; hlt", *FINE, "rax == 0xffff0ff0"),
    "lmsw cannot clear PE": g(L64, "xor eax, eax; lmsw ax; bad: hlt", *FINE, "cr0.pe == 1", "cr0.mp == 0"),
    "efer reserved": g(L64, efer("bts eax, 1"), *GP0),
    "efer high": g(L64, efer("bts edx, 1"), *GP0),
    "efer lme": g(L64, efer("btr eax, 8"), *GP0),
    "efer svme intel": g(L64, efer("bts eax, 12"), *GP0),
    "efer lma": g(L64, efer("btr eax, 10"), *FINE, "efer & 0x400"),
    "msr unknown read": g(L64, "mov ecx, 0x12345; bad: rdmsr; hlt", *GP0),
    "msr unknown write": g(L64, "mov ecx, 0x12345; bad: wrmsr; hlt", *GP0),
    "msr lstar": g(L64, "mov ecx, 0xc0000082; mov edx, 0x80000000; bad: wrmsr; hlt", *GP0),
    "msr pat": g(L64, "mov ecx, 0x277; mov eax, 2; bad: wrmsr; hlt", *GP0),
    "xsetbv without OSXSAVE": g(L64, "xor ecx, ecx; mov eax, 1; xor edx, edx; bad: xsetbv; hlt", *UD),
    "xsetbv x87 off": g(
        L64, "mov rax, cr4; bts rax, 18; mov cr4, rax; xor ecx, ecx; xor edx, edx; xor eax, eax; bad: xsetbv; hlt", *GP0
    ),
    "xsetbv avx alone": g(
        L64, "mov rax, cr4; bts rax, 18; mov cr4, rax; xor ecx, ecx; xor edx, edx; mov eax, 5; bad: xsetbv; hlt", *GP0
    ),
    "xsetbv ecx": g(
        L64, "mov rax, cr4; bts rax, 18; mov cr4, rax; mov ecx, 2; xor edx, edx; mov eax, 3; bad: xsetbv; hlt", *GP0
    ),
    "xsetbv sse": g(
        L64,
        "mov rax, cr4; bts rax, 18; mov cr4, rax; xor ecx, ecx; xor edx, edx; mov eax, 3; xsetbv; xor eax, eax; xgetbv; bad: hlt",
        *FINE,
        "eax == 3",
    ),
    "xgetbv ecx": g(L64, "mov rax, cr4; bts rax, 18; mov cr4, rax; mov ecx, 5; bad: xgetbv; hlt", *GP0),
    "xsave misaligned": g(
        L64,
        "mov rax, cr4; bts rax, 18; mov cr4, rax; mov eax, 3; xor edx, edx; mov ebx, 0x20020; bad: xsave [rbx]; hlt",
        *GP0,
    ),
    "xrstor header": g(
        L64,
        "mov rax, cr4; bts rax, 18; mov cr4, rax; mov eax, 3; xor edx, edx; mov ebx, 0x20000; mov qword ptr [rbx+512], 4; bad: xrstor [rbx]; hlt",
        *GP0,
    ),
    "xrstor xcomp": g(
        L64,
        "mov rax, cr4; bts rax, 18; mov cr4, rax; mov eax, 3; xor edx, edx; mov ebx, 0x20000; mov qword ptr [rbx+520], 1; bad: xrstor [rbx]; hlt",
        *GP0,
    ),
    "xsave": g(
        L64,
        "mov rax, cr4; bts rax, 18; mov cr4, rax; xor ecx, ecx; xor edx, edx; mov eax, 3; xsetbv; mov eax, 0x1234; movd xmm0, eax; mov eax, 3; xor edx, edx; mov ebx, 0x20000; xsave [rbx]; pxor xmm0, xmm0; xrstor [rbx]; movd r8d, xmm0; bad: hlt",
        *FINE,
        "r8 == 0x1234",
        "u64(0x20200) == 3 || u64(0x20200) == 2",
    ),
    "avx": g(L64, "bad: vpxor ymm0, ymm0, ymm0; hlt", *UD),
    "avx128": g(L64, "bad: vpxor xmm0, xmm0, xmm0; hlt", *UD),
    "movaps misaligned": g(L64, "mov eax, 0x20008; bad: movaps xmm0, [rax]; hlt", *GP0),
    "movaps misaligned rbp": g(L64, "mov ebp, 0x20008; bad: movaps xmm0, [rbp]; hlt", *GP0),
    "sse with TS": g(L64, "mov rax, cr0; or eax, 8; mov cr0, rax; bad: movaps xmm0, xmm1; hlt", *fault("#NM", None)),
    "fpu with EM": g(L64, "mov rax, cr0; or eax, 4; mov cr0, rax; bad: fninit; hlt", *fault("#NM", None)),
    "wait with TS alone": g(L64, "mov rax, cr0; or eax, 8; and eax, ~2; mov cr0, rax; bad: fwait; hlt", *FINE),
    "wait with TS and MP": g(L64, "mov rax, cr0; or eax, 10; mov cr0, rax; bad: fwait; hlt", *fault("#NM", None)),
    "sse with EM": g(L64, "mov rax, cr0; or eax, 4; mov cr0, rax; bad: movaps xmm0, xmm1; hlt", *UD),
    "sse without OSFXSR": g(L64, "mov rax, cr4; btr rax, 9; mov cr4, rax; bad: movaps xmm0, xmm1; hlt", *UD),
    "ldmxcsr reserved": g(L64, "mov dword ptr [rsp-8], 0x10000; bad: ldmxcsr [rsp-8]; hlt", *GP0),
    "x87 exception": g(
        L64,
        "fninit; mov word ptr [rsp-8], 0x37b; fldcw [rsp-8]; fld1; fldz; fdivp; bad: fwait; hlt",
        *fault("#MF", None),
    ),
    "div": g(L64, "xor ecx, ecx; bad: div ecx; hlt", *fault("#DE", None)),
    "idiv overflow": g(L64, "mov eax, 0x80000000; cdq; mov ecx, -1; bad: idiv ecx; hlt", *fault("#DE", None)),
    "ud2": g(L64, "bad: ud2; hlt", *UD),
    "lock reg": g(L64, "bad: .byte 0xf0, 0x01, 0xc0; hlt", *UD),
    "lock mov": g(L64, "bad: .byte 0xf0, 0x89, 0x03; hlt", *UD),
    "push es in 64": g(L64, "bad: .byte 0x06; hlt", *UD),
    "into in 64": g(L64, "bad: .byte 0xce; hlt", *UD),
    "bound in 64 is evex": g(L64, "bad: .byte 0x62, 0, 0, 0, 0, 0; hlt", *UD),
    "daa in 64": g(L64, "bad: .byte 0x27; hlt", *UD),
    "far jmp in 64": g(L64, "bad: .byte 0xea, 0, 0, 0, 0, 8, 0; hlt", *UD),
    "mov cs": g(L64, "bad: .byte 0x8e, 0xc8; hlt", *UD),
    "too long": g(
        L64,
        "bad: .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90; hlt",
        *GP0,
    ),
    "fifteen bytes": g(
        L64,
        "bad: .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90; hlt",
        *FINE,
    ),
    "cmpxchg16b misaligned": g(L64, "mov eax, 0x20008; bad: cmpxchg16b [rax]; hlt", *GP0),
    "monitor": g(L64, "bad: .byte 0x0f, 1, 0xd0; hlt", *UD),
    "vmcall": g(L64, "bad: vmcall; hlt", *UD),
    "vmxon": g(L64, "bad: vmxon [rax]; hlt", *UD),
    "vmrun": g(AMD, "bad: .byte 0x0f, 1, 0xd8; hlt", *UD),
    "rsm": g(L64, "bad: rsm; hlt", *UD),
    "sysenter cs 0": g(L64, "bad: sysenter; hlt", *GP0),
    "sysexit cs 0": g(L64, "bad: sysexitd; hlt", *GP0),
    "sysenter amd long": g(AMD, "bad: sysenter; hlt", *UD),
    "syscall sce 0": g(L64, "mov ecx, 0xc0000080; rdmsr; and eax, ~1; wrmsr; bad: syscall; hlt", *UD),
    "sysret sce 0": g(L64, "mov ecx, 0xc0000080; rdmsr; and eax, ~1; wrmsr; bad: sysretq; hlt", *UD),
    "sysret noncanonical": g(L64, "movabs rcx, 0x800000000000; bad: sysretq; hlt", *GP0, "cpl == 0"),
    "rdpmc": g(L64, "mov ecx, 0x1000; bad: rdpmc; hlt", *GP0),
    "ss null ring 0": g(L64, "xor eax, eax; mov ss, eax; bad: hlt", *FINE, "ss == 0"),
    "ss null ring 3": g(U64, "xor eax, eax; bad: mov ss, eax; hlt", *GP0),
    "ss code": g(L64, "mov eax, 8; bad: mov ss, eax; hlt", *fault("#GP", 8)),
    "ds beyond": g(L64, "mov eax, 0x1000; bad: mov ds, eax; hlt", *fault("#GP", 0x1000)),
    "ds tss": g(L64, "mov eax, 0x50; bad: mov ds, eax; hlt", *fault("#GP", 0x50)),
    "ds null in 64": g(L64, "xor eax, eax; mov ds, eax; mov eax, [0x20000]; bad: hlt", *FINE),
    "ds not present": g(
        '[[descriptor]]\ntable = "gdt"\nindex = 14\nkind = "data"\nfields = { present = 0 }',
        "mov eax, 0x70; bad: mov ds, eax; hlt",
        *fault("#NP", 0x70),
    ),
    "ss not present": g(
        '[[descriptor]]\ntable = "gdt"\nindex = 14\nkind = "data"\nfields = { present = 0 }',
        "mov eax, 0x70; bad: mov ss, eax; hlt",
        *fault("#SS", 0x70),
    ),
    "ss read-only": g(
        '[[descriptor]]\ntable = "gdt"\nindex = 14\nkind = "data"\nfields = { writable = 0 }',
        "mov eax, 0x70; bad: mov ss, eax; hlt",
        *fault("#GP", 0x70),
    ),
    "ss rpl": g(L64, "mov eax, 0x13; bad: mov ss, eax; hlt", *fault("#GP", 0x10)),
    "ds execute-only": g(
        '[[descriptor]]\ntable = "gdt"\nindex = 14\nkind = "code"\nfields = { readable = 0 }',
        "mov eax, 0x70; bad: mov ds, eax; hlt",
        *fault("#GP", 0x70),
    ),
    "ldt selector": g(
        '[[descriptor]]\ntable = "ldt"\nindex = 2\nkind = "data"',
        "mov eax, 0x14; mov ds, eax; bad: hlt",
        *FINE,
        "ds == 0x14",
    ),
    "int beyond idt": g('[registers]\n"idtr.limit" = 0x2ff', "bad: int 0x30; hlt", *fault("#GP", 0x30 * 8 + 2, 2)),
    "int gate dpl": g(U64, "bad: int 0x80; hlt", *fault("#GP", 0x80 * 8 + 2, 2)),
    "int gate np": g(
        "[[descriptor]]\ntable = 'idt'\nindex = 0x30\nkind = 'interrupt-gate'\nfields = { selector = 8, offset = 'bad', present = 0 }",
        "bad: int 0x30; hlt",
        *fault("#NP", 0x30 * 8 + 2, 2),
    ),
    "int gate null cs": g(
        "[[descriptor]]\ntable = 'idt'\nindex = 0x30\nkind = 'interrupt-gate'\nfields = { selector = 0, offset = 'bad' }",
        "bad: int 0x30; hlt",
        *fault("#GP", 0, 2),
    ),
    "int gate data cs": g(
        "[[descriptor]]\ntable = 'idt'\nindex = 0x30\nkind = 'interrupt-gate'\nfields = { selector = 0x10, offset = 'bad' }",
        "bad: int 0x30; hlt",
        *fault("#GP", 0x10, 2),
    ),
    "int gate code32 in long": g(
        "[[descriptor]]\ntable = 'idt'\nindex = 0x30\nkind = 'interrupt-gate'\nfields = { selector = 0x38, offset = 'bad' }",
        "bad: int 0x30; hlt",
        *fault("#GP", 0x38, 2),
    ),
    "int gate 32-bit in long": g(
        "[[descriptor]]\ntable = 'idt'\nindex = 0x30\nkind = 'call-gate'\nfields = { selector = 8, offset = 'bad' }",
        "bad: int 0x30; hlt",
        *fault("#GP", 0x30 * 8 + 2, 2),
    ),
    "int gate noncanonical": g(
        "[[descriptor]]\ntable = 'idt'\nindex = 0x30\nkind = 'interrupt-gate'\nfields = { selector = 8, offset = 0x800000000000 }",
        "bad: int 0x30; hlt",
        *fault("#GP", 0, 2),
    ),
    "iret null cs": g(L64, "push 0x10; push 0x8000; push 2; push 0; push offset bad; bad: iretq; hlt", *GP0),
    "iret data cs": g(
        L64, "push 0x10; push 0x8000; push 2; push 0x10; push offset bad; bad: iretq; hlt", *fault("#GP", 0x10)
    ),
    "iret noncanonical": g(
        L64, "push 0x10; push 0x8000; push 2; push 8; movabs rax, 0x800000000000; push rax; bad: iretq; hlt", *GP0
    ),
    "iret ss rpl": g(
        L64, "push 0x10; push 0x8000; push 2; push 0x2b; push offset bad; bad: iretq; hlt", *fault("#GP", 0x10)
    ),
    "iret NT in long": g(
        L64,
        "push 0x10; push 0x8000; push 2; push 8; push offset bad; pushfq; or dword ptr [rsp], 0x4000; popfq; bad: iretq; hlt",
        *GP0,
    ),
    "retf higher": g(U64, "push 8; push offset bad; bad: retfq; hlt", *fault("#GP", 8)),
    # Privilege of ring 3.
    **{
        f"ring 3 {op}": g(U64, f"bad: {op}; hlt", *GP0)
        for op in (
            "hlt",
            "cli",
            "sti",
            "clts",
            "invd",
            "wbinvd",
            "rdmsr",
            "wrmsr",
            "mov rax, cr0",
            "mov cr3, rax",
            "mov rax, cr8",
            "mov rax, dr7",
            "mov dr0, rax",
            "invlpg [rsp]",
            "lgdt [rsp]",
            "lidt [rsp]",
            "lldt ax",
            "ltr ax",
            "lmsw ax",
            "in al, 0x60",
            "out 0x60, al",
            "in eax, dx",
            "insb",
            "outsb",
            "swapgs",
            "sysretq",
            "sysexitq",
        )
    },
    **{
        f"ring 3 {op}": g(U64, f"{op}; bad: ud2", *UD)
        for op in (
            "sgdt [rsp-16]",
            "sidt [rsp-16]",
            "sldt ax",
            "str ax",
            "smsw eax",
            "rdtsc",
            "cpuid",
            "pushfq; popfq",
            "verr ax",
        )
    },
    "ring 3 tsd": g("ring = 3\n[registers]\ncr4 = 0x624", "bad: rdtsc; hlt", *GP0),
    "ring 0 tsd": g("[registers]\ncr4 = 0x624", "rdtsc; bad: hlt", *FINE),
    "ring 3 rdtscp tsd": g("ring = 3\n[registers]\ncr4 = 0x624", "bad: rdtscp; hlt", *GP0),
    "ring 3 rdpmc": g("ring = 3", "xor ecx, ecx; bad: rdpmc; hlt", *GP0),
    "ring 3 iopl 3 cli": g("ring = 3\n[registers]\nrflags = 0x3202", "cli; bad: ud2", *UD, "if == 0"),
    "ring 3 iopl 3 out": g("ring = 3\n[registers]\nrflags = 0x3202", "mov al, 65; out 0xe9, al; bad: ud2", *UD),
    "ring 3 bitmap": g(
        "ring = 3\nio_permission = [[0xe0, 0xe3]]",
        "mov eax, 0x1234; out 0xe0, eax; in eax, 0xe0; out 0xe1, al; bad: out 0xe1, eax",
        *GP0,
        "eax == 0x1234",
    ),
    "ring 3 popf": g(U64, "push 0x3202; popfq; pushfq; pop rax; bad: ud2", *UD, "eax == 2"),
}


@pytest.mark.parametrize("name", GUESTS)
def test_guest(name: str) -> None:
    check(GUESTS[name])
