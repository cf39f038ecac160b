"""TF, DR0-7, ICEBP and how they meet MOV SS, REP and RF (SDM vol. 3B chapter 17)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvmscope.vmm.engine import StopReason
from tests.vmm.unicorn.bench import CODE, IDT, STUBS, Board, board, frame, gate

BS = 1 << 14
BASE = 0xFFFF0FF0


def watch(b: Board, *breakpoints: tuple[int, int, int]) -> None:
    """Arm (address, R/W, length code) in order from DR0."""
    dr = list(b.state.dr)
    dr[7] = 0x400
    for i, (address, kind, length) in enumerate(breakpoints):
        dr[i] = address
        dr[7] |= 2 << 2 * i | kind << 16 + 4 * i | length << 18 + 4 * i
    b.engine.set_state(replace(b.state, dr=tuple(dr)))


def debug_exceptions(b: Board) -> list[tuple[int, int]]:
    """(return address, DR6 bits) of each #DB."""
    return [(e.rip, (e.dr6 or 0) & ~BASE) for e in b.host.exceptions if e.vector == 1]


@pytest.mark.parametrize(
    "source",
    ["nop", "mov eax, 5", "cpuid", "rdtsc", "mov rax, cr0", "mov rax, dr7", "in al, 0x10", "wrmsr", "sti", "rep stosb"],
)
def test_the_trap_flag_traps_after_each_instruction(source: str) -> None:
    with board(f"{source}; nop") as b:
        b.registers(rcx=0x174, rdi=0x500000)
        if "rep" in source:
            b.registers(rcx=1)
        b.engine.set_state(replace(b.state, rflags=0x102))
        b.engine.step()
        if "rep" in source:
            assert debug_exceptions(b)[0][1] == BS
            return
        ((rip, bits),) = debug_exceptions(b)
        assert bits == BS
        assert rip > CODE
        assert frame(b)[0] == rip
        assert frame(b)[2] & 0x100
        assert not b.state.rflags & 0x100
        assert b.engine.clock == 1


def test_the_trap_flag_waits_for_the_instruction_after_mov_ss() -> None:
    with board("mov eax, ss; mov ss, eax; nop; nop") as b:
        b.run(1)
        b.engine.set_state(replace(b.state, rflags=0x102))
        b.run(1)
        assert not b.host.exceptions
        b.run(1)
        assert debug_exceptions(b) == [(CODE + 5, BS)]


def test_an_interrupt_does_not_trap_in_its_handler() -> None:
    with board("int 0x80; nop") as b:
        b.engine.set_state(replace(b.state, rflags=0x102))
        b.run(1)
        assert [e.vector for e in b.host.exceptions] == [0x80]
        assert frame(b)[2] == 0x102


@pytest.mark.parametrize("kind", ["run", "step"])
def test_an_execution_breakpoint_is_a_fault_that_rf_passes(kind: str) -> None:
    # The handler sets RF in the image and returns.
    handler = bytes.fromhex("c644241201" + "48cf")
    with board("nop; inc rax; inc rbx; hlt") as b:
        b.handler(1, handler)
        watch(b, (CODE + 1, 0, 0))
        if kind == "run":
            b.run(100)
        else:
            while b.engine.step().reason is StopReason.STEP:
                pass
        assert debug_exceptions(b) == [(CODE + 1, 1)]
        (event,) = b.host.exceptions
        assert event.before.rip == CODE + 1
        assert b.state.gpr[0] == b.state.gpr[3] == 1
        assert b.engine.clock == 1 + 1 + 2 + 3


def test_rf_lasts_for_one_instruction() -> None:
    with board("inc rax; jmp 1f; 1: inc rbx; hlt") as b:
        watch(b, (CODE, 0, 0), (CODE + 5, 0, 0))
        b.engine.set_state(replace(b.state, rflags=0x10002))
        b.run(100)
        assert debug_exceptions(b) == [(CODE + 5, 2)]
        assert not b.host.exceptions[0].before.rflags & 0x10000


def test_an_execution_breakpoint_is_suppressed_after_mov_ss() -> None:
    with board("mov eax, ss; mov ss, eax; nop; nop; hlt") as b:
        watch(b, (CODE + 4, 0, 0), (CODE + 5, 0, 0))
        b.run(100)
        assert debug_exceptions(b) == [(CODE + 5, 2)]


# (program, breakpoint, hits as offsets of the return address)
DATA = {
    "write, write": ("mov [0x500000], eax; nop; hlt", (0x500000, 1, 3), [7]),
    "write, read": ("mov eax, [0x500000]; nop; hlt", (0x500000, 1, 3), []),
    "access, read": ("mov eax, [0x500000]; nop; hlt", (0x500000, 3, 3), [7]),
    "last byte": ("mov byte ptr [0x500003], 1; hlt", (0x500000, 1, 3), [8]),
    "byte after": ("mov byte ptr [0x500004], 1; hlt", (0x500000, 1, 3), []),
    "from before": ("mov [0x4ffffe], eax; hlt", (0x500000, 1, 0), [7]),
    "across a page": ("mov [0x500ffe], eax; hlt", (0x501000, 1, 1), [7]),
    "eight bytes": ("mov byte ptr [0x500007], 1; hlt", (0x500000, 1, 2), [8]),
    "length aligns": ("mov byte ptr [0x500000], 1; hlt", (0x500002, 1, 3), [8]),
    "read-modify-write": ("inc dword ptr [0x500000]; nop; hlt", (0x500000, 3, 3), [7]),
    "push": ("push rax; nop; hlt", (0x7FFF8, 1, 2), [1]),
    "call": ("call 1f; 1: hlt", (0x7FFF8, 1, 2), [5]),
    "same page offset elsewhere": ("mov [0x501000], eax; hlt", (0x500000, 1, 3), []),
    "jump after": ("mov [0x500000], eax; jmp 1f; 1: hlt", (0x500000, 1, 3), [7]),
}


