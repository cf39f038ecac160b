"""Interrupts, NMI, INIT and start-up IPIs at instruction boundaries (SDM vol. 3A table 7-2, sections 7.6.1, 7.7.1, 7.8.3)."""

from __future__ import annotations

import pytest

from kvmscope.vmm.clock import TSC_RATIO
from kvmscope.vmm.engine import Activity, StopReason
from kvmscope.vmm.events import ExceptionSource
from kvmscope.x86.reset import reset_state
from tests.vmm.unicorn.bench import CODE, Board, assemble, board

# Count in R15, remember the interrupted RIP in R14.
COUNT = bytes.fromhex("49ffc7 4c8b3424 48cf")


def armed(b: Board, *vectors: int) -> None:
    for vector in vectors:
        b.handler(vector, COUNT)


def deliveries(b: Board) -> list[tuple[int, int, int]]:
    """(tick, vector, interrupted offset) of what came from outside."""
    return [
        (e.tick, e.vector, e.rip - CODE)
        for e in b.host.exceptions
        if e.source is ExceptionSource.EXTERNAL and e.delivered
    ]


NOPS = "nop\n" * 40


@pytest.mark.parametrize("slices", [1000, 7, 1])
def test_an_interrupt_comes_at_the_tick_of_its_timer(slices: int) -> None:
    with board(f"sti\n{NOPS}\nhlt") as b:
        armed(b, 0x40)
        b.host.timers.append((10, lambda: b.host.interrupt(0x40)))
        for _ in range(0, 60, slices):
            b.run(slices)
        # Ten instructions have started: STI and nine NOPs.
        assert deliveries(b) == [(10, 0x40, 10)]
        assert b.state.gpr[15] == 1


@pytest.mark.parametrize("slices", [1000, 3, 1])
@pytest.mark.parametrize(
    ("opening", "source", "offset"),
    [
        ("sti", "sti; inc rax; inc rbx", 1 + 3),
        ("popfq", "push 0x202; popfq; inc rax", 5 + 1),
        ("sti before cli", "sti; cli; sti; nop; nop", 4),
        (
            "iretq",
            "push 0x10; push rsp; add qword ptr [rsp], 8; push 0x202; push 8; lea rbx, [rip+t]; push rbx; iretq\nt: nop",
            None,
        ),
    ],
)
def test_a_waiting_interrupt_is_taken_where_the_window_opens(
    opening: str, source: str, offset: int | None, slices: int
) -> None:
    with board(f"{source}\n{NOPS}\nhlt") as b:
        armed(b, 0x41)
        b.host.interrupt(0x41)
        for _ in range(0, 80, slices):
            b.run(slices)
        taken = deliveries(b)
        assert len(taken) == 1
        if offset is not None:
            assert taken[0][2] == offset, opening
        else:
            assert b.m[taken[0][2] + CODE] == 0x90
            assert b.m[taken[0][2] + CODE - 1] == 0xCF


def test_an_interrupt_waits_while_if_is_clear() -> None:
    with board(f"{NOPS}\nhlt") as b:
        armed(b, 0x41)
        b.host.interrupt(0x41)
        stop = b.run(1000)
        assert stop.reason is StopReason.HLT
        assert deliveries(b) == []


def test_the_image_of_an_interrupted_string_instruction_has_rf() -> None:
    """SDM vol. 3B section 18.3.1.1: RF is set in the image of an interrupt between iterations."""
    images = []
    with board("sti; mov ecx, 100; lea rdi, [rip+0x1000]; rep stosb; nop; hlt") as b:
        b.handler(0x40, assemble("mov r13, [rsp+16]; iretq"))
        b.host.timers.append((30, lambda: b.host.interrupt(0x40)))
        b.run(1000)
        images.append(b.state.gpr[13] >> 16 & 1)
    with board(f"sti;\n{NOPS}\nhlt") as b:
        b.handler(0x40, assemble("mov r13, [rsp+16]; iretq"))
        b.host.timers.append((30, lambda: b.host.interrupt(0x40)))
        b.run(1000)
        images.append(b.state.gpr[13] >> 16 & 1)
    assert images == [1, 0]


