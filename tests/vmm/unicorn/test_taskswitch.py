"""Hardware task switches by JMP, CALL, IRET and task gates, 32-bit and 16-bit."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from tests.vmm.unicorn.bench import CODE, CS32, DS, GDT, IDT, TSS, Board, board

NEW, NEW_CODE, NEW_STACK = 0x8200, 0x420000, 0x76000
SELECTOR = 0x60


def tss32(
    ip: int = NEW_CODE, flags: int = 2, link: int = 0, ss: int = DS, cs: int = CS32, ldt: int = 0, trap: int = 0
) -> bytes:
    raw = bytearray(104)
    struct.pack_into("<H", raw, 0, link)
    struct.pack_into("<III", raw, 0x1C, 0x90000, ip, flags)
    struct.pack_into("<8I", raw, 0x28, 1, 2, 3, 4, NEW_STACK, 6, 7, 8)
    for i, selector in enumerate((DS, cs, ss, DS, 0, 0)):
        struct.pack_into("<H", raw, 0x48 + 4 * i, selector)
    struct.pack_into("<H", raw, 0x60, ldt)
    struct.pack_into("<HH", raw, 0x64, trap, 104)
    return bytes(raw)


def new_task(b: Board, raw: bytes, kind: int = 9, limit: int | None = None) -> None:
    b.put(NEW, raw)
    access = 0x80 | kind
    b.put(GDT + SELECTOR, (len(raw) - 1 if limit is None else limit) | NEW << 16 | access << 40)
    b.put(GDT + 0x50, b.get(GDT + 0x50) | 2 << 40)
    b.put(NEW_CODE, b"\xcf\x90\xf4")


def busy(b: Board, selector: int) -> bool:
    return bool(b.get(GDT + selector) >> 41 & 1)


def test_jump_to_a_task() -> None:
    with board(".byte 0xea; .long 0; .word 0x60; hlt", "prot32") as b:
        new_task(b, tss32())
        b.registers(rax=0x11, rdi=0x77)
        b.run(1)
        s = b.state
        assert not b.host.exceptions
        assert s.rip == NEW_CODE
        assert s.gpr[:8] == (1, 2, 3, 4, NEW_STACK, 6, 7, 8)
        assert (s.segments[7].selector, s.segments[7].base) == (SELECTOR, NEW)
        assert s.cr0 & 8
        assert (busy(b, 0x50), busy(b, SELECTOR)) == (False, True)
        assert (b.get(TSS + 0x20, 4), b.get(TSS + 0x28, 4), b.get(TSS + 0x44, 4)) == (CODE + 7, 0x11, 0x77)
        assert b.get(TSS + 0x4C, 2) == CS32
        assert not s.rflags & 0x4000


def test_call_and_iret_nest() -> None:
    with board(".byte 0x9a; .long 0; .word 0x60; inc eax; hlt", "prot32") as b:
        new_task(b, tss32())
        b.registers(rax=0x11)
        b.run(1)
        assert b.state.rflags & 0x4000
        assert b.get(NEW, 2) == 0x50
        assert (busy(b, 0x50), busy(b, SELECTOR)) == (True, True)
        b.run(2)
        s = b.state
        assert not b.host.exceptions
        assert (s.rip, s.gpr[0], s.segments[7].selector) == (CODE + 8, 0x12, 0x50)
        assert not s.rflags & 0x4000
        assert (busy(b, 0x50), busy(b, SELECTOR)) == (True, False)
        # The returning task is saved after its IRET, NT cleared.
        assert b.get(NEW + 0x20, 4) == NEW_CODE + 1
        assert not b.get(NEW + 0x24, 4) & 0x4000


def test_an_exception_through_a_task_gate() -> None:
    with board("mov eax, 0xfff8; mov ds, eax; hlt", "prot32") as b:
        new_task(b, tss32())
        b.put(IDT + 8 * 13, struct.pack("<HHBBH", 0, SELECTOR, 0, 0x85, 0))
        b.run(2)
        s = b.state
        (event,) = b.host.exceptions
        assert (event.vector, event.error_code, event.delivered) == (13, 0xFFF8, True)
        assert s.rip == NEW_CODE
        assert (s.gpr[4], b.get(NEW_STACK - 4, 4)) == (NEW_STACK - 4, 0xFFF8)
        assert b.get(TSS + 0x20, 4) == CODE + 5
        assert b.get(TSS + 0x24, 4) & 0x10000


def test_a_16_bit_task() -> None:
    raw = bytearray(44)
    struct.pack_into("<HH", raw, 0x0E, 0x1234, 2)
    struct.pack_into("<8H", raw, 0x12, *range(1, 9))
    struct.pack_into("<4H", raw, 0x22, DS, 0x40, 0x48, DS)
    with board(".byte 0xea; .long 0; .word 0x60", "prot32") as b:
        new_task(b, bytes(raw), kind=1)
        b.run(1)
        s = b.state
        assert not b.host.exceptions
        assert (s.rip, s.mode) == (0x1234, 16)
        assert [r & 0xFFFF for r in s.gpr[:8]] == list(range(1, 9))
        # The old, 32-bit TSS is saved in its own format.
        assert b.get(TSS + 0x20, 4) == CODE + 7


FAULTS = {
    "busy": (tss32(), 11, None, (13, SELECTOR)),
    "limit": (tss32(), 9, 102, (10, SELECTOR)),
    "null ss": (tss32(ss=0), 9, None, (10, 0)),
    "data cs": (tss32(cs=DS), 9, None, (10, DS)),
    "bad ldt": (tss32(ldt=DS), 9, None, (10, DS)),
    "ip beyond the limit": (tss32(cs=0x40), 9, None, (13, 0)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_tasks(name: str) -> None:
    raw, kind, limit, expected = FAULTS[name]
    with board(".byte 0xea; .long 0; .word 0x60", "prot32") as b:
        new_task(b, raw, kind, limit)
        b.run(1)
        first = b.host.exceptions[0]
        assert (first.vector, first.error_code) == expected
        # Before the commit point the fault is the old task's, after it the new one's.
        old = name in ("busy", "limit")
        assert b.state.segments[7].selector == (0x50 if old else SELECTOR)
        assert busy(b, 0x50) == old


def test_iret_to_a_task_that_is_not_busy() -> None:
    with board(b"\xcf", "prot32") as b:
        new_task(b, tss32())
        b.put(TSS, SELECTOR, 2)
        b.engine.set_state(replace(b.state, rflags=0x4002))
        b.run(1)
        assert (b.host.exceptions[0].vector, b.host.exceptions[0].error_code) == (10, SELECTOR)


def test_no_task_switch_in_long_mode() -> None:
    with board(b"\xff\x2c\x25\x00\x00\x50\x00") as b:
        b.put(0x500000, struct.pack("<IH", 0, 0x50))
        b.run(1)
        assert (b.host.exceptions[0].vector, b.host.exceptions[0].error_code) == (13, 0x50)


def test_local_breakpoints_end_with_the_task() -> None:
    with board(".byte 0xea; .long 0; .word 0x60", "prot32") as b:
        new_task(b, tss32())
        b.engine.set_state(replace(b.state, dr=(NEW_CODE, 0x500000, 0, 0, 0, 0, 0xFFFF0FF0, 0x409)))
        b.run(1)
        assert b.state.dr[7] == 0x408
