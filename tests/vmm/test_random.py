"""Random programs: one run, single steps and travel must agree on every register, byte and event."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

import pytest

from kvmscope.vmm import machine as machine_module
from kvmscope.vmm.config import HandlerInit, Mode, PageInit
from kvmscope.vmm.machine import Machine
from tests.vmm.guests import Guest, build

_REGISTERS = (
    ("rax", "eax", "ax", "al"),
    ("rcx", "ecx", "cx", "cl"),
    ("rdx", "edx", "dx", "dl"),
    ("rbx", "ebx", "bx", "bl"),
    ("rsi", "esi", "si", "sil"),
    ("r8", "r8d", "r8w", "r8b"),
    ("r9", "r9d", "r9w", "r9b"),
)
_TWO = ("add", "sub", "adc", "sbb", "xor", "and", "or", "cmp", "test")
_ONE = ("inc", "dec", "neg", "not", "shl", "shr", "sar", "rol", "ror", "rcl", "rcr", "mul", "imul", "div", "idiv")
_WIDE = ("imul", "bsf", "bsr", "popcnt", "cmovc", "cmovo", "cmovs", "cmovp", "xadd", "bt", "bts", "cmpxchg")
_FIXED = (
    "pushfq\n pop r11\n add r12, r11\n rol r12, 3",
    "lahf\n add r12, rax",
    "setc al\n seto cl\n setp dl",
    "mov [r13], rax",
    "add rax, [r13]",
    "adc [r14], rax",
    "ud2",
    "in al, 0xe0",
    "out 0xe9, al",
    "out 0xe0, eax",
    "mov rax, cr0",
    "mov cr3, r15",
    "invlpg [rbx]",
    "mov rax, dr7",
    "clts",
    "sti\n nop\n cli",
    "smsw eax",
    "str ax",
    "lar eax, cx",
    "verr cx",
    "cpuid\n mov ebx, 7",
    "rdtsc",
    "std",
    "cld",
    "cmc",
    "int3",
    "int 0x21",
    "pushfq\n popfq",
    "movdqu xmm0, [r14]\n paddq xmm0, xmm0\n comisd xmm0, xmm1\n movdqu [r14], xmm0",
    "mov rax, 0xff000000\n add [rax], rcx\n adc rcx, [rax + 8]\n lock xadd [rax], ecx",
    "push rcx\n mov ecx, 3\n mov rdi, r14\n repe scasb\n pop rcx",
    "push rcx\n mov ecx, 3\n mov rdi, r14\n rep stosq\n pop rcx",
)

_FRAME = """
start:  mov     r13, 0x200000           # a page that handlers make writable and read-only in turn
        mov     r14, 0x300000
again:
{body}
        jmp     again
on_pf:  xor     dword ptr [0x98000], 2
        invlpg  [0x200000]
        add     rsp, 8
        inc     rbp
        iretq
on_ud:  add     qword ptr [rsp], 2
        iretq
on_de:  mov     ecx, 0x7fff
        xor     edx, edx
        mov     eax, 1
        mov     ebx, 3
        mov     esi, 5
        mov     r8d, 7
        mov     r9d, 9
        iretq
on_int: iretq
"""
_HANDLERS = tuple(
    HandlerInit(vector, label)
    for vector, label in ((14, "on_pf"), (6, "on_ud"), (0, "on_de"), (3, "on_int"), (0x21, "on_int"))
)


def program(chooser: random.Random, length: int = 50) -> str:
    lines = []
    for i in range(length):
        size = chooser.randrange(4)
        a, b = (chooser.choice(_REGISTERS)[size] for _ in range(2))
        match chooser.randrange(7):
            case 0 | 1:
                lines.append(f"{chooser.choice(_TWO)} {a}, {b}")
            case 2:
                lines.append(f"{chooser.choice(_ONE)} {a}")
            case 3:
                wide = [chooser.choice(_REGISTERS)[0] for _ in range(2)]
                lines.append(f"{chooser.choice(_WIDE)} {wide[0]}, {wide[1]}")
            case 4:
                jump = chooser.choice(("jc", "jo", "jz", "js", "jp", "jl", "ja"))
                lines.append(f"{jump} over{i}\n inc r12\nover{i}:")
            case 5 if chooser.random() < 0.4:
                lines.append(f"mov byte ptr [rip + next{i}], 0x90\nnext{i}: nop")
            case _:
                lines.append(chooser.choice(_FIXED))
    return _FRAME.format(body="\n".join(f" {line}" for line in lines))


def state(m: Machine) -> tuple[object, ...]:
    return m.tick, m.cpu, zlib.crc32(m.memory.read(0, m.memory.size) or b""), tuple(m.events), m.debugcon


@pytest.mark.parametrize("seed", range(6))
def test_a_random_program_has_one_history(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(machine_module, "SYNC_TICKS", 300)
    chooser = random.Random(seed)
    source = program(chooser)
    guest = Guest(
        "random",
        source,
        handlers=_HANDLERS,
        pages=(PageInit(0x200000, 0x200000, ("P",)),),
        registers={"r15": 0x90000},
    )
    image = build(source, Mode.LONG64)
    machines = [Machine(guest.config(), image) for _ in range(2)]
    _compare(*machines, chooser.randrange)
    for one in machines:
        one.close()


def _compare(run: Machine, step: Machine, below: Callable[[int], int]) -> None:
    run.run(1500)
    halfway = below(run.tick)
    wanted = state(step)
    while step.tick < run.tick:
        step.step()
        if step.tick == halfway:
            wanted = state(step)
    assert state(step) == state(run)
    run.goto(halfway)
    assert state(run) == wanted
    run.run(step.tick - halfway)
    assert state(run) == state(step)
