"""PIT, RTC and HPET as guests of every mode meet them, behind the 8259s and the I/O APIC; and what wakes HLT."""

from __future__ import annotations

import pytest

from tests.machine.guests import Guest, check, g

HLT = ("stop == 'hlt'",)
NS = 4
"""TSC counts a nanosecond."""
MS = 1_000_000
MODES = {
    "real16": ("mode = 'real16'", "iret"),
    "prot32": ("mode = 'prot32'", "iretd"),
    "prot32, 32-bit paging": ("mode = 'prot32'\npaging = '32bit'", "iretd"),
    "prot32, PAE": ("mode = 'prot32'\npaging = 'pae'", "iretd"),
    "long64": ("mode = 'long64'", "iretq"),
}


def out(*pairs: tuple[int, int]) -> str:
    """Bytes to ports below 0x100."""
    return "".join(f"mov al, {value:#x}; out {port:#x}, al; " for port, value in pairs)


def pics(master: int, slave: int = 0xFF) -> str:
    """Both 8259s, vectors from 0x20, and their masks."""
    words = ((0x20, 0x11), (0xA0, 0x11), (0x21, 0x20), (0xA1, 0x28), (0x21, 4), (0xA1, 2), (0x21, 1), (0xA1, 1))
    return out(*words, (0x21, master), (0xA1, slave))


def pit(control: int, count: int) -> str:
    """Channel 0."""
    return out((0x43, control), (0x40, count & 0xFF), (0x40, count >> 8))


def cmos(*pairs: tuple[int, int]) -> str:
    return "".join(out((0x70, index), (0x71, value)) for index, value in pairs)


def took(nanoseconds: int, slack: int = 100_000) -> tuple[str, str]:
    """EDI is that much time, and a few exits."""
    return f"edi >= {NS * (nanoseconds - 1000)}", f"edi < {NS * (nanoseconds + slack)}"


BEGIN = "rdtsc; mov edi, eax; "
END = "rdtsc; sub eax, edi; mov edi, eax; "
TICK = "tick: push eax; inc ecx; mov al, 0x20; out 0x20, al; pop eax; "
SLAVE = "tick: inc ecx; mov al, 0x0c; out 0x70, al; in al, 0x71; mov bl, al; mov al, 0x20; out 0xa0, al; out 0x20, al; "
"""RTC: BL is register C."""
COUNTS = 1193
"""Clocks of the PIT in a millisecond, 153 ns too many."""


def on(header: str, **vectors: str) -> str:
    return header + "\n[handlers]\n" + "".join(f"'0x{name[1:]}' = '{label}'\n" for name, label in vectors.items())


def in_every_mode(name: str, code: str, *expect: str, vector: str = "v20") -> dict[str, Guest]:
    """``IRET`` and the pushes of the handler are the mode's."""
    made = {}
    for mode, (header, iret) in MODES.items():
        text = code.replace("IRET", iret)
        if mode == "long64":
            text = text.replace("push eax", "push rax").replace("pop eax", "pop rax")
        made[f"{name}, {mode}"] = g(on(header, **{vector: "tick"}), text, *expect)
    return made


