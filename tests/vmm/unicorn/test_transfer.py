"""Far JMP, CALL, RET and IRET, call gates, conforming code."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.events import ModeEvent
from kvmscope.x86.profiles import resolve
from tests.vmm.unicorn.bench import CODE, DS, GDT, STACK, STUBS, Board, board, gate32

USER_CODE = 0x410000


def fault(b: Board, ticks: int = 30) -> tuple[int, int | None] | None:
    """(vector, error code) of the first exception, None if the program reaches HLT without one."""
    assert b.run(ticks).reason is StopReason.HLT
    return (b.host.exceptions[0].vector, b.host.exceptions[0].error_code) if b.host.exceptions else None


def descriptor(kind: int, dpl: int = 0, *, long: int = 0, db: int = 1, limit: int = 0xFFFFF, present: int = 1) -> int:
    """A flat code or data descriptor: ``kind`` is the 5-bit type with S."""
    access = present << 7 | dpl << 5 | kind
    return limit & 0xFFFF | access << 40 | (limit >> 16) << 48 | long << 53 | db << 54 | 1 << 55


CODE_RX, CONFORMING, DATA_RW = 0x1B, 0x1F, 0x13
FREE = 0x60

JUMPS = {
    "code": (0x38, None, None),
    "null": (0, None, (13, 0)),
    "beyond the table": (0x400, None, (13, 0x400)),
    "data": (DS, None, (13, DS)),
    "not present": (FREE, descriptor(CODE_RX, present=0), (11, FREE)),
    "outer ring": (FREE, descriptor(CODE_RX, 3), (13, FREE)),
    "rpl": (0x3B, None, (13, 0x38)),
    "conforming": (FREE, descriptor(CONFORMING), None),
    "conforming rpl": (FREE | 3, descriptor(CONFORMING), None),
    "conforming outer": (FREE, descriptor(CONFORMING, 3), (13, FREE)),
    "limit": (FREE, descriptor(CODE_RX, limit=0x10), (13, 0)),
    "interrupt gate": (FREE, int.from_bytes(gate32(STUBS, 0x38), "little"), (13, FREE)),
}


@pytest.mark.parametrize("kind", ["jmp", "call"])
@pytest.mark.parametrize("name", JUMPS)
def test_direct_far_transfers(name: str, kind: str) -> None:
    selector, entry, expected = JUMPS[name]
    opcode = "0xea" if kind == "jmp" else "0x9a"
    with board(f".byte {opcode}; .long 1f; .word {selector}; nop; 1: hlt", "prot32") as b:
        if entry is not None:
            b.put(GDT + FREE, entry)
        assert fault(b) == expected
        if expected is None:
            s = b.state
            # RPL of CS is the CPL, whatever the selector said.
            assert s.segments[1].selector == selector & ~3
            assert s.rip == CODE + 9
            if kind == "call":
                assert [b.get(s.gpr[4] + 4 * i, 4) for i in range(2)] == [CODE + 7, 0x38]
            if entry is not None:
                assert b.get(GDT + FREE) >> 40 & 1
        else:
            assert b.host.exceptions[0].rip == CODE
            assert b.host.exceptions[0].before.gpr[4] == STACK


def test_far_jump_through_memory_with_16_bits() -> None:
    with board(b"\x66\xff\x2d\x00\x00\x50\x00", "prot32") as b:
        b.put(0x500000, struct.pack("<HH", 0x1234, 0x38))
        b.run(1)
        assert b.state.rip == 0x1234


def test_far_jump_with_a_64_bit_offset() -> None:
    with board(b"\x48\xff\x2c\x25\x00\x00\x50\x00") as b:
        b.put(0x500000, struct.pack("<QH", 0x8000000000000000, 8))
        b.run(1)
        assert (b.host.exceptions[0].vector, b.host.exceptions[0].error_code) == (13, 0)
    with board(b"\x48\xff\x2c\x25\x00\x00\x50\x00") as b:
        b.put(0x500000, struct.pack("<QH", 0xFFFFFFFF80000000, 8))
        b.run(1)
        assert b.state.rip == 0xFFFFFFFF80000000


def test_l_and_d_together_are_refused() -> None:
    with board("push 0x60; push 0x400000; rex.w retf") as b:
        b.put(GDT + FREE, descriptor(CODE_RX, long=1, db=1))
        assert fault(b) == (13, FREE)


def call_gate(offset: int, selector: int, count: int = 0, dpl: int = 3, kind: int = 12, present: int = 1) -> int:
    raw = bytearray(gate32(offset, selector, kind, dpl, present))
    raw[4] = count
    return int.from_bytes(raw, "little")


def test_a_call_gate_to_ring_0_switches_the_stack_and_copies_parameters() -> None:
    source = "push 0x1111; push 0x2222; push 0x3333; .byte 0x9a; .long 0; .word 0x63; hlt"
    with board(source, "user32") as b:
        b.put(GDT + FREE, call_gate(STUBS + 0x1000, 0x38, count=2))
        b.put(STUBS + 0x1000, b"\xf4")
        b.put(0x4004, struct.pack("<II", 0x88000, DS))
        assert fault(b) is None
        s = b.state
        assert (s.cpl, s.segments[1].selector, s.segments[2].selector) == (0, 0x38, DS)
        words = [b.get(s.gpr[4] + 4 * i, 4) for i in range(6)]
        assert words == [CODE + 22, 0x1B, 0x3333, 0x2222, 0x70000 - 12, 0x23]
        assert s.gpr[4] == 0x88000 - 24
        assert [e.what for e in b.host.events if isinstance(e, ModeEvent)] == ["CPL 3 -> 0"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (call_gate(0, 0x38, dpl=0), (13, 0x60)),
        (call_gate(0, 0x38, present=0), (11, 0x60)),
        (call_gate(0, 0), (13, 0)),
        (call_gate(0, DS), (13, DS)),
        (call_gate(0, 0x400), (13, 0x400)),
    ],
)
def test_bad_call_gates(entry: int, expected: tuple[int, int]) -> None:
    with board(".byte 0x9a; .long 0; .word 0x63; hlt", "user32") as b:
        b.put(GDT + FREE, entry)
        assert fault(b) == expected


@pytest.mark.parametrize(
    ("ss0", "expected"),
    [
        (0, (10, 0)),
        (DS | 3, (10, DS)),
        (0x38, (10, 0x38)),
        (0x400, (10, 0x400)),
        (0x23, (10, 0x20)),
        (0x68, (12, 0x68)),
    ],
)
def test_bad_inner_stacks(ss0: int, expected: tuple[int, int]) -> None:
    """#TS(SS) or #SS(SS); the fault itself then needs a stack: here a task-less ring 3 has none, so a double fault."""
    with board(".byte 0x9a; .long 0; .word 0x63; hlt", "user32") as b:
        b.put(GDT + FREE, call_gate(STUBS, 0x38))
        b.put(GDT + 0x68, descriptor(DATA_RW, present=0))
        b.put(0x4004, struct.pack("<II", 0x88000, ss0))
        b.run(1)
        first = b.host.exceptions[0]
        assert (first.vector, first.error_code) == expected


