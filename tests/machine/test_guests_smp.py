"""Several processors: start-up, interrupts between them, locks, code that another one writes (SDM vol. 3A chapters 9 and 11)."""

from __future__ import annotations

import pytest

from kvmscope.vmm.config import MachineConfig
from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.machine import Machine
from tests.machine.guests import check, g
from tests.vmm.guests import Guest, build

ON = "mov esi, 0xfee00000; mov dword ptr [rsi + 0xf0], 0x1ff; "
X2 = "mov ecx, 0x1b; rdmsr; or eax, 0xc00; wrmsr; mov ecx, 0x80f; mov eax, 0x1ff; xor edx, edx; wrmsr; "
"""X2APIC mode, software enabled; in every mode of the processor."""
TO = "mov dword ptr [rsi + 0x310], {} << 24; "
ICR = "mov dword ptr [rsi + 0x300], {}; "
START = ICR.format("0xc4500") + ICR.format("0xc4608") + ICR.format("0xc4608")
"""Everybody else, at 0800:0000."""
INIT1 = TO.format(1) + ICR.format("0x4500")
START1 = INIT1 + ICR.format("0x4608")
WAIT = "9: pause; cmp dword ptr [count], {}; jne 9b; "

AP = """.section .ap, 0x8000; .code16
ap: xor ax, ax; mov ds, ax; mov eax, 1; cpuid; shr ebx, 24; mov bp, bx; imul bx, bx, 0x80; mov sp, 0x7c00; sub sp, bx; """
"""BP is the APIC ID."""
READY = "lock inc dword ptr [count]; "
REST = "rest: hlt; jmp rest; "
DATA = ".balign 4; count: .long 0; mask: .long 0; seen: .long 0; "
HANDLER = ".org ap + 0x100; handler: "
"""What the IVT entries made by `ivt` lead to; DS is 0."""
MARK = "lock bts dword ptr [mask], ebp; lock inc dword ptr [seen]; "
X2_EOI = "xor eax, eax; xor edx, edx; mov ecx, 0x80b; wrmsr; "

# A 4 GiB DS in real mode: the local APIC's memory is in reach.
FLAT = """lgdt [0x600]; mov eax, cr0; or al, 1; mov cr0, eax; mov bx, 0x10; mov ds, bx; and al, 0xfe; mov cr0, eax
mov esi, 0xfee00000; mov dword ptr [esi + 0xf0], 0x1ff; """
GDT = "[[memory]]\naddress = 0x600\nu16 = [0x7f, 0x1000, 0]\n"
XAPIC_EOI = "mov dword ptr [esi + 0xb0], 0; "


def smp(count: int, header: str = "") -> str:
    return f"smp = {count}\n{header}"


def ivt(vector: int) -> str:
    """The application processors take ``vector`` at `HANDLER`."""
    return f"[[memory]]\naddress = {4 * vector}\nu16 = [0x100, 0x800]\n"


def logical(dfr: int, *ldrs: int) -> str:
    """Processors set DFR and their LDR by table at 0x700."""
    return (
        GDT
        + f"[[memory]]\naddress = 0x700\nu32 = [0, {', '.join(str(ldr << 24) for ldr in ldrs)}, {dfr}]\n"
        + ivt(0x41)
    )


SET_LOGICAL = (
    "mov eax, [0x710]; mov [esi + 0xe0], eax; mov di, bp; shl di, 2; mov eax, [di + 0x700]; mov [esi + 0xd0], eax; "
)
ADDRESSED = AP + FLAT + SET_LOGICAL + READY + "sti; " + REST + HANDLER + MARK + XAPIC_EOI + "iret; " + DATA
SETTLE = "mov ecx, 40; 8: pause; loop 8b; hlt; "
"""Everybody gets turns, then the run ends."""

HLT = ("stop == 'hlt'",)

