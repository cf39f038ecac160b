"""Rights of pages in every paging mode, and code and strings that cross pages (SDM vol. 3A chapter 4)."""

from __future__ import annotations

import pytest

from tests.machine.guests import check, g

MODES = {
    "32bit": 'mode = "prot32"\npaging = "32bit"\n',
    "pae": 'mode = "prot32"\npaging = "pae"\n',
    "4level": 'paging = "4level"\n',
    "5level": 'paging = "5level"\n',
}
CR4 = {"32bit": 0x610, "pae": 0x620, "4level": 0x620, "5level": 0x1620}
SMEP, SMAP, PKE = 1 << 20, 1 << 21, 1 << 22
LINEAR = 0x700000


def page(flags: str, more: str = "") -> str:
    """A page at 0x700000 on physical 0x30000."""
    return f'[[page]]\nlinear = 0x700000\nphysical = 0x30000\nflags = "{flags}"\n{more}\n'


FINE = ("stop == 'hlt'", "exceptions == 0")


def pf(code: int, address: int = LINEAR, at: str = "bad") -> tuple[str, ...]:
    """A #PF with this error code and CR2."""
    return ("exception == '#PF'", f"error_code == {code}", f"cr2 == {address}", f"rip == {at}", "exceptions == 1")


READ = f"bad: mov al, [{LINEAR:#x}]; hlt"
WRITE = f"bad: mov [{LINEAR:#x}], al; hlt"
RMW = f"bad: lock inc byte ptr [{LINEAR:#x}]; hlt"
JUMP = f"mov byte ptr [0x30000], 0xf4; mov eax, {LINEAR:#x}; jmp {{r}}ax"
RIGHTS = [
    # name, ring, flags, CR0/CR4 changes, code, expectations
    ("absent read", 0, "", {}, READ, pf(0)),
    ("absent write", 0, "", {}, WRITE, pf(2)),
    ("absent user", 3, "", {}, READ, pf(4)),
    ("absent user write", 3, "", {}, WRITE, pf(6)),
    ("absent rmw", 0, "", {}, RMW, pf(2)),
    ("absent add", 0, "", {}, f"bad: add dword ptr [{LINEAR:#x}], 1; hlt", pf(2)),
    ("absent or user", 3, "", {}, f"bad: or byte ptr [{LINEAR:#x}], 0; hlt", pf(6)),
    ("absent cmp", 0, "", {}, f"bad: cmp byte ptr [{LINEAR:#x}], 0; hlt", pf(0)),
    ("absent xchg", 0, "", {}, f"bad: xchg [{LINEAR:#x}], al; hlt", pf(2)),
    ("absent bt", 0, "", {}, f"bad: bt dword ptr [{LINEAR:#x}], 1; hlt", pf(0)),
    ("absent test", 0, "", {}, f"bad: test byte ptr [{LINEAR:#x}], 1; hlt", pf(0)),
    ("supervisor user rmw", 3, "P RW", {}, RMW, pf(7)),
    ("read-only write", 0, "P", {}, WRITE, pf(3)),
    ("read-only rmw", 0, "P", {}, RMW, pf(3)),
    ("read-only write WP 0", 0, "P", {"cr0": 0x80000033}, WRITE, FINE),
    ("read-only user write WP 0", 3, "P US", {"cr0": 0x80000033}, WRITE, pf(7)),
    ("read-only user read", 3, "P US", {}, f"mov al, [{LINEAR:#x}]; bad: ud2", ("exception == '#UD'",)),
    ("supervisor user read", 3, "P RW", {}, READ, pf(5)),
    ("supervisor user write", 3, "P RW", {}, WRITE, pf(7)),
    ("user page from ring 0", 0, "P RW US", {}, WRITE, FINE),
    ("smap read", 0, "P RW US", {"cr4": SMAP}, READ, pf(1)),
    ("smap write", 0, "P RW US", {"cr4": SMAP}, WRITE, pf(3)),
    ("smap AC", 0, "P RW US", {"cr4": SMAP, "rflags": 0x40002}, WRITE, FINE),
    ("smap stac clac", 0, "P RW US", {"cr4": SMAP}, "stac; mov al, [0x700000]; clac; " + READ, pf(1)),
    ("smap user", 3, "P RW US", {"cr4": SMAP}, f"mov al, [{LINEAR:#x}]; bad: ud2", ("exception == '#UD'",)),
    ("accessed", 0, "P RW", {}, READ, FINE),
]  # fmt: skip
PTE = {"32bit": "u32", "pae": "u64", "4level": "u64", "5level": "u64"}


