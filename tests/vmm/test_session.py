"""The session's thread: messages in order, stopping at once, errors that do not end it."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from kvmscope.asm.image import Image, Section
from kvmscope.errors import EngineError, UsageError
from kvmscope.vmm.config import Budget, MachineConfig
from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.machine import Machine
from kvmscope.vmm.session import (
    Context,
    Edit,
    Failed,
    Goto,
    Message,
    Progress,
    Reset,
    Run,
    Session,
    Started,
    Step,
    Stopped,
)

LOOP = Image((Section(".text", 0x400000, bytes.fromhex("ffc0 ebfc")),), {})  # inc eax; jmp back
Open = Callable[..., "Desk"]


class Desk:
    """A session and what its listener heard."""

    def __init__(self, factory: Callable[[], Machine]) -> None:
        self.heard: queue.Queue[Message] = queue.Queue()
        self.threads: set[threading.Thread] = set()
        self.session = Session(factory, self.listen)

    def listen(self, message: Message) -> None:
        self.threads.add(threading.current_thread())
        self.heard.put(message)

    def next(self) -> Message:
        """The next message that is not progress."""
        while isinstance(message := self.heard.get(timeout=30), Progress):
            pass
        return message

    def do(self, command: Callable[[Context], object]) -> Message:
        self.session.submit(command)  # type: ignore[arg-type]
        return self.next()


def machine() -> Machine:
    return Machine(MachineConfig(budget=Budget(instructions=1 << 40, seconds=600)), LOOP)


@pytest.fixture
def desk() -> Iterator[Open]:
    made: list[Desk] = []

    def build(factory: Callable[[], Machine] = machine) -> Desk:
        made.append(Desk(factory))
        return made[-1]

    yield build
    for one in made:
        one.session.close()


def test_commands_are_answered_in_order(desk: Open) -> None:
    d = desk()
    first = d.next()
    assert isinstance(first, Started)
    assert first.snapshot.tick == 0
    for command in (Step(), Step(3), Run(100)):
        d.session.submit(command)
    answers = [d.next() for _ in range(3)]
    assert [a.command for a in answers if isinstance(a, Stopped)] == [Step(), Step(3), Run(100)]
    assert [a.snapshot.tick for a in answers if isinstance(a, Stopped)] == [1, 4, 104]
    assert [a.delta.ticks for a in answers if isinstance(a, Stopped)] == [1, 3, 100]
    assert len(d.threads) == 1
    assert threading.current_thread() not in d.threads


def test_stop_ends_a_run_at_once_and_drops_what_waits(desk: Open) -> None:
    d = desk()
    d.next()
    d.session.submit(Run())
    assert isinstance(d.heard.get(timeout=30), Progress)
    d.session.submit(Step())
    d.session.submit(Step())
    d.session.stop()
    answer = d.next()
    assert isinstance(answer, Stopped)
    assert answer.command == Run()
    assert answer.snapshot.stop.reason is StopReason.PAUSED
    assert not d.session.busy
    after = d.do(Step())
    assert isinstance(after, Stopped)
    assert after.snapshot.tick == answer.snapshot.tick + 1, "a stop does not linger, dropped commands are gone"
    d.session.stop()
    assert isinstance(d.do(Run(10)), Stopped)


def test_waking_a_command_that_is_over_costs_nothing(desk: Open) -> None:
    m = machine()
    m.wake()
    assert m.step().tick == 1
    m.wake()
    assert m.run(100).tick == 101
    m.wake()
    assert m.goto(50).tick == 50
    m.wake()
    assert m.goto(101).tick == 101
    m.close()


def test_a_guest_can_be_paused_anywhere_and_history_holds(desk: Open) -> None:
    d = desk()
    d.next()
    for _ in range(5):
        d.session.submit(Run())
        assert isinstance(d.heard.get(timeout=30), Progress)
        d.session.stop()
        answer = d.next()
        assert isinstance(answer, Stopped)
        tick = answer.snapshot.tick
        assert answer.snapshot.cpu.gpr[0] == (tick + 1) // 2 & 0xFFFFFFFF
    back = d.do(Goto(-1, relative=True))
    assert isinstance(back, Stopped)
    assert back.snapshot.tick == tick - 1
    assert back.delta.ticks == -1
    back = d.do(Goto(1001))
    assert isinstance(back, Stopped)
    assert back.snapshot.cpu.gpr[0] == 501
    assert back.snapshot.last_tick == tick


def test_progress_is_not_a_flood(desk: Open) -> None:
    d = desk()
    d.next()
    d.session.submit(Run(12_000_000))
    ticks = []
    while isinstance(message := d.heard.get(timeout=30), Progress):
        ticks.append(message.tick)
    assert ticks == sorted(set(ticks))
    assert len(ticks) < 12_000_000 / 100_000, "fewer than slices"


def test_mistakes_are_answers(desk: Open) -> None:
    d = desk()
    d.next()
    d.do(Run(50))
    wrong = d.do(Goto(51))
    assert isinstance(wrong, Failed)
    assert isinstance(wrong.error, UsageError)
    assert wrong.snapshot is not None
    assert wrong.snapshot.tick == 50
    wrong = d.do(Edit(name="nonsense", value=1))
    assert isinstance(wrong, Failed)
    assert "nonsense" in wrong.error.title

    def broken(context: Context) -> None:
        raise ZeroDivisionError("boom")

    wrong = d.do(broken)
    assert isinstance(wrong, Failed)
    assert isinstance(wrong.error, EngineError)
    assert "ZeroDivisionError" in wrong.error.title
    assert isinstance(d.do(Step()), Stopped), "the thread lives on"


def test_edits_and_reset(desk: Open) -> None:
    d = desk()
    d.next()
    d.do(Run(10))
    answer = d.do(Edit(name="eax", value=1000))
    assert isinstance(answer, Stopped)
    assert answer.delta.registers == {"rax": 5}
    answer = d.do(Edit(address=0x300000, data=b"xyz"))
    assert isinstance(answer, Stopped)
    assert [(c.address, c.old, c.new) for c in answer.delta.memory] == [(0x300000, bytes(3), b"xyz")]
    answer = d.do(Reset())
    assert isinstance(answer, Stopped)
    assert (answer.snapshot.tick, answer.snapshot.last_tick, answer.snapshot.cpu.gpr[0]) == (0, 0, 0)
    assert answer.snapshot.memory.read(0x300000, 3) == bytes(3)
    answer = d.do(Step())
    assert isinstance(answer, Stopped)
    assert answer.delta.ticks == 1


def test_a_machine_that_cannot_boot_is_an_answer(desk: Open) -> None:
    d = desk(lambda: Machine(MachineConfig(entry="nowhere"), LOOP))
    failed = d.next()
    assert isinstance(failed, Failed)
    assert "nowhere" in failed.error.title
    assert failed.snapshot is None
    failed = d.do(Step())
    assert isinstance(failed, Failed)
    assert failed.command == Step()


def test_closing_ends_a_run_and_joins(desk: Open) -> None:
    d = desk()
    d.next()
    d.session.submit(Run())
    assert isinstance(d.heard.get(timeout=30), Progress)
    d.session.close()
    (thread,) = d.threads
    assert not thread.is_alive()
    d.session.close()
    with pytest.raises(EngineError, match="closed"):
        d.session.submit(Step())


def test_no_textual_is_loaded() -> None:
    code = "import sys, kvmscope.vmm.session; sys.exit('textual' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
