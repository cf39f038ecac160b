from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from kvmscope.debug.debugger import Debugger
from kvmscope.expr import parse
from kvmscope.vmm.engine import StopReason
from tests.debug.support import boot

PROGRAM = """
        mov     ecx, 3
        mov     edi, 0x8000
fill:   rep stosb
outer:  call    f
after:  hlt
f:      mov     ecx, 2
loop:   call    g
back:   dec     ecx
        jnz     loop
        ret
g:      nop
        ret
"""

FAULTING = """
        xor     ecx, ecx
        call    f
after:  hlt
f:      nop
bad:    div     rcx
inside: nop
        ret
handler:
        add     qword ptr [rsp], 3
        iretq
"""
HANDLER = '[handlers]\n"#DE" = "handler"'


@pytest.fixture
def make():
    machines = []

    def build(code: str = PROGRAM, header: str = "") -> Debugger:
        machine, _ = boot(code, header)
        machines.append(machine)
        return Debugger(machine)

    yield build
    for machine in machines:
        machine.close()


def at(debugger: Debugger) -> str:
    """Label at RIP, with an offset behind it."""
    name, offset = debugger.machine.image.symbol_at(debugger.machine.cpu.pc) or ("start", 0)
    return f"{name}+{offset}" if offset else name


def run_to(debugger: Debugger, label: str) -> None:
    debugger.until(debugger.machine.image.symbols[label])
    assert at(debugger) == label


def test_step_counts(make):
    debugger = make()
    assert debugger.step(2).reason is StopReason.STEP
    assert at(debugger) == "fill"
    assert debugger.machine.tick == 2


def test_step_stops_at_the_end(make):
    debugger = make()
    assert debugger.step(1000).reason is StopReason.HLT


@pytest.mark.parametrize(
    ("start", "target", "cpl_same"), [("fill", "outer", True), ("outer", "after", True), ("loop", "back", True)]
)
def test_over(make, start, target, cpl_same):
    debugger = make()
    run_to(debugger, start)
    stop = debugger.over()
    assert stop.reason is StopReason.STEP
    assert at(debugger) == target


def test_over_a_plain_instruction_steps_once(make):
    debugger = make()
    debugger.over()
    assert debugger.machine.tick == 1


def test_over_recursion_ends_at_its_own_depth(make):
    debugger = make("""
        mov ecx, 3
top:    call f
done:   hlt
f:      dec ecx
        jz  leaf
inner:  call f
behind: nop
leaf:   ret
""")
    run_to(debugger, "inner")
    depth = debugger.machine.cpu.gpr[4]
    debugger.over()
    assert at(debugger) == "behind"
    assert debugger.machine.cpu.gpr[4] == depth


def test_over_stops_at_a_breakpoint_inside(make):
    debugger = make()
    run_to(debugger, "outer")
    debugger.breakpoints.add(debugger.machine.image.symbols["g"], "g")
    stop = debugger.over()
    assert stop.reason is StopReason.BREAKPOINT
    assert at(debugger) == "g"


def test_over_a_software_interrupt(make):
    debugger = make("        int 0x80\nafter: hlt\nh: nop\n iretq\n", '[handlers]\n0x80 = "h"')
    debugger.over()
    assert at(debugger) == "after"


@pytest.mark.parametrize(("inside", "target"), [("g", "back"), ("f", "after"), ("back", "after")])
def test_out(make, inside, target):
    debugger = make()
    run_to(debugger, inside)
    assert debugger.out().reason is StopReason.STEP
    assert at(debugger) == target


def test_out_runs_over_exceptions_on_the_way(make):
    debugger = make(FAULTING, HANDLER)
    run_to(debugger, "f")
    debugger.out()
    assert at(debugger) == "after"


def test_out_of_a_handler_returns_to_the_interrupted_code(make):
    debugger = make(FAULTING, HANDLER)
    run_to(debugger, "handler")
    debugger.out()
    assert at(debugger) == "inside"


