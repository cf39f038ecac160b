"""Device space, page tables in strange places, and what no guest may do to the host."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kvmscope.vmm.engine import StopReason
from kvmscope.x86.state import DescriptorTable
from tests.vmm.unicorn.bench import CODE, TABLES, board

DEVICE = 0xFD000000


@pytest.mark.parametrize(("register", "size"), [("al", 1), ("ax", 2), ("eax", 4), ("rax", 8)])
def test_device_accesses_have_their_size(register: str, size: int) -> None:
    with board(
        f"mov rbx, {DEVICE:#x}; mov rax, 0x1122334455667788; mov [rbx+16], {register}; mov {register}, [rbx+32]; hlt"
    ) as b:
        b.host.memory = {DEVICE + 32 + i: 0xA0 + i for i in range(8)}
        b.run()
        value = 0x1122334455667788 & (1 << 8 * size) - 1
        answer = int.from_bytes(bytes(0xA0 + i for i in range(size)), "little")
        assert b.host.mmio == [("write", DEVICE + 16, size, value), ("read", DEVICE + 32, size, answer)]
        assert b.state.gpr[0] & (1 << 8 * size) - 1 == answer


def test_unaligned_and_locked_device_accesses_keep_the_value() -> None:
    with board(
        f"mov rbx, {DEVICE:#x}; mov dword ptr [rbx+2], 0x11223344; lock add dword ptr [rbx], 0x10000; mov rax, [rbx+1]; hlt"
    ) as b:
        b.host.memory = dict.fromkeys(range(DEVICE, DEVICE + 16), 0)
        b.run()
        memory = bytes(b.host.memory[DEVICE + i] for i in range(8))
        assert memory == bytes.fromhex("0000453322110000")
        assert b.state.gpr[0] == int.from_bytes(memory[1:] + b"\0", "little")


def test_a_fetch_from_a_device_stops_with_a_reason() -> None:
    with board(f"mov rax, {DEVICE:#x}; jmp rax") as b:
        stop = b.run()
        assert stop.reason is StopReason.UNSUPPORTED
        assert "fetch" in stop.detail
        assert hex(DEVICE) in stop.detail
        assert b.state.rip == DEVICE


HOSTILE = {
    "jump to itself": ("jmp .", {}, StopReason.SLICE),
    "huge rep": ("mov rcx, -1; mov edi, 0x500000; rep stosb", {}, StopReason.SLICE),
    "idt in unmapped memory": ("ud2", {"idtr": DescriptorTable(0x7F0000000000, 0xFFF)}, StopReason.TRIPLE_FAULT),
    "idt in a device": ("ud2", {"idtr": DescriptorTable(DEVICE, 0xFFF)}, StopReason.TRIPLE_FAULT),
    "gdt in a device": ("ud2", {"gdtr": DescriptorTable(DEVICE, 0xFFF)}, StopReason.TRIPLE_FAULT),
    "stack at 0": ("ud2", {"gpr": (0,) * 16}, StopReason.TRIPLE_FAULT),
    "cr3 in a device": ("nop", {"cr3": DEVICE}, StopReason.TRIPLE_FAULT),
    "cr3 beyond the physical addresses": ("nop", {"cr3": 1 << 45}, StopReason.TRIPLE_FAULT),
    "paging without tables": ("nop", {"cr3": 0x700000}, StopReason.TRIPLE_FAULT),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_run_comes_back(name: str) -> None:
    source, changes, reason = HOSTILE[name]
    with board(source) as b:
        b.engine.set_state(replace(b.state, **changes))  # type: ignore[arg-type]
        stop = b.run(2000)
        assert stop.reason is reason
        assert stop.tick <= 2000


def test_page_tables_that_point_to_themselves() -> None:
    with board("mov rax, [0x1000]; jmp .") as b:
        b.put(TABLES + 0x2000 + 8 * 2, TABLES + 0x2000 | 7)
        b.engine.set_state(b.state)
        assert b.run(500).reason in (StopReason.SLICE, StopReason.TRIPLE_FAULT, StopReason.HLT)


def test_an_endless_chain_of_faults_is_bounded() -> None:
    with board("ud2") as b:
        for vector in range(32):
            b.handler(vector, b"\x0f\x0b")
        assert b.run(300).reason is StopReason.SLICE
        assert len(b.host.exceptions) == 300


@pytest.mark.parametrize("mode", ["real16", "prot32", "long64", "user64"])
def test_random_code_agrees_with_its_steps(mode: str) -> None:
    """Whatever the bytes do, a run and its single steps end alike, and the host stands."""
    chooser = random.Random(mode)
    opcodes = [b"\x0f", b"\x0f\x01", b"\xcf", b"\xcd\x80", b"\xff", b"\x8e", b"\xf3\xaa", b"\x0f\x30", b"\x9d", b"\xf0", b"\x66", b"\x48", b"\x0f\xc7", b"\xdd"]  # fmt: skip
    for _ in range(12):
        code = b"".join(
            chooser.choice(opcodes) + chooser.randbytes(2) if chooser.random() < 0.4 else chooser.randbytes(3)
            for _ in range(30)
        )
        gpr = tuple(chooser.choice([0x500000, 0x80000, CODE, 7, 0xFFFFFFF0]) for _ in range(16))
        ends = []
        for step in (False, True):
            with board(code, mode) as b:
                b.engine.set_state(replace(b.state, gpr=gpr))
                while b.engine.clock < 150:
                    stop = b.engine.step() if step else b.run(150 - b.engine.clock)
                    if stop.reason not in (StopReason.SLICE, StopReason.STEP):
                        break
                ends.append((b.engine.clock, b.state, hash(bytes(b.m)), len(b.host.events), b.host.mmio))
        assert ends[0] == ends[1], code.hex()
