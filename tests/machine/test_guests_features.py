"""Features that a profile has or has not: what their instructions and registers do."""

from __future__ import annotations

import pytest

from tests.machine.guests import check, g
from tests.machine.test_guests_faults import FINE, GP0, UD, fault

CR4 = 0x620
UMIP, PCIDE, OSXSAVE, PKS = 1 << 11, 1 << 17, 1 << 18, 1 << 24


def cpu(profile: str, cr4: int = 0, more: str = "") -> str:
    registers = f"\n[registers]\ncr4 = {CR4 | cr4:#x}" if cr4 else ""
    return f'cpu = "{profile}"\n{more}{registers}'


def cr4(bits: int) -> str:
    return f"mov rax, cr4; or rax, {bits:#x}; bad: mov cr4, rax; hlt"


def invpcid(kind: int, pcid: int = 0, address: int = 0) -> str:
    return (
        f"mov rax, {pcid:#x}; mov [0x20000], rax; mov rax, {address:#x}; mov [0x20008], rax; mov ebx, {kind}; "
        "bad: .byte 0x66, 0x0f, 0x38, 0x82, 0x1c, 0x25, 0, 0, 2, 0; mov ecx, 1; hlt"
    )


def wrmsr(index: int, value: int = 0) -> str:
    return f"mov ecx, {index:#x}; mov eax, {value & 0xFFFFFFFF:#x}; mov edx, {value >> 32:#x}; bad: wrmsr"


# A page with protection key 1 for the supervisor at 0x200000, and its alias without a key.
KEYED = """
[[page]]
linear = 0x200000
physical = 0x30000
flags = "P RW A D"
pkey = 1
"""
PKRS_AD, PKRS_WD = 1 << 2, 2 << 2


def pks(rights: int, code: str, setup: str = "") -> str:
    return f"{setup}{wrmsr(0x6E1, rights)}; {code}; hlt".replace("bad: wrmsr", "wrmsr")


ZERO_BY_ZERO = "fninit; push 0; fldcw [rsp]; fldz; fldz; fdivp"
NO_WP = "mov rax, cr0; btr rax, 16; mov cr0, rax; "