def test_out_is_not_fooled_by_a_handler_on_another_stack(make):
    debugger = make(FAULTING, '[handlers]\n"#DE" = { entry = "handler", ist = 1 }')
    run_to(debugger, "f")
    debugger.out()
    assert at(debugger) == "after"


def test_until_and_cont(make):
    debugger = make()
    debugger.until(debugger.machine.image.symbols["g"])
    assert at(debugger) == "g"
    assert debugger.cont().reason is StopReason.HLT


def test_until_passes_the_place_where_it_stands(make):
    debugger = make()
    run_to(debugger, "g")
    first = debugger.machine.tick
    debugger.until(debugger.machine.image.symbols["g"])
    assert at(debugger) == "g"
    assert debugger.machine.tick > first


def test_breakpoint_hits_are_counted_and_one_shots_go(make):
    debugger = make()
    machine = debugger.machine
    point = debugger.breakpoints.add(machine.image.symbols["g"], "g")
    once = debugger.breakpoints.add(machine.image.symbols["f"], "f", once=True)
    reasons = [debugger.cont().reason for _ in range(4)]
    assert reasons == [StopReason.BREAKPOINT] * 3 + [StopReason.HLT]
    assert debugger.breakpoints.get(point.number).hits == 2
    assert once.number not in [b.number for b in debugger.breakpoints]


def test_a_condition_decides(make):
    debugger = make()
    debugger.breakpoints.add(debugger.machine.image.symbols["g"], "g", condition=parse("ecx == 1"))
    stop = debugger.cont()
    assert stop.reason is StopReason.BREAKPOINT
    assert debugger.machine.cpu.gpr[1] == 1


def test_a_condition_that_cannot_be_evaluated_stops(make):
    debugger = make()
    debugger.breakpoints.add(debugger.machine.image.symbols["g"], "g", condition=parse("u8(0x7000000000) == 1"))
    assert debugger.cont().reason is StopReason.BREAKPOINT


def test_a_disabled_breakpoint_does_not_stop(make):
    debugger = make()
    point = debugger.breakpoints.add(debugger.machine.image.symbols["g"], "g")
    debugger.breakpoints.enable(point.number, False)
    assert debugger.cont().reason is StopReason.HLT


def history(debugger: Debugger) -> list[tuple[int, ...]]:
    """RIP and registers at every tick up to the end."""
    machine = debugger.machine
    machine.goto(0)
    states = [(machine.cpu.rip, *machine.cpu.gpr)]
    while machine.tick < machine.last_tick:
        machine.step()
        states.append((machine.cpu.rip, *machine.cpu.gpr))
    return states


def test_back_gives_every_earlier_state(make):
    debugger = make()
    debugger.cont()
    states = history(debugger)
    machine = debugger.machine
    for tick in range(len(states) - 2, -1, -1):
        debugger.back()
        assert machine.tick == tick
        assert (machine.cpu.rip, *machine.cpu.gpr) == states[tick]
    debugger.back()
    assert machine.tick == 0


@pytest.mark.parametrize(("start", "target"), [("after", "outer"), ("back", "loop"), ("outer", "fill")])
def test_back_over_undoes_over(make, start, target):
    debugger = make()
    run_to(debugger, target)
    before = debugger.machine.tick
    run_to(debugger, start)
    debugger.back_over()
    assert at(debugger) == target
    assert debugger.machine.tick == before


def test_back_over_an_interrupt(make):
    debugger = make("        int 0x80\nafter: hlt\nh: nop\n iretq\n", '[handlers]\n0x80 = "h"')
    run_to(debugger, "after")
    debugger.back_over()
    assert debugger.machine.tick == 0


@pytest.mark.parametrize(("inside", "target"), [("g", "loop"), ("back", "outer"), ("f", "outer")])
def test_back_out(make, inside, target):
    debugger = make()
    run_to(debugger, inside)
    debugger.back_out()
    assert at(debugger) == target