GUESTS = {
    "sixteen": g(
        smp(16),
        ON + START + WAIT.format(15) + "hlt; " + AP + "lock bts dword ptr [mask], ebp; " + READY + REST + DATA,
        *HLT,
        "u32(mask) == 0xfffe",
        "u32(count) == 15",
    ),
    "sipi is the address": g(
        smp(2),
        ON
        + INIT1
        + ICR.format("0x4609")
        + SETTLE
        + ".section .ap, 0x9000; .code16; ap: mov ax, cs; mov cs:[0x20], ax; call 1f; 1: pop ax; "
        "mov cs:[0x22], ax; hlt; .org ap + 0x20; .word 0, 0",
        *HLT,
        "u16(0x9020) == 0x900",
        "u16(0x9022) > 0",
        "u16(0x9022) < 0x20",
    ),
    "without a sipi nothing runs": g(smp(2), ON + INIT1 + SETTLE + AP + READY + REST + DATA, *HLT, "u32(count) == 0"),
    "a sipi needs no init after reset": g(
        smp(2),
        ON + TO.format(1) + ICR.format("0x4608") + WAIT.format(1) + "hlt; " + AP + READY + REST + DATA,
        *HLT,
        "u32(count) == 1",
    ),
    "a sipi at one that runs is dropped": g(
        smp(2),
        ON + START1 + WAIT.format(1) + ICR.format("0x4608") + SETTLE + AP + READY + REST + DATA,
        *HLT,
        "u32(count) == 1",
    ),
    "init and sipi start it again": g(
        smp(2),
        ON + START1 + WAIT.format(1) + START1 + WAIT.format(2) + "hlt; " + AP + READY + REST + DATA,
        *HLT,
        "u32(count) == 2",
    ),
    "init stops one that runs": g(
        smp(2),
        ON
        + START1
        + WAIT.format(1)
        + INIT1
        + "mov eax, [seen]; mov ebx, eax; mov ecx, 40; 1: pause; loop 1b; mov ebx, [seen]; sub ebx, eax; hlt; "
        + AP
        + READY
        + "1: inc dword ptr [seen]; jmp 1b; "
        + DATA,
        *HLT,
        "ebx == 0",
        "eax > 0",
    ),
    "init level de-assert does nothing": g(
        smp(2, ivt(2)),
        ON
        + START1
        + WAIT.format(1)
        + ICR.format("0x8500")
        + ICR.format("0x4400")
        + SETTLE
        + AP
        + READY
        + REST
        + HANDLER
        + MARK
        + "iret; "
        + DATA,
        *HLT,
        "u32(seen) == 1",
    ),
    "nmi wakes one that is halted with if clear": g(
        smp(2, ivt(2)),
        ON
        + START1
        + WAIT.format(1)
        + ICR.format("0x4400")
        + "1: pause; cmp dword ptr [seen], 1; jne 1b; hlt; "
        + AP
        + READY
        + "hlt; mov dword ptr [mask], 0x100; hlt; "
        + HANDLER
        + "mov eax, [mask]; mov [0x620], eax; inc dword ptr [seen]; iret; "
        + DATA,
        *HLT,
        "count('NMI') == 1",
        "u32(0x620) == 0",
        "u32(mask) == 0x100",
    ),
    "nmi before the sipi is lost": g(
        smp(2, ivt(2)),
        ON
        + INIT1
        + ICR.format("0x4400")
        + ICR.format("0x4608")
        + WAIT.format(1)
        + SETTLE
        + AP
        + READY
        + REST
        + HANDLER
        + MARK
        + "iret; "
        + DATA,
        *HLT,
        "count('NMI') == 0",
        "u32(seen) == 0",
    ),
    "nmi to all others": g(
        smp(4, ivt(2)),
        ON
        + START
        + WAIT.format(3)
        + ICR.format("0xc4400")
        + SETTLE
        + AP
        + READY
        + REST
        + HANDLER
        + MARK
        + "iret; "
        + DATA,
        *HLT,
        "u32(mask) == 0xe",
        "count('NMI') == 3",
    ),
    "fixed to all others": g(
        smp(4, ivt(0x41)),
        ON
        + START
        + WAIT.format(3)
        + ICR.format("0xc4041")
        + SETTLE
        + AP
        + X2
        + READY
        + "sti; "
        + REST
        + HANDLER
        + MARK
        + X2_EOI
        + "iret; "
        + DATA,
        *HLT,
        "u32(mask) == 0xe",
        "u32(seen) == 3",
    ),
    "fixed to all, and to oneself": g(
        smp(3, ivt(0x41) + "[handlers]\n0x41 = 'mine'\n"),
        ON
        + START
        + WAIT.format(2)
        + "sti; "
        + ICR.format("0x84041")
        + SETTLE.replace("hlt", "cli; hlt")
        + "mine: inc r8d; mov dword ptr [rsi + 0xb0], 0; iretq; "
        + AP
        + X2
        + READY
        + "sti; "
        + REST
        + HANDLER
        + MARK
        + X2_EOI
        + "iret; "
        + DATA,
        *HLT,
        "u32(mask) == 6",
        "r8d == 1",
    ),
    "physical broadcast": g(
        smp(3, ivt(0x41) + "[handlers]\n0x41 = 'mine'\n"),
        ON
        + START
        + WAIT.format(2)
        + "sti; "
        + TO.format("0xff")
        + ICR.format("0x4041")
        + SETTLE.replace("hlt", "cli; hlt")
        + "mine: inc r8d; mov dword ptr [rsi + 0xb0], 0; iretq; "
        + AP
        + X2
        + READY
        + "sti; "
        + REST
        + HANDLER
        + MARK
        + X2_EOI
        + "iret; "
        + DATA,
        *HLT,
        "u32(mask) == 6",
        "r8d == 1",
    ),
    "one that is not there": g(
        smp(2, ivt(0x41)),
        ON
        + START
        + WAIT.format(1)
        + TO.format(5)
        + ICR.format("0x4041")
        + "mov r8d, [rsi + 0x300]; "
        + SETTLE
        + AP
        + X2
        + READY
        + "sti; "
        + REST
        + HANDLER
        + MARK
        + X2_EOI
        + "iret; "
        + DATA,
        *HLT,
        "u32(seen) == 0",
        "r8d & 0x1000 == 0",
    ),
    "it waits for sti": g(
        smp(2, ivt(0x41)),
        ON
        + START
        + WAIT.format(1)
        + TO.format(1)
        + ICR.format("0x4041")
        + "mov ecx, 40; 1: pause; loop 1b; mov r8d, [seen]; mov dword ptr [0x620], 1; "
        + "1: pause; cmp dword ptr [seen], 1; jne 1b; hlt; "
        + AP
        + X2
        + READY
        + "1: pause; cmp dword ptr [0x620], 1; jne 1b; sti; "
        + REST
        + HANDLER
        + MARK
        + X2_EOI
        + "iret; "
        + DATA,
        *HLT,
        "r8d == 0",
        "u32(seen) == 1",
    ),
    "lowest priority": g(
        smp(3, ivt(0x49)),
        X2
        + "mov ecx, 0x830; xor edx, edx; mov eax, 0xc4500; wrmsr; mov eax, 0xc4608; wrmsr; "
        + WAIT.format(2)
        + "mov edx, 6; mov eax, 0x4949; mov ecx, 0x830; wrmsr; "
        + SETTLE
        + AP
        + X2
        + "mov eax, 0x30; mov cx, bp; dec cx; shl cx, 4; sub al, cl; xor edx, edx; mov ecx, 0x808; wrmsr; "
        + READY
        + "sti; "
        + REST
        + HANDLER
        + MARK
        + X2_EOI
        + "iret; "
        + DATA,
        *HLT,
        "u32(mask) == 4",
        "u32(seen) == 1",
    ),
    "x2apic cluster": g(
        smp(4, ivt(0x49)),
        X2
        + "mov ecx, 0x830; xor edx, edx; mov eax, 0xc4500; wrmsr; mov eax, 0xc4608; wrmsr; "
        + WAIT.format(3)
        + "mov edx, 0xa; mov eax, 0x4849; mov ecx, 0x830; wrmsr; mov edx, 0x1000f; wrmsr; "
        + SETTLE
        + AP
        + X2
        + READY
        + "sti; "
        + REST
        + HANDLER
        + MARK
        + X2_EOI
        + "iret; "
        + DATA,
        *HLT,
        "u32(mask) == 0xa",
        "u32(seen) == 2",
    ),
    "logical, flat": g(
        smp(4, logical(0xFFFFFFFF, 0x10, 0x20, 0x40)),
        ON + START + WAIT.format(3) + TO.format("0x50") + ICR.format("0x4841") + SETTLE + ADDRESSED,
        *HLT,
        "u32(mask) == 0xa",
        "u32(seen) == 2",
    ),
    "logical, cluster": g(
        smp(4, logical(0x0FFFFFFF, 0x11, 0x12, 0x21)),
        ON + START + WAIT.format(3) + TO.format("0x13") + ICR.format("0x4841") + SETTLE + ADDRESSED,
        *HLT,
        "u32(mask) == 6",
        "u32(seen) == 2",
    ),
    "logical, other cluster": g(
        smp(4, logical(0x0FFFFFFF, 0x11, 0x12, 0x21)),
        ON + START + WAIT.format(3) + TO.format("0x2f") + ICR.format("0x4841") + SETTLE + ADDRESSED,
        *HLT,
        "u32(mask) == 8",
        "u32(seen) == 1",
    ),
    "I/O APIC to a logical destination": g(
        smp(4, logical(0xFFFFFFFF, 0x10, 0x20, 0x40)),
        ON
        + START
        + WAIT.format(3)
        + "mov edi, 0xfec00000; mov dword ptr [rdi], 0x10 + 41; mov dword ptr [rdi + 0x10], 0x60 << 24; "
        "mov dword ptr [rdi], 0x10 + 40; mov dword ptr [rdi + 0x10], 0x841; mov edx, 0x2014; mov al, 1; out dx, al; "
        + SETTLE
        + ADDRESSED,
        *HLT,
        "u32(mask) == 0xc",
        "u32(seen) == 2",
    ),
    "its own timer wakes it": g(
        smp(2, ivt(0x41)),
        ON
        + START1
        + "hlt; "
        + AP
        + X2
        + "mov ecx, 0x832; mov eax, 0x41; xor edx, edx; wrmsr; mov ecx, 0x83e; mov eax, 0xb; wrmsr; mov ecx, 0x838; mov eax, 100000; wrmsr; sti; "
        + REST
        + HANDLER
        + MARK
        + X2_EOI
        + "iret; "
        + DATA,
        *HLT,
        "u32(seen) == 1",
        "u32(mask) == 2",
    ),
    "the run goes on while one of them does": g(
        smp(2),
        ON + START1 + "cli; hlt; " + AP + "mov cx, 1000; 1: inc dword ptr [seen]; loop 1b; cli; hlt; " + DATA,
        *HLT,
        "u32(seen) == 1000",
    ),
    "what another one writes is executed": g(
        smp(2),
        ON
        + START1
        + WAIT.format(1)
        + "mov byte ptr [patched + 1], 0x5a; 1: pause; cmp byte ptr [mask], 0x5a; jne 1b; hlt; "
        + AP
        + READY
        + "1: pause; patched: mov al, 0; test al, al; jz 1b; mov [mask], al; "
        + REST
        + DATA,
        *HLT,
        "u8(mask) == 0x5a",
    ),
    "what another one writes is executed without a turn between": g(
        "quantum = 7\n" + smp(2),
        ON
        + START1
        + WAIT.format(1)
        + "mov byte ptr [patched + 1], 0x5a; 1: cmp byte ptr [mask], 0x5a; jne 1b; hlt; "
        + AP
        + READY
        + "1: nop; patched: mov al, 0; test al, al; jz 1b; mov [mask], al; "
        + REST
        + DATA,
        *HLT,
        "u8(mask) == 0x5a",
    ),
    "pages of their own": g(
        # Processor 1 is in real mode: its accesses are physical, while processor 0 sees another page there.
        smp(2, "[[page]]\nlinear = 0x30000\nphysical = 0x31000\n"),
        ON
        + START1
        + WAIT.format(1)
        + "mov byte ptr [0x30000], 7; mov al, [0x30001]; hlt; "
        + AP
        + "mov bx, 0x3000; mov es, bx; mov byte ptr es:[1], 9; "
        + READY
        + REST
        + DATA,
        *HLT,
        "p8(0x31000) == 7",
        "p8(0x30000) == 0",
        "p8(0x30001) == 9",
        "al == 0",
    ),
    "reset registers of one that has started": g(
        smp(2),
        ON
        + START1
        + WAIT.format(1)
        + "hlt; .section .ap, 0x8000; .code16; ap: mov cs:[0x100], eax; mov cs:[0x104], edx; "
        "mov eax, cr0; mov cs:[0x108], eax; pushf; pop ax; mov cs:[0x10c], ax; mov cs:[0x10e], ds; lock inc dword ptr cs:[0x110]; "
        "rest: hlt; .org ap + 0x100; .long -1, 0, 0; .word 0, -1; count: .long 0",
        *HLT,
        "u32(0x8100) == 0",
        "u32(0x8104) != 0",
        "u32(0x8108) == 0x60000010",
        "u16(0x810c) == 2",
        "u16(0x810e) == 0",
    ),
}


