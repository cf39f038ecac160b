"""One processor and its local APIC: timer, priorities, errors, modes, NMI, the 8259s behind LINT0 (SDM vol. 3A chapter 11)."""

from __future__ import annotations

import pytest

from tests.machine.guests import check, g

ON = "mov esi, 0xfee00000; mov dword ptr [rsi + 0xf0], 0x1ff; "
EOI = "mov dword ptr [rsi + 0xb0], 0; iretq; "
SELF = "mov dword ptr [rsi + 0x300], 0x40000 + {}; "
"""A fixed interrupt to itself."""
X2 = "mov ecx, 0x1b; rdmsr; or eax, 0xc00; wrmsr; mov ecx, 0x80f; mov eax, 0x1ff; xor edx, edx; wrmsr; "

HLT = ("stop == 'hlt'",)
NS = 4
"""TSC counts a nanosecond."""


def on(**vectors: str) -> str:
    """[handlers], by ``v40`` and the like."""
    return "[handlers]\n" + "".join(f"'0x{name[1:]}' = '{label}'\n" for name, label in vectors.items())


def timer(lvt: int, count: int, divide: int = 0xB) -> str:
    """R8 is the TSC at the start of the countdown."""
    return (
        f"mov dword ptr [rsi + 0x320], {lvt:#x}; mov dword ptr [rsi + 0x3e0], {divide:#x}; "
        f"rdtsc; shl rdx, 32; lea r8, [rax + rdx]; mov dword ptr [rsi + 0x380], {count}; "
    )


PASSED = "rdtsc; shl rdx, 32; add rax, rdx; sub rax, r8; mov r8, rax; "
TICK = "tick: inc ebx; " + EOI


def took(nanoseconds: int, slack: int = 60_000) -> tuple[str, str]:
    """R8 is that much time, and a few exits."""
    return f"r8 >= {NS * nanoseconds}", f"r8 < {NS * (nanoseconds + slack)}"


def gp(setup: str, msr: int, value: int = 0) -> tuple[str, str, str, str]:
    """WRMSR of ``value`` must raise #GP(0)."""
    code = f"mov ecx, {msr:#x}; mov eax, {value & 0xFFFFFFFF:#x}; mov edx, {value >> 32:#x}; bad: wrmsr; hlt"
    return setup + code, "exception == '#GP'", "error_code == 0", "rip == bad"


def gp_read(setup: str, msr: int) -> tuple[str, str, str, str]:
    return setup + f"mov ecx, {msr:#x}; bad: rdmsr; hlt", "exception == '#GP'", "error_code == 0", "rip == bad"


PICS = """mov al, 0x11; out 0x20, al; out 0xa0, al; mov al, 0x20; out 0x21, al; mov al, 0x28; out 0xa1, al
mov al, 4; out 0x21, al; mov al, 2; out 0xa1, al; mov al, 1; out 0x21, al; out 0xa1, al
mov al, 0xf7; out 0x21, al; mov al, 0xff; out 0xa1, al; mov dx, 0x2003; mov al, 1; """
"""Both 8259s, vectors from 0x20; only interrupt 3 is open; DX is its line."""
PIC_TICK = "tick: inc ebx; mov al, 0x20; out 0x20, al; iretq"
DEADLINE = "mov dword ptr [rsi + 0x320], 0x40040; "