def test_an_external_interrupt_pushes_no_error_code_whatever_its_vector() -> None:
    with board(f"sti;\n{NOPS}\nhlt") as b:
        b.handler(14, assemble("mov r14, [rsp]; hlt"))
        b.host.timers.append((5, lambda: b.host.interrupt(14)))
        b.run(20)
        assert b.state.gpr[14] == CODE + 5


def test_hlt_wakes_and_time_is_skipped() -> None:
    with board("sti; hlt; rdtsc; hlt") as b:
        armed(b, 0x50)
        b.host.timers.append((1_000_000, lambda: b.host.interrupt(0x50)))
        stop = b.run(1000)
        assert stop.reason is StopReason.HLT
        assert b.state.gpr[15] == 1
        assert b.state.gpr[14] == CODE + 2
        assert b.state.gpr[0] > 999_990
        assert b.engine.clock < 20


def test_hlt_without_if_is_the_end() -> None:
    with board("cli; hlt; nop") as b:
        for i in range(5):
            b.host.timers.append((1000 * (i + 1), lambda: b.host.interrupt(0x50)))
        assert b.run(1000).reason is StopReason.HLT
        assert b.engine.activity(0) is Activity.HALTED


def test_an_nmi_needs_no_if_and_is_blocked_until_iret() -> None:
    source = f"nop; nop; {NOPS} hlt"
    with board(source) as b:
        b.handler(2, assemble("inc r15; nop; nop; nop; iretq"))
        pins = b.host.pins[0]

        def nmi() -> None:
            pins.nmi = True
            pins.kick()

        b.host.timers += [(2, nmi), (4, nmi), (5, nmi)]
        b.run(1000)
        # The second and third arrive while the first is handled: one of them waits, the other is lost.
        assert [(tick, vector) for tick, vector, _ in deliveries(b)] == [(2, 2), (7, 2)]
        assert b.state.gpr[15] == 2


def test_mov_ss_and_sti_hold_an_nmi_off_for_one_instruction() -> None:
    with board("mov eax, 0x10; mov ss, eax; nop; nop; hlt") as b:
        b.handler(2, assemble("mov r14, [rsp]; iretq"))

        def nmi() -> None:
            b.host.pins[0].nmi = True
            b.host.pins[0].kick()

        b.host.timers.append((2, nmi))
        b.run(1000)
        assert b.state.gpr[14] == CODE + 8


def test_a_trap_comes_before_an_interrupt() -> None:
    """Both are due after the same instruction: #DB (class 4) enters first, the interrupt before its handler's first."""
    with board("push 0x302; popfq; nop; nop; hlt") as b:
        b.handler(1, assemble("and qword ptr [rsp+16], -257; iretq"))
        armed(b, 0x40)
        b.host.timers.append((3, lambda: b.host.interrupt(0x40)))
        b.run(100)
        vectors = [e.vector for e in b.host.exceptions]
        assert vectors == [1, 0x40]


AP = 0x8000


def start_ap(b: Board, vcpu: int = 1, at: int = AP) -> None:
    b.engine.set_state(reset_state(0), vcpu)
    b.engine.set_activity(vcpu, Activity.WAIT_FOR_SIPI)
    b.host.pins[vcpu].startup = (at >> 4, 0)
    b.host.pins[vcpu].kick()


def test_a_startup_ipi_starts_in_real_mode_and_only_a_waiting_processor() -> None:
    with board("l: inc rax; cmp byte ptr [0x9000], 0; je l; hlt", vcpus=2) as b:
        b.put(AP, assemble("mov ax, cs; mov word ptr ds:[0x9002], ax; mov byte ptr ds:[0x9000], 1; hlt", 16, 0))
        start_ap(b)
        stop = b.run(100_000)
        assert stop.reason is StopReason.HLT
        assert "every vCPU waits" in stop.detail
        assert b.get(0x9002, 2) == AP >> 4
        assert b.engine.get_state(1).segments[1].base == AP
        # A second one, to a processor that does not wait for it, is lost.
        b.host.pins[1].startup = (0x123, 0)
        assert b.run(10).reason is StopReason.HLT
        assert b.engine.get_state(1).segments[1].base == AP


