"""Events in real-address, 16-bit and 32-bit protected mode."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from kvmscope.vmm.engine import StopReason
from kvmscope.x86.state import DescriptorTable
from tests.vmm.unicorn.bench import CODE, DS, IDT, REAL_CODE, STACK, STUBS, board, frame, gate32


@pytest.mark.parametrize(
    ("source", "vector", "back"),
    [
        ("ud2", 6, 0),
        ("xor cx, cx; div cx", 0, 2),
        ("int 0x21", 0x21, 2),
        ("int3", 3, 1),
        ("mov ax, 0x7fff; add ax, ax; into", 4, 6),
        ("mov eax, 0; mov ebx, 0x90009; mov [0x600], ebx; bound ax, [0x600]", 5, 17),
    ],
)
def test_real_mode_pushes_three_words(source: str, vector: int, back: int) -> None:
    with board(source, "real16") as b:
        b.engine.set_state(replace(b.state, rflags=0x202))
        b.run(source.count(";") + 1)
        s = b.state
        assert s.rip == STUBS + 16 * vector
        assert (s.segments[1].selector, s.rflags & 0x300) == (0, 0)
        ip, cs, flags = frame(b, 2)
        assert (ip, cs, flags & 0x200) == (REAL_CODE + back, 0, 0x200)
        assert b.host.exceptions[0].error_code is None


def test_real_mode_uses_the_idtr() -> None:
    with board("ud2", "real16") as b:
        b.put(0x9000 + 4 * 6, struct.pack("<HH", 0x1234, 0x100))
        b.engine.set_state(replace(b.state, idtr=DescriptorTable(0x9000, 0x3FF)))
        b.run(1)
        assert b.state.pc == 0x2234
    with board("int 0x30", "real16") as b:
        b.engine.set_state(replace(b.state, idtr=DescriptorTable(0, 0x30 * 4 + 2)))
        b.run(1)
        assert [(e.vector, e.error_code) for e in b.host.exceptions] == [(0x30, None), (13, None)]
    with board("int 0x30", "real16") as b:
        b.engine.set_state(replace(b.state, idtr=DescriptorTable(0, 7)))
        assert b.run(1).reason is StopReason.TRIPLE_FAULT
        assert [e.vector for e in b.host.exceptions] == [0x30, 13, 8]


def test_a_real_mode_stack_that_splits_a_word_is_a_shutdown() -> None:
    with board("int 0x30", "real16") as b:
        b.registers(rsp=1)
        assert b.run(1).reason is StopReason.TRIPLE_FAULT
        assert [e.vector for e in b.host.exceptions] == [0x30, 12, 8]
    with board("int 0x30", "real16") as b:
        b.registers(rsp=2)
        b.run(1)
        assert b.state.gpr[4] == 0xFFFC


PROT = {
    "not present": (gate32(STUBS, 0x38, present=0), [(6, None), (11, 0x33)]),
    "64-bit type": (gate32(STUBS, 0x38, kind=13), [(6, None), (13, 0x33)]),
    "null": (gate32(STUBS, 0), [(6, None), (13, 1)]),
    "data": (gate32(STUBS, DS), [(6, None), (13, DS | 1)]),
    "16-bit": (gate32(STUBS, 0x38, kind=6), [(6, None)]),
}


@pytest.mark.parametrize("name", PROT)
def test_protected_mode_gates(name: str) -> None:
    entry, expected = PROT[name]
    with board("ud2", "prot32") as b:
        b.put(IDT + 8 * 6, entry)
        b.run(1)
        assert [(e.vector, e.error_code) for e in b.host.exceptions] == expected
        if name == "16-bit":
            assert frame(b, 2) == (CODE & 0xFFFF, 0x38, 2)
            assert b.state.gpr[4] == STACK - 6


def test_protected_mode_frame_from_ring_3() -> None:
    with board("mov eax, 0xfff8; mov ds, eax", "user32") as b:
        b.run(2)
        s = b.state
        assert (s.cpl, s.gpr[4], s.segments[2].selector) == (0, 0x88000 - 24, DS)
        assert [b.get(s.gpr[4] + 4 * i, 4) for i in range(6)] == [0xFFF8, CODE + 5, 0x1B, 0x10002, 0x70000, 0x23]


def test_an_idt_limit_ends_the_table() -> None:
    with board("int 0x30", "prot32") as b:
        b.engine.set_state(replace(b.state, idtr=DescriptorTable(IDT, 0x30 * 8 + 6)))
        b.run(1)
        assert [(e.vector, e.error_code) for e in b.host.exceptions] == [(0x30, None), (13, 0x30 * 8 + 2)]


def test_a_stack_segment_too_small_for_the_frame() -> None:
    with board("ud2", "prot32") as b:
        ss = replace(b.state.segments[2], limit=0x1FFF, attributes=0x4093)
        b.engine.set_state(replace(b.state, segments=(*b.state.segments[:2], ss, *b.state.segments[3:])))
        b.registers(rsp=0x3000)
        assert b.run(1).reason is StopReason.TRIPLE_FAULT
        assert [(e.vector, e.error_code) for e in b.host.exceptions] == [(6, None), (12, 1), (8, 0)]


def test_a_conforming_handler_stays_in_ring_3() -> None:
    with board("int 0x80", "user32") as b:
        b.put(0x1060, 0x00CF9F000000FFFF)
        b.put(IDT + 8 * 0x80, gate32(STUBS + 16 * 0x80, 0x60, dpl=3))
        b.run(1)
        s = b.state
        assert (s.cpl, s.segments[1].selector, s.gpr[4]) == (3, 0x63, 0x70000 - 12)


def test_a_32_bit_tss_too_short_for_its_stack() -> None:
    with board("int 0x80", "user32") as b:
        tr = replace(b.state.segments[7], limit=8)
        b.engine.set_state(replace(b.state, segments=(*b.state.segments[:7], tr)))
        b.run(1)
        assert [(e.vector, e.error_code) for e in b.host.exceptions][:2] == [(0x80, None), (10, 0x50)]


def test_a_16_bit_tss() -> None:
    with board("int 0x80", "user32") as b:
        b.put(0x4002, struct.pack("<HH", 0x8000, DS))
        tr = replace(b.state.segments[7], limit=0x2B, attributes=0x83)
        b.engine.set_state(replace(b.state, segments=(*b.state.segments[:7], tr)))
        b.run(1)
        assert (b.state.cpl, b.state.gpr[4]) == (0, 0x8000 - 20)