TIMER = {
    **{
        f"one-shot, divided by {divisor}": g(
            on(v40="tick"),
            ON + timer(0x40, 10_000, code) + "sti; hlt; cli; " + PASSED + "mov r9d, [rsi + 0x390]; hlt; " + TICK,
            *HLT,
            "ebx == 1",
            "r9d == 0",
            *took(10_000 * divisor),
        )
        for code, divisor in {0: 2, 1: 4, 2: 8, 3: 16, 8: 32, 9: 64, 10: 128, 11: 1}.items()
    },
    "one shot is one": g(on(v40="tick"), ON + timer(0x40, 50_000) + "sti; a: hlt; jmp a; " + TICK, *HLT, "ebx == 1"),
    "periodic": g(
        on(v40="tick"),
        ON + timer(0x20040, 100_000) + "sti; a: hlt; cmp ebx, 5; jb a; cli; " + PASSED + "hlt; " + TICK,
        *HLT,
        "count(0x40) == 5",
        "ticks < 100",
        *took(500_000),
    ),
    "count 0 stops it": g(
        on(v40="tick"),
        ON + timer(0x20040, 100_000) + "sti; hlt; mov dword ptr [rsi + 0x380], 0; a: hlt; jmp a; " + TICK,
        *HLT,
        "ebx == 1",
    ),
    "masked": g(
        on(v40="tick"),
        ON + timer(0x10040, 100_000) + "sti; mov r8d, [rsi + 0x390]; mov r9d, [rsi + 0x390]; hlt; " + TICK,
        *HLT,
        "exceptions == 0",
        "r8d < 100000",
        "r9d < r8d",
        "r9d > 50000",
    ),
    "its expiry under the mask is lost": g(
        on(v40="tick"),
        ON + timer(0x10040, 1_000) + "cpuid; cpuid; sti; mov dword ptr [rsi + 0x320], 0x40; nop; hlt; " + TICK,
        *HLT,
        "exceptions == 0",
    ),
    "expiries that wait are one": g(
        on(v40="tick"),
        ON + timer(0x20040, 1_000) + "cpuid; cpuid; mov dword ptr [rsi + 0x380], 0; sti; nop; nop; hlt; " + TICK,
        *HLT,
        "ebx == 1",
    ),
    "tsc deadline": g(
        on(v40="tick"),
        ON
        + DEADLINE
        + "mov ecx, 0x6e0; rdtsc; shl rdx, 32; lea r8, [rax + rdx]; lea rax, [r8 + 4000000]; mov rdx, rax;"
        "shr rdx, 32; wrmsr; sti; hlt; cli; " + PASSED + "rdmsr; mov r9d, eax; or r9d, edx; hlt; " + TICK,
        *HLT,
        "ebx == 1",
        "r9d == 0",
        *took(1_000_000),
    ),
    "tsc deadline in the past": g(
        on(v40="tick"),
        ON + DEADLINE + "mov ecx, 0x6e0; mov eax, 1; xor edx, edx; wrmsr; sti; nop; cli; mov r8d, ebx; hlt; " + TICK,
        *HLT,
        "r8d == 1",
    ),
    "tsc deadline disarmed": g(
        on(v40="tick"),
        ON + DEADLINE + "mov ecx, 0x6e0; mov eax, -1; xor edx, edx; wrmsr; xor eax, eax; wrmsr; sti; hlt; " + TICK,
        *HLT,
        "exceptions == 0",
        "ticks < 20",
    ),
    "tsc deadline moves with the tsc": g(
        on(v40="tick"),
        ON + DEADLINE + "mov ecx, 0x6e0; xor eax, eax; mov edx, 0x100; wrmsr; sti; nop; mov r8d, ebx;"
        "mov ecx, 0x10; mov edx, 0x101; wrmsr; nop; mov r9d, ebx; hlt; " + TICK,
        *HLT,
        "r8d == 0",
        "r9d == 1",
    ),
    "tsc deadline mode has no count": g(
        on(v40="tick"),
        ON + DEADLINE + "mov dword ptr [rsi + 0x380], 1000; mov r8d, [rsi + 0x390]; sti; hlt; " + TICK,
        *HLT,
        "r8d == 0",
        "exceptions == 0",
    ),
    "tsc deadline outside of its mode": g(
        on(v40="tick"),
        ON
        + "mov dword ptr [rsi + 0x320], 0x40; mov ecx, 0x6e0; mov eax, 1; xor edx, edx; wrmsr; rdmsr; sti; hlt; "
        + TICK,
        *HLT,
        "eax == 0",
        "exceptions == 0",
    ),
    "tsc deadline on amd": g("cpu = 'amd'", *gp("", 0x6E0)),
}

