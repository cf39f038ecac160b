"""I/O APIC, PCI functions, ACPI and the ways to a reset, as guests meet them."""

from __future__ import annotations

import struct

import pytest

from kvmscope.asm import assemble
from kvmscope.vmm.config import MachineConfig, Mode
from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.machine import Machine
from tests.machine.guests import check, g

HLT = ("stop == 'hlt'",)
MS = 1_000_000


def on(header: str = "", **vectors: str) -> str:
    return header + "\n[handlers]\n" + "".join(f"'0x{name[1:]}' = '{label}'\n" for name, label in vectors.items())


ON = "mov esi, 0xfee00000; mov dword ptr [rsi + 0xf0], 0x1ff; mov edi, 0xfec00000; "
EOI = "mov dword ptr [rsi + 0xb0], 0; iretq; "


def pin(number: int, low: int, high: int = 0) -> str:
    """A redirection entry."""
    return "".join(
        f"mov dword ptr [rdi], {0x10 + 2 * number + half:#x}; mov dword ptr [rdi + 0x10], {value:#x}; "
        for half, value in ((1, high), (0, low))
    )


def line(number: int, level: int) -> str:
    """PC-testdev's wire to the pin."""
    return f"mov edx, {0x2000 + number:#x}; mov al, {level}; out dx, al; "


TICK = "tick: inc ebx; " + EOI

IOAPIC = {
    **{
        f"edge at pin {n}": g(
            on(v50="tick"),
            ON
            + pin(n, 0x50)
            + "sti; "
            + line(n, 1)
            + "nop; mov r8d, ebx; "
            + line(n, 1)
            + "nop; mov r9d, ebx; "
            + line(n, 0)
            + "nop; mov r10d, ebx; "
            + line(n, 1)
            + "nop; hlt; "
            + TICK,
            *HLT,
            "r8d == 1",
            "r9d == 1",
            "r10d == 1",
            "ebx == 2",
        )
        for n in (1, 3, 15, 16, 23)
    },
    "level, remote IRR": g(
        on(v50="tick"),
        ON
        + pin(20, 0x8050)
        + "sti; "
        + line(20, 1)
        + "nop; hlt; tick: inc ebx; mov r8d, [rdi + 0x10]; cmp ebx, 3; jb 1f; "
        + line(20, 0)
        + "1: mov dword ptr [rsi + 0xb0], 0; mov r9d, [rdi + 0x10]; iretq",
        *HLT,
        "ebx == 3",
        "r8d & 0x4000 == 0x4000",
        "r9d & 0x4000 == 0",
    ),
    "remote IRR stands until EOI": g(
        on(v50="tick"),
        ON
        + pin(20, 0x8050)
        + line(20, 1)
        + line(20, 0)
        + "mov r8d, [rdi + 0x10]; sti; nop; mov r9d, [rdi + 0x10]; "
        + line(20, 1)
        + "nop; mov r10d, ebx; mov dword ptr [rsi + 0xb0], 0; nop; hlt; tick: inc ebx; iretq",
        *HLT,
        "r8d & 0x4000 == 0x4000",
        "r9d & 0x4000 == 0x4000",
        "r10d == 1",
        "ebx == 2",
    ),
    "masked: an edge is lost": g(
        on(v50="tick"),
        ON + pin(20, 0x10050) + "sti; " + line(20, 1) + pin(20, 0x50) + "nop; hlt; " + TICK,
        *HLT,
        "ebx == 0",
    ),
    "masked: a level waits": g(
        on(v50="tick"),
        ON
        + pin(20, 0x18050)
        + "sti; "
        + line(20, 1)
        + "nop; mov r8d, ebx; "
        + pin(20, 0x8050)
        + "nop; hlt; tick: inc ebx; "
        + line(20, 0)
        + EOI,
        *HLT,
        "r8d == 0",
        "ebx == 1",
    ),
    "to another APIC ID": g(
        on(v50="tick"), ON + pin(20, 0x50, 5 << 24) + "sti; " + line(20, 1) + "nop; hlt; " + TICK, *HLT, "ebx == 0"
    ),
    "logical destination": g(
        on(v50="tick"),
        ON
        + "mov dword ptr [rsi + 0xd0], 0x04000000; "
        + pin(20, 0x850, 6 << 24)
        + pin(21, 0x850, 3 << 24)
        + "sti; "
        + line(20, 1)
        + line(21, 1)
        + "nop; hlt; "
        + TICK,
        *HLT,
        "ebx == 1",
    ),
    "nmi": g(
        "[handlers]\nNMI = 'nmi'",
        ON + pin(20, 0x400) + line(20, 1) + "nop; hlt; nmi: inc ebx; iretq",
        *HLT,
        "ebx == 1",
        "count('NMI') == 1",
    ),
    "registers": g(
        "",
        ON
        + "mov dword ptr [rdi], 1; mov r8d, [rdi + 0x10]; mov dword ptr [rdi], 0; mov dword ptr [rdi + 0x10], 0x0f000000; mov r9d, [rdi + 0x10]; "
        "mov dword ptr [rdi], 0x10 + 46; mov r10d, [rdi + 0x10]; mov dword ptr [rdi], 0x10 + 45; mov dword ptr [rdi + 0x10], 0x55000000; "
        "mov r11d, [rdi + 0x10]; mov r12d, [rdi]; hlt",
        *HLT,
        "r8d >> 16 & 0xff == 23",
        "r9d == 0x0f000000",
        "r10d == 0x10000",
        "r11d == 0x55000000",
        "r12d == 61",
    ),
    "edge to level clears nothing that is in service": g(
        on(v50="tick"),
        ON
        + pin(20, 0x8050)
        + "sti; "
        + line(20, 1)
        + line(20, 0)
        + "hlt; tick: inc ebx; "
        + pin(20, 0x50)
        + "mov r8d, [rdi + 0x10]; "
        + EOI,
        *HLT,
        "ebx == 1",
        "r8d == 0x50",
    ),
}