@pytest.mark.parametrize("name", GUESTS)
def test_guest(name: str) -> None:
    check(GUESTS[name])


def counter(body: str) -> str:
    """Two processors add 100 each; RBX of the first is the sum."""
    return f"""
        mov     esi, 0xfee00000
        mov     dword ptr [rsi + 0xf0], 0x1ff
        mov     dword ptr [rsi + 0x310], 1 << 24
        mov     dword ptr [rsi + 0x300], 0x4500
        mov     dword ptr [rsi + 0x300], 0x4608
        mov     ecx, 100
again:  {body}
        loop    again
wait:   pause
        cmp     dword ptr [0x9004], 1
        jne     wait
        mov     ebx, [0x9000]
        hlt
        .section .ap, 0x8000
        .code16
        mov     ax, 0
        mov     ds, ax
        mov     cx, 100
ap:     {body}
        loop    ap
        mov     dword ptr [0x9004], 1
        hlt
"""


RACE = "mov eax, [0x9000]; inc eax; mov [0x9000], eax".replace(";", "\n")
LOCKED = (
    "7: lock bts dword ptr [0x9008], 0; jnc 8f; pause; jmp 7b; 8:".replace(";", "\n")
    + "\n"
    + RACE
    + "\nmov dword ptr [0x9008], 0"
)
ATOMIC = "lock inc dword ptr [0x9000]"


def total(body: str, quantum: int) -> tuple[int, int]:
    """Sum and length of a run."""
    config: MachineConfig = Guest("race", counter(body), smp=2).config(quantum=quantum)
    machine = Machine(config, build(counter(body), config.mode))
    try:
        assert machine.run(100_000).reason is StopReason.HLT
        return machine.cpu.gpr[3], machine.tick
    finally:
        machine.close()


QUANTA = (1, 2, 3, 5, 7, 50, 2000)


@pytest.mark.parametrize("quantum", QUANTA)
def test_a_lock_protects_a_counter(quantum: int) -> None:
    assert total(LOCKED, quantum)[0] == 200
    assert total(ATOMIC, quantum)[0] == 200


def test_a_race_loses_updates_and_does_so_again() -> None:
    sums = [total(RACE, quantum) for quantum in QUANTA]
    assert sums == [total(RACE, quantum) for quantum in QUANTA], "the same interleaving every time"
    assert min(value for value, _ in sums) < 200, "three instructions can be torn apart"
    assert len({value for value, _ in sums}) > 2, "another quantum, another interleaving"
    assert sums[-1][0] == 200, "a turn that is long enough hides the race"
