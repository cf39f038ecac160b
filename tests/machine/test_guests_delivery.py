"""Delivery in 64-bit and 16-bit mode: frames, RF, IST, nesting, debug exceptions (SDM vol. 3A chapter 6, 3B chapter 17)."""

from __future__ import annotations

import pytest

from tests.machine.guests import check, g, names

R16 = 'mode = "real16"\n'
U = "ring = 3\n"


def on(vector: str, fields: str = "") -> str:
    """A [handlers] table that sends ``vector`` to the label ``there``."""
    return f"[handlers]\n'{vector}' = {{ entry = 'there'{', ' + fields if fields else ''} }}\n"


END = ("stop == 'hlt'",)
FRAME = "there: hlt"
RF = 0x10000


def regs(**values: int) -> str:
    """A [registers] table."""
    return "[registers]\n" + "".join(f"{name} = {value:#x}\n" for name, value in values.items())


GUESTS = {
    "pf frame": g(
        on("#PF"),
        "movabs rbx, 0x500000000; bad: mov [rbx], eax; hlt; " + FRAME,
        *END,
        "u64(rsp) == 2",
        "u64(rsp+8) == bad",
        "u64(rsp+16) == 8",
        "u64(rsp+24) & 0x10000",
        "u64(rsp+32) == 0x80000",
        "u64(rsp+40) == 0x10",
        "cr2 == 0x500000000",
        "rsp == 0x80000 - 48",
    ),
    "alignment of frame": g(
        on("#UD"),
        "sub rsp, 3; bad: ud2; " + FRAME,
        *END,
        "rsp == 0x7fff0 - 40",
        "u64(rsp+24) == 0x7fffd",
        "u64(rsp) == bad",
        "u64(rsp+16) & 0x10000",
    ),
    "int n frame": g(
        on("0x30") + regs(rflags=0x4202),
        "int 0x30; after: hlt; " + FRAME,
        *END,
        "u64(rsp) == after",
        "u64(rsp+16) == 0x4202",
        "if == 0",
        "nt == 0",
    ),
    "int3 frame": g(on("#BP"), "int3; after: hlt; " + FRAME, *END, "u64(rsp) == after", "u64(rsp+16) & 0x10000 == 0"),
    "trap gate if": g(on("0x30", "type = 'trap'") + regs(rflags=0x202), "int 0x30; " + FRAME, *END, "if == 1"),
    "ist": g(on("#UD", "ist = 1"), "ud2; " + FRAME, *END, "rsp == 0x8a000 - 40"),
    "ist 3": g(on("#GP", "ist = 3"), "mov ecx, 0x12345; rdmsr; " + FRAME, *END, "rsp == 0x8e000 - 48", "u64(rsp) == 0"),
    "ring 3 rsp0": g(
        U + on("#UD"),
        "bad: ud2; there: mov eax, ss; hlt",
        *END,
        "rsp == 0x88000 - 40",
        "eax == 0",
        "u64(rsp+8) == 0x2b",
        "u64(rsp+32) == 0x23",
        "u64(rsp+24) == 0x70000",
        "cpl == 0",
    ),
    "ring 3 pf user": g(U + on("#PF"), "bad: mov al, [0x80000]; there: hlt", *END, "u64(rsp) == 5", "cr2 == 0x80000"),
    "rsp0 noncanonical": g(
        U + on("#UD") + "[[memory]]\naddress = 0x4004\nu64 = [0x800000000000]",
        "bad: ud2; there: hlt",
        "exception == '#DF' || exception == '#SS'",
        "count('#SS') == 1",
    ),
    "trap frame TF": g(
        on("#DB"),
        "pushfq; or dword ptr [rsp], 0x100; popfq; nop; after: nop; there: hlt",
        *END,
        "u64(rsp) == after",
        "dr6 == 0xffff4ff0",
        "u64(rsp+16) & 0x100",
        "tf == 0",
        "u64(rsp+16) & 0x10000 == 0",
    ),
    **{
        f"TF after {op}": g(
            on("#DB"),
            f"xor ecx, ecx; xor edx, edx; mov eax, 0x50; {pre}; pushfq; or dword ptr [rsp], 0x100; popfq; {op}; after: nop; there: hlt",
            *END,
            "u64(rsp) == after",
            "dr6 & 0x4000",
        )
        for op, pre in {
            "cpuid": "nop",
            "rdtsc": "nop",
            "rdmsr": "mov ecx, 0xc0000080",
            "mov rax, cr0": "nop",
            "mov cr2, rax": "nop",
            "in al, 0xe0": "nop",
            "out 0xe9, al": "nop",
            "mov rax, dr7": "nop",
            "swapgs": "nop",
            "str ax": "nop",
            "lldt cx": "nop",
            "wbinvd": "nop",
            "clts": "nop",
            "sti": "nop",
            "xgetbv": "mov rax, cr4; bts rax, 18; mov cr4, rax; xor ecx, ecx",
            "invlpg [rsp]": "nop",
            "smsw eax": "nop",
            "mov cr8, rcx": "nop",
            "lar eax, ecx": "nop",
        }.items()
    },
    "TF int n": g(
        on("0x30"),
        "pushfq; or dword ptr [rsp], 0x100; popfq; int 0x30; after: nop; there: hlt",
        *END,
        "u64(rsp) == after",
        "tf == 0",
        "u64(rsp+16) & 0x100",
        "count('#DB') == 0",
    ),
    "TF fault": g(
        on("#UD"),
        "pushfq; or dword ptr [rsp], 0x100; popfq; bad: ud2; there: hlt",
        *END,
        "u64(rsp) == bad",
        "count('#DB') == 0",
        "u64(rsp+16) & 0x10100 == 0x10100",
    ),
    "TF rep": g(
        on("#DB"),
        "mov ecx, 3; mov edi, 0x20000; cld; pushfq; or dword ptr [rsp], 0x100; popfq; bad: rep stosb; there: hlt",
        *END,
        "u64(rsp) == bad",
        "ecx == 2",
        "rdi == 0x20001",
    ),
    "TF mov ss": g(
        on("#DB"),
        "mov eax, 0x10; pushfq; or dword ptr [rsp], 0x100; popfq; mov ss, eax; nop; after: nop; there: hlt",
        *END,
        "u64(rsp) == after",
    ),
    "TF syscall": g(
        on("#DB") + "[msrs]\nIA32_LSTAR = 0x400040\nIA32_FMASK = 0x100",
        "pushfq; or dword ptr [rsp], 0x100; popfq; syscall; .space 53; hlt; there: ud2",
        *END,
        "r11 & 0x100",
        "count('#DB') == 0",
        "tf == 0",
    ),
    "icebp": g(on("#DB"), ".byte 0xf1; after: nop; there: hlt", *END, "u64(rsp) == after", "dr6 == 0xffff0ff0"),
    # Execution and data breakpoints.
    "dr exec": g(
        on("#DB") + "[registers]\ndr0 = 'bad'\ndr7 = 0x401",
        "nop; bad: mov eax, 7; there: hlt",
        *END,
        "u64(rsp) == bad",
        "dr6 & 0xf == 1",
        "u64(rsp+16) == 2",
        "eax == 0",
    ),
    "dr exec rf resume": g(
        "[handlers]\n'#DB' = 'there'\n[registers]\ndr0 = 'bad'\ndr7 = 0x401",
        "nop; bad: mov eax, 7; hlt; there: inc ebx; or dword ptr [rsp+16], 0x10000; iretq",
        *END,
        "eax == 7",
        "ebx == 1",
    ),
    "dr exec no rf loops": g(
        "[handlers]\n'#DB' = 'there'\n[registers]\ndr0 = 'bad'\ndr7 = 0x401",
        "bad: mov eax, 7; hlt; there: inc ebx; cmp ebx, 3; jne again; or dword ptr [rsp+16], 0x10000; again: iretq",
        *END,
        "ebx == 3",
    ),
    "dr write": g(
        on("#DB") + regs(dr1=0x20004, dr7=0x4 | 0xD << 20 | 0x400),
        "mov dword ptr [0x20000], 1; mov al, [0x20004]; mov byte ptr [0x20007], 1; after: nop; there: hlt",
        *END,
        "u64(rsp) == after",
        "dr6 & 0xf == 2",
        "u8(0x20007) == 1",
        "u64(rsp+16) & 0x10000 == 0",
    ),
    "dr rw read": g(
        on("#DB") + regs(dr2=0x20002, dr7=0x10 | 0x7 << 24 | 0x400),
        "mov al, [0x20001]; mov al, [0x20004]; mov eax, [0x20000]; after: nop; there: hlt",
        *END,
        "u64(rsp) == after",
        "dr6 & 0xf == 4",
    ),
    "dr len 8": g(
        on("#DB") + regs(dr3=0x20008, dr7=0x40 | 0x9 << 28 | 0x400),
        "mov al, [0x2000f]; mov byte ptr [0x20010], 1; mov byte ptr [0x2000f], 1; after: nop; there: hlt",
        *END,
        "u64(rsp) == after",
        "dr6 & 0xf == 8",
    ),
    "dr push": g(
        on("#DB") + regs(dr0=0x7FFF8, dr7=1 | 0x9 << 16 | 0x400),
        "push rax; after: nop; there: hlt",
        "stop != 'budget'",
        "count('#DB') >= 1",
        "dr6 & 1",
    ),
    "dr io": g(
        on("#DB") + regs(dr0=0xE9, dr7=1 | 0x2 << 16 | 0x400, cr4=0x628),
        "out 0xe9, al; after: nop; there: hlt",
        *END,
        "u64(rsp) == after",
        "dr6 & 1",
    ),
    "dr rep": g(
        on("#DB") + regs(dr0=0x20001, dr7=1 | 0x1 << 16 | 0x400),
        "mov edi, 0x20000; mov ecx, 4; bad: rep stosb; there: hlt",
        *END,
        "u64(rsp) == bad",
        "ecx == 2",
        "rdi == 0x20002",
    ),
    "dr mov ss shadow": g(
        on("#DB") + "[registers]\ndr0 = 'bad'\ndr7 = 0x401",
        "mov eax, 0x10; mov ss, eax; bad: nop; hlt; there: ud2",
        *END,
    ),
    "dr sti no shadow": g(
        on("#DB") + "[registers]\ndr0 = 'bad'\ndr7 = 0x401", "sti; bad: nop; ud2; there: hlt", *END, "u64(rsp) == bad"
    ),
    "dr disabled dr7": g(on("#DB") + "[registers]\ndr0 = 'bad'\ndr7 = 0x400", "bad: nop; hlt; there: ud2", *END),
    "dr gd": g(
        on("#DB") + regs(dr7=0x2400),
        "bad: mov rax, dr0; there: hlt",
        *END,
        "u64(rsp) == bad",
        "dr6 & 0x2000",
        "dr7 & 0x2000 == 0",
    ),
    "dr6 sticky": g(
        on("#DB"),
        "mov eax, 0xffff0ff1; mov dr6, rax; pushfq; or dword ptr [rsp], 0x100; popfq; nop; after: nop; there: hlt",
        *END,
        "dr6 & 0x4000",
    ),
    "dr7 fixed bits": g(
        "",
        "mov rax, 0xffffffff; btr rax, 13; mov dr7, rax; mov rbx, dr7; hlt",
        *END,
        "rbx == 0xffff07ff || rbx == 0xffff0fff",
    ),
    "dr6 fixed bits": g("", "xor eax, eax; mov dr6, rax; mov rbx, dr6; hlt", *END, "rbx == 0xffff0ff0"),
    # Nesting.
    "df from pf": g(
        "[registers]\n'idtr.limit' = 0x8f\n" + on("#DF"),
        "movabs rbx, 0x500000000; bad: mov [rbx], eax; hlt; there: hlt",
        *END,
        "count('#DF') == 1",
        "u64(rsp) == 0",
        "u64(rsp+8) == bad",
    ),
    "gp in gp": g(
        "[[descriptor]]\ntable = 'idt'\nindex = 13\nkind = 'interrupt-gate'\nfields = { selector = 0x10, offset = 'there' }\n"
        + on("#DF"),
        "mov ecx, 0x12345; bad: rdmsr; there: hlt",
        *END,
        "count('#DF') == 1",
        "u64(rsp+8) == bad",
        "u64(rsp) == 0",
    ),
    "ud then np is np": g(
        "[[descriptor]]\ntable = 'idt'\nindex = 6\nkind = 'interrupt-gate'\nfields = { selector = 8, offset = 'there', present = 0 }\n"
        + on("#NP"),
        "bad: ud2; there: hlt",
        *END,
        "u64(rsp) == 6 * 8 + 3",
        "u64(rsp+8) == bad",
        "count('#DF') == 0",
    ),
    "int then np": g(
        "[[descriptor]]\ntable = 'idt'\nindex = 0x30\nkind = 'interrupt-gate'\nfields = { selector = 8, offset = 'there', present = 0 }\n"
        + on("#NP"),
        "bad: int 0x30; there: hlt",
        *END,
        "u64(rsp) == 0x30 * 8 + 2",
        "u64(rsp+8) == bad",
    ),
    "gp then pf": g(
        "[handlers]\n'#GP' = { entry = 'there', ist = 3 }\n'#PF' = { entry = 'there', ist = 1 }\n[[page]]\nlinear = 0x8d000\nflags = ''",
        "mov ecx, 0x12345; bad: rdmsr; there: hlt",
        *END,
        "count('#DF') == 0",
        "rsp == 0x8a000 - 48",
        "cr2 & 0xfffff000 == 0x8d000",
        "u64(rsp) == 2",
    ),
    "pf then pf df": g(
        "[handlers]\n'#PF' = { entry = 'there', ist = 3 }\n'#DF' = { entry = 'there', ist = 1 }\n[[page]]\nlinear = 0x8d000\nflags = ''",
        "movabs rbx, 0x500000000; bad: mov al, [rbx]; there: hlt",
        *END,
        "count('#DF') == 1",
        "rsp == 0x8a000 - 48",
        "u64(rsp) == 0",
        "cr2 & 0xfffff000 == 0x8d000",
    ),
    "triple": g("[registers]\n'idtr.limit' = 0", "ud2", "stop == 'triple-fault'"),
    "bp then gp": g(
        "[registers]\n'idtr.limit' = 0x2f", "bad: int3; hlt", "exception == '#DF' || stop == 'triple-fault'"
    ),
    # Real mode.
    "real int": g(
        R16 + "[handlers]\n0x30 = 'there'",
        "sti; int 0x30; after: hlt; there: hlt",
        *END,
        "u16(sp) == after",
        "u16(sp+2) == 0",
        "u16(sp+4) == 0x202",
        "if == 0",
        "sp == 0x7c00 - 6",
    ),
    "real int beyond": g(
        R16 + "[registers]\n'idtr.limit' = 0x7f\n[handlers]\n'#GP' = 'there'",
        "bad: int 0x30; there: hlt",
        *END,
        "u16(sp) == bad",
        "sp == 0x7c00 - 6",
    ),
    "real div": g(R16 + on("#DE"), "xor cx, cx; bad: div cx; there: hlt", *END, "u16(sp) == bad"),
    "real gp no code": g(
        R16 + on("#GP"), "mov ecx, 0x12345; bad: rdmsr; there: hlt", *END, "u16(sp) == bad", "sp == 0x7c00 - 6"
    ),
    "real lidt": g(
        R16,
        "mov word ptr [0x600], 0x3ff; mov dword ptr [0x602], 0x10000; xor ax, ax; mov bx, 0x1000; mov es, bx; mov word ptr es:[0xc0], offset there; mov word ptr es:[0xc2], 0; lidt [0x600]; int 0x30; there: hlt",
        *END,
        "sp == 0x7c00 - 6",
    ),
    "real 64K offset": g(R16 + on("#GP"), "mov ebx, 0x10000; bad: mov al, [ebx]; there: hlt", *END, "u16(sp) == bad"),
    "real word at ffff": g(R16 + on("#GP"), "mov bx, 0xffff; bad: mov ax, [bx]; there: hlt", *END, "u16(sp) == bad"),
    "real ss word": g(R16 + on("#SS"), "mov bp, 0xffff; bad: mov ax, [bp]; there: hlt", *END, "u16(sp) == bad"),
    "real lldt ud": g(R16 + on("#UD"), "bad: lldt ax; there: hlt", *END, "u16(sp) == bad"),
    "real arpl ud": g(R16 + on("#UD"), "bad: .byte 0x63, 0xc0; there: hlt", *END),
    "real far": g(R16, "push 0x7c0; push offset there - 0x7c00; retf; there: mov ax, cs; hlt", *END, "ax == 0x7c0"),
    "real iret": g(R16, "pushf; or word ptr [esp], 0x200; push 0; push offset there; iret; there: hlt", "if == 1"),
    "real a20 wrap": g(
        R16, "mov ax, 0xffff; mov ds, ax; mov byte ptr [0x10], 0x55; hlt", *END, "p8(0x100000) == 0x55", "u8(0) != 0x55"
    ),
    "real cs wrap push": g(R16, "mov sp, 0; push ax; hlt", *END, "sp == 0xfffe"),
    "real TF": g(
        R16 + on("#DB"), "pushf; or byte ptr [esp+1], 1; popf; nop; after: nop; there: hlt", *END, "u16(sp) == after"
    ),
    "real unsupported syscall": g(R16, "bad: .byte 0x0f, 5; hlt", "exception == '#UD'"),
}


DEPARTURES = dict.fromkeys(
    ("real word at ffff", "real ss word"),
    "segmentation limit: a 16-bit address that runs over offset FFFF is not checked in real-address mode",
)


@pytest.mark.parametrize("name", names(GUESTS, DEPARTURES))
def test_guest(name: str) -> None:
    check(GUESTS[name])