EDU = "devices = ['edu']"


def find(identity: int) -> str:
    """EBP is the configuration address of the function; it ends with EBP = 0 when there is none."""
    return (
        "mov ebp, 0x80000000; find: mov edx, 0xcf8; mov eax, ebp; out dx, eax; mov dl, 0xfc; in eax, dx; "
        f"cmp eax, {identity:#x}; je found; add ebp, 0x800; cmp ebp, 0x80010000; jb find; xor ebp, ebp; hlt; found: "
    )


def get(offset: int) -> str:
    return f"mov edx, 0xcf8; lea eax, [rbp + {offset}]; out dx, eax; mov dl, 0xfc; in eax, dx; "


def put(offset: int, value: int) -> str:
    return f"mov edx, 0xcf8; lea eax, [rbp + {offset}]; out dx, eax; mov dl, 0xfc; mov eax, {value:#x}; out dx, eax; "


AT_EDU = find(0x11E81234) + get(0x10) + "mov ebx, eax; "
"""EBX is the base address."""
MASTER = put(4, 0x106)
PCI = {
    "nobody is there": g("", find(0x11E81234) + "ud2", *HLT, "ebp == 0"),
    "no device, all ones": g(
        "", "mov edx, 0xcf8; mov eax, 0x8000f800; out dx, eax; mov dl, 0xfc; in eax, dx; hlt", *HLT, "eax == 0xffffffff"
    ),
    "host bridge": g(
        "",
        "mov ebp, 0x80000000; " + get(0) + "mov r8d, eax; " + get(8) + "hlt",
        *HLT,
        "r8d & 0xffff == 0x8086",
        "eax >> 16 == 0x600",
    ),
    "enable bit": g(
        EDU,
        find(0x11E81234) + "mov edx, 0xcf8; mov eax, ebp; btr eax, 31; out dx, eax; mov dl, 0xfc; in eax, dx; hlt",
        *HLT,
        "eax == 0xffffffff",
        "ebp != 0",
    ),
    "configuration by bytes": g(
        EDU,
        AT_EDU + get(0) + "mov dl, 0xfe; in ax, dx; mov r8d, eax; mov dl, 0xfd; in al, dx; hlt",
        *HLT,
        "r8w == 0x11e8",
        "al == 0x12",
    ),
    "size of a base address": g(
        EDU,
        AT_EDU + put(0x10, 0xFFFFFFFF) + get(0x10) + "mov r8d, eax; " + put(0x14, 0xFFFFFFFF) + get(0x14) + "hlt",
        *HLT,
        "r8d == 0xfff00000",
        "eax == 0",
        "ebx & 0xfffff == 0",
    ),
    "a base address moves": g(
        EDU,
        AT_EDU
        + "mov r8d, [rbx]; "
        + put(0x10, 0xE0000000)
        + "mov r9d, [rbx]; mov ebx, 0xe0000000; mov r10d, [rbx]; hlt",
        *HLT,
        "r8d == 0x010000ed",
        "r9d == 0xffffffff",
        "r10d == 0x010000ed",
    ),
    "decoding off": g(
        EDU,
        AT_EDU + put(4, 0) + "mov r8d, [rbx]; " + put(4, 2) + "mov r9d, [rbx]; hlt",
        *HLT,
        "r8d == 0xffffffff",
        "r9d == 0x010000ed",
    ),
    "edu: liveness": g(
        EDU, AT_EDU + "mov dword ptr [rbx + 4], 0x12345678; mov r8d, [rbx + 4]; hlt", *HLT, "r8d == 0xedcba987"
    ),
    "edu: factorial": g(
        EDU,
        AT_EDU + "mov dword ptr [rbx + 8], 10; 1: test dword ptr [rbx + 0x20], 1; jnz 1b; mov r8d, [rbx + 8]; hlt",
        *HLT,
        "r8d == 3628800",
    ),
    "edu: pin interrupt": g(
        EDU + on(v50="tick"),
        ON
        + AT_EDU
        + get(0x3C)
        + "movzx ecx, al; lea eax, [rcx * 2 + 0x10]; mov [rdi], eax; mov dword ptr [rdi + 0x10], 0x8050; sti; "
        "mov dword ptr [rbx + 0x60], 0x21; nop; hlt; tick: inc r8d; mov r9d, [rbx + 0x24]; mov [rbx + 0x64], r9d; mov r10d, [rbx + 0x24]; "
        + EOI,
        *HLT,
        "r8d == 1",
        "r9d == 0x21",
        "r10d == 0",
        "ecx in (10, 11)",
    ),
    "edu: pin disabled": g(
        EDU + on(v50="tick"),
        ON
        + AT_EDU
        + get(0x3C)
        + "movzx ecx, al; lea eax, [rcx * 2 + 0x10]; mov [rdi], eax; mov dword ptr [rdi + 0x10], 0x8050; "
        + put(4, 0x402)
        + "sti; mov dword ptr [rbx + 0x60], 1; nop; "
        + get(4)
        + "hlt; tick: inc r8d; mov dword ptr [rbx + 0x64], 1; "
        + EOI,
        *HLT,
        "r8d == 0",
        "eax >> 16 & 8 == 8",
    ),
    "edu: message": g(
        EDU + on(v51="tick"),
        ON
        + AT_EDU
        + MASTER
        + put(0x44, 0xFEE00000)
        + put(0x48, 0)
        + put(0x4C, 0x51)
        + put(0x40, 0x10005)
        + "mov dword ptr [rbx + 0x20], 0x80; mov dword ptr [rbx + 8], 5; sti; hlt; hlt; tick: inc r8d; mov r9d, [rbx + 0x24]; mov r10d, [rbx + 8]; "
        "mov [rbx + 0x64], r9d; " + EOI,
        *HLT,
        "r8d == 1",
        "r9d == 1",
        "r10d == 120",
    ),
    "edu: no message without mastering": g(
        EDU + on(v51="tick"),
        ON
        + AT_EDU
        + put(0x44, 0xFEE00000)
        + put(0x4C, 0x51)
        + put(0x40, 0x10005)
        + "sti; mov dword ptr [rbx + 0x60], 1; nop; hlt; tick: inc r8d; "
        + EOI,
        *HLT,
        "r8d == 0",
    ),
    "edu: memory there and back": g(
        EDU,
        AT_EDU
        + MASTER
        + "movabs rax, 0x1122334455667788; mov [0x20000], rax; mov qword ptr [rbx + 0x80], 0x20000; mov qword ptr [rbx + 0x88], 0x40000; "
        "mov qword ptr [rbx + 0x90], 7; mov qword ptr [rbx + 0x98], 1; 1: test dword ptr [rbx + 0x98], 1; jnz 1b; "
        "mov qword ptr [rbx + 0x80], 0x40000; mov qword ptr [rbx + 0x88], 0x21001; mov qword ptr [rbx + 0x98], 3; "
        "2: test dword ptr [rbx + 0x98], 1; jnz 2b; mov r8, [0x21000]; hlt",
        *HLT,
        "r8 == 0x2233445566778800",
    ),
    "edu: code that a device writes": g(
        EDU,
        # The instruction has been executed before: no translation of it may stay.
        AT_EDU + MASTER + "lea r8, [rip + patched + 1]; mov qword ptr [rbx + 0x90], 1; mov byte ptr [0x20000], 0x5a; "
        "mov qword ptr [rbx + 0x80], 0x20000; mov qword ptr [rbx + 0x88], 0x40000; mov qword ptr [rbx + 0x98], 1; "
        "1: test dword ptr [rbx + 0x98], 1; jnz 1b; call patched; mov r9d, ecx; mov qword ptr [rbx + 0x80], 0x40000; mov [rbx + 0x88], r8; "
        "mov qword ptr [rbx + 0x98], 3; 2: test dword ptr [rbx + 0x98], 1; jnz 2b; call patched; hlt; patched: mov ecx, 7; ret",
        *HLT,
        "r9d == 7",
        "ecx == 0x5a",
    ),
    "edu: nothing without mastering": g(
        EDU,
        AT_EDU
        + "mov dword ptr [0x20000], 7; mov qword ptr [rbx + 0x80], 0x40000; mov qword ptr [rbx + 0x88], 0x20000; mov qword ptr [rbx + 0x90], 4; "
        "mov qword ptr [rbx + 0x98], 3; 1: test dword ptr [rbx + 0x98], 1; jnz 1b; hlt",
        *HLT,
        "u32(0x20000) == 7",
    ),
    "edu: end of a transfer interrupts": g(
        EDU + on(v51="tick"),
        ON
        + AT_EDU
        + MASTER
        + put(0x44, 0xFEE00000)
        + put(0x4C, 0x51)
        + put(0x40, 0x10005)
        + "mov qword ptr [rbx + 0x80], 0x20000; mov qword ptr [rbx + 0x88], 0x40000; mov qword ptr [rbx + 0x90], 8; mov qword ptr [rbx + 0x98], 5; sti; hlt; "
        "hlt; tick: mov r9d, [rbx + 0x24]; mov [rbx + 0x64], r9d; inc r8d; " + EOI,
        *HLT,
        "r8d == 1",
        "r9d == 0x100",
    ),
    "pci-testdev": g(
        "devices = ['pci-testdev']",
        find(0x00051B36)
        + get(0x10)
        + "mov ebx, eax; mov byte ptr [rbx], 1; mov ecx, [rbx + 4]; mov al, [rbx + 8]; mov [rbx + rcx], al; mov [rbx + rcx], al; "
        "mov r8d, [rbx + 12]; "
        + get(0x14)
        + "mov r9d, eax; and eax, -4; mov edx, eax; mov al, 0; out dx, al; mov edi, edx; lea edx, [rdi + 12]; in eax, dx; hlt",
        *HLT,
        "r8d == 2",
        "r9d & 1 == 1",
        "eax == 0",
    ),
    "both": g(
        "devices = ['edu', 'pci-testdev']",
        find(0x00051B36)
        + "mov r8d, ebp; "
        + find(0x11E81234).replace("find", "find2").replace("found", "found2")
        + "hlt",
        *HLT,
        "r8d != 0",
        "ebp != 0",
        "ebp != r8d",
    ),
}