MARK = "shl r8, 8; mov r8b, {}; "
PRIORITY = {
    "self IPIs by priority": g(
        on(v41="h41", v51="h51", v61="h61"),
        ON
        + "".join(SELF.format(v) for v in ("0x41", "0x61", "0x51"))
        + "sti; nop; cli; hlt; "
        + "".join(f"h{v}: " + MARK.format(f"0x{v}") + EOI for v in (41, 51, 61)),
        *HLT,
        "r8 == 0x615141",
    ),
    "nesting is by class": g(
        on(v41="low", v42="same", v51="high"),
        ON
        + SELF.format("0x41")
        + "sti; nop; cli; hlt; low: "
        + SELF.format("0x42")
        + SELF.format("0x51")
        + "sti; nop; cli; mov r9, r8; mov r10d, [rsi + 0xa0]; mov r11d, [rsi + 0x120]; "
        + EOI
        + "same: "
        + MARK.format("0x42")
        + EOI
        + "high: mov r12d, [rsi + 0xa0]; "
        + MARK.format("0x51")
        + EOI,
        *HLT,
        "r9 == 0x51",
        "r8 == 0x5142",
        "r10d == 0x40",
        "r11d == 2",
        "r12d == 0x50",
    ),
    "eoi ends the highest": g(
        on(v41="low", v51="high"),
        ON
        + SELF.format("0x41")
        + "sti; nop; cli; hlt; low: "
        + SELF.format("0x51")
        + "sti; nop; cli; mov r10d, [rsi + 0x120]; "
        + EOI
        + "high: mov r8d, [rsi + 0x120]; "
        + EOI,
        *HLT,
        "r8d == 1 << 17 | 1 << 1",
        "r10d == 1 << 1",
    ),
    "without eoi there is no second one": g(
        on(v41="first", v42="second"),
        ON + SELF.format("0x41") + "sti; nop; " + SELF.format("0x42") + "nop; mov r8d, ebx; "
        "mov dword ptr [rsi + 0xb0], 0; nop; cli; hlt; first: iretq; second: inc ebx; iretq",
        *HLT,
        "r8d == 0",
        "ebx == 1",
    ),
    "cr8 holds off": g(
        on(v51="tick"),
        ON
        + "mov eax, 5; mov cr8, rax; sti; "
        + SELF.format("0x51")
        + "nop; mov r8d, ebx; mov r9d, [rsi + 0x220]; mov r10d, [rsi + 0x80]; dec eax; mov cr8, rax; nop; mov r11d, ebx; "
        "mov r12d, [rsi + 0x220]; cli; hlt; " + TICK,
        *HLT,
        "r8d == 0",
        "r9d == 1 << 17",
        "r10d == 0x50",
        "r11d == 1",
        "r12d == 0",
    ),
    "tpr holds off": g(
        on(v51="tick"),
        ON
        + "mov dword ptr [rsi + 0x80], 0x5f; mov r12, cr8; sti; "
        + SELF.format("0x51")
        + "nop; mov r8d, ebx; mov dword ptr [rsi + 0x80], 0x4f; nop; mov r11d, ebx; cli; hlt; "
        + TICK,
        *HLT,
        "r8d == 0",
        "r11d == 1",
        "r12 == 5",
    ),
    "hlt under cr8 is final": g(
        on(v51="tick"),
        ON + "mov eax, 15; mov cr8, rax; " + SELF.format("0xef") + "sti; hlt; " + TICK,
        *HLT,
        "exceptions == 0",
    ),
    "cr8 reserved": g("", "mov eax, 16; bad: mov cr8, rax; hlt", "exception == '#GP'", "rip == bad"),
    "software disabled": g(
        on(v51="tick"),
        ON + "mov dword ptr [rsi + 0x320], 0x40; mov dword ptr [rsi + 0xf0], 0xff; mov r8d, [rsi + 0x320]; "
        "mov dword ptr [rsi + 0x320], 0x40; mov r9d, [rsi + 0x320]; hlt; " + TICK,
        *HLT,
        "r8d == 0x10040",
        "r9d == 0x10040",
    ),
}