def registers(mode: str, changes: dict[str, int]) -> str:
    """[registers] with CR4 bits added to the mode's own."""
    values = {name: value | CR4[mode] if name == "cr4" else value for name, value in changes.items()}
    return "[registers]\n" + "".join(f"{name} = {value:#x}\n" for name, value in values.items()) if values else ""


GUESTS = {
    f"{mode} {name}": g(head + (f"ring = {ring}\n") + registers(mode, changes) + page(flags), code, *expect)
    for mode, head in MODES.items()
    for name, ring, flags, changes, code, expect in RIGHTS
}
for _mode, _head in MODES.items():
    _r = "e" if _mode in ("32bit", "pae") else "r"
    _id = 16 if _mode != "32bit" else 0
    GUESTS |= {
        f"{_mode} execute": g(_head + page("P RW"), JUMP.format(r=_r), "stop == 'hlt'"),
        f"{_mode} fetch absent": g(_head + page(""), JUMP.format(r=_r), *pf(_id, at="0x700000")),
        f"{_mode} smep": g(
            _head + registers(_mode, {"cr4": SMEP}) + page("P RW US"), JUMP.format(r=_r), *pf(17, at="0x700000")
        ),
        f"{_mode} smep supervisor": g(
            _head + registers(_mode, {"cr4": SMEP}) + page("P RW"), JUMP.format(r=_r), "stop == 'hlt'"
        ),
        f"{_mode} cross page read": g(_head + page("") + "", "bad: mov eax, [0x6ffffe]; hlt", *pf(0)),
        f"{_mode} cross page write is whole": g(
            _head + page(""), "bad: mov dword ptr [0x6ffffe], -1; hlt", *pf(2), "u16(0x6ffffe) == 0"
        ),
        f"{_mode} rep movs": g(
            _head + page(""),
            f"mov {_r}si, 0x20000; mov {_r}di, 0x6ffffe; mov ecx, 8; bad: rep movsb; hlt",
            *pf(2),
            "ecx == 6",
            f"{_r}di == 0x700000",
            f"{_r}si == 0x20002",
        ),
        f"{_mode} rep stos down": g(
            _head + page(""),
            f"std; mov {_r}di, 0x701002; mov ecx, 8; bad: rep stosb; hlt",
            *pf(2, 0x700FFF),
            "ecx == 5",
        ),
        f"{_mode} rep lods": g(
            _head + page(""), f"mov {_r}si, 0x6ffff8; mov ecx, 8; bad: rep lodsd; hlt", *pf(0), "ecx == 6"
        ),
        f"{_mode} cmps": g(
            _head + page(""),
            f"mov {_r}si, 0x6fffff; mov {_r}di, 0x20000; mov ecx, 8; bad: repe cmpsb; hlt",
            *pf(0),
            "ecx == 7",
        ),
        f"{_mode} code into absent": g(
            _head + page(""), f"mov word ptr [0x6ffffe], 0x9090; mov eax, 0x6ffffe; jmp {_r}ax", *pf(_id, at="0x700000")
        ),
        f"{_mode} instruction crossing": g(
            _head + page(""), f"mov word ptr [0x6ffffe], 0x00b8; mov eax, 0x6ffffe; jmp {_r}ax", *pf(_id, at="0x6ffffe")
        ),
        f"{_mode} alias": g(
            _head + page("P RW"),
            f"mov {_r}bx, 0x30000; mov dword ptr [0x30000], 0xc340c031; mov word ptr [0x30000], 0xc390; call {_r}bx; mov byte ptr [0x700000], 0xf4; call {_r}bx; ud2",
            "stop == 'hlt'",
            "rip == 0x30001",
        ),
        f"{_mode} page tables written": g(
            _head + page("P RW"),
            f"mov al, [0x700000]; mov {_r}ax, cr3; mov {_r}cx, cr3; mov cr3, {_r}ax; mov byte ptr [0x700000], 5; hlt",
            *FINE,
            "p8(0x30000) == 5",
        ),
        f"{_mode} same block smc": g(_head, "mov byte ptr [patch + 1], 7; patch: mov al, 1; hlt", *FINE, "al == 7"),
        f"{_mode} int uses supervisor": g(
            _head + "ring = 3\n[handlers]\n'#UD' = 'there'", "bad: ud2; there: hlt", "stop == 'hlt'", "cpl == 0"
        ),
    }
    if _mode != "32bit":
        GUESTS |= {
            f"{_mode} nx": g(_head + page("P RW NX"), JUMP.format(r=_r), *pf(17, at="0x700000")),
            f"{_mode} nx data": g(_head + page("P RW NX"), WRITE, *FINE),
            f"{_mode} nx without NXE": g(
                _head + "[registers]\nefer = " + ("0x501" if _r == "r" else "0") + "\n" + page("P RW NX"), READ, *pf(9)
            ),
            f"{_mode} reserved": g(_head + page("P RW bit51"), READ, *pf(9)),
            f"{_mode} reserved write": g(_head + page("P RW bit51"), WRITE, *pf(11)),
            f"{_mode} reserved user": g(_head + "ring = 3\n" + page("P RW US bit51"), READ, *pf(13)),
            f"{_mode} reserved not present": g(_head + page("bit51"), READ, *pf(0)),
        }
    if _r == "r":
        GUESTS |= {
            f"{_mode} pku": g(
                _head + "ring = 3\n" + registers(_mode, {"cr4": PKE}) + page("P RW US", "pkey = 1"),
                "xor ecx, ecx; xor edx, edx; mov eax, 4; wrpkru; " + READ,
                *pf(0x25),
            ),
            f"{_mode} pku write": g(
                _head + "ring = 3\n" + registers(_mode, {"cr4": PKE}) + page("P RW US", "pkey = 1"),
                "xor ecx, ecx; xor edx, edx; mov eax, 8; wrpkru; mov al, [0x700000]; " + WRITE,
                *pf(0x27),
            ),
            f"{_mode} pku ring 0 user page": g(
                _head + registers(_mode, {"cr4": PKE}) + page("P RW US", "pkey = 1"),
                "xor ecx, ecx; xor edx, edx; mov eax, 4; wrpkru; " + READ,
                *pf(0x21),
            ),
            f"{_mode} pku supervisor page": g(
                _head + registers(_mode, {"cr4": PKE}) + page("P RW", "pkey = 1"),
                "xor ecx, ecx; xor edx, edx; mov eax, 4; wrpkru; " + READ,
                *FINE,
            ),
            f"{_mode} wrpkru ud": g(_head, "bad: wrpkru; hlt", "exception == '#UD'"),
            f"{_mode} wrpkru ecx": g(
                _head + registers(_mode, {"cr4": PKE}),
                "mov ecx, 1; xor edx, edx; bad: wrpkru; hlt",
                "exception == '#GP'",
            ),
        }