@pytest.mark.parametrize("slices", [100_000, 97, 1])
def test_two_processors_share_memory_and_atomics(slices: int) -> None:
    guest = "mov ecx, 500\nl: lock inc dword ptr [0x9000]; inc dword ptr [0x9004]; pause; dec ecx; jnz l\nhlt"
    real = "mov cx, 500\nl: lock inc dword ptr ds:[0x9000]; inc dword ptr ds:[0x9004]; dec cx; jnz l\nhlt"
    with board(guest, vcpus=2) as b:
        b.put(AP, assemble(real, 16, 0))
        start_ap(b)
        stop = None
        for _ in range(20_000):
            stop = b.run(slices)
            if stop.reason is StopReason.HLT:
                break
        assert stop is not None
        assert stop.reason is StopReason.HLT
        assert b.get(0x9000, 4) == 1000
        # Plain instructions are not torn here either (a real machine may lose some).
        assert b.get(0x9004, 4) == 1000
        assert b.engine.clock == 2 + 500 * 5 + 1 + 500 * 4 + 1


def test_the_interleaving_does_not_depend_on_slices() -> None:
    guest = "l: mov eax, 1; xchg [0x9000], eax; inc dword ptr [0x9008+rax*4]; jmp l"
    real = "l: xor ax, ax; xchg ds:[0x9000], ax; inc dword ptr ds:[0x9010]; jmp l"
    pictures = []
    for slices in (10_000, 777, 50):
        with board(guest, vcpus=2) as b:
            b.put(AP, assemble(real, 16, 0))
            start_ap(b)
            while b.engine.clock < 50_000:
                b.run(min(slices, 50_000 - b.engine.clock))
            pictures.append((b.m[0x9000:0x9020], b.engine.get_state(0), b.engine.get_state(1)))
    assert pictures[0] == pictures[1] == pictures[2]


def test_code_changed_by_one_processor_is_run_by_the_other() -> None:
    guest = "l: cmp byte ptr [0x9000], 5; jb l; mov byte ptr [0x8000+1], 2; n: cmp byte ptr [0x9001], 2; jne n; hlt"
    with board(guest, vcpus=2) as b:
        b.put(AP, assemble("mov al, 1; mov ds:[0x9001], al; inc byte ptr ds:[0x9000]; jmp $-9", 16, 0))
        start_ap(b)
        b.engine.run(200_000)
        assert b.engine.activity(0) is Activity.HALTED


def test_an_interrupt_for_another_processor_ends_the_turn() -> None:
    with board("mov dx, 0x10; out dx, al; rdtsc; l: jmp l", vcpus=2) as b:
        b.put(AP, assemble("xor ax, ax; mov ds, ax; sti; hlt; mov byte ptr ds:[0x9000], 1; hlt", 16, 0))
        b.put(0x40 * 4, 0x8100 | 0 << 16, 4)
        b.put(0x8100, assemble("rdtsc; mov ds:[0x9004], eax; iret", 16, 0x8100))
        start_ap(b)
        # The first processor's turn passes until the second waits.
        while b.engine.activity(1) is not Activity.HALTED:
            b.run(1)
            b.engine.look_again(1)
        b.host.on_write = lambda port, value: b.host.interrupt(0x40, vcpu=1)
        b.run(2_000)
        sent = next(tick for kind, port, _, _, tick in b.host.ports if kind == "out")
        assert 0 < b.get(0x9004, 4) // TSC_RATIO - sent < 10


def test_a_frozen_processor_gets_no_turn() -> None:
    with board("l: inc rax; jmp l", vcpus=2) as b:
        b.put(AP, assemble("l: inc ax; jmp l", 16, 0))
        start_ap(b)
        b.run(10_000)
        before = b.engine.get_state(1)
        assert before.gpr[0] > 100
        b.engine.freeze(frozenset({1}))
        b.run(10_000)
        assert b.engine.get_state(1) == before
        b.engine.freeze(frozenset())
        b.run(10_000)
        assert b.engine.get_state(1) != before