PIT = {
    **in_every_mode(
        "one shot",
        pics(0xFE)
        + BEGIN
        + pit(0x30, COUNTS)
        + "sti; hlt; cli; "
        + END
        + "sti; again: hlt; jmp again; "
        + TICK
        + "IRET",
        *HLT,
        "ecx == 1",
        "count(0x20) == 1",
        *took(MS),
    ),
    **in_every_mode(
        "rate generator",
        # The control word raises the output: an edge that ICW1 forgets.
        BEGIN
        + pit(0x34, COUNTS)
        + pics(0xFE)
        + "sti; again: hlt; cmp ecx, 5; jb again; cli; "
        + END
        + "hlt; "
        + TICK
        + "IRET",
        *HLT,
        "ecx == 5",
        *took(5 * MS),
    ),
    **in_every_mode(
        "square wave",
        BEGIN
        + pit(0x36, 2 * COUNTS)
        + pics(0xFE)
        + "sti; again: hlt; cmp ecx, 3; jb again; cli; "
        + END
        + "hlt; "
        + TICK
        + "IRET",
        *HLT,
        "ecx == 3",
        *took(6 * MS),
    ),
    "read-back": g(
        "",
        pit(0x34, 50_000)
        + out((0x43, 0xC2))
        + "in al, 0x40; mov bl, al; in al, 0x40; mov ah, al; in al, 0x40; xchg al, ah; movzx ecx, ax; "
        + out((0x43, 0xE2))
        + "in al, 0x40; mov bh, al; hlt",
        *HLT,
        "bl & 0x3f == 0x34",
        "bh & 0xbf == 0xb4",
        "ecx < 50000",
        "ecx > 49000",
    ),
    "latch stands": g(
        "",
        pit(0x34, 50_000)
        + out((0x43, 0))
        + "cpuid; cpuid; xor eax, eax; in al, 0x40; mov ah, al; in al, 0x40; xchg al, ah; movzx r8d, ax; "
        + out((0x43, 0))
        + "in al, 0x40; mov ah, al; in al, 0x40; xchg al, ah; movzx r9d, ax; hlt",
        *HLT,
        "r8d > 49900",
        "r9d < r8d - 50",
        "r9d > r8d - 200",
    ),
    "channel 2 by port 0x61": g(
        "",
        out((0x61, 0), (0x43, 0xB0), (0x42, COUNTS & 0xFF), (0x42, COUNTS >> 8))
        + "cpuid; in al, 0x61; mov r8b, al; "
        + BEGIN.replace("edi", "r9d")
        + out((0x61, 1))
        + "1: in al, 0x61; test al, 0x20; jz 1b; "
        + "rdtsc; sub eax, r9d; mov edi, eax; hlt",
        *HLT,
        "r8b & 0x20 == 0",
        *took(MS),
    ),
    "masked": g(
        on("", v20="tick"),
        pics(0xFF) + pit(0x34, 100) + "sti; hlt; " + TICK.replace("eax", "rax") + "iretq",
        *HLT,
        "ecx == 0",
        "ticks < 100",
    ),
    "through the I/O APIC": g(
        on("", v50="tick"),
        "mov esi, 0xfee00000; mov dword ptr [rsi + 0xf0], 0x1ff; mov ebx, 0xfec00000; mov dword ptr [rbx], 0x14; mov dword ptr [rbx + 0x10], 0x50; "
        + BEGIN
        + pit(0x30, COUNTS)
        + "sti; hlt; cli; "
        + END
        + "hlt; tick: inc ecx; mov dword ptr [rsi + 0xb0], 0; iretq",
        *HLT,
        "ecx == 1",
        *took(MS),
    ),
}


def at(second: int) -> str:
    """Alarm at that second of the first minute, and its interrupt."""
    return cmos((1, second), (3, 0), (5, 0), (11, 0x22))


GET = "mov al, {:#x}; out 0x70, al; in al, 0x71; mov {}, al; "
RTC = {
    "time": g(
        "",
        "".join(
            GET.format(i, r)
            for i, r in (
                (0, "r8b"),
                (2, "r9b"),
                (4, "r10b"),
                (7, "r11b"),
                (8, "r12b"),
                (9, "r13b"),
                (0x32, "r14b"),
                (13, "r15b"),
            )
        )
        + "hlt",
        *HLT,
        "r8b == 0",
        "r9b == 0",
        "r10b == 0",
        "r11b == 1",
        "r12b == 1",
        "r13b == 0x25",
        "r14b == 0x20",
        "r15b == 0x80",
    ),
    "it can be set": g(
        "",
        cmos((11, 0x82), (0, 0x59), (2, 0x59), (4, 0x23), (7, 0x28), (8, 2), (9, 0x24), (11, 0x12))
        + pics(0xFB, 0xFE)
        + "sti; hlt; cli; "
        + "".join(GET.format(i, r) for i, r in ((0, "r8b"), (4, "r9b"), (7, "r10b"), (8, "r11b")))
        + "hlt",
        *HLT,
        "r8b == 0",
        "r9b == 0",
        "r10b == 0x29",
        "r11b == 2",
    ),
    **in_every_mode(
        "alarm",
        pics(0xFB, 0xFE)
        + at(2)
        + "sti; hlt; cli; mov al, 0; out 0x70, al; in al, 0x71; mov dl, al; hlt; "
        + SLAVE
        + "IRET",
        *HLT,
        "ecx == 1",
        "bl & 0xa0 == 0xa0",
        "dl == 2",
        "ticks < 200",
        vector="v28",
    ),
    "periodic": g(
        on("", v28="tick"),
        pics(0xFB, 0xFE)
        + BEGIN
        + cmos((11, 0x42))
        + "sti; again: hlt; cmp ecx, 4; jb again; cli; "
        + END
        + "hlt; "
        + SLAVE
        + "iretq",
        *HLT,
        "ecx == 4",
        "bl & 0xc0 == 0xc0",
        # 1024 Hz; the first one comes where the divider stands.
        f"edi > {NS * 3 * 976_000}",
        f"edi < {NS * (4 * 977_000 + 100_000)}",
    ),
    "without reading register C there is no second one": g(
        on("", v28="tick"),
        pics(0xFB, 0xFE)
        + cmos((11, 0x42))
        + "sti; again: hlt; jmp again; tick: inc ecx; mov al, 0x20; out 0xa0, al; out 0x20, al; iretq",
        *HLT,
        "ecx == 1",
    ),
    "reading register C clears it": g(
        "",
        "mov ecx, 3000; 1: mov al, 12; out 0x70, al; in al, 0x71; test al, 0x40; loopz 1b; mov bl, al; in al, 0x71; hlt",
        *HLT,
        "bl & 0xc0 == 0x40",
        "al & 0x40 == 0",
    ),
    "memory": g(
        "",
        cmos((0x40, 0xA5)) + out((0x70, 0x41)) + "in al, 0x71; mov bl, al; " + out((0x70, 0x40)) + "in al, 0x71; hlt",
        *HLT,
        "al == 0xa5",
        "bl == 0",
    ),
}
# The handler of the setting test is any.
RTC["it can be set"] = g(
    on("", v28="tick"), RTC["it can be set"].code + "; " + SLAVE + "iretq", *RTC["it can be set"].expect
)