def test_a_64_bit_call_gate() -> None:
    with board(b"\xff\x1c\x25\x00\x00\x50\x00\xf4", "user64") as b:
        b.put(0x500000, struct.pack("<IH", 0, 0x63))
        b.put(GDT + FREE, call_gate(STUBS, 8).to_bytes(8, "little") + struct.pack("<II", 0, 0))
        assert fault(b) is None
        s = b.state
        assert (s.cpl, s.segments[2].selector, s.gpr[4]) == (0, 0, 0x88000 - 32)
        assert [b.get(s.gpr[4] + 8 * i) for i in range(4)] == [CODE + 7, 0x2B, 0x70000, 0x23]


def outward(b: Board) -> None:
    b.put(USER_CODE, b"\x90\x90\x0f\x0b")


RETURNS = {
    "retf": ("push 0x23; push 0x70000; push 0x1b; push 0x410000; retf", 0x70000),
    "retf 8": ("push 0x23; push 0x70000; push 1; push 2; push 0x1b; push 0x410000; retf 8", 0x70008),
    "iret": ("push 0x23; push 0x70000; push 0x3202; push 0x1b; push 0x410000; iretd", 0x70000),
}


@pytest.mark.parametrize("name", RETURNS)
def test_returns_to_ring_3(name: str) -> None:
    source, sp = RETURNS[name]
    with board(source, "prot32") as b:
        outward(b)
        b.put(GDT + FREE, descriptor(CONFORMING))
        b.engine.set_state(
            replace(
                b.state,
                segments=(
                    *b.state.segments[:5],
                    replace(b.state.segments[5], selector=FREE, attributes=0xC09F),
                    *b.state.segments[6:],
                ),
            )
        )
        b.run(source.count(";") + 1)
        s = b.state
        assert not b.host.exceptions
        assert (s.cpl, s.rip, s.gpr[4]) == (3, USER_CODE, sp)
        assert (s.segments[1].selector, s.segments[2].selector) == (0x1B, 0x23)
        # Ring 0 data segments are dropped, conforming code stays.
        assert [s.segments[i].selector for i in (0, 3, 4, 5)] == [0, 0, 0, FREE]
        assert s.rflags == (0x3202 if name == "iret" else 2)


