"""Known ways of events give exactly what the full delivery gives, whatever changes in between."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest

from kvmscope.vmm.unicorn.faults import Fault
from kvmscope.x86.state import Seg
from tests.vmm.unicorn.bench import (
    CODE,
    CS3_64,
    CS64,
    DS3,
    GDT,
    GDT_VALUES,
    IDT,
    IST1,
    STUBS,
    TABLES,
    TSS,
    USER_STACK,
    Board,
    board,
    gate,
    segment,
    with_segments,
)

EVENTS = """
again:  int     0x80
        mov     rbx, 0x7f0000000000
        mov     al, [rbx]
        ud2
        int3
        xor     edx, edx
        div     edx
        jmp     again
"""
"""Each of them comes back after itself, by handlers that step over it."""

RETURN = bytes.fromhex("48cf")


def stepping(b: Board) -> None:
    for vector, code in ((0, "4883042402"), (6, "4883042402"), (14, "4883c4084883042402"), (3, ""), (0x80, "")):
        b.handler(vector, bytes.fromhex(code) + RETURN, dpl=3)
    for vector in (8, 10, 11, 12, 13):
        # What else may come: drop the error code, go on.
        b.handler(vector, bytes.fromhex("4883c408") + RETURN)


def full(b: Board) -> None:
    """Forget all routes before they are used."""
    routes = b.engine.cpu.routes
    routes.enter = lambda *_: None  # type: ignore[method-assign]
    routes.leave = lambda *_: False  # type: ignore[method-assign]


def user(b: Board) -> None:
    state = with_segments(
        b.state,
        {Seg.CS: segment(CS3_64 | 3, 0xA0FB), Seg.SS: segment(DS3 | 3, 0xC0F3), Seg.DS: segment(DS3 | 3, 0xC0F3)},
    )
    gpr = list(state.gpr)
    gpr[4] = USER_STACK
    b.engine.set_state(replace(state, gpr=tuple(gpr), cpl=3))


def mutate(b: Board, rng: random.Random) -> None:
    """One change of tables or registers."""
    vector = rng.choice((0, 3, 6, 14, 0x80))
    what = rng.randrange(12)
    if what == 0:
        b.put(IDT + 16 * vector + 2, rng.choice((CS64, CS64, 0, CS3_64, 0x10)), 2)
    elif what == 1:
        b.put(IDT + 16 * vector + 5, rng.choice((0x8E, 0xEE, 0xEF, 0x0E, 0x8F, 0x8C)), 1)
    elif what == 2:
        b.put(IDT + 16 * vector + 4, rng.choice((0, 0, 1)), 1)
    elif what == 3:
        b.put(IDT + 16 * vector, gate(STUBS + 16 * vector, CS64, dpl=3))
    elif what == 4:
        b.put(TSS + 4, rng.choice((0x88000, 0x88000, 0x88008, 0x88FFC, 1 << 47, 0x7F0000000000)))
    elif what == 5:
        b.put(TSS + 36, rng.choice((IST1, IST1 + 4, 1 << 63)))
    elif what == 6:
        b.put(GDT + CS64, rng.choice((0x00AF9B000000FFFF, 0x00AF9A000000FFFF, 0x00AF9F000000FFFF, 0x00CF9B000000FFFF)))
    elif what == 7:
        b.put(GDT + CS64, 0x00AF9B000000FFFF)
        b.put(GDT + CS3_64, rng.choice((0x00AFFB000000FFFF, 0x00AFFA000000FFFF, 0x00AF7B000000FFFF)))
    elif what == 8:
        b.put(GDT + DS3, rng.choice((0x00CFF3000000FFFF, 0x00CFF2000000FFFF, 0x00CF73000000FFFF)))
    elif what == 9:
        # The page of all tables and stacks: accessed, dirty, writable; without a flush.
        b.put(TABLES + 0x2000, rng.choice((0x87, 0xE7, 0xA7, 0xA7, 0x85, 0x83)))
    elif what == 10:
        state = b.state
        gpr = list(state.gpr)
        gpr[4] += rng.choice((0, 8, 1, -0x20, 0xFE0))
        cr4 = rng.choice((0x620, 0x620, 0x620 | 1 << 21))
        b.engine.set_state(replace(state, gpr=tuple(gpr), cr4=cr4, rflags=state.rflags | rng.choice((0, 1 << 18))))
    else:
        repair(b)


def repair(b: Board) -> None:
    """All tables as they were."""
    b.put(TABLES + 0x2000, 0x87)
    b.put(TSS + 4, 0x88000)
    for selector in (CS64, CS3_64, DS3):
        b.put(GDT + selector, GDT_VALUES[selector])
    for vector in (0, 3, 6, 14, 0x80):
        b.put(IDT + 16 * vector, gate(STUBS + 16 * vector, CS64, dpl=3))


def kept(b: Board) -> tuple[object, ...]:
    return b.state, b.host.events, bytes(b.m[:0x100000])


@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("seed", range(12))
def test_the_outcome_is_that_of_the_full_delivery(seed: int, ring: int) -> None:
    rng = random.Random(seed)
    with board(EVENTS) as quick, board(EVENTS) as slow:
        full(slow)
        for b in (quick, slow):
            stepping(b)
            if ring:
                user(b)
        for _ in range(60):
            ticks = rng.randrange(1, 60)
            change = rng.random()
            stops = [b.run(ticks) for b in (quick, slow)]
            assert stops[0] == stops[1]
            assert kept(quick) == kept(slow)
            if stops[0].reason.final:
                break
            for b in (quick, slow):
                if change < 0.5:
                    repair(b)
                mutate(b, random.Random(change))
        assert quick.host.exceptions


@pytest.mark.parametrize("kind", [14, 15])
def test_flags_are_cleared_by_the_kind_of_gate(kind: int) -> None:
    with board("again: int 0x80; jmp again") as b:
        b.handler(0x80, RETURN, kind=kind)
        b.engine.set_state(replace(b.state, rflags=0x40A03 | 1 << 8))
        b.handler(1, RETURN)
        for _ in range(3):
            while b.state.rip != STUBS + 16 * 0x80:
                b.engine.step()
            assert b.state.rflags == (0x40A03 if kind == 15 else 0x40803)
            b.engine.step()


def test_a_known_return_to_nowhere_faults() -> None:
    with board("again: int 0x80; jmp again") as b:
        b.handler(0x80, bytes.fromhex("480fba3c243f") + RETURN)  # btc qword ptr [rsp], 63
        b.handler(13, bytes.fromhex("4883c408480fba7c24283f") + RETURN)
        b.run(40)
        assert {(e.vector, e.error_code, e.rip) for e in b.host.exceptions} == {
            (0x80, None, CODE),
            (13, 0, STUBS + 16 * 0x80 + 6),
        }


def test_a_walk_looks_at_its_entries_again() -> None:
    with board("hlt") as b:
        memory = b.engine.cpu.memory
        entry = TABLES + 0x2000 + 8 * 2
        assert memory.translate(CODE, False, False) == CODE
        for page in (3, 1):
            b.put(entry, page << 21 | 0x87)
            b.put(page << 21, page, 1)
            for _ in range(2):
                b.engine._env.flush_tlb()
                assert memory.translate(CODE + 5, False, False) == (page << 21) + 5
                assert memory.peek(CODE, 1) == bytes([page])
                assert b.get(entry) == page << 21 | 0xA7
        # D is set by the first store even where a load has been there before.
        b.engine._env.flush_tlb()
        memory.translate(CODE, True, False)
        assert b.get(entry) & 0x40
        b.put(entry, 0x86)
        b.engine._env.flush_tlb()
        with pytest.raises(Fault):
            memory.translate(CODE, False, False)


def test_the_second_time_a_way_is_known() -> None:
    with board("again: int 0x80; jmp again") as b:
        stepping(b)
        routes = b.engine.cpu.routes
        answers = []
        enter, leave = routes.enter, routes.leave
        routes.enter = lambda *a: answers.append(enter(*a)) or answers[-1]  # type: ignore[method-assign]
        routes.leave = lambda *a: answers.append(leave(*a)) or answers[-1]  # type: ignore[method-assign]
        b.run(7)
        assert answers == [None, False, STUBS + 16 * 0x80, True, STUBS + 16 * 0x80]


def test_a_frame_over_the_gate_itself_is_not_remembered() -> None:
    with board("again: int 0x80; jmp again") as b:
        stepping(b)
        # The frame's RFLAGS, RSP and SS fall on the gate of vector 0x80, after it was read.
        b.registers(rsp=IDT + 16 * 0x80 + 32)
        b.run(1)
        (event,) = b.host.exceptions
        assert event.delivered
        assert b.get(IDT + 16 * 0x80) != struct.unpack_from("<Q", gate(STUBS + 16 * 0x80, CS64, dpl=3))[0]
        assert not b.engine.cpu.routes._inward
        assert (b.state.rip, b.state.gpr[4]) == (STUBS + 16 * 0x80, IDT + 16 * 0x80 + 32 - 40)