# Tables of the guest's own.
_OWN = "mov dword ptr [0x20000], 0x21007; mov dword ptr [0x21000], {pdpte:#x}; mov dword ptr [0x22000], {pde:#x}; mov dword ptr [0x22010], 0x87; mov eax, 0x20000; mov cr3, rax; {rest}"
GUESTS |= {
    "1g page": g("", _OWN.format(pdpte=0x87, pde=0, rest="mov byte ptr [0x30000], 3; hlt"), *FINE, "p8(0x30000) == 3", "p32(0x21000) & 0x60 == 0x60"),
    "1g reserved": g("[handlers]\n'#DF' = 'there'", _OWN.format(pdpte=0x2087, pde=0, rest="nop; there: hlt"), "stop == 'triple-fault'"),
    "2m reserved": g("", "mov rax, cr3; mov rax, [rax]; and eax, 0xfffff000; mov rbx, [rax]; and ebx, 0xfffff000; or qword ptr [rbx + 8*5], 0x2000; mov rcx, cr3; mov cr3, rcx; bad: mov al, [0xa00000]; hlt", *pf(9, 0xA00000)),
    "pml4e ps reserved": g("", "mov rax, cr3; mov rbx, [rax]; or ebx, 0x80; mov [rax + 8], rbx; movabs rsi, 0x8000000000; bad: mov al, [rsi]; hlt", *pf(9, 0x8000000000)),
    "4m page": g('mode = "prot32"\npaging = "32bit"\n', "mov eax, cr3; mov dword ptr [eax + 4*512], 0x83; bad: mov al, [0x80000000]; hlt", *FINE),
    "4m reserved": g('mode = "prot32"\npaging = "32bit"\n', "mov eax, cr3; mov dword ptr [eax + 4*512], 0x200083; bad: mov al, [0x80000000]; hlt", *pf(9, 0x80000000)),
    "pae pdpte reserved": g('mode = "prot32"\npaging = "pae"\n', "mov eax, cr3; or dword ptr [eax + 24], 2; bad: mov cr3, eax; hlt", "exception == '#GP'", "error_code == 0"),
    "a d bits": g("", "mov rax, cr3; mov rax, [rax]; and eax, 0xfffff000; mov rbx, [rax]; and ebx, 0xfffff000; mov cl, [0xa00000]; mov rdx, [rbx + 40]; mov byte ptr [0xa00000], 1; mov rsi, [rbx + 40]; hlt", *FINE, "edx & 0x60 == 0x20", "esi & 0x60 == 0x60"),
    "no d on denied": g("", "mov rax, cr3; mov rax, [rax]; and eax, 0xfffff000; mov rbx, [rax]; and ebx, 0xfffff000; and dword ptr [rbx + 40], ~2; mov rcx, cr3; mov cr3, rcx; bad: mov byte ptr [0xa00000], 1; hlt", *pf(3, 0xA00000), "p32(0x0) == p32(0x0)"),
    "invlpg": g("", "mov al, [0xa00000]; mov rax, cr3; mov rax, [rax]; and eax, 0xfffff000; mov rbx, [rax]; and ebx, 0xfffff000; and dword ptr [rbx + 40], ~1; invlpg [0xa00000]; bad: mov al, [0xa00000]; hlt", *pf(0, 0xA00000)),
    "top of 4g": g('mode = "prot32"\n', "mov al, [0xffffffff]; hlt", *FINE, "al == 0xff"),
    "compat after long": g("", "push 0x38; push offset low; retfq; .code32; low: mov eax, cr0; btr eax, 31; mov cr0, eax; mov ecx, 0xc0000080; rdmsr; btr eax, 8; wrmsr; ljmp 0x38, offset prot; prot: mov eax, cs; hlt", "stop == 'hlt'", "cr0.pg == 0", "efer & 0x500 == 0", "mode == 32"),
    "compat": g("", "push 0x38; push offset low; retfq; .code32; low: mov eax, 0xffffffff; inc eax; push eax; hlt", "stop == 'hlt'", "mode == 32", "efer & 0x400", "esp == 0x7fffc"),
    "compat syscall amd": g('cpu = "amd"\n[msrs]\nIA32_CSTAR = 0x400000', "mov eax, cs; cmp eax, 8; jne x; cmp ebx, 1; je done; mov ebx, 1; push 0x38; push offset low; retfq; done: hlt; x: ud2; .code32; low: syscall", "stop == 'hlt'", "mode == 64"),
    "real again": g('mode = "prot32"', "ljmp 0x40, 0x7000; .code16; .section .low, 0x7000; mov ax, 0x48; mov ss, ax; mov eax, cr0; and al, 0xfe; mov cr0, eax; ljmp 0, offset real; real: xor ax, ax; mov ss, ax; mov sp, 0x6000; push 0x1234; hlt", "stop == 'hlt'", "cr0.pe == 0", "mode == 16", "u16(0x5ffe) == 0x1234", "cs == 0"),
    "cpuid intel": g("", "xor eax, eax; cpuid; hlt", "ebx == 0x756e6547", "edx == 0x49656e69", "ecx == 0x6c65746e"),
    "cpuid amd": g('cpu = "amd"', "xor eax, eax; cpuid; hlt", "ebx == 0x68747541", "edx == 0x69746e65", "ecx == 0x444d4163"),
    "cpuid osxsave": g("", "mov rax, cr4; bts rax, 18; mov cr4, rax; mov eax, 1; cpuid; hlt", "ecx & 0x8000000"),
    "cpuid no avx": g("", "mov eax, 1; cpuid; hlt", "ecx & 0x10000000 == 0"),
    "tsc": g("", "rdtsc; mov ebx, eax; nop; rdtsc; sub eax, ebx; hlt", "eax == 4 * 3 + 80"),
    "tsc written": g("", "mov ecx, 0x10; mov eax, 0x1000; xor edx, edx; wrmsr; rdtsc; hlt", "eax == 0x1004"),
    "port unclaimed": g("", "in al, 0x62; mov bl, al; mov dx, 0x5000; in eax, dx; hlt", "bl == 0xff", "eax == 0xffffffff"),
    "serial": g("", "mov edx, 0x3f8; mov al, 65; out dx, al; add edx, 5; in al, dx; hlt", "serial == 'A'", "al & 0x60 == 0x60"),
    "debugcon": g("", "in al, 0xe9; hlt", "al == 0xe9"),
    "latch": g("", "mov eax, 0x12345678; out 0xe0, eax; in al, 0xe2; movzx ebx, al; in ax, 0xe0; hlt", "ebx == 0x34", "ax == 0x5678"),
    "ioram": g("", "mov eax, 0xff000000; mov dword ptr [rax], 0x11223344; mov bx, [rax + 1]; hlt", "bx == 0x2233"),
    "mmio unclaimed": g("", "mov eax, 0xfe000000; mov dword ptr [rax], 0; mov rbx, [rax]; hlt", "rbx == 0xffffffffffffffff"),
    "debug exit": g("", "mov al, 3; out 0xf4, al; hlt", "stop == 'debug-exit'", "debug_exit == 3"),
    "ins page fault": g(page(""), "mov edi, 0x6ffffe; mov edx, 0xe9; mov ecx, 4; bad: rep insb; hlt", *pf(2), "ecx == 2", "u16(0x6ffffe) == 0xe9e9"),
    "outs": g("", "mov rsi, offset text; mov ecx, 3; mov edx, 0xe9; rep outsb; mov edx, 0x3f8; mov ecx, 3; mov rsi, offset text; rep outsb; hlt; text: .ascii \"abc\"", "serial == 'abc'"),
    "ac": g("ring = 3\n[registers]\ncr0 = 0x80050033\nrflags = 0x40002", "mov eax, 1; bad: mov ebx, [rsp - 7]; ud2", "exception == '#AC' || stop == 'unsupported'"),
    "swapgs": g("[msrs]\nIA32_KERNEL_GS_BASE = 0x20000", "mov dword ptr [0x20004], 9; swapgs; mov eax, gs:[4]; hlt", "eax == 9", "gs.base == 0x20000"),
    "wrgsbase ud": g("", "bad: wrgsbase rax; hlt", "exception == '#UD'"),
    "syscall": g("ring = 3\n[msrs]\nIA32_LSTAR = 0x400040\nIA32_FMASK = 0x200\n[registers]\nrflags = 0x602", "syscall; after: ud2; .space 60; mov eax, cs; hlt", "stop == 'hlt'", "rcx == after", "r11 == 0x602", "rflags & 0x600 == 0x400", "eax == 8", "ss == 0x10"),
    "sysret amd noncanonical": g('cpu = "amd"', "movabs rcx, 0x800000000000; mov r11d, 2; bad: sysretq; hlt", "exception == '#GP'", "cpl == 3", "rip == 0x800000000000"),
    "sysret 32": g("", "mov ecx, offset there; mov r11d, 2; sysretd; there: ud2", "cpl == 3", "mode == 32", "cs == 0x1b", "ss == 0x23"),
    "sysexit 64": g("[msrs]\n0x174 = 0x08", "mov ecx, 0x9000; mov edx, offset there; sysexitq; there: ud2", "cpl == 3", "cs == 0x2b", "ss == 0x33", "rsp == 0x9000"),
    "sysenter 64": g("[msrs]\n0x174 = 0x08\n0x175 = 0x9000\n0x176 = 0x400040", "sysenter; .space 62; hlt", "cs == 8", "ss == 0x10", "rsp == 0x9000", "stop == 'hlt'"),
    "iret to ring 3 rf": g("[registers]\ndr0 = 'there'\ndr7 = 0x401", "push 0x23; push 0x70000; push 0x10002; push 0x2b; push offset there; iretq; there: nop; bad: ud2", "count('#DB') == 0", "cpl == 3"),
    "iret same ring": g("", "push 0x10; push 0x9000; push 0x3202; push 8; push offset there; iretq; there: hlt", "rsp == 0x9000", "iopl == 3", "if == 1"),
    "pushfq vm rf": g("", "pushfq; pop rax; hlt", "eax == 2"),
    "lahf": g("", "mov ah, 0xff; sahf; lahf; hlt", "ah == 0xd7"),
}  # fmt: skip


@pytest.mark.parametrize("name", GUESTS)
def test_guest(name: str) -> None:
    check(GUESTS[name])