def word(port: int, value: int) -> str:
    return f"mov edx, {port:#x}; mov eax, {value:#x}; out dx, ax; "


def cmos(index: int, value: int) -> str:
    return f"mov al, {index}; out 0x70, al; mov al, {value:#x}; out 0x71, al; "


ALARM = cmos(1, 0xFF) + cmos(3, 0xFF) + cmos(5, 0xFF) + cmos(11, 0x22)
"""Every second."""
RESET = ("stop == 'reset'",)
ACPI = {
    "the PM timer goes by guest time": g(
        on(v40="tick"),
        ON
        + "mov dword ptr [rsi + 0x320], 0x40; mov dword ptr [rsi + 0x3e0], 0xb; mov edx, 0x608; in eax, dx; mov r8d, eax; "
        f"mov dword ptr [rsi + 0x380], {MS}; sti; hlt; cli; in eax, dx; mov r9d, eax; sub eax, r8d; hlt; " + TICK,
        *HLT,
        "eax >= 3579",
        "eax < 3579 + 200",
        "r9d < 1 << 24",
    ),
    "the PM timer takes no writes": g(
        "", "mov edx, 0x608; xor eax, eax; dec eax; out dx, eax; in eax, dx; hlt", *HLT, "eax < 10000"
    ),
    "its carry raises the SCI": g(
        on(v59="tick"),
        ON
        + pin(9, 0x8059)
        + "mov al, 0xf1; out 0xb2, al; "
        + word(0x602, 1)
        + "sti; hlt; cli; mov edx, 0x608; in eax, dx; mov r9d, eax; hlt; "
        "tick: inc ebx; mov edx, 0x600; in ax, dx; mov r8d, eax; mov ax, 1; out dx, ax; in ax, dx; mov r10w, ax; "
        + EOI,
        *HLT,
        "ebx == 1",
        "r8d & 1 == 1",
        "r10w & 1 == 0",
        "r9d >= 0x800000",
        "r9d < 0x800000 + 400",
        "ticks < 100",
    ),
    "no SCI without SCI_EN": g(
        on(v59="tick"), ON + pin(9, 0x8059) + word(0x602, 1) + "sti; hlt; " + TICK, *HLT, "ebx == 0"
    ),
    "SCI_EN follows the SMI port": g(
        "",
        "mov edx, 0x604; in ax, dx; mov r8w, ax; mov al, 0xf1; out 0xb2, al; in ax, dx; mov r9w, ax; mov al, 0xf0; out 0xb2, al; in ax, dx; hlt",
        *HLT,
        "r8w & 1 == 0",
        "r9w & 1 == 1",
        "ax & 1 == 0",
    ),
    "S5": g("", word(0x604, 0x2000) + "ud2", *RESET, "exceptions == 0"),
    "SLP_EN is asked for": g("", word(0x604, 0x0000) + "hlt", *HLT),
    "S3 that nothing ends": g("", word(0x602, 0x400) + word(0x604, 0x2400) + "ud2", *HLT, "exceptions == 0"),
    "S3 with an alarm but no waking vector": g(
        "", ALARM + word(0x602, 0x400) + word(0x604, 0x2400) + "ud2", *RESET, "exceptions == 0"
    ),
    "S3 with an alarm that does not wake": g(
        "", ALARM + word(0x602, 0) + word(0x604, 0x2400) + "ud2", *HLT, "exceptions == 0"
    ),
    "port 0xcf9": g(
        "",
        "mov edx, 0xcf9; mov al, 2; out dx, al; nop; mov al, 6; out dx, al; ud2",
        *RESET,
        "exceptions == 0",
        "ticks == 6",
    ),
    "port 0xcf9, without a rising edge": g(
        "", "mov edx, 0xcf9; mov al, 2; out dx, al; in al, dx; hlt", *HLT, "al == 2"
    ),
    "port 0x92": g("", "in al, 0x92; or al, 1; out 0x92, al; ud2", *RESET, "exceptions == 0"),
    "port 0x92, A20 alone": g("", "in al, 0x92; or al, 2; out 0x92, al; in al, 0x92; hlt", *HLT, "al == 2"),
    "keyboard controller": g("", "mov al, 0xfe; out 0x64, al; ud2", *RESET, "exceptions == 0"),
}