def iret_frame(ip: int, cs: int, flags: int, sp: int, ss: int) -> str:
    values = (ss, sp, flags, cs, ip)
    return "; ".join(f"mov rax, {v:#x}; push rax" for v in values) + "; iretq; nop"


IRETS = {
    "same ring": ((CODE, 8, 0x202, 0x70000, DS), None),
    "null cs": ((CODE, 0, 2, 0x70000, DS), (13, 0)),
    "beyond the table": ((CODE, 0x400, 2, 0x70000, DS), (13, 0x400)),
    "data cs": ((CODE, DS, 2, 0x70000, DS), (13, DS)),
    "rpl and dpl differ": ((CODE, 0xB, 2, 0x70000, DS | 3), (13, 8)),
    "null ss in ring 0": ((CODE, 8, 2, 0x70000, 0), None),
    "null ss in ring 3": ((CODE, 0x2B, 2, 0x70000, 3), (13, 0)),
    "null ss to 32-bit code": ((CODE, 0x38, 2, 0x70000, 0), (13, 0)),
    "ss of another ring": ((CODE, 0x2B, 2, 0x70000, DS), (13, DS)),
    "code for ss": ((CODE, 8, 2, 0x70000, 8), (13, 8)),
    "ss not present": ((CODE, 8, 2, 0x70000, FREE), (12, FREE)),
    "cs not present": ((CODE, 0x68, 2, 0x70000, DS), (11, 0x68)),
    "non-canonical rip": ((1 << 63, 8, 2, 0x70000, DS), (13, 0)),
    "rip beyond 32-bit code": ((1 << 32, 0x38, 2, 0x70000, DS), (13, 0)),
    "non-canonical rsp": ((CODE, 8, 2, 1 << 63, DS), None),
}


@pytest.mark.parametrize("name", IRETS)
def test_iretq(name: str) -> None:
    values, expected = IRETS[name]
    with board(iret_frame(*values)) as b:
        b.put(GDT + FREE, descriptor(DATA_RW, present=0))
        b.put(GDT + 0x68, descriptor(CODE_RX, long=1, db=0, present=0))
        b.run(10)
        before = b.state
        b.run(1)
        found = (b.host.exceptions[0].vector, b.host.exceptions[0].error_code) if b.host.exceptions else None
        assert found == expected
        if expected is None:
            s = b.state
            assert (s.rip, s.segments[1].selector, s.gpr[4], s.segments[2].selector) == (*values[:2], *values[3:])
            assert s.rflags == values[2]
        else:
            assert b.host.exceptions[0].before == before