@pytest.mark.parametrize("kind", ["run", "step"])
@pytest.mark.parametrize("name", DATA)
def test_data_breakpoints_trap_after_the_access(name: str, kind: str) -> None:
    source, breakpoint_, hits = DATA[name]
    with board(source) as b:
        b.handler(1, bytes.fromhex("48cf"))
        watch(b, breakpoint_)
        if kind == "run":
            b.run(100)
        else:
            while b.engine.step().reason is StopReason.STEP:
                pass
        assert debug_exceptions(b) == [(CODE + at, 1) for at in hits]


def test_an_alias_of_the_page_is_another_linear_address() -> None:
    with board("mov [0x40500000], eax; mov [0x500000], eax; hlt") as b:
        # 0x40500000 maps the same physical page.
        b.put(0x93000 + 8 * 2, 0x400000 | 0x87)
        b.engine.set_state(b.state)
        watch(b, (0x500000, 1, 3))
        b.handler(1, bytes.fromhex("48cf"))
        b.run(100)
        assert debug_exceptions(b) == [(CODE + 14, 1)]


def test_rep_traps_between_iterations_with_rf() -> None:
    with board("mov ecx, 4; mov edi, 0x500000; rep stosb; hlt") as b:
        b.put(IDT + 16, gate(STUBS + 16, 8))
        watch(b, (0x500001, 1, 0))
        b.run(4)
        assert debug_exceptions(b) == [(CODE + 10, 1)]
        assert b.state.gpr[1] == 2
        assert frame(b)[2] & 0x10000


def test_a_data_breakpoint_waits_for_the_instruction_after_mov_ss() -> None:
    with board("mov ss, [0x500000]; inc rax; hlt") as b:
        b.put(0x500000, 0x10)
        watch(b, (0x500000, 3, 1))
        b.run(1)
        assert not b.host.exceptions
        b.run(1)
        assert debug_exceptions(b) == [(CODE + 10, 1)]


def test_a_breakpoint_put_off_by_mov_ss_comes_in_a_free_run_too() -> None:
    with board("mov ss, [0x500000]; inc rax; inc rax; hlt") as b:
        b.put(0x500000, 0x10)
        watch(b, (0x500000, 3, 1))
        b.run(1000)
        assert debug_exceptions(b) == [(CODE + 10, 1)]


def test_a_faulting_instruction_keeps_no_hit() -> None:
    with board("mov esi, 0x500000; mov edi, 0x500008; mov rdi, 0x7fffff000000; movsb; hlt") as b:
        watch(b, (0x500000, 3, 0))
        b.run(5)
        assert [e.vector for e in b.host.exceptions] == [14]


def test_two_hits_and_the_trap_flag_are_one_exception() -> None:
    with board("mov [0x500000], rax; nop; hlt") as b:
        watch(b, (0x500000, 1, 0), (0x500004, 3, 0))
        b.engine.set_state(replace(b.state, rflags=0x102))
        b.run(1)
        assert debug_exceptions(b) == [(CODE + 8, BS | 3)]


@pytest.mark.parametrize(("cr4", "expected"), [(0x628, [(CODE + 2, 1)]), (0x620, [])])
def test_io_breakpoints_need_de(cr4: int, expected: list[tuple[int, int]]) -> None:
    with board("in al, 0x10; in al, 0x14; hlt") as b:
        b.handler(1, bytes.fromhex("48cf"))
        b.engine.set_state(replace(b.state, cr4=cr4))
        watch(b, (0x10, 2, 3))
        b.run(20)
        assert debug_exceptions(b) == expected


def test_armed_by_the_guest_itself() -> None:
    with board(
        "mov eax, 0x500000; mov dr0, rax; mov eax, 0x10002; mov dr7, rax; mov byte ptr [0x500000], 1; nop; hlt"
    ) as b:
        b.run(100)
        assert debug_exceptions(b) == [(CODE + 24, 1)]
        assert b.state.dr[6] == BASE | 1


def test_disarmed_by_the_guest_itself() -> None:
    with board("xor eax, eax; mov dr7, rax; mov [0x500000], eax; nop; hlt") as b:
        watch(b, (0x500000, 1, 0), (CODE + 12, 0, 0))
        b.run(100)
        assert not b.host.exceptions


def test_general_detect() -> None:
    with board("mov rax, dr0; hlt") as b:
        b.engine.set_state(replace(b.state, dr=(0, 0, 0, 0, 0, 0, BASE, 0x2400)))
        b.run(1)
        assert debug_exceptions(b) == [(CODE, 1 << 13)]
        assert b.state.dr[7] == 0x400


def test_dr6_keeps_bs_until_software_clears_it() -> None:
    with board("nop; nop; hlt") as b:
        watch(b, (CODE + 1, 0, 0))
        b.engine.set_state(replace(b.state, dr=(*b.state.dr[:6], BASE | BS | 0xC, b.state.dr[7])))
        b.run(5)
        assert b.state.dr[6] == BASE | BS | 1


def test_icebp_marks_nothing() -> None:
    with board(b"\xf1\x90") as b:
        b.run(1)
        assert debug_exceptions(b) == [(CODE + 1, 0)]