IOAPIC = "mov esi, 0xfee00000; mov dword ptr [rsi + 0xf0], 0x1ff; mov ebx, 0xfec00000; mov dword ptr [rbx], {:#x}; mov dword ptr [rbx + 0x10], {:#x}; "
H = "mov ebp, 0xfed00000; "
EOI = "mov dword ptr [rsi + 0xb0], 0; iretq"
HPET = {
    "capabilities": g(
        "",
        H + "mov r8, [rbp]; mov r9, [rbp + 0x10]; mov r10, [rbp + 0xf0]; hlt",
        *HLT,
        "r8 >> 32 == 10000000",
        "r8 & 0x2000 == 0x2000",
        "r9 == 0",
        "r10 == 0",
    ),
    "counter": g(
        "",
        H
        + "mov qword ptr [rbp + 0x10], 1; mov r8, [rbp + 0xf0]; cpuid; mov r9, [rbp + 0xf0]; sub r9, r8; mov qword ptr [rbp + 0x10], 0; "
        "mov r10, [rbp + 0xf0]; cpuid; sub r10, [rbp + 0xf0]; hlt",
        *HLT,
        "r9 >= 1000",
        "r9 < 3100",
        "r10 == 0",
    ),
    "one shot": g(
        on("", v50="tick"),
        H
        + IOAPIC.format(0x10 + 32, 0x50)
        + "mov qword ptr [rbp + 0x100], 0x2004; mov qword ptr [rbp + 0x108], 100000; "
        + BEGIN
        + "mov qword ptr [rbp + 0x10], 1; sti; hlt; cli; "
        + END
        + "sti; again: hlt; jmp again; tick: inc ecx; "
        + EOI,
        *HLT,
        "ecx == 1",
        *took(MS),
    ),
    "periodic": g(
        on("", v50="tick"),
        H
        + IOAPIC.format(0x10 + 32, 0x50)
        + "mov qword ptr [rbp + 0x100], 0x204c; mov qword ptr [rbp + 0x108], 100000; mov qword ptr [rbp + 0x108], 50000; "
        + BEGIN
        + "mov qword ptr [rbp + 0x10], 1; sti; again: hlt; cmp ecx, 3; jb again; cli; "
        + END
        + "hlt; tick: inc ecx; "
        + EOI,
        *HLT,
        "ecx == 3",
        *took(2 * MS),
    ),
    "level until its status is cleared": g(
        on("", v50="tick"),
        H
        + IOAPIC.format(0x10 + 32, 0x8050)
        + "mov qword ptr [rbp + 0x100], 0x2006; mov qword ptr [rbp + 0x108], 100000; mov qword ptr [rbp + 0x10], 1; "
        "sti; again: hlt; cmp ecx, 2; jb again; hlt; tick: inc ecx; mov r8, [rbp + 0x20]; cmp ecx, 2; jb 1f; mov qword ptr [rbp + 0x20], 1; "
        "mov r9, [rbp + 0x20]; 1: " + EOI,
        *HLT,
        "ecx == 2",
        "r8 == 1",
        "r9 == 0",
    ),
    "legacy replacement of the PIT": g(
        on("", v20="tick"),
        H
        + pics(0xFE)
        + "mov qword ptr [rbp + 0x10], 2; "
        + pit(0x34, 100)
        + "mov qword ptr [rbp + 0x100], 4; mov qword ptr [rbp + 0x108], 100000; "
        + BEGIN
        + "mov qword ptr [rbp + 0x10], 3; sti; hlt; cli; "
        + END
        + "hlt; "
        + TICK.replace("eax", "rax")
        + "iretq",
        *HLT,
        "ecx == 1",
        *took(MS),
    ),
    "as a message": g(
        on("", v51="tick"),
        H
        + IOAPIC.format(0, 0)
        + "mov qword ptr [rbp + 0x100], 0x4004; mov rax, 0xfee0000000000051; mov [rbp + 0x110], rax; mov qword ptr [rbp + 0x108], 100000; "
        + BEGIN
        + "mov qword ptr [rbp + 0x10], 1; sti; hlt; cli; "
        + END
        + "hlt; tick: inc ecx; "
        + EOI,
        *HLT,
        "ecx == 1",
        *took(MS),
    ),
}

