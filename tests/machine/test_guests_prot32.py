"""Protected mode: segments, rings, gates, tasks, VM86, far transfers (SDM vol. 3A chapters 3, 5, 6, 8, 22)."""

from __future__ import annotations

import pytest

from tests.machine.guests import check, g

P = 'mode = "prot32"\n'
U = P + "ring = 3\n"


def desc(index: int, kind: str, fields: str, table: str = "gdt") -> str:
    """A [[descriptor]] table."""
    return f'[[descriptor]]\ntable = "{table}"\nindex = {index}\nkind = "{kind}"\nfields = {{ {fields} }}\n'


def fault(what: str, code: int | None, raised: int = 1) -> tuple[str, ...]:
    """The guest must stop by exception ``what`` with error code ``code`` at the label ``bad``."""
    words = [f"exception == '{what}'", f"exceptions == {raised}", "stop == 'exception'", "rip == bad"]
    if code is not None:
        words.append(f"error_code == {code}")
    return tuple(words)


GP0, SS0, UD = fault("#GP", 0), fault("#SS", 0), fault("#UD", None)
FINE = ("stop == 'hlt'", "exceptions == 0")
SMALL = P + desc(14, "data", "base = 0x20000, limit = 0xfff")
DOWN = P + desc(14, "data", "base = 0, limit = 0xfff, expand_down = 1")
DOWN16 = P + desc(14, "data", "base = 0, limit = 0xfff, expand_down = 1, b = 0")
READ = P + desc(14, "data", "writable = 0")
CODE = P + desc(14, "code", "readable = 1")
XO = P + desc(14, "code", "readable = 0")
CONF = U + desc(14, "code", "conforming = 1")
TASK = desc(14, "tss", 'base = "tss1", limit = 0x67')
TSS1 = """
.balign 16
tss1: .long 0xffff; .fill 6, 4, 0; .long 0; .long task; .long {flags}; .long 1, 2, 3, 4; .long 0x9000, 5, 6, 7
.long 0x10, 0x38, {ss}, 0x10, 0x10, 0x10; .long 0; .word {t}, 0x68
"""


def tss(flags: int = 2, t: int = 0, ss: int = 0x10) -> str:
    return TSS1.format(flags=flags, t=t, ss=ss)