ERRORS = {
    "send illegal vector": g(
        on(v70="tick"),
        ON
        + "mov dword ptr [rsi + 0x370], 0x70; sti; "
        + SELF.format(5)
        + "nop; mov r8d, [rsi + 0x280]; mov dword ptr [rsi + 0x280], 0; mov r9d, [rsi + 0x280]; "
        "mov dword ptr [rsi + 0x280], 0; mov r10d, [rsi + 0x280]; cli; hlt; " + TICK,
        *HLT,
        "ebx == 1",
        "r8d == 0",
        "r9d & 0x20 == 0x20",
        "r10d == 0",
    ),
    "timer with an illegal vector": g(
        "",
        ON + timer(0xF, 1_000) + "cpuid; mov dword ptr [rsi + 0x280], 0; mov r9d, [rsi + 0x280]; hlt",
        *HLT,
        "r9d == 0x40",
    ),
    "no such register": g(
        "",
        ON + "mov eax, [rsi + 0x40]; mov dword ptr [rsi + 0x280], 0; mov r9d, [rsi + 0x280]; hlt",
        *HLT,
        "r9d == 0x80",
    ),
    "reset values": g(
        "",
        "mov esi, 0xfee00000; mov r8d, [rsi + 0xf0]; mov r9d, [rsi + 0x320]; mov r10d, [rsi + 0xe0]; mov r11d, [rsi + 0xd0];"
        "mov r12d, [rsi + 0x30]; mov r13d, [rsi + 0x370]; mov ecx, 0x1b; rdmsr; hlt",
        *HLT,
        "r8d == 0xff",
        "r9d == 0x10000",
        "r10d == 0xffffffff",
        "r11d == 0",
        "r12d & 0xff >= 0x10",
        "r12d & 0xff <= 0x15",
        "r13d == 0x10000",
        "eax == 0xfee00900",
    ),
}

