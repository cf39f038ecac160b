"""Stepping by lines of C, forward and back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmscope.asm.loading import load_image
from kvmscope.debug.commands import CommandContext, execute
from kvmscope.debug.debugger import Debugger
from kvmscope.debug.lines import back_line, step_line
from kvmscope.errors import UsageError
from kvmscope.vmm.config import MachineConfig, Mode
from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.machine import Machine
from tests.asm.loading.support import assembled, compiled, says


@pytest.fixture(scope="module")
def image_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("lines"))


@pytest.fixture
def debugger(image_path: Path) -> Iterator[Debugger]:
    machine = Machine(MachineConfig(mode=Mode.MULTIBOOT), load_image(image_path).image)
    yield Debugger(machine)
    machine.close()


def line(debugger: Debugger) -> int:
    place = debugger.machine.image.place_at(debugger.machine.cpu.pc)
    return place.line if place else 0


def walk(debugger: Debugger, *, into: bool) -> list[int]:
    """The lines that stepping goes through, from main's opening brace to the guest's end."""
    lines = []
    while step_line(debugger, into=into).reason is StopReason.STEP:
        lines.append(line(debugger))
        assert len(lines) < 100
    return lines


def statements(lines: list[int]) -> list[int]:
    """Without repetitions: compilers differ in how many statements a `for` or a function's head has."""
    return [one for i, one in enumerate(lines) if i == 0 or lines[i - 1] != one]


def test_next_stays_in_its_function(debugger: Debugger) -> None:
    assert statements(walk(debugger, into=False))[:12] == []  # start has no lines: the call runs over main
    assert debugger.machine.debug_exit == 0


def enter_main(debugger: Debugger) -> None:
    assert step_line(debugger, into=True).reason is StopReason.STEP
    assert line(debugger) == 12


def test_next_runs_over_calls(debugger: Debugger) -> None:
    enter_main(debugger)
    assert statements(walk(debugger, into=False)) == [13, 14, 15, 14, 15, 14, 16, 17, 18, 19]


def test_step_goes_into_functions_that_have_lines(debugger: Debugger) -> None:
    enter_main(debugger)
    once = [15, 4, 5, 6, 7]
    expected = [13, 14, *once, 14, *once, 14, 16, 17, 9, 18, 19]
    # The end of a call leads into the middle of its line, which is no place to stop.
    assert statements(walk(debugger, into=True)) == expected


def test_step_sees_each_level_of_a_recursion(debugger: Debugger) -> None:
    enter_main(debugger)
    debugger.until(debugger.machine.image.symbols["down"])
    depths = {debugger.machine.cpu.gpr[4]}
    while line(debugger) == 9:
        step_line(debugger, into=True)
        depths.add(debugger.machine.cpu.gpr[4])
    assert len(depths) >= 3


def test_back_undoes_steps_exactly(debugger: Debugger) -> None:
    enter_main(debugger)
    ticks = [debugger.machine.tick]
    while step_line(debugger, into=True).reason is StopReason.STEP:
        ticks.append(debugger.machine.tick)
    # Statements of one line after each other are one place to come back to.
    begins = []
    debugger.machine.goto(ticks[-1])
    while debugger.machine.tick > ticks[0]:
        back_line(debugger, into=True)
        begins.append(debugger.machine.tick)
    assert set(begins) <= set(ticks)
    assert begins == sorted(begins, reverse=True)
    assert len(begins) >= len(ticks) * 2 // 3


def test_back_over_calls_stays_in_the_function(debugger: Debugger) -> None:
    enter_main(debugger)
    while line(debugger) != 18:
        step_line(debugger, into=False)
    lines = []
    for _ in range(9):
        back_line(debugger, into=False)
        lines.append(line(debugger))
    assert statements(lines)[:7] == [17, 16, 14, 15, 14, 15, 14]


def test_commands(debugger: Debugger) -> None:
    context = CommandContext(debugger.machine, debugger)  # type: ignore[arg-type]
    execute("step", context)
    assert execute("next 2", context).lines[-1].endswith("code.c:14")
    execute("stepi", context)
    execute("reverse-step", context)
    assert line(debugger) == 14
    execute("rn", context)
    assert line(debugger) == 13


def test_locations(debugger: Debugger) -> None:
    context = CommandContext(debugger.machine, debugger)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no file"):
        execute("break 16", context)
    assert "code.c:16" in execute("break code.c:16", context).lines[0]
    execute("continue", context)
    assert line(debugger) == 16
    assert execute("info line 18", context).lines[0].endswith(": return sum - 2;")
    execute("until 18", context)
    assert line(debugger) == 18
    with pytest.raises(UsageError) as caught:
        execute("break cod.c:1", context)
    assert "code.c" in caught.value.hint
    with pytest.raises(UsageError, match="No code at or after line 99"):
        execute("break 99", context)


def test_without_lines(tmp_path: Path) -> None:
    machine = Machine(MachineConfig(mode=Mode.MULTIBOOT), load_image(assembled(tmp_path, says("a"))).image)
    try:
        debugger = Debugger(machine)
        with pytest.raises(UsageError, match="no line table"):
            step_line(debugger, into=True)
        with pytest.raises(UsageError, match="no line table"):
            back_line(debugger, into=True)
        context = CommandContext(machine, debugger)  # type: ignore[arg-type]
        assert re.match("tick 2: ", execute("step 2", context).lines[-1])
    finally:
        machine.close()