def test_a_step_of_one_processor_runs_the_others_in_their_turns() -> None:
    with board("l: inc rax; jmp l", vcpus=2) as b:
        b.put(AP, assemble("l: inc ax; jmp l", 16, 0))
        start_ap(b)
        b.run(2_000)
        for _ in range(9):
            before = b.engine.get_state(1)
            b.engine.step(1)
            after = b.engine.get_state(1)
            assert (after.gpr[0] - before.gpr[0], after.rip) == ((1, 1) if before.rip == 0 else (0, 0))


def test_captures_hold_every_processor() -> None:
    with board("l: inc rax; pause; jmp l", vcpus=3) as b:
        b.put(AP, assemble("l: inc ax; jmp l", 16, 0))
        start_ap(b)
        start_ap(b, 2)
        b.run(5_000)
        raw, clock = b.engine.capture(), b.engine.clock
        states = [b.engine.get_state(i) for i in range(3)]
        b.run(5_000)
        after = [b.engine.get_state(i) for i in range(3)]
        b.engine.restore(raw, clock, ())
        assert [b.engine.get_state(i) for i in range(3)] == states
        b.run(5_000)
        assert [b.engine.get_state(i) for i in range(3)] == after


def test_init_makes_an_application_processor_wait() -> None:
    with board("l: inc rax; jmp l", vcpus=2) as b:
        b.put(AP, assemble("l: inc ax; jmp l", 16, 0))
        start_ap(b)
        b.run(5_000)
        b.host.pins[1].init = True
        b.host.pins[1].kick()
        b.run(5_000)
        assert b.engine.activity(1) is Activity.WAIT_FOR_SIPI
        assert b.host.inits == [1]
        state = b.engine.get_state(1)
        assert (state.rip, state.segments[1].base, state.cr0) == (0xFFF0, 0xFFFF0000, 0x60000010)
        assert state.gpr[2] != 0


def test_init_of_the_first_processor_ends_the_run() -> None:
    with board("l: inc rax; jmp l") as b:
        b.host.pins[0].init = True
        assert b.run(100).reason is StopReason.RESET


def test_a_startup_ipi_before_init_is_lost() -> None:
    """SDM vol. 3A section 9.4.3: only INIT makes a processor wait, and only then does a start-up IPI count."""
    with board("l: inc rax; pause; jmp l", vcpus=2) as b:
        b.put(AP, assemble("hlt", 16, 0))
        b.put(0x9000, assemble("l: inc bx; jmp l", 16, 0))
        start_ap(b)
        b.run(3_000)
        assert b.engine.activity(1) is Activity.HALTED
        pins = b.host.pins[1]
        pins.startup = (0x900, 0)
        pins.kick()
        b.run(3_000)
        pins.init = True
        pins.kick()
        b.run(3_000)
        assert b.engine.activity(1) is Activity.WAIT_FOR_SIPI
        pins.startup = (0x900, 0)
        pins.kick()
        b.run(3_000)
        assert b.engine.get_state(1).gpr[3] > 0


def test_an_nmi_is_held_while_a_processor_waits_for_its_start() -> None:
    with board("l: inc rax; pause; jmp l", vcpus=2) as b:
        b.put(2 * 4, 0x8100, 4)
        b.put(AP, assemble("mov sp, 0x7000; nop; l: jmp l", 16, 0))
        b.put(0x8100, assemble("inc bx; iret", 16, 0x8100))
        b.engine.set_state(reset_state(0), 1)
        b.engine.set_activity(1, Activity.WAIT_FOR_SIPI)
        b.host.pins[1].nmi = True
        b.host.pins[1].kick()
        b.run(1_000)
        assert b.engine.get_state(1).gpr[3] == 0
        b.host.pins[1].startup = (AP >> 4, 0)
        b.host.pins[1].kick()
        b.run(5_000)
        assert b.engine.get_state(1).gpr[3] == 1


def test_a_machine_suspended_for_good_says_so() -> None:
    with board("l: inc rax; jmp l") as b:
        b.run(10)
        b.host.pins[0].reset = True
        b.host.pins[0].kick()
        stop = b.run(100)
        assert stop.reason is StopReason.HLT
        assert "suspended to memory (S3)" in stop.detail
        assert b.state.rip == 0xFFF0