GUESTS = {
    "limit last byte": g(SMALL, "mov eax, 0x70; mov ds, eax; mov al, [0xfff]; bad: hlt", *FINE),
    "limit beyond": g(SMALL, "mov eax, 0x70; mov ds, eax; bad: mov al, [0x1000]; hlt", *GP0),
    "limit word": g(SMALL, "mov eax, 0x70; mov ds, eax; bad: mov ax, [0xfff]; hlt", *GP0),
    "limit dword": g(SMALL, "mov eax, 0x70; mov ds, eax; bad: mov dword ptr [0xffd], 0; hlt", *GP0),
    "limit wrap": g(SMALL, "mov eax, 0x70; mov ds, eax; bad: mov eax, [0xffffffff]; hlt", *GP0),
    "flat wrap": g(P, "bad: mov al, [0xffffffff]; hlt", *FINE),
    "base added": g(
        SMALL,
        "mov dword ptr [0x20010], 0x1234; mov eax, 0x70; mov es, eax; mov ebx, es:[0x10]; hlt",
        *FINE,
        "ebx == 0x1234",
    ),
    "ss limit": g(SMALL, "mov eax, 0x70; mov ss, eax; mov esp, 0x1004; bad: pop eax; hlt", *SS0),
    "ss limit push": g(SMALL, "mov eax, 0x70; mov ss, eax; mov esp, 0; bad: push eax; hlt", *SS0),
    "ss limit bp": g(SMALL, "mov eax, 0x70; mov ss, eax; mov ebp, 0x2000; bad: mov eax, [ebp]; hlt", *SS0),
    "down below": g(DOWN, "mov eax, 0x70; mov ds, eax; bad: mov al, [0xfff]; hlt", *GP0),
    "down above": g(DOWN, "mov eax, 0x70; mov ds, eax; mov al, [0x1000]; bad: hlt", *FINE),
    "down16 top": g(DOWN16, "mov eax, 0x70; mov ds, eax; mov al, [0xffff]; bad: hlt", *FINE),
    "down16 above": g(DOWN16, "mov eax, 0x70; mov ds, eax; bad: mov al, [0x10000]; hlt", *GP0),
    "read-only": g(READ, "mov eax, 0x70; mov ds, eax; mov al, [0x20000]; bad: mov [0x20000], al; hlt", *GP0),
    "code readable": g(CODE, "mov eax, 0x70; mov ds, eax; mov al, [0x20000]; bad: mov [0x20000], al; hlt", *GP0),
    "cs write": g(P, "bad: mov cs:[0x20000], al; hlt", *GP0),
    "execute-only read": g(XO, "ljmp 0x70, offset there; there: bad: mov al, cs:[0x20000]; hlt", *GP0),
    "null ds": g(P, "xor eax, eax; mov ds, eax; bad: mov al, [0x20000]; hlt", *GP0),
    "null es string": g(P, "xor eax, eax; mov es, eax; mov edi, 0x20000; bad: stosb; hlt", *GP0),
    "null ss": g(P, "xor eax, eax; bad: mov ss, eax; hlt", *GP0),
    "null rpl": g(P, "mov eax, 3; mov ds, eax; bad: hlt", *FINE, "ds == 3"),
    "accessed bit": g(
        P + desc(14, "data", "accessed = 0"), "mov eax, 0x70; mov ds, eax; hlt", *FINE, "u8(0x1075) == 0x93"
    ),
    "jmp null": g(P, "bad: ljmp 0, 0; hlt", *GP0),
    "jmp data": g(P, "bad: ljmp 0x10, 0; hlt", *fault("#GP", 0x10)),
    "jmp limit": g(P + desc(14, "code", "limit = 0xfff"), "bad: ljmp 0x70, 0x1000; hlt", *GP0),
    "jmp np": g(P + desc(14, "code", "present = 0"), "bad: ljmp 0x70, 0x1000; hlt", *fault("#NP", 0x70)),
    "jmp dpl": g(U, "bad: ljmp 0x38, offset bad; hlt", *fault("#GP", 0x38)),
    "conforming": g(CONF, "ljmp 0x70, offset there; there: mov eax, cs; bad: ud2", *UD, "cpl == 3", "eax == 0x73"),
    "code limit run": g(
        P + desc(14, "code", 'base = "part", limit = 3'),
        "ljmp 0x70, 0; part: nop; nop; nop; nop; hlt",
        "exception == '#GP'",
        "error_code == 0",
        "fault_rip == 4",
    ),
    "near jmp limit": g(
        P + desc(14, "code", 'base = "part", limit = 0xff'),
        "ljmp 0x70, 0; part: mov eax, 0x100; jmp eax",
        "exception == '#GP'",
        "error_code == 0",
        "rip == 5",
    ),
    "code16": g(
        P + desc(14, "code", "bits = 16, limit = 0xfffff"),
        "mov dword ptr [0x7000], 0xf4660eb8; ljmp 0x70, 0x7000",
        "stop != 'budget'",
        "rip == 0x7004 || eax & 0xffff == 0x660e",
    ),
    "bound": g(
        P,
        "mov dword ptr [0x20000], 1; mov dword ptr [0x20004], 3; mov eax, 2; bound eax, [0x20000]; mov eax, 4; bad: bound eax, [0x20000]; hlt",
        *fault("#BR", None),
    ),
    "bound reg": g(P, "bad: .byte 0x62, 0xc0; hlt", *UD),
    "into": g(P, "mov al, 127; add al, 1; bad: into; hlt", "exception == '#OF'"),
    "into clear": g(P, "xor eax, eax; into; bad: hlt", *FINE),
    "into dpl": g(
        U + "[handlers]\n'#OF' = { entry = 'bad', dpl = 0 }",
        "mov al, 127; add al, 1; bad: into; hlt",
        *fault("#GP", 4 * 8 + 2, 2),
    ),
    "int3 dpl": g(U + "[handlers]\n'#BP' = { entry = 'bad', dpl = 0 }", "bad: int3; hlt", *fault("#GP", 3 * 8 + 2, 2)),
    "icebp ignores dpl": g(
        U + "[handlers]\n'#DB' = { entry = 'there', dpl = 0 }",
        "bad: .byte 0xf1; after: hlt; there: mov ebx, [esp]; hlt",
        "ebx == after",
        "cpl == 0",
        "stop == 'hlt'",
    ),
    "lar": g(P, "mov ecx, 0x38; lar eax, ecx; setz bl; hlt", *FINE, "eax & 0xf0ff00 == 0xc09b00", "bl == 1"),
    "lar ring 3": g(U, "mov ecx, 0x38; mov eax, 5; lar eax, ecx; setz bl; bad: ud2", *UD, "eax == 5", "bl == 0"),
    "lar tss": g(P, "mov ecx, 0x50; lar eax, ecx; setz bl; hlt", *FINE, "eax & 0xff00 == 0x8b00", "bl == 1"),
    "lar gate": g(
        P + desc(14, "call-gate", "selector = 0x38"),
        "mov ecx, 0x70; lar eax, ecx; setz bl; lsl edx, ecx; setz bh; hlt",
        *FINE,
        "bl == 1",
        "bh == 0",
    ),
    "lar int gate": g(
        P + desc(14, "interrupt-gate", "selector = 0x38"), "mov ecx, 0x70; lar eax, ecx; setz bl; hlt", *FINE, "bl == 0"
    ),
    "lsl": g(P, "mov ecx, 0x10; lsl eax, ecx; setz bl; hlt", *FINE, "eax == 0xffffffff", "bl == 1"),
    "lsl tss": g(P, "mov ecx, 0x50; lsl eax, ecx; setz bl; hlt", *FINE, "eax == 0x2068", "bl == 1"),
    "lsl null": g(P, "xor ecx, ecx; lsl eax, ecx; setz bl; hlt", *FINE, "bl == 0"),
    "verr verw": g(
        READ,
        "mov ecx, 0x70; verr cx; setz al; verw cx; setz ah; mov ecx, 0x38; verr cx; setz bl; verw cx; setz bh; hlt",
        *FINE,
        "ax == 1",
        "bx == 1",
    ),
    "verr tss": g(P, "mov ecx, 0x50; verr cx; setz al; hlt", *FINE, "al == 0"),
    "arpl": g(
        P, "mov eax, 0x10; mov ecx, 3; arpl ax, cx; setz bl; arpl ax, cx; setz bh; hlt", *FINE, "ax == 0x13", "bx == 1"
    ),
    "call gate beyond": g(U, "bad: lcall 0x1003, 0; hlt", *fault("#GP", 0x1000)),
    "call gate dpl": g(
        U + desc(14, "call-gate", "selector = 0x38, offset = 'bad', dpl = 0"),
        "bad: lcall 0x70, 0; hlt",
        *fault("#GP", 0x70),
    ),
    "call gate np": g(
        U + desc(14, "call-gate", "selector = 0x38, offset = 'bad', dpl = 3, present = 0"),
        "bad: lcall 0x70, 0; hlt",
        *fault("#NP", 0x70),
    ),
    "call gate null": g(
        U + desc(14, "call-gate", "selector = 0, offset = 'bad', dpl = 3"), "bad: lcall 0x70, 0; hlt", *GP0
    ),
    "call gate jmp inward": g(
        U + desc(14, "call-gate", "selector = 0x38, offset = 'bad', dpl = 3"),
        "bad: ljmp 0x70, 0; hlt",
        *fault("#GP", 0x38),
    ),
    "call gate back": g(
        U + desc(14, "call-gate", "selector = 0x38, offset = 'gate', dpl = 3, count = 2"),
        "push 1; push 2; lcall 0x73, 0; after: mov ebx, esp; mov ecx, cs; bad: ud2; gate: mov esi, [esp+8]; mov edi, [esp+12]; mov ebp, esp; mov edx, ss; lretd 8",
        *UD,
        "ebx == 0x70000",
        "ecx == 0x1b",
        "esi == 2",
        "edi == 1",
        "ebp == 0x88000 - 24",
        "edx == 0x10",
    ),
    "call gate ss bad": g(
        U
        + desc(14, "call-gate", "selector = 0x38, offset = 'bad', dpl = 3")
        + "[[memory]]\naddress = 0x4008\nu32 = [0x08]",
        "bad: lcall 0x73, 0; hlt",
        *fault("#TS", 8),
    ),
    "int ring change": g(
        U + "[handlers]\n0x80 = { entry = 'there', dpl = 3 }",
        "push 0x203; popf; int 0x80; after: ud2; there: mov eax, [esp]; mov ebx, [esp+4]; mov ecx, [esp+8]; mov edx, [esp+12]; mov esi, [esp+16]; mov ebp, esp; hlt",
        "stop == 'hlt'",
        "eax == after",
        "ebx == 0x1b",
        "ecx & 0xff == 3",
        "edx == 0x70000",
        "esi == 0x23",
        "ebp == 0x88000 - 20",
        "cpl == 0",
    ),
    "int trap gate": g(
        P + "[handlers]\n0x30 = { entry = 'there', type = 'trap' }\n[registers]\nrflags = 0x4202",
        "int 0x30; there: hlt",
        "if == 1",
        "nt == 0",
    ),
    "int interrupt gate": g(
        P + "[handlers]\n0x30 = { entry = 'there', type = 'interrupt' }\n[registers]\nrflags = 0x4202",
        "int 0x30; there: hlt",
        "if == 0",
        "nt == 0",
        "u32(esp + 8) == 0x4202",
    ),
    "int ts bad": g(
        U + "[handlers]\n0x80 = { entry = 'bad', dpl = 3 }\n[[memory]]\naddress = 0x4008\nu32 = [0]",
        "bad: int 0x80; hlt",
        *fault("#TS", 0, 2),
    ),
    "int ss np": g(
        U
        + desc(14, "data", "present = 0")
        + "[handlers]\n0x80 = { entry = 'bad', dpl = 3 }\n[[memory]]\naddress = 0x4008\nu32 = [0x70]",
        "bad: int 0x80; hlt",
        *fault("#SS", 0x70, 2),
    ),
    "int tss limit": g(
        U + '[handlers]\n0x80 = { entry = "bad", dpl = 3 }\n[registers]\n"tr.limit" = 5',
        "bad: int 0x80; hlt",
        *fault("#TS", 0x50, 2),
    ),
    "int gate 16": g(
        P + desc(0x30, "interrupt-gate", "selector = 0x38, offset = 0x7000, bits = 16", "idt"),
        "mov byte ptr [0x7000], 0xf4; int 0x30; after: hlt",
        "rip == 0x7001",
        "esp == 0x80000 - 6",
        "u16(esp) == after & 0xffff",
        "u16(esp + 2) == 0x38",
    ),
    "iret outward": g(
        P,
        "push 0x23; push 0x70000; push 0x3202; push 0x1b; push offset there; iretd; there: pushf; pop eax; mov ecx, ss; bad: ud2",
        "cpl == 3",
        "exception == '#PF' || exception == '#UD'",
        "iopl == 3",
    ),
    "iret nulls data": g(
        P + "ring = 0\n",
        "push 0x23; push 0x70000; push 0x3202; push 0x1b; push offset there; mov eax, 0x10; mov ds, eax; iretd; there: mov ebx, ds; bad: ud2",
        "ebx == 0",
        "cpl == 3",
    ),
    "iret NT": g(
        P + TASK + "[[memory]]\naddress = 0x4000\nu16 = [0x70]",
        "mov byte ptr [0x1075], 0x8b; pushf; or dword ptr [esp], 0x4000; popf; iretd; bad: ud2; task: hlt" + tss(),
        *FINE,
        "tr == 0x70",
        "eax == 1",
        "u8(0x1055) == 0x89",
        "u8(0x1075) == 0x8b",
    ),
    "iret NT not busy": g(
        P + TASK + "[[memory]]\naddress = 0x4000\nu16 = [0x70]",
        "pushf; or dword ptr [esp], 0x4000; popf; bad: iretd; ud2; task: hlt" + tss(),
        *fault("#TS", 0x70),
    ),
    "task call": g(
        P + TASK,
        "lcall 0x70, 0; after: hlt; task: pushf; pop edx; mov ebx, [0x4020]; iretd; ud2" + tss(),
        "stop == 'hlt'",
        "rip == after + 1",
        "tr == 0x50",
        "u16(tss1) == 0x50",
        "cr0.ts == 1",
        "u8(0x1075) == 0x89",
        "u8(0x1055) == 0x8b",
    ),
    "task call nt": g(
        P + TASK,
        "lcall 0x70, 0; after: hlt; task: hlt" + tss(),
        *FINE,
        "nt == 1",
        "u8(0x1055) == 0x8b",
        "u8(0x1075) == 0x8b",
        "u16(tss1) == 0x50",
    ),
    "task jmp": g(
        P + TASK,
        "ljmp 0x70, 0; after: hlt; task: hlt" + tss(),
        *FINE,
        "nt == 0",
        "u8(0x1055) == 0x89",
        "u8(0x1075) == 0x8b",
        "u32(tss1) == 0xffff",
        "eax == 1",
        "edi == 7",
        "esp == 0x9000",
    ),
    "task jmp busy": g(P, "bad: ljmp 0x50, 0; hlt", *fault("#GP", 0x50)),
    "task limit": g(
        P + desc(14, "tss", "base = 'tss1', limit = 0x66"),
        "bad: ljmp 0x70, 0; hlt; task: hlt" + tss(),
        *fault("#TS", 0x70),
    ),
    "task np": g(
        P + desc(14, "tss", "base = 'tss1', present = 0"),
        "bad: ljmp 0x70, 0; hlt; task: hlt" + tss(),
        *fault("#NP", 0x70),
    ),
    "task ss bad": g(P + TASK, "ljmp 0x70, 0; hlt; task: bad: hlt" + tss(ss=0x38), *fault("#TS", 0x38), "tr == 0x70"),
    "task T": g(P + TASK, "ljmp 0x70, 0; hlt; task: bad: hlt" + tss(t=1), "stop == 'unsupported'"),
    "task TF": g(
        P + TASK,
        "ljmp 0x70, 0; hlt; task: nop; after: hlt" + tss(flags=0x102),
        "exception == '#DB'",
        "rip == after",
        "dr6 & 0x4000 == 0x4000",
    ),
    "task via ring 3 dpl": g(U + TASK, "bad: ljmp 0x70, 0; hlt; task: hlt" + tss(), *fault("#GP", 0x70)),
    "task gate jmp": g(
        P + TASK + desc(15, "task-gate", "selector = 0x70"), "ljmp 0x78, 0; hlt; task: hlt" + tss(), *FINE, "tr == 0x70"
    ),
    "task gate int": g(
        P + TASK + "\n" + desc(0x30, "task-gate", "selector = 0x70", "idt"),
        "int 0x30; after: hlt; task: hlt" + tss(),
        "stop == 'hlt'",
        "tr == 0x70",
        "nt == 1",
        "u32(0x4020) == after",
    ),
    "task gate fault": g(
        P + TASK + "\n" + desc(13, "task-gate", "selector = 0x70", "idt"),
        "mov eax, 0x1000; bad: mov ds, eax; hlt; task: pop ebx; hlt" + tss(),
        "stop == 'hlt'",
        "tr == 0x70",
        "ebx == 0x1000",
        "u32(0x4020) == bad",
        "u32(0x4024) & 0x10000",
    ),
    "task tss16": g(
        P + desc(14, "tss16", "base = 'tss1'"),
        "ljmp 0x70, 0; .balign 16; tss1: .word 0,0,0,0,0,0,0, 0x7000, 2, 1,2,3,4, 0x8000, 5,6,7, 0x10, 0x38, 0x10, 0x10, 0",
        "tr == 0x70",
        "rip == 0x7000 || stop != 'hlt'",
        "eax == 0xffff0001 || ax == 1",
    ),
    "vm86": g(
        P,
        "push 0; push 0; push 0; push 0; push 0; push 0x8000; push 0x23202; push 0x700; push 0; mov dword ptr [0x7000], 0xf4d8c88c; iretd",
        "stop == 'unsupported' || vm == 1",
    ),
    "sysenter": g(
        P + "[msrs]\n0x174 = 0x38\n0x175 = 0x60000\n0x176 = 0x400040",
        "sysenter; .space 62; there: mov eax, cs; mov ecx, ss; hlt",
        *FINE,
        "eax == 0x38",
        "ecx == 0x40",
        "esp == 0x60000",
    ),
    "sysenter amd": g(
        P + 'cpu = "amd"\n[msrs]\n0x174 = 0x38\n0x175 = 0x60000\n0x176 = 0x400100',
        "sysenter; .space 254; mov eax, cs; hlt",
        *FINE,
        "eax == 0x38",
    ),
    "syscall intel 32": g(P + "[registers]\nefer = 1", "bad: syscall; hlt", *UD),
    "syscall amd 32": g(
        P + 'cpu = "amd"\n[registers]\nefer = 1\n[msrs]\nIA32_STAR = 0x0000003800400100',
        "syscall; after: .space 254; mov eax, cs; hlt",
        *FINE,
        "eax == 0x38",
        "ecx == after",
    ),
    "popf iopl": g(U, "push 0x3202; popf; pushf; pop eax; bad: ud2", *UD, "eax == 2"),
    "pushf rf": g(P, "push 0x10002; popf; pushf; pop eax; hlt", *FINE, "eax & 0x10000 == 0"),
    "esp pop": g(
        P, "push 0x1234; push 7; pop dword ptr [esp]; mov eax, [esp]; hlt", *FINE, "eax == 7", "esp == 0x7fffc"
    ),
    "io wide bitmap": g(U + "io_permission = [[0xe0, 0xe2]]", "in ax, 0xe0; bad: in eax, 0xe0; hlt", *GP0),
    "io last port": g(
        U + "io_permission = [[0xffff, 0xffff]]", "mov edx, 0xffff; in al, dx; bad: in ax, dx; hlt", *GP0
    ),
    "io bitmap base beyond": g(
        U + "io_permission = [[0, 0xffff]]\n[[memory]]\naddress = 0x4066\nu16 = [0x2069]", "bad: in al, 0xe0; hlt", *GP0
    ),
}


@pytest.mark.parametrize("name", GUESTS)
def test_guest(name: str) -> None:
    check(GUESTS[name])
