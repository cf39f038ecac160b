from __future__ import annotations

import pytest

from kvmscope.debug.commands import CommandContext, complete, execute
from kvmscope.debug.debugger import Debugger
from kvmscope.errors import UsageError
from kvmscope.vmm.engine import StopReason
from tests.debug.support import TWO_VCPUS, boot


@pytest.fixture
def context():
    machine, _ = boot(TWO_VCPUS, 'mode = "long64"\nsmp = 2')
    yield CommandContext(machine, Debugger(machine))
    machine.close()


@pytest.fixture
def running(context):
    """Both count, vCPU 1 is looked at."""
    execute("until second", context)
    execute("thread 1", context)
    return context


def said(line: str, context: CommandContext) -> str:
    return "\n".join(execute(line, context).lines)


def test_info_threads_is_a_table(context):
    assert execute("info threads", context).lines == (
        "  vCPU  activity       mode          turn  next instruction",
        "* 0     active         64-bit CPL 0  next  0x400000 <start>, line 6",
        "  1     wait-for-SIPI  real mode           0xfffffff0",
    )
    assert said("info vcpus 1", context).count("\n") == 1


def test_a_machine_with_one_vcpu_says_so():
    machine, _ = boot("hlt\n")
    try:
        one = CommandContext(machine, Debugger(machine))
        assert said("info threads", one) == "One vCPU, at 0x400000, line 3"
        assert said("thread 0", one) == "vCPU 0: 0x400000, line 3"
        with pytest.raises(UsageError, match="There is no vCPU 1"):
            execute("thread 1", one)
        with pytest.raises(UsageError, match="All vCPUs would be frozen"):
            execute("freeze 0", one)
    finally:
        machine.close()


def test_a_thread_is_selected_and_stepped(running):
    assert said("thread", running) == "vCPU 1, active: 0x8001 <second>, line 17"
    assert running.machine.vcpu == 1
    assert "0x8002" in said("si", running)
    assert running.machine.snapshot().cpu.gpr[1] & 0xFFFF == 1
    assert said("vcpu 0", running).startswith("vCPU 0, active: 0x4000")


def test_frozen_vcpus_stand_still(running):
    assert said("freeze others", running) == "frozen: 0"
    before = running.machine.snapshot().vcpus[0].cpu
    running.machine.run(10_000)
    assert running.machine.snapshot().vcpus[0].cpu == before
    assert "frozen" in said("info threads 0", running)
    assert said("thaw", running) == "every vCPU gets its turn"
    running.machine.run(10_000)
    assert running.machine.snapshot().vcpus[0].cpu != before


def test_scheduler_locking_follows_the_selected_one(running):
    assert said("set scheduler-locking on", running) == "frozen: 0"
    execute("thread 0", running)
    assert said("set scheduler-locking on", running) == "frozen: 1"
    assert said("set scheduler-locking off", running) == "every vCPU gets its turn"


def test_what_is_frozen_already_does_not_cut_the_future(running):
    execute("freeze 0", running)
    running.machine.run(100)
    running.machine.goto(running.machine.tick - 50)
    last = running.machine.last_tick
    assert not execute("freeze 0", running).changed
    assert running.machine.last_tick == last
    assert execute("thaw 0", running).changed
    assert running.machine.last_tick == running.machine.tick


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("thread 2", "There is no vCPU 2"),
        ("freeze", "freeze needs vCPUs"),
        ("freeze 7", "There is no vCPU 7"),
        ("freeze x", "no vCPU number"),
        ("freeze all", "All vCPUs would be frozen"),
        ("set scheduler-locking maybe", "scheduler-locking is on or off"),
        ("info devices nothing", "There is no device"),
    ],
)
def test_mistakes_are_named(context, line, words):
    with pytest.raises(UsageError, match=words):
        execute(line, context)


def test_devices_by_name(context):
    every = said("info devices", context)
    assert "uart" in every
    assert "lapic 1" in every
    one = execute("info devices lapic 0", context).lines
    assert one[0].startswith("lapic 0: xAPIC")
    assert any(line.split()[:1] == ["SVR"] for line in one)
    assert sum(line.startswith("lapic ") for line in execute("info devices lapic", context).lines) == 2


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("thread ", "thread 1"),
        ("freeze o", "freeze others"),
        ("info dev", "info devices"),
        ("info devices lap", "info devices lapic 1"),
        ("info threads ", "info threads 0"),
        ("set sched", "set scheduler-locking on"),
        ("set scheduler-locking of", "set scheduler-locking off"),
    ],
)
def test_completion(context, line, wanted):
    assert wanted in complete(line, context)


def test_a_machine_that_halts_for_its_frozen_vcpus_goes_on_after_thaw(context):
    execute("thread 1", context)
    execute("freeze others", context)
    said("c", context)
    assert context.machine.stop.reason is StopReason.HLT
    words = said("explain", context)
    assert "nothing can wake any processor (frozen: 0)" in words
    assert "vCPU 0: active at 0x400000 <start>, line 6, and frozen" in words
    assert "thaw" in words
    execute("thaw", context)
    assert "<second>" in said("until second", context)