GUESTS = {
    **{f"ioapic: {name}": guest for name, guest in IOAPIC.items()},
    **{f"pci: {name}": guest for name, guest in PCI.items()},
    **{f"acpi: {name}": guest for name, guest in ACPI.items()},
}


@pytest.mark.parametrize("name", GUESTS)
def test_guest(name: str) -> None:
    check(GUESTS[name])


# Sleep: only a multiboot guest has the table in which the waking vector stands.

SLEEPER = (
    """
        mov     dword ptr [0x20000], 0x600d
        mov     eax, 0x1234
        mov     byte ptr [0x21000], 0
"""
    + (ALARM + word(0x602, 0x400) + word(0x604, 0x2400)).replace(";", "\n")
    + """
        ud2
        .section .wake, 0x8000
        .code16
wake:   mov     cs:[0x100], eax
        mov     ebx, cr0
        mov     cs:[0x104], ebx
        mov     word ptr cs:[0x108], cs
        mov     ax, 0
        mov     ds, ax
        mov     al, 0x0c
        out     0x70, al
        in      al, 0x71
        mov     dx, 0x600
        in      ax, dx
        mov     cs:[0x10c], ax
        hlt
        .org    wake + 0x100
        .long   -1, -1, 0, 0
"""
)


def sleeper(vector: int) -> Machine:
    """A guest that sleeps, with the waking vector in its FACS."""
    assembly = assemble(SLEEPER, bits=32, origin=0x400000, cross_check=False)
    assert assembly.image is not None, assembly.diagnostics
    machine = Machine(MachineConfig(mode=Mode.MULTIBOOT), assembly.image)
    ram = machine.memory.read(0, machine.memory.size)
    assert ram is not None
    facs = ram.index(b"FACS\x40\0\0\0")
    machine.write_memory(facs + 12, struct.pack("<I", vector))
    return machine


