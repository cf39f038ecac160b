"""One clock: whole runs, slices, single steps, stops from anywhere."""

from __future__ import annotations

import threading
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscope.vmm.clock import TSC_RATIO
from kvmscope.vmm.engine import Stop, StopReason
from kvmscope.vmm.unicorn.engine import TLB_GRID
from tests.vmm.unicorn.bench import CODE, STUBS, Board, assemble, board, gate

PROGRAMS = {
    "arithmetic": "mov ecx, 40; l: add rax, rcx; xor rbx, rax; adc rdx, 3; dec ecx; jnz l; hlt",
    "memory": "mov edi, 0x500000; mov ecx, 30; l: inc qword ptr [rdi]; lock xadd [rdi+8], rcx; add rdi, 9; loop l; hlt",
    "rep": "cld; mov edi, 0x500000; mov esi, 0x400000; mov ecx, 37; rep movsb; mov ecx, 0; rep stosq; hlt",
    "port": "mov ecx, 9; l: in al, 0x10; out 0x20, ax; dec ecx; jnz l; hlt",
    "traps": "mov ecx, 0x10; rdtsc; cpuid; int 0x80; hlt; ud2; hlt",
    "faults": "l: ud2; mov rax, [0x500ffc]; jmp l",
    "store into own block": """
        mov ecx, 20
        l: lea rbx, [rip+target]
        inc byte ptr [rbx+1]
        target: mov al, 1
        add rdx, rax
        dec ecx
        jnz l
        hlt""",
    "store into next instruction": "mov ecx, 9; l: mov byte ptr [rip+n], 0x90; n: nop; dec ecx; jnz l; hlt",
    "push over own code": "lea rsp, [rip+l+40]; mov ecx, 8; l: push rcx; pop rdx; dec ecx; jnz l; hlt; .fill 64, 1, 0x90",
    "trap flag": "pushfq; or dword ptr [rsp], 0x100; popfq; nop; cpuid; nop; jmp .",
    "self jump": "jmp .",
}


def prepared(b: Board) -> Board:
    # UD2 is skipped, everything else goes on after the return.
    b.handler(6, bytes.fromhex("48830424 02 48cf".replace(" ", "")))
    b.handler(1, bytes.fromhex("48cf"))
    b.put(STUBS + 16 * 0x80, bytes.fromhex("48cf"))
    return b


def outcome(b: Board) -> tuple[object, ...]:
    return b.engine.clock, b.state, zlib.crc32(b.m), [(e.tick, e.rip) for e in b.host.events], b.host.ports


def reference(source: str, ticks: int) -> tuple[tuple[object, ...], Stop]:
    with board(source) as b:
        stop = prepared(b).run(ticks)
        return outcome(b), stop