BIT9 = "mov eax, 1; cpuid; shr edx, 9; and edx, 1; "
OFF = "mov ecx, 0x1b; rdmsr; and eax, 0xfffff3ff; wrmsr; "
MODES = {
    "disabled": g(
        "",
        ON
        + OFF
        + "mov r8d, [rsi + 0x20]; mov r12d, [rsi + 0xf0]; "
        + BIT9
        + "mov r9d, edx; mov ecx, 0x1b; rdmsr; or eax, 0x800; wrmsr; "
        "mov r10d, [rsi + 0xf0]; " + BIT9 + "mov r11d, edx; hlt",
        *HLT,
        "r8d == 0xffffffff",
        "r12d == 0xffffffff",
        "r9d == 0",
        "r10d == 0xff",
        "r11d == 1",
    ),
    "moved": g(
        "",
        ON
        + "mov r8d, [rsi + 0x30]; mov ecx, 0x1b; rdmsr; and eax, 0xfff; or eax, 0xfea00000; wrmsr; mov ebx, 0xfea00000; "
        "mov r9d, [rbx + 0x30]; mov r10d, [rsi + 0x30]; mov r11d, [rbx + 0xf0]; hlt",
        *HLT,
        "r9d == r8d",
        "r10d == 0xffffffff",
        "r11d == 0x1ff",
    ),
    "x2apic": g(
        "",
        ON
        + "mov r15d, [rsi + 0x30]; "
        + X2
        + "mov ecx, 0x803; rdmsr; mov r8d, eax; mov ecx, 0x80d; rdmsr; mov r9d, eax; mov ecx, 0x802; rdmsr; "
        "mov r10d, eax; mov ecx, 0x80f; rdmsr; mov r12d, eax; mov r11d, [rsi + 0x30]; hlt",
        *HLT,
        "r8d == r15d",
        "r9d == 1",
        "r10d == 0",
        "r12d == 0x1ff",
        "r11d == 0xffffffff",
    ),
    "x2apic self IPI": g(
        on(v51="tick"),
        X2 + "mov ecx, 0x83f; mov eax, 0x51; xor edx, edx; wrmsr; mov ecx, 0x822; rdmsr; mov r8d, eax; sti; nop; cli; "
        "mov ecx, 0x822; rdmsr; mov r9d, eax; hlt; tick: inc ebx; mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; iretq",
        *HLT,
        "ebx == 1",
        "r8d == 1 << 17",
        "r9d == 0",
    ),
    "x2apic ICR is one register": g(
        on(v51="tick"),
        X2
        + "mov ecx, 0x830; mov eax, 0x51; xor edx, edx; wrmsr; rdmsr; mov r8d, eax; sti; nop; cli; mov edx, 1; mov eax, 0x51; mov ecx, 0x830; wrmsr; "
        "rdmsr; mov r9d, edx; sti; nop; hlt; tick: inc ebx; mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; iretq",
        *HLT,
        "ebx == 1",
        "r8d == 0x51",
        "r9d == 1",
    ),
    "x2apic, disabled, xapic": g(
        "",
        X2 + OFF + "rdmsr; or eax, 0x800; wrmsr; mov esi, 0xfee00000; mov r8d, [rsi + 0xf0]; rdmsr; hlt",
        *HLT,
        "r8d == 0xff",
        "eax == 0xfee00900",
    ),
    "x2apic timer": g(
        on(v40="tick"),
        X2
        + "mov ecx, 0x832; mov eax, 0x40; wrmsr; mov ecx, 0x83e; mov eax, 0xb; wrmsr; rdtsc; shl rdx, 32; lea r8, [rax + rdx]; xor edx, edx; "
        "mov ecx, 0x838; mov eax, 500000; wrmsr; sti; hlt; cli; " + PASSED + "hlt; "
        "tick: inc ebx; mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; iretq",
        *HLT,
        "ebx == 1",
        *took(500_000),
    ),
    "x2apic to xapic": g("", *gp(X2, 0x1B, 0xFEE00900)),
    "disabled to x2apic": g("", *gp(OFF, 0x1B, 0xFEE00D00)),
    "extd without en": g("", *gp("", 0x1B, 0xFEE00500)),
    "reserved bit 0": g("", *gp("", 0x1B, 0xFEE00901)),
    "reserved bit 9": g("", *gp("", 0x1B, 0xFEE00B00)),
    "base beyond maxphyaddr": g("", *gp("", 0x1B, 1 << 52 | 0xFEE00900)),
    "extd without the feature": g("cpu = 'intel,-x2apic'", *gp("", 0x1B, 0xFEE00D00)),
    "x2apic MSR in xapic mode": g("", *gp_read("", 0x802)),
    "x2apic ID is read-only": g("", *gp(X2, 0x802)),
    "x2apic has no DFR": g("", *gp_read(X2, 0x80E)),
    "x2apic has no high ICR": g("", *gp_read(X2, 0x831)),
    "x2apic LDR is read-only": g("", *gp(X2, 0x80D, 1)),
    "x2apic PPR is read-only": g("", *gp(X2, 0x80A, 0)),
    "x2apic EOI reads not": g("", *gp_read(X2, 0x80B)),
    "x2apic EOI takes 0": g("", *gp(X2, 0x80B, 1)),
    "x2apic ESR takes 0": g("", *gp(X2, 0x828, 1)),
    "x2apic self IPI reads not": g("", *gp_read(X2, 0x83F)),
    "x2apic self IPI reserved": g("", *gp(X2, 0x83F, 0x151)),
    "x2apic TPR reserved": g("", *gp(X2, 0x808, 0x100)),
    "x2apic SVR reserved": g("", *gp(X2, 0x80F, 0x1_0000)),
    "x2apic high half": g("", *gp(X2, 0x808, 1 << 32)),
    "x2apic beyond": g("", *gp_read(X2, 0x840)),
}

