"""The debugger on a machine whose vCPUs have their turns: what one does is told from what the others do."""

from __future__ import annotations

import pytest

from kvmscope.debug.debugger import Debugger
from kvmscope.vmm.engine import StopReason
from tests.debug.support import TWO_VCPUS, boot

SHARED = """
        mov     sp, 0x7c00
        mov     ecx, 0x1b
        rdmsr
        or      eax, 0xc00
        wrmsr
        mov     edx, 1
        mov     ecx, 0x830
        mov     eax, 0x4500
        wrmsr
        mov     eax, 0x4608
        wrmsr
        xor     bx, bx
        ljmp    0x800, offset again - 0x8000
        .section .ap, 0x8000
        .code16
        mov     sp, 0x7000
        mov     bx, 0x100
again:  call    work
after:  inc     si
        jmp     again
work:   inc     bx
        pause
        inc     bx
        pause
        ret
"""
"""Both execute the same routine, in real mode."""


@pytest.fixture
def two():
    machine, image = boot(TWO_VCPUS, "smp = 2")
    yield Debugger(machine), machine, image
    machine.close()


@pytest.fixture
def shared():
    machine, image = boot(SHARED, 'mode = "real16"\nsmp = 2')
    yield Debugger(machine), machine, image
    machine.close()


def own(machine):
    return machine.cpu.gpr, machine.cpu.rip


def test_a_step_back_undoes_the_last_instruction_of_the_selected_vcpu(two):
    debugger, machine, _ = two
    machine.run(20_000)
    for vcpu in (0, 1):
        machine.select(vcpu)
        seen = []
        for _ in range(8):
            seen.append(own(machine))
            debugger.step()
        for state in reversed(seen):
            debugger.back()
            assert machine.vcpu == vcpu
            assert own(machine) == state


def test_a_step_back_over_another_ones_turn(two):
    debugger, machine, image = two
    machine.set_breakpoints({image.symbols["second"]})
    machine.run()
    machine.set_breakpoints(())
    machine.run(1_000)
    # vCPU 1 is in the middle of its turn; vCPU 0 has been waiting for its own since it sent the start-up IPI.
    machine.select(0)
    assert machine.turn == 1
    before = machine.cpu.pc
    debugger.back()
    assert machine.turn == 0
    assert machine.cpu.pc < before or before == image.symbols["first"]
    assert machine.tick < 1_000


def test_a_vcpu_that_has_executed_nothing_sees_the_others_undone(two):
    debugger, machine, _ = two
    machine.run(4)
    machine.select(1)
    debugger.back()
    assert machine.tick == 3
    assert machine.vcpu == 1


def test_stepping_over_a_call_waits_for_its_own_return(shared):
    debugger, machine, image = shared
    debugger.until(image.symbols["again"])
    machine.run(400)
    for vcpu in (0, 1):
        machine.select(vcpu)
        while machine.cpu.pc != image.symbols["again"]:
            assert debugger.step().reason is StopReason.STEP
        before = machine.cpu.gpr[3] & 0xFFFF
        assert debugger.over().reason is StopReason.STEP
        assert machine.vcpu == vcpu
        assert machine.cpu.pc == image.symbols["after"]
        assert machine.cpu.gpr[3] & 0xFFFF == before + 2 & 0xFFFF


def test_stepping_back_over_a_call_finds_its_own(shared):
    debugger, machine, image = shared
    debugger.until(image.symbols["again"])
    machine.run(400)
    machine.select(1)
    while machine.cpu.pc != image.symbols["again"]:
        debugger.step()
    before = own(machine)
    debugger.over()
    debugger.back_over()
    assert machine.vcpu == 1
    assert own(machine) == before


def test_going_back_to_a_breakpoint_selects_who_was_there(two):
    debugger, machine, image = two
    debugger.until(image.symbols["second"])
    machine.run(10_000)
    machine.select(0)
    debugger.breakpoints.add(image.symbols["second"], "second")
    stop = debugger.back_cont()
    assert stop.reason is StopReason.BREAKPOINT
    assert machine.vcpu == 1
    assert machine.cpu.pc == image.symbols["second"]


def test_running_to_a_place_takes_whoever_comes(two):
    debugger, machine, image = two
    assert debugger.until(image.symbols["second"]).reason is StopReason.STEP
    assert machine.vcpu == 1
    machine.select(1)
    debugger.until(image.symbols["first"])
    assert machine.vcpu == 0


def test_what_is_frozen_belongs_to_history(two):
    debugger, machine, image = two
    debugger.until(image.symbols["second"])
    tick = machine.tick
    machine.run(100)
    machine.freeze({0})
    machine.run(100)
    assert machine.frozen == {0}
    machine.goto(tick)
    assert machine.frozen == frozenset()
    assert not machine.snapshot().vcpus[0].frozen
    machine.goto(machine.last_tick)
    assert machine.snapshot().vcpus[0].frozen