@pytest.mark.parametrize("python", [False, True], ids=["native probe", "python probe"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_steps_and_one_run_are_the_same(name: str, python: bool) -> None:
    whole, stop = reference(PROGRAMS[name], 300)
    with board(PROGRAMS[name], python_probe=python) as b:
        prepared(b)
        for _ in range(300):
            last = b.engine.step()
            if last.reason is not StopReason.STEP:
                break
        assert outcome(b) == whole
        assert (last.reason is StopReason.STEP) == (stop.reason is StopReason.SLICE)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(PROGRAMS)), st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_any_slicing_is_the_same(name: str, slices: list[int]) -> None:
    total = sum(slices)
    whole, _ = reference(PROGRAMS[name], total)
    with board(PROGRAMS[name]) as b:
        prepared(b)
        for ticks in slices:
            if b.run(ticks).reason is not StopReason.SLICE:
                break
        assert outcome(b) == whole


@pytest.mark.parametrize(
    ("source", "ticks"),
    [
        ("nop; nop; hlt", 3),
        ("mov ecx, 5; mov edi, 0x500000; rep stosb; hlt", 2 + 6 + 1),
        ("mov ecx, 0; mov edi, 0x500000; rep stosb; hlt", 2 + 1 + 1),
        ("mov ecx, 3; l: dec ecx; jnz l; hlt", 1 + 6 + 1),
        ("mov byte ptr [rip+n], 0x90; nop; n: nop; nop; hlt", 5),
    ],
)
def test_a_tick_is_an_instruction_start(source: str, ticks: int) -> None:
    with board(source) as b:
        stop = b.run()
        assert stop.reason is StopReason.HLT
        assert stop.tick == b.engine.clock == ticks


def test_a_fault_is_a_tick_of_its_own() -> None:
    with board("ud2") as b:
        assert b.run().tick == 2


def test_rdtsc_is_the_clock_and_can_be_set() -> None:
    with board("nop; rdtsc; mov r8, rax; mov ecx, 0x10; mov eax, 1000; xor edx, edx; wrmsr; rdtscp; hlt") as b:
        b.run()
        assert b.state.gpr[8] == 2 * TSC_RATIO
        assert b.state.gpr[0] == 1000 + TSC_RATIO


@pytest.mark.parametrize("python", [False, True], ids=["native probe", "python probe"])
def test_a_breakpoint_stops_before_its_instruction(python: bool) -> None:
    with board("l: nop; inc rax; inc rbx; jmp l", python_probe=python) as b:
        b.run(10)
        b.engine.set_breakpoints([CODE + 4])
        # It stands at the breakpoint now, which does not stop it again.
        for lap in range(3):
            stop = b.run(1000)
            assert stop.reason is StopReason.BREAKPOINT
            assert stop.breakpoint == b.state.rip == CODE + 4
            assert b.state.gpr[0] == b.state.gpr[3] + 1
            assert stop.tick == b.engine.clock == 14 + 4 * lap
        b.engine.set_breakpoints([])
        assert b.run(100).reason is StopReason.SLICE


def test_a_step_goes_over_a_breakpoint() -> None:
    with board("nop; nop; nop; hlt") as b:
        b.engine.set_breakpoints([CODE, CODE + 1])
        assert b.engine.step().reason is StopReason.STEP
        assert b.state.rip == CODE + 1
        assert b.run(10).reason is StopReason.HLT


def test_a_breakpoint_on_rep_stops_once() -> None:
    with board("mov ecx, 5; mov edi, 0x500000; rep stosb; hlt") as b:
        b.engine.set_breakpoints([CODE + 10])
        assert b.run(100).reason is StopReason.BREAKPOINT
        assert b.run(100).reason is StopReason.HLT


def test_a_request_from_a_bus_callback_stops_at_the_next_boundary() -> None:
    with board("nop; out 0x20, al; inc rbx; hlt") as b:
        b.host.on_write = lambda port, value: b.engine.request_stop(Stop(StopReason.DEBUG_EXIT, code=value))
        stop = b.run()
        assert (stop.reason, stop.code, stop.tick) == (StopReason.DEBUG_EXIT, 0, 2)
        assert b.state.gpr[3] == 0
        assert b.run().reason is StopReason.HLT


def test_a_request_from_a_callback_holds_before_an_unmapped_page() -> None:
    with board(assemble("mov edx, 0x20; out dx, al", origin=CODE + 0xFFA).rjust(0x1000, b"\x90")) as b:
        b.put(0x92000 + 8 * 2, 0x500000 | 0x87)
        b.put(0x92000 + 8 * 2, 0x93000 + 0x4000 | 7)
        for i in range(512):
            b.put(0x97000 + 8 * i, 0x400000 + 0x1000 * i | 7)
        b.put(0x97000 + 8, 0)
        b.engine.set_state(b.state)
        b.host.on_write = lambda port, value: b.engine.request_stop(Stop(StopReason.DEBUG_EXIT))
        stop = b.run(0x2000)
        assert stop.reason is StopReason.DEBUG_EXIT
        assert b.state.rip == CODE + 0x1000
        assert b.state.cr2 == 0
        assert not b.host.exceptions


def test_requests_from_another_thread_are_exact() -> None:
    with board("l: inc rax; inc qword ptr [0x500000]; inc rbx; inc qword ptr [0x500008]; jmp l") as b:
        for _ in range(25):
            timer = threading.Timer(0.002, b.engine.request_stop, [Stop(StopReason.PAUSED)])
            timer.start()
            assert b.run(1 << 40).reason is StopReason.PAUSED
            timer.join()
            lap, place = divmod(b.engine.clock, 5)
            s = b.state
            counts = s.gpr[0], b.get(0x500000), s.gpr[3], b.get(0x500008)
            assert counts == tuple(lap + (place > i) for i in range(4))


def test_a_run_can_be_longer_than_the_flush_grid() -> None:
    with board("l: inc rax; jmp l") as b:
        assert b.run(TLB_GRID + 1).reason is StopReason.SLICE
        assert b.state.gpr[0] == TLB_GRID // 2 + 1


def test_hlt_ends_runs_until_the_state_is_set() -> None:
    with board("hlt; nop; hlt") as b:
        assert b.run().reason is StopReason.HLT
        assert b.state.halted
        assert (b.run().reason, b.engine.clock) == (StopReason.HLT, 1)
        assert b.engine.step().reason is StopReason.HLT
        b.engine.set_state(replace(b.state, halted=False))
        assert b.run().tick == 3


@pytest.mark.parametrize(
    ("source", "kind"),
    [("sti; nop; nop", 1), ("mov eax, ss; mov ss, eax; nop; nop", 2), ("push 0x10; pop rax; mov ss, eax; nop", 2)],
)
def test_interrupt_shadows_last_one_instruction(source: str, kind: int) -> None:
    with board(source) as b:
        seen = [b.engine.step() and b.state.interrupt_shadow for _ in range(4)]
        at = seen.index(kind)
        assert seen == [0] * at + [kind] + [0] * (3 - at)


def test_an_exception_in_a_callback_comes_out_of_run() -> None:
    def broken(port: int, value: int) -> None:
        raise RuntimeError("device")

    with board("out 0x20, al; nop; hlt") as b:
        b.host.on_write = broken
        with pytest.raises(RuntimeError, match="device"):
            b.run()


def test_a_gate_to_its_own_fault_stays_within_the_ticks() -> None:
    with board("ud2") as b:
        for vector in range(32):
            b.put(0x6000 + 16 * vector, gate(0x7F7F_0000_0000, 8))
        assert b.run(500).reason is StopReason.SLICE
        assert b.engine.clock == 500