def test_back_out_of_a_handler_is_the_faulting_instruction(make):
    debugger = make(FAULTING, HANDLER)
    run_to(debugger, "handler")
    debugger.back_out()
    assert at(debugger) == "bad"


def test_back_out_at_the_top_is_the_start(make):
    debugger = make()
    run_to(debugger, "outer")
    debugger.back_out()
    assert debugger.machine.tick == 0


def ticks_at(debugger: Debugger, label: str) -> list[int]:
    address = debugger.machine.image.symbols[label]
    return [tick for tick, state in enumerate(history(debugger)) if state[0] == address]


@pytest.mark.parametrize("label", ["g", "back", "f", "outer"])
def test_back_until_finds_the_last_time(make, label):
    debugger = make()
    debugger.cont()
    end = debugger.machine.last_tick
    expected = [tick for tick in ticks_at(debugger, label) if tick < end]
    debugger.machine.goto(end)
    found = []
    while debugger.machine.tick:
        debugger.back_until(debugger.machine.image.symbols[label])
        found.append(debugger.machine.tick)
    assert found == [*reversed(expected), 0]


def test_back_cont_stops_at_breakpoints_with_their_conditions(make):
    debugger = make()
    debugger.cont()
    address = debugger.machine.image.symbols["g"]
    debugger.breakpoints.add(address, "g", condition=parse("ecx == 2"))
    stop = debugger.back_cont()
    assert stop.reason is StopReason.BREAKPOINT
    assert debugger.machine.cpu.gpr[1] == 2
    debugger.back_cont()
    assert debugger.machine.tick == 0


LONG = """
        mov     ecx, 30000
        call    mark
again:  dec     ecx
        jnz     again
        call    late
        hlt
mark:   ret
late:   nop
        ret
"""


@pytest.mark.parametrize(
    ("command", "where"),
    [
        (lambda d: d.back_until(d.machine.image.symbols["mark"]), "mark"),
        (lambda d: d.back_out(), "start"),
    ],
)
def test_searches_reach_far_back(make, command: Callable[[Debugger], object], where):
    debugger = make(LONG)
    debugger.cont()
    run = debugger.machine
    run.goto(run.last_tick - 2)
    run_label = at(debugger)
    assert run_label == "late+1"
    if where == "start":
        # Inside `late`: its call is two instructions back, and found without looking further.
        command(debugger)
        assert run.tick == run.last_tick - 4
    else:
        command(debugger)
        assert at(debugger) == where
        assert run.tick == 2


def test_rep_of_a_second_execution_stays_apart(make):
    debugger = make("""
        mov     edi, 0x8000
again:  mov     ecx, 4
fill:   rep stosb
        inc     ebx
        cmp     ebx, 2
        jne     again
        hlt
""")
    debugger.cont()
    machine = debugger.machine
    starts = list(ticks_at(debugger, "fill"))
    second = starts[len(starts) // 2]
    machine.goto(second + len(starts) // 2)
    debugger.back_over()
    assert machine.tick == second


@pytest.mark.parametrize("command", ["cont", "out", "over", "step"])
def test_forward_commands_can_be_cancelled(make, command):
    debugger = make("top: call f\n hlt\nf: jmp f\n")
    cancel = threading.Event()
    if command in ("out", "step"):
        debugger.step(2)
    cancel.set()
    method = getattr(debugger, command)
    stop = method(100000, cancel=cancel) if command == "step" else method(cancel=cancel)
    assert stop.reason is StopReason.PAUSED


@pytest.mark.parametrize("command", ["back_cont", "back_out"])
def test_backward_searches_can_be_cancelled_and_stay(make, command):
    debugger = make(LONG)
    debugger.cont()
    machine = debugger.machine
    machine.goto(20000)
    debugger.breakpoints.add(0x123456, "*0x123456")
    cancel = threading.Event()
    cancel.set()
    assert getattr(debugger, command)(cancel=cancel).reason is StopReason.PAUSED
    assert machine.tick == 20000