WAKE = {
    "cli and hlt": g("", "cli; hlt; ud2", *HLT, "ticks == 2", "exceptions == 0"),
    "sti and hlt with nothing armed": g("", "sti; hlt; ud2", *HLT, "ticks == 2"),
    "hlt with if clear under a timer": g(
        on("", v20="tick"),
        pics(0xFE) + pit(0x34, 100) + "cli; hlt; ud2; " + TICK.replace("eax", "rax") + "iretq",
        *HLT,
        "exceptions == 0",
    ),
    "pending before hlt": g(
        on("", v51="tick"),
        "mov esi, 0xfee00000; mov dword ptr [rsi + 0xf0], 0x1ff; mov dword ptr [rsi + 0x300], 0x40051; sti; hlt; woken: cli; hlt; "
        "tick: mov r8, [rsp]; inc ecx; " + EOI,
        *HLT,
        "ecx == 1",
        "r8 == woken",
    ),
    "hours pass at once": g(
        on("", v28="tick"),
        pics(0xFB, 0xFE)
        + cmos((1, 0), (3, 0), (5, 0x23), (11, 0x22))
        + "sti; hlt; cli; rdtsc; mov r8d, edx; "
        + GET.format(4, "r9b")
        + "hlt; "
        + SLAVE
        + "iretq",
        *HLT,
        "ecx == 1",
        "r9b == 0x23",
        # The first second ends after 10 ms.
        f"r8d == {(23 * 3600 * 10**9 - 990 * MS) * NS >> 32}",
        "ticks < 200",
    ),
    "the nearest of several": g(
        on("", v20="tick", v40="apic"),
        pics(0xFE)
        + "mov esi, 0xfee00000; mov dword ptr [rsi + 0xf0], 0x1ff; mov dword ptr [rsi + 0x320], 0x40; mov dword ptr [rsi + 0x3e0], 0xb; "
        + pit(0x30, COUNTS)
        + "mov dword ptr [rsi + 0x380], 500000; sti; hlt; mov r8d, ebx; hlt; mov r9d, ebx; cli; hlt; "
        "apic: shl ebx, 8; mov bl, 0x40; mov dword ptr [rsi + 0xb0], 0; iretq; tick: shl ebx, 8; mov bl, 0x20; mov al, 0x20; out 0x20, al; iretq",
        *HLT,
        "r8d == 0x40",
        "r9d == 0x4020",
    ),
}

GUESTS = {
    **{f"pit: {name}": guest for name, guest in PIT.items()},
    **{f"rtc: {name}": guest for name, guest in RTC.items()},
    **{f"hpet: {name}": guest for name, guest in HPET.items()},
    **{f"hlt: {name}": guest for name, guest in WAKE.items()},
}


@pytest.mark.parametrize("name", GUESTS)
def test_guest(name: str) -> None:
    check(GUESTS[name])
