"""Captures, restores, events that decode late, and writes from outside of the guest."""

from __future__ import annotations

import pickle
import zlib
from dataclasses import replace

import pytest

from tests.vmm.unicorn.bench import CODE, Board, assemble, board

MIXED = """
    mov ecx, 0x174; mov eax, 8; xor edx, edx; wrmsr
    mov eax, 0x500000; mov dr1, rax; mov eax, 0x100008; mov dr7, rax
    mov eax, 7; mov cr8, rax
 l: inc rax; mov [0x500000], rax; cvtsi2sd xmm1, rax; fld1; fstp st(0)
    lea rbx, [rip+n+1]; inc byte ptr [rbx]
 n: mov dl, 0
    ud2
    jmp l
"""


def setup(b: Board) -> Board:
    b.handler(6, bytes.fromhex("4883042402" + "48cf"))
    b.handler(1, bytes.fromhex("48cf"))
    return b


def picture(b: Board) -> tuple[object, ...]:
    return b.engine.clock, b.state, zlib.crc32(b.m)


@pytest.mark.parametrize("at", [0, 3, 9, 10, 17, 40, 111, 200])
def test_a_restored_engine_goes_on_as_the_first_time(at: int) -> None:
    with board(MIXED) as b:
        setup(b)
        b.run(at) if at else None
        raw, memory, here, cr8 = b.engine.capture(), bytes(b.m), picture(b), dict(b.host.cr8)
        assert b.engine.decode(raw) == b.state
        b.run(150)
        first = picture(b)
        dirty = [p for p in range(len(memory) >> 12) if memory[p << 12 : p + 1 << 12] != b.m[p << 12 : p + 1 << 12]]
        b.m[:] = memory
        b.engine.restore(raw, at, dirty)
        b.host.cr8 = cr8
        assert picture(b) == here
        b.run(150)
        assert picture(b) == first


def test_a_capture_of_something_else_is_refused() -> None:
    with board(b"\x90") as b, pytest.raises((ValueError, Exception)):
        b.engine.restore(b.engine.capture()[:-8], 0, [])


def test_a_write_into_code_from_outside_takes_effect() -> None:
    with board("l: mov al, 1; jmp l") as b:
        b.run(10)
        b.m[CODE + 1] = 2
        b.engine.memory_written(CODE + 1, 1)
        b.run(2)
        assert b.state.gpr[0] == 2


def test_an_event_keeps_the_state_before_it() -> None:
    with board("mov eax, 5; mov ecx, 0x12345; rdmsr; hlt") as b:
        b.run(3)
        (event,) = b.host.exceptions
        b.registers(rax=99)
        assert event.before.gpr[0] == 5
        assert event.before is event.before
        assert "rip=4194314" in repr(event)
        assert replace(event, vector=1).before == event.before


def test_engines_are_freed() -> None:
    code = assemble("nop; hlt")
    for _ in range(3):
        with board(code) as b:
            b.run()
            b.engine.close()


def test_captured_bytes_are_plain() -> None:
    with board(MIXED) as b:
        b.run(5)
        assert isinstance(b.engine.capture(), bytes)
        assert pickle.loads(pickle.dumps(b.engine.decode(b.engine.capture()))) == b.state