NMI = on(vNMI="nmi").replace("0xNMI", "NMI")
REST = {
    "nmi does not mind if": g(
        NMI,
        ON + "mov dword ptr [rsi + 0x300], 0x4400; after: nop; hlt; nmi: inc ebx; mov r8, [rsp]; iretq",
        *HLT,
        "ebx == 1",
        "r8 == after",
    ),
    "nmi to self by shorthand": g(
        NMI, ON + "mov dword ptr [rsi + 0x300], 0x84400; hlt; nmi: inc ebx; iretq", *HLT, "ebx == 1"
    ),
    "nmi waits for mov ss": g(
        NMI,
        # The load lets the NMI in behind the instruction after it: its shadow.
        ON
        + "mov ecx, 0x4400; mov ax, ss; mov ss, ax; mov dword ptr [rsi + 0x300], ecx; after: nop; hlt; nmi: mov r8, [rsp]; inc ebx; iretq",
        *HLT,
        "ebx == 1",
        "r8 == after",
    ),
    "lint0 as nmi": g(
        NMI,
        ON + "mov dword ptr [rsi + 0x350], 0x400; " + PICS + "out dx, al; nop; hlt; nmi: inc ebx; iretq",
        *HLT,
        "ebx == 1",
        "count('NMI') == 1",
    ),
    "extint in long mode": g(
        on(v23="tick"),
        PICS + "sti; out dx, al; nop; cli; mov r8d, ebx; mov al, 0; out dx, al; hlt; " + PIC_TICK,
        *HLT,
        "r8d == 1",
        "count(0x23) == 1",
    ),
    "extint does not mind cr8": g(
        on(v23="tick"), PICS + "mov ecx, 15; mov cr8, rcx; sti; out dx, al; nop; hlt; " + PIC_TICK, *HLT, "ebx == 1"
    ),
    "extint masked at lint0": g(
        on(v23="tick"),
        ON
        + PICS
        + "mov dword ptr [rsi + 0x350], 0x10700; sti; out dx, al; nop; mov r8d, ebx; mov dword ptr [rsi + 0x350], 0x700; nop; nop; hlt; "
        + PIC_TICK,
        *HLT,
        "r8d == 0",
        "ebx == 1",
    ),
    "lint0 fixed": g(
        on(v23="tick", v60="fixed"),
        ON + PICS + "mov dword ptr [rsi + 0x350], 0x60; sti; out dx, al; nop; hlt; fixed: inc ecx; " + EOI + PIC_TICK,
        *HLT,
        "ebx == 0",
        "ecx == 1",
    ),
    "extint with the apic disabled": g(
        on(v23="tick"),
        PICS + "push rax; push rdx; " + OFF + "pop rdx; pop rax; sti; out dx, al; nop; hlt; " + PIC_TICK,
        *HLT,
        "ebx == 1",
    ),
    "masked at the 8259 before it is taken": g(
        on(v23="tick", v27="spurious"),
        PICS
        + "mov al, 1; out dx, al; mov al, 0xff; out 0x21, al; sti; nop; mov r8d, ebx; mov al, 0xf7; out 0x21, al; nop; cli; hlt; "
        "spurious: inc ecx; iretq; " + PIC_TICK,
        *HLT,
        "r8d == 0",
        "ecx == 0",
        "ebx == 1",
    ),
    "in service at the 8259": g(
        on(v23="tick"),
        PICS
        + "sti; out dx, al; nop; mov al, 0; out dx, al; mov al, 1; out dx, al; nop; mov r8d, ebx; mov al, 0x20; out 0x20, al; nop; cli; hlt; "
        "tick: inc ebx; iretq",
        *HLT,
        "r8d == 1",
        "ebx == 2",
    ),
    "init to itself ends": g("", ON + "mov dword ptr [rsi + 0x300], 0x4500; nop; hlt", "stop == 'reset'"),
    "sti shadow": g(
        on(v51="tick"),
        ON + SELF.format("0x51") + "sti; cli; nop; sti; nop; after: cli; hlt; tick: mov r8, [rsp]; inc ebx; " + EOI,
        *HLT,
        "ebx == 1",
        "r8 == after",
    ),
    "popf has no shadow": g(
        on(v51="tick"),
        ON + SELF.format("0x51") + "push 0x202; popfq; after: cli; hlt; tick: mov r8, [rsp]; inc ebx; " + EOI,
        *HLT,
        "ebx == 1",
        "r8 == after",
    ),
    "interrupt inside rep": g(
        on(v40="tick"),
        ON + timer(0x40, 11_500) + "sti; mov ecx, 3000; mov edi, 0x20000; bad: rep stosb; cli; hlt; "
        "tick: mov r8, [rsp]; mov r9d, ecx; mov r10, [rsp + 16]; " + EOI,
        *HLT,
        "r8 == bad",
        "r9d > 0",
        "r9d < 3000",
        "r10 & 0x10000 == 0x10000",
        "rdi == 0x20000 + 3000",
    ),
}

GUESTS = {**TIMER, **PRIORITY, **ERRORS, **MODES, **REST}


@pytest.mark.parametrize("name", GUESTS)
def test_guest(name: str) -> None:
    check(GUESTS[name])