def test_an_alarm_wakes_a_guest_from_s3_and_it_resumes_at_its_vector() -> None:
    machine = sleeper(0x8000)
    try:
        assert machine.run(10_000).reason is StopReason.HLT, machine.stop
        eax, cr0, cs, status = struct.unpack("<IIHxxH", machine.memory.read(0x8100, 14) or b"")
        assert (eax, cr0, cs) == (0, 0x60000010, 0x800), "a processor after reset"
        assert status & 0x8400 == 0x8400, "WAK_STS and RTC_STS"
        assert machine.memory.read(0x20000, 2) == b"\x0d\x60", "memory stays"
        lapic = next(device for device in machine.snapshot().devices if device.name == "lapic 0")
        (lint0,) = (field.value for field in lapic.fields if field.name == "LVT LINT0")
        assert int(lint0, 16) == 0x700, "the 8259s reach the processor, as after any reset"
        end, last = machine.tick, machine.snapshot()
        machine.goto(3)
        machine.goto(end)
        assert machine.snapshot().cpu == last.cpu
        assert machine.snapshot().devices == last.devices
    finally:
        machine.close()


def test_without_a_vector_the_run_says_what_firmware_would_do() -> None:
    machine = sleeper(0)
    try:
        stop = machine.run(10_000)
        assert stop.reason is StopReason.RESET
        assert "S3 without a waking vector" in stop.detail
    finally:
        machine.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (word(0x604, 0x2000), "S5"),
        ("mov dx, 0xcf9; mov al, 6; out dx, al", "machine"),
        ("mov dx, 0xcf9; mov al, 4; out dx, al", "processors"),
        ("mov al, 1; out 0x92, al", "processors"),
    ],
)
def test_a_reset_says_what_it_was(code: str, words: str) -> None:
    assembly = assemble(code.replace(";", "\n") + "\nhlt\n", bits=64, origin=0x400000, cross_check=False)
    assert assembly.image is not None, assembly.diagnostics
    machine = Machine(MachineConfig(), assembly.image)
    try:
        stop = machine.run(100)
        assert (stop.reason, words in stop.detail) == (StopReason.RESET, True), stop
    finally:
        machine.close()
