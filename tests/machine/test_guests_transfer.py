"""Virtual-8086 mode, 64-bit call gates, and corners of transfers, flags and stacks."""

from __future__ import annotations

import pytest

from tests.machine.guests import check, g

P = 'mode = "prot32"\n'


def d(i: int, k: str, f: str, t: str = "gdt") -> str:
    """A [[descriptor]] table."""
    return f'[[descriptor]]\ntable = "{t}"\nindex = {i}\nkind = "{k}"\nfields = {{ {f} }}\n'


V = "push 0; push 0; push 0; push 0; push 0; push 0x8000; push {fl}; push 0x700; push 0; mov dword ptr [0x7000], {code}; iretd; there: mov ebx, [esp]; mov ecx, [esp+4]; mov edx, [esp+8]; hlt"
GUESTS = {
    "vm86 hlt gp": g(
        P + "[handlers]\n'#GP' = 'there'\n",
        V.format(fl="0x20002", code="0xf4"),
        "count('#GP') == 1",
        "stop == 'hlt'",
        "ebx == 0",
        "ecx == 0",
        "edx == 0x700",
        "vm == 0",
    ),
    "vm86 int iopl0": g(
        P + "[handlers]\n'#GP' = 'there'\n",
        V.format(fl="0x20002", code="0x30cd"),
        "count('#GP') == 1",
        "ebx == 0",
        "edx == 0x700",
    ),
    "vm86 cli iopl0": g(P + "[handlers]\n'#GP' = 'there'\n", V.format(fl="0x20002", code="0xfa"), "count('#GP') == 1"),
    "vm86 int3": g(
        P + "[handlers]\n'#BP' = {entry = 'there', dpl = 3}\n",
        V.format(fl="0x20002", code="0xcc"),
        "stop == 'hlt'",
        "ebx == 1",
        "ecx == 0x700",
    ),
    "top page code": g(
        P + 'paging = "32bit"\n[[page]]\nlinear = 0xfffff000\nphysical = 0x30000\n',
        "mov byte ptr [0xfffffffe], 0x90; mov byte ptr [0xffffffff], 0xf4; mov eax, 0xfffffffe; jmp eax",
        "stop == 'hlt'",
    ),
    "lss": g(
        P, "mov dword ptr [0x20000], 0x9000; mov word ptr [0x20004], 0x10; lss esp, [0x20000]; hlt", "esp == 0x9000"
    ),
    "enter": g("", "mov rbp, rsp; enter 16, 2; hlt", "rsp == 0x80000 - 8 - 16 - 16"),
    "retf inner gp": g("ring = 3", "push 0x08; push offset x; x: retfq", "exception == '#GP'", "error_code == 8"),
    "code16 limit": g(
        P + d(14, "code", "bits=16, limit=0xffff"),
        "mov dword ptr [0x7000], 0xf44801b8; ljmp 0x70, 0x7000",
        "ax == 0x4801",
        "mode == 16",
    ),
    "iret compat": g(
        "",
        "push 0x23; push 0x70000; push 2; push 0x1b; push 0x7000; iretq",
        "cpl == 3",
        "mode == 32",
        "exception == '#PF'",
        "error_code == 5 || error_code == 0x15",
    ),
    "movss int": g(
        "[handlers]\n'0x30' = 'there'\n", "mov eax, 0x10; mov ss, eax; int 0x30; there: hlt", "stop == 'hlt'"
    ),
    "ss limit real push": g('mode = "real16"\n', "mov sp, 1; bad: push ax; hlt", "stop != 'hlt' || sp == 0xffff"),
    "rdmsr tsc": g("", "mov ecx, 0x10; rdmsr; hlt", "eax == 8"),
    "lock cmpxchg": g("", "mov eax, 0; mov ebx, 5; lock cmpxchg [0x20000], ebx; hlt", "u32(0x20000) == 5", "zf == 1"),
    "callgate64": g(
        "ring = 3\n" + d(14, "call-gate", "selector = 8, offset = 'there', dpl = 3"),
        "mov dword ptr [rsp-16], 0; mov dword ptr [rsp-12], 0x73; .byte 0xff, 0x5c, 0x24, 0xf0; after: ud2; there: mov rax, [rsp]; mov rbx, [rsp+24]; mov ecx, ss; hlt",
        "rax == after",
        "rbx == 0x23",
        "cpl == 0",
        "ecx == 0",
        "rsp == 0x88000 - 32",
    ),
    "cr4 pcide": g("", "mov rax, cr4; bts rax, 17; mov cr4, rax; hlt", "exception == '#GP' || cr4.pcide == 1"),
    "cr4 smep cpuid": g("", "mov eax, 7; xor ecx, ecx; cpuid; hlt", "ebx & 0x100080 == 0x100080"),
    "efer amd svme": g(
        'cpu = "amd"', "mov ecx, 0xc0000080; rdmsr; bts eax, 12; bad: wrmsr; hlt", "exception == '#GP' || efer & 0x1000"
    ),
    "syscall amd rcx": g(
        'cpu = "amd"\nring = 3\n[msrs]\nIA32_LSTAR = 0x400040',
        "syscall; after: .space 62; hlt",
        "rcx == after",
        "cpl == 0",
    ),
    "iret vm64": g("", "push 0x10; push 0x8000; push 0x20002; push 8; push offset x; iretq; x: hlt", "vm == 0"),
    "popf rf vm": g("", "push 0x130002; popfq; pushfq; pop rax; hlt", "rax & 0x30000 == 0"),
    "sti shadow hlt": g("", "sti; hlt", "stop == 'hlt'", "if == 1"),
    "db in ring3 popf": g(
        "ring = 3", "pushfq; or dword ptr [rsp], 0x100; popfq; nop; x: ud2", "exception == '#DB'", "rip == x"
    ),
}


@pytest.mark.parametrize("name", GUESTS)
def test_guest(name: str) -> None:
    check(GUESTS[name])