GUESTS = {
    # User-mode instruction prevention (SDM vol. 3A section 2.5).
    **{
        f"umip {name}": g(cpu("intel", UMIP, "ring = 3"), f"mov ebx, 0x20000; bad: {name}; hlt", *GP0)
        for name in ("sgdt [rbx]", "sidt [rbx]", "sldt ax", "sldt [rbx]", "str eax", "str [rbx]", "smsw rax", "smsw [rbx]")
    },
    "umip ring 0": g(cpu("intel", UMIP), "sgdt [0x20000]; sldt ax; str bx; smsw cx; bad: hlt", "cx == 0x33", *FINE),
    "umip off": g(
        "ring = 3", "sgdt [rsp-16]; sldt ax; str edx; smsw cx; bad: hlt", "rdx == 0x50", *fault("#GP", 0)
    ),
    "umip lgdt": g(cpu("intel", UMIP), "sgdt [0x20000]; lgdt [0x20000]; bad: hlt", *FINE),
    "smsw 32 bits": g(
        'mode = "real16"', "mov eax, cr0; or eax, 0x40000000; mov cr0, eax; mov ebx, -1; smsw ebx; bad: hlt", "ebx == 0x40000010"
    ),
    "smsw 64 bits": g("", "mov rbx, -1; smsw rbx; bad: hlt", "rbx == cr0"),
    "smsw 16 bits": g("", "mov rbx, -1; smsw bx; bad: hlt", "rbx >> 16 == 0xffffffffffff", "bx == 0x33"),
    "smsw memory": g("", "mov rax, -1; mov [0x20000], rax; smsw [0x20000]; bad: hlt", "u64(0x20000) == 0xffffffffffff0033"),
    "no umip": g(cpu("intel,-umip"), cr4(UMIP), *GP0),
    "umip 32": g(
        'mode = "prot32"\nring = 3\n[registers]\ncr4 = 0xe00', "bad: str ax; hlt", *GP0
    ),
    "umip real": g(
        'mode = "real16"\n[registers]\ncr4 = 0x800', "mov bx, 0x2000; sgdt [bx]; smsw ax; bad: hlt", *FINE, "ax == 0x10"
    ),
    # Process-context identifiers (section 4.10.1).
    "pcide": g("", cr4(PCIDE), *FINE),
    "no pcid": g(cpu("intel,-pcid"), cr4(PCIDE), *GP0),
    "pcide with a PCID in cr3": g("", "mov rax, cr3; or rax, 1; mov cr3, rax; " + cr4(PCIDE), *GP0),
    "pcide outside long mode": g(
        'mode = "prot32"', "mov eax, cr4; or eax, 0x20000; bad: mov cr4, eax; hlt", *GP0
    ),
    "pcide keeps paging on": g(cpu("intel", PCIDE), "mov rax, cr0; btr rax, 31; bad: mov cr0, rax; hlt", *GP0),
    "cr3 keeps its pcid": g(
        cpu("intel", PCIDE), "mov rax, cr3; or rax, 0xabc; mov cr3, rax; mov rbx, cr3; bad: hlt", *FINE, "rbx & 0xfff == 0xabc"
    ),
    "cr3 bit 63 is not stored": g(
        cpu("intel", PCIDE), "mov rax, cr3; bts rax, 63; mov cr3, rax; mov rbx, cr3; bad: hlt", *FINE, "rbx >> 63 == 0"
    ),
    "cr3 bit 63 without pcide": g("", "mov rax, cr3; bts rax, 63; bad: mov cr3, rax; hlt", *GP0),
    "cr3 bit 62 with pcide": g(cpu("intel", PCIDE), "mov rax, cr3; bts rax, 62; bad: mov cr3, rax; hlt", *GP0),
    # INVPCID (vol. 2A).
    **{f"invpcid type {kind}": g("", invpcid(kind), *FINE, "rcx == 1") for kind in range(4)},
    "invpcid type 4": g("", invpcid(4), *GP0),
    "invpcid type 2 with pcid": g("", invpcid(2, 5), *FINE),
    "invpcid pcid without pcide": g("", invpcid(1, 5), *GP0),
    "invpcid pcid with pcide": g(cpu("intel", PCIDE), invpcid(1, 5), *FINE),
    "invpcid reserved": g(cpu("intel", PCIDE), invpcid(1, 0x1000), *GP0),
    "invpcid address": g("", invpcid(0, 0, 0x100000000000000), *GP0),
    "invpcid address 57 bits": g("", invpcid(0, 0, 0x800000000000), *FINE),
    "invpcid address of amd": g(cpu("amd"), invpcid(0, 0, 0x800000000000), *GP0),
    "invpcid memory": g("", "mov rbx, 0x8000000000; bad: .byte 0x66, 0x0f, 0x38, 0x82, 0x03; hlt", *fault("#PF", 0)),
    "invpcid ring 3": g("ring = 3", "mov ebx, 2; bad: .byte 0x66, 0x0f, 0x38, 0x82, 0x1c, 0x24; hlt", *GP0),
    "invpcid absent": g(cpu("intel,-invpcid"), invpcid(2), *UD),
    "invpcid register": g("", "bad: .byte 0x66, 0x0f, 0x38, 0x82, 0xc0; hlt", *UD),
    "invpcid without 66": g("", "bad: .byte 0x0f, 0x38, 0x82, 0x03; hlt", *UD),
    "invpcid lock": g("", "bad: .byte 0xf0, 0x66, 0x0f, 0x38, 0x82, 0x03; hlt", *UD),
    "invpcid drops a translation": g(
        KEYED,
        "mov eax, [0x200000]; mov rdx, cr3; mov rdx, [rdx]; and rdx, -4096; mov rdx, [rdx]; and rdx, -4096; "
        "mov rdx, [rdx+8]; and rdx, -4096; mov qword ptr [rdx], 0; xor eax, eax; mov [0x20000], rax; mov [0x20008], rax; "
        "mov ebx, 2; .byte 0x66, 0x0f, 0x38, 0x82, 0x1c, 0x25, 0, 0, 2, 0; bad: mov eax, [0x200000]; hlt",
        *fault("#PF", 0),
    ),
    # RDPID, RDTSCP, RDPMC.
    "rdpid": g("", wrmsr(0xC0000103, 0x1234) + "; .byte 0xf3, 0x49, 0x0f, 0xc7, 0xf8; hlt", "r8 == 0x1234", "exceptions == 0"),
    "rdpid ring 3": g("ring = 3", "mov rax, -1; .byte 0xf3, 0x0f, 0xc7, 0xf8; bad: hlt", *GP0, "rax == 0"),
    "rdpid absent": g(cpu("minimal"), "bad: .byte 0xf3, 0x0f, 0xc7, 0xf8; hlt", *UD),
    "rdseed": g("", "bad: rdseed eax; hlt", *UD),
    "rdrand": g("", "bad: rdrand eax; hlt", *UD),
    "rdtscp absent": g(cpu("intel,-rdtscp"), "bad: rdtscp; hlt", *UD),
    "rdpmc intel": g("", "xor ecx, ecx; bad: rdpmc; hlt", *GP0),
    "rdpmc amd": g(cpu("amd"), wrmsr(0xC0010005, 0x1_0000_0002) + "; mov ecx, 1; rdpmc; hlt", "rax == 2", "rdx == 1"),
    "rdpmc amd index": g(cpu("amd"), "mov ecx, 4; bad: rdpmc; hlt", *GP0),
    "rdpmc amd ring 3": g(cpu("amd", 0, "ring = 3"), "xor ecx, ecx; bad: rdpmc; hlt", *GP0),
    "rdpmc amd ring 3 with pce": g(cpu("amd", 1 << 8, "ring = 3"), "xor ecx, ecx; mov rax, -1; rdpmc; bad: hlt", *GP0, "rax == 0"),
    # Instructions of features that are not there.
    "cmpxchg16b absent": g(cpu("intel,-cx16"), "bad: cmpxchg16b [0x20000]; hlt", *UD),
    "popcnt absent": g(cpu("intel,-popcnt"), "bad: popcnt eax, eax; hlt", *UD),
    "sse4a on intel": g("", "bad: .byte 0x66, 0x0f, 0x79, 0xc1; hlt", *UD),
    "sse4a on amd": g(cpu("amd"), ".byte 0x66, 0x0f, 0x79, 0xc1; bad: hlt", *FINE),
    "movntsd on intel": g("", "mov ebx, 0x20000; bad: .byte 0xf2, 0x0f, 0x2b, 0x03; hlt", *UD),
    "movntps": g("", "mov ebx, 0x20000; movntps [rbx], xmm0; bad: hlt", *FINE),
    "monitor absent": g("", "bad: monitor; hlt", *UD),
    "sysenter absent": g(cpu("intel,-sep"), "bad: sysenter; hlt", *UD),
    # MONITOR and MWAIT.
    "monitor": g(cpu("intel,+monitor"), "mov eax, 0x20000; xor ecx, ecx; xor edx, edx; monitor; mwait; bad: hlt", *FINE),
    "monitor address": g(cpu("intel,+monitor"), "mov rax, 0x8000000000; xor ecx, ecx; bad: monitor; hlt", *fault("#PF", 0)),
    "monitor ecx": g(cpu("intel,+monitor"), "mov eax, 0x20000; mov ecx, 1; bad: monitor; hlt", *GP0),
    "monitor ring 3": g(cpu("intel,+monitor", 0, "ring = 3"), "bad: monitor; hlt", *UD),
    "monitor disabled": g(cpu("intel,+monitor"), wrmsr(0x1A0, 0x1801).replace("bad: ", "") + "; xor ecx, ecx; bad: monitor; hlt", *UD),
    # Supervisor protection keys (vol. 3A section 4.6.2).
    "pks read": g(cpu("intel,+pks", PKS, KEYED), pks(PKRS_AD, "bad: mov eax, [0x200000]"), *fault("#PF", 0x21)),
    "pks write": g(cpu("intel,+pks", PKS, KEYED), pks(PKRS_WD, "bad: mov [0x200000], eax"), *fault("#PF", 0x23)),
    "pks read with wd": g(cpu("intel,+pks", PKS, KEYED), pks(PKRS_WD, "mov eax, [0x200000]; bad: nop"), "exceptions == 0"),
    "pks write without wp": g(
        cpu("intel,+pks", PKS, KEYED), pks(PKRS_WD, "mov [0x200000], eax; bad: nop", NO_WP), "exceptions == 0"
    ),
    "pks write with ad without wp": g(
        cpu("intel,+pks", PKS, KEYED), pks(PKRS_AD, "bad: mov [0x200000], eax", NO_WP), *fault("#PF", 0x23)
    ),
    "pks read-modify-write": g(
        cpu("intel,+pks", PKS, KEYED), pks(PKRS_WD, "bad: inc dword ptr [0x200000]"), *fault("#PF", 0x23)
    ),
    "pks of another key": g(
        cpu("intel,+pks", PKS, KEYED), pks(PKRS_AD << 2, "mov eax, [0x200000]; bad: nop"), "exceptions == 0"
    ),
    "pks across pages": g(
        cpu("intel,+pks", PKS, KEYED), pks(PKRS_AD, "bad: mov rax, [0x1ffffc]"), *fault("#PF", 0x21), "cr2 == 0x200000"
    ),
    "pks string": g(
        cpu("intel,+pks", PKS, KEYED),
        pks(PKRS_AD, "mov esi, 0x20000; mov edi, 0x1ffffc; mov ecx, 2; bad: rep movsd"),
        *fault("#PF", 0x23),
        "rcx == 1",
    ),
    "pks stack": g(cpu("intel,+pks", PKS, KEYED), pks(PKRS_WD, "mov esp, 0x200100; bad: push rax"), *fault("#PF", 0x23)),
    "pks fetch": g(
        cpu("intel,+pks", PKS, KEYED),
        pks(PKRS_AD, "mov byte ptr [0x30000], 0xf4; mov eax, 0x200000; jmp rax"),
        "exceptions == 0",
        "rip == 0x200001",
    ),
    "pks off again": g(
        cpu("intel,+pks", PKS, KEYED),
        pks(PKRS_AD, "xor eax, eax; xor edx, edx; wrmsr; mov eax, [0x200000]; bad: nop"),
        "exceptions == 0",
    ),
    "pks off in cr4": g(
        cpu("intel,+pks", PKS, KEYED),
        pks(PKRS_AD, "mov rax, cr4; btr rax, 24; mov cr4, rax; mov eax, [0x200000]; bad: nop"),
        "exceptions == 0",
    ),
    "pks not of user pages": g(
        cpu("intel,+pks", PKS, KEYED.replace('"P RW A D"', '"P RW US A D"')),
        pks(PKRS_AD, "mov eax, [0x200000]; bad: nop"),
        "exceptions == 0",
    ),
    "pks absent": g("", cr4(PKS), *GP0),
    "pkrs absent": g("", wrmsr(0x6E1) + "; hlt", *GP0),
    # MSRs.
    "tsc_adjust": g(
        "",
        "rdtsc; mov esi, eax; " + wrmsr(0x3B, 0x100000) + "; rdtsc; sub eax, esi; mov edi, eax; "
        "mov ecx, 0x10; xor eax, eax; xor edx, edx; wrmsr; mov ecx, 0x3b; rdmsr; hlt",
        "rdi >= 0x100000",
        "rdi < 0x110000",
        "rdx == 0xffffffff",
    ),
    "no tsc_adjust": g(cpu("intel,-tsc_adjust"), wrmsr(0x3B) + "; hlt", *GP0),
    "misc_enable": g("", wrmsr(0x1A0, 0x4_00C5_0809) + "; rdmsr; hlt", "rax == 0xc51809", "rdx == 4"),
    "misc_enable reserved": g("", wrmsr(0x1A0, 2) + "; hlt", *GP0),
    "misc_enable limits cpuid": g("", wrmsr(0x1A0, 0x401801) + "; xor eax, eax; cpuid; hlt", "rax == 2"),
    "misc_enable takes nx away": g(
        'paging = "4level"\n[registers]\nefer = 0x500',
        wrmsr(0x1A0, 0x4_0000_1801).replace("bad: ", "")
        + "; mov eax, 0x80000001; cpuid; mov esi, edx; mov ecx, 0xc0000080; rdmsr; bts eax, 11; bad: wrmsr; hlt",
        *GP0,
        "rsi >> 20 & 1 == 0",
    ),
    "mc status": g("", wrmsr(0x401, 1) + "; hlt", *GP0),
    "mc status of amd": g(cpu("amd"), wrmsr(0xC0010015, 1 << 18).replace("bad: ", "") + "; " + wrmsr(0x401, 5) + "; rdmsr; hlt", "rax == 5"),
    "pred_cmd": g("", wrmsr(0x49, 1) + "; rdmsr; hlt", "exception == '#GP'"),
    "apic_base": g("", "mov ecx, 0x1b; rdmsr; hlt", "rax == 0xfee00900"),
    "no apic": g(cpu("minimal,-apic"), "mov ecx, 0x1b; bad: rdmsr; hlt", *GP0),
    # CPUID as the guest sees it.
    "cpuid ecx": g("", "mov eax, 1; mov ecx, 0x1234; cpuid; hlt", "rcx >> 21 & 1"),
    "cpuid osxsave": g(cpu("intel", OSXSAVE), "mov eax, 1; cpuid; hlt", "rcx >> 27 & 1"),
    # Pending x87 exceptions (vol. 1 section 8.7): who reports them.
    **{
        f"mf at {name}": g("", f"{ZERO_BY_ZERO}; bad: {name}; hlt", *(fault("#MF", None) if raised else FINE))
        for name, raised in {
            "fwait": True, "fld1": True, "fld dword ptr [0x20000]": True, "fstp st(1)": True, "finit": True,
            "emms": True, "movq mm0, mm1": True, "movd mm0, eax": True, "paddb mm0, [0x20000]": True, "cvtpi2pd xmm0, mm0": True,
            "fninit": False, "fnclex": False, "fnstsw ax": False, "fnstsw [rsp]": False, "fnstcw [rsp]": False,
            "fnstenv [0x20000]": False, "fnsave [0x20000]": False, "movd xmm0, eax": False, "fxsave [0x20000]": False,
            "paddb xmm0, xmm1": False, "cvtsi2ss xmm0, eax": False,
        }.items()
    },
    "mf before a fault": g("", f"{ZERO_BY_ZERO}; mov rbx, 0x8000000000; bad: fld dword ptr [rbx]; hlt", *fault("#MF", None)),
    "mf unmasked late": g("", "fninit; fldz; fldz; fdivp; push 0; fldcw [rsp]; bad: fld1; hlt", *fault("#MF", None)),
    "mf cleared": g("", f"{ZERO_BY_ZERO}; fnclex; fld1; bad: hlt", *FINE),
    "mf without ne": g("", f"mov rax, cr0; btr rax, 5; mov cr0, rax; {ZERO_BY_ZERO}; bad: fld1; hlt", *fault("#MF", None)),
    "mf masked": g("", "fninit; fldz; fldz; fdivp; fld1; bad: hlt", *FINE),
    "mf after ts": g(
        "", f"{ZERO_BY_ZERO}; mov rax, cr0; or eax, 8; mov cr0, rax; bad: fld1; hlt", *fault("#NM", None)
    ),
    # KVM's interface and prefix.
    "vmcall": g("", "bad: vmcall; hlt", *UD),
    "vmmcall": g(cpu("amd"), "bad: vmmcall; hlt", *UD),
    "hypercall unknown": g(cpu("intel,+kvm_pv"), "mov eax, 99; vmcall; hlt", "rax == -1000 & 0xffffffffffffffff"),
    "hypercall of amd": g(cpu("amd,+kvm_pv"), "mov eax, 1; vmmcall; hlt", "rax == 0"),
    "hypercall ring 3": g(cpu("intel,+kvm_pv", 0, "ring = 3"), "mov eax, 1; vmcall; bad: hlt", "rax == 0xffffffffffffffff", *GP0),
    "hypercall 32": g('mode = "prot32"\ncpu = "intel,+kvm_pv"', "mov eax, 99; vmcall; hlt", "eax == 0xfffffc18"),
    "kvmclock": g(
        cpu("intel,+kvm_pv"),
        wrmsr(0x4B564D01, 0x20001).replace("bad: ", "") + "; " + wrmsr(0x4B564D00, 0x20040).replace("bad: ", "") + "; bad: hlt",
        *FINE,
        "u32(0x20000) == 2",
        "u64(0x20008) == 4 * u64(0x20010)",
        "u32(0x20018) == 0x40000000",
        "u32(0x2001c) == 0x100",
        "u32(0x20040) == 2",
        "u32(0x20044) == 1735689600",
    ),
    "kvmclock follows the tsc": g(
        cpu("intel,+kvm_pv"),
        wrmsr(0x4B564D01, 0x20001).replace("bad: ", "") + "; " + wrmsr(0x10, 0x7000_0000_0000).replace("bad: ", "") + "; bad: hlt",
        *FINE,
        "u32(0x20000) == 4",
        "u64(0x20008) >= 0x700000000000",
        "u64(0x20010) < 0x1000000",
    ),
    "kvmclock off": g(cpu("intel,+kvm_pv"), wrmsr(0x4B564D01, 0x20000) + "; hlt", "u32(0x20000) == 0", "exceptions == 0"),
    "no kvmclock": g("", wrmsr(0x4B564D01) + "; hlt", *GP0),
    "fep": g(cpu("intel,+fep"), '.byte 0x0f, 0x0b, 0x6b, 0x76, 0x6d; mov eax, 5; bad: hlt', *FINE, "rax == 5"),
    "fep fault": g(cpu("intel,+fep"), '.byte 0x0f, 0x0b, 0x6b, 0x76, 0x6d; bad: ud2; hlt', *UD),
    "no fep": g("", "bad: .byte 0x0f, 0x0b, 0x6b, 0x76, 0x6d; hlt", *UD),
    # Debug exceptions after MOV SS: Intel's processors hold back execution breakpoints, AMD's do not.
    **{
        f"mov ss and a breakpoint on {name}": g(
            cpu(name), "lea rax, [rip+there]; mov dr0, rax; mov eax, 0x402; mov dr7, rax; mov eax, ss; mov ss, eax; there: nop; bad: hlt", *expect
        )
        for name, expect in (("intel", FINE), ("amd", ("exception == '#DB'", "rip == there")))
    },
}  # fmt: skip


@pytest.mark.parametrize("name", GUESTS)
def test_guest(name: str) -> None:
    check(GUESTS[name])