def test_iret_keeps_if_and_iopl_from_ring_3() -> None:
    with board(iret_frame(CODE, 0x2B, 0x3202 | 0x40000, 0x70000, 0x23), "user64") as b:
        b.run(11)
        assert b.state.rflags == 0x40002


def test_iret_with_nt_in_long_mode() -> None:
    with board(iret_frame(CODE, 8, 2, 0x70000, DS)) as b:
        b.engine.set_state(replace(b.state, rflags=0x4002))
        b.run(11)
        assert (b.host.exceptions[0].vector, b.host.exceptions[0].error_code) == (13, 0)


def test_null_selectors_keep_their_base_when_a_return_drops_them() -> None:
    with board(iret_frame(CODE, 0x2B, 2, 0x70000, 0x23)) as b:
        gs = replace(b.state.segments[5], base=0x123456)
        b.engine.set_state(replace(b.state, segments=(*b.state.segments[:5], gs, *b.state.segments[6:])))
        b.run(11)
        assert (b.state.segments[5].selector, b.state.segments[5].base) == (0, 0x123456)


def test_real_mode_transfers() -> None:
    with board(".byte 0x9a; .word 0x10, 0x800; hlt", "real16") as b:
        b.put(0x8010, b"\xcb")
        assert fault(b) is None
        assert b.state.rip == 0x7C06
    with board(".byte 0x66, 0xea; .long 0x12345; .word 0", "real16") as b:
        b.run(1)
        assert b.host.exceptions[0].vector == 13


def test_virtual_8086_mode_and_back() -> None:
    """IRETD into virtual-8086 mode; INT from it arrives in ring 0 with the segments on the stack."""
    push = "; ".join(f"push {v:#x}" for v in (0x5000, 0x4000, 0x3000, 0x2000, 0x1000, 0xF000, 0x23202, 0x700, 0x10))
    with board(f"{push}; iretd", "prot32") as b:
        b.put(0x7010, b"\xcd\x80")
        b.run(10)
        s = b.state
        assert (s.cpl, s.mode, s.rip) == (3, 16, 0x10)
        assert [s.segments[i].base for i in range(6)] == [0x20000, 0x7000, 0x10000, 0x30000, 0x40000, 0x50000]
        b.run(1)
        s = b.state
        assert (s.cpl, s.mode, s.rflags & 0x20000) == (0, 32, 0)
        words = [b.get(s.gpr[4] + 4 * i, 4) for i in range(9)]
        assert words == [0x12, 0x700, 0x23202, 0xF000, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000]
        assert [s.segments[i].selector for i in (0, 3, 4, 5)] == [0, 0, 0, 0]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("register", ["rax", "rdi", "r8", "r15"])
@pytest.mark.parametrize("target", [0x800000000000, 0xFFFF7FFFFFFFFFFF, 1 << 63, 0xFF00000000000000])
def test_an_indirect_call_to_a_non_canonical_address_pushes_nothing(register: str, target: int, native: bool) -> None:
    """SDM vol. 2A CALL: #GP(0) comes before the push; calls to good targets are not even looked at in Python."""
    source = f"lea {register}, [rip+f]; call {register}; mov {register}, {target:#x}; call {register}; hlt\nf: ret"
    with board(source, profile=resolve("amd"), python_probe=not native) as b:
        b.put(STACK - 8, 0x1122334455667788)
        b.run(3)
        b.put(STACK - 8, 0x1122334455667788)
        b.run(10)
        (fault,) = b.host.exceptions
        assert (fault.vector, fault.error_code, fault.before.gpr[4]) == (13, 0, STACK)
        assert b.m[STACK - 8 : STACK] in ((0x1122334455667788).to_bytes(8, "little"), (DS).to_bytes(8, "little"))
