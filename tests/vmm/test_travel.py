"""Time travel on a toy processor with hidden state: whatever the way, a tick is a tick."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator

import pytest

from kvmscope.asm.image import Image, Section
from kvmscope.errors import EngineError, UsageError
from kvmscope.vmm import machine as machine_module
from kvmscope.vmm.config import Budget, MachineConfig
from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.machine import Machine
from tests.vmm.toy import ToyEngine

PROGRAM = Image((Section(".text", 0x220000, b"\xf4"),), {})
_MEMORY = 0x300000
Make = Callable[..., Machine]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(machine_module, "make_engine", lambda name, ram, host, *rest: ToyEngine(ram, host))
    monkeypatch.setattr(machine_module, "SYNC_TICKS", 300)
    made: list[Machine] = []

    def build(seed: int = 1, *, history_limit: int = 1 << 30, **budget: int) -> Machine:
        limits = Budget(**{"instructions": 1 << 40, **budget})  # type: ignore[arg-type]
        config = MachineConfig(registers={"rax": seed}, budget=limits, memory=_MEMORY)
        made.append(Machine(config, PROGRAM, history_limit=history_limit))
        return made[-1]

    yield build
    for one in made:
        one.close()


def state(m: Machine) -> tuple[object, ...]:
    """Everything a user can see, as comparable values."""
    snapshot = m.snapshot()
    ram = hashlib.sha256(m.memory.read(0, m.memory.size)).hexdigest()
    return (
        snapshot.tick,
        snapshot.cpu,
        ram,
        m.memory.read(0xFF000000, 65536),
        snapshot.serial,
        snapshot.debugcon,
        snapshot.devices,
        tuple(snapshot.events),
        snapshot.events_dropped,
        m.stop.reason.final,
    )


def forward(m: Machine, tick: int) -> Machine:
    while m.tick < tick and not m.stop.reason.final:
        m.run(tick - m.tick)
    return m


def fresh(make: Make, seed: int, tick: int) -> tuple[object, ...]:
    return state(forward(make(seed), tick))


@pytest.mark.parametrize("seed", range(1, 6))
def test_slices_and_steps_do_not_matter(make: Make, seed: int) -> None:
    whole = make(seed)
    whole.run(3000)
    sliced = make(seed)
    chooser = random.Random(seed)
    while sliced.tick < whole.tick and not sliced.stop.reason.final:
        if chooser.random() < 0.5:
            sliced.step()
        else:
            sliced.run(min(chooser.randrange(1, 400), whole.tick - sliced.tick))
    assert state(sliced) == state(whole)


@pytest.mark.parametrize("limit", [1 << 30, 3 << 20, 1 << 18])
@pytest.mark.parametrize("seed", range(1, 6))
def test_any_tick_is_exact_from_anywhere(make: Make, seed: int, limit: int) -> None:
    m = make(seed, history_limit=limit)
    m.run(5000)
    assert limit > 1 << 20 or m.checkpoints < 10, "the cap thins history out"
    chooser = random.Random(seed)
    end = m.last_tick
    for _ in range(12):
        tick = chooser.randrange(end + 1)
        m.goto(tick)
        assert m.last_tick == end
        assert state(m) == fresh(make, seed, tick)
        if chooser.random() < 0.5:
            for _ in range(chooser.randrange(20)):
                m.step()
            assert state(m) == fresh(make, seed, m.tick)
            end = m.last_tick
    m.goto(end)
    m.run(1000)
    assert state(m) == fresh(make, seed, m.tick)


def test_the_final_stop_comes_back_with_its_tick(make: Make) -> None:
    m = make(1)
    m.run()
    final = m.stop
    assert final.reason is StopReason.EXCEPTION
    assert m.step() == final, "a guest that ended stays ended"
    assert m.run() == final
    m.goto(final.tick - 1)
    assert m.stop.reason is StopReason.PAUSED
    assert m.step() == final
    m.goto(0)
    assert m.stop.reason is StopReason.READY
    assert m.goto(final.tick) == final


@pytest.mark.parametrize("seed", range(1, 5))
def test_edits_are_part_of_history(make: Make, seed: int) -> None:
    """A machine edited on the way equals itself after any travel; an edit in the past makes another future."""
    chooser = random.Random(seed)
    m = make(seed)
    seen: dict[int, tuple[object, ...]] = {}
    for _ in range(12):
        m.run(chooser.randrange(700))
        if chooser.random() < 0.4:
            m.goto(chooser.randrange(m.last_tick + 1))
        if chooser.random() < 0.6:
            if chooser.random() < 0.5:
                m.write_register("rbx", chooser.getrandbits(64))
            else:
                m.write_memory(0x200000 + chooser.randrange(60000), chooser.randbytes(9))
            assert m.last_tick == m.tick
            assert not m.stop.reason.final
            seen = {tick: value for tick, value in seen.items() if tick < m.tick}
        seen[m.tick] = state(m)
    for _ in range(40):
        tick = chooser.choice(list(seen))
        if chooser.random() < 0.5:
            m.goto(tick)
        else:
            m.goto(chooser.randrange(tick + 1))
            while m.tick < tick:
                if chooser.random() < 0.1:
                    m.step()
                else:
                    m.run(min(tick - m.tick, chooser.randrange(1, 500)))
        assert state(m) == seen[tick]


def test_an_edit_lifts_a_final_stop_and_going_past_it_works(make: Make) -> None:
    m = make(1)
    end = m.run().tick
    m.write_register("rax", 99)
    assert m.stop.reason is StopReason.READY
    m.run(500)
    assert m.tick == end + 500 or m.stop.reason.final
    last = state(m)
    m.goto(end - 10)
    m.run(m.last_tick - m.tick)
    assert state(m) == last
    m.goto(end)
    assert m.cpu.gpr[0] == 99


def test_deltas_are_exact_forwards_and_backwards(make: Make) -> None:
    m = make(3)
    chooser = random.Random(3)
    for _ in range(60):
        before_ram = bytearray(m.memory.read(0, m.memory.size) or b"")
        before = m.snapshot()
        events, serial = m.events, m.serial
        mark = m.mark()
        choice = chooser.random()
        if choice < 0.4:
            m.step()
        elif choice < 0.7:
            m.run(chooser.randrange(500))
        elif choice < 0.9:
            m.goto(chooser.randrange(m.last_tick + 1))
        else:
            m.write_memory(chooser.randrange(1 << 20), chooser.randbytes(5))
        delta = m.delta_since(mark)
        assert not delta.memory_truncated
        for change in delta.memory:
            span = slice(change.address, change.address + len(change.old))
            assert before_ram[span] == change.old
            before_ram[span] = change.new
        assert before_ram == m.memory.read(0, m.memory.size)
        assert delta.ticks == m.tick - before.tick
        assert ("rax" in delta.registers) == (before.cpu.gpr[0] != m.cpu.gpr[0])
        if delta.ticks >= 0:
            assert tuple(events) + delta.events == tuple(m.events)
            assert serial + delta.serial == m.serial
        else:
            assert delta.events == ()
            assert delta.serial == b""


def test_only_the_newest_mark_counts(make: Make) -> None:
    m = make()
    old = m.mark()
    m.mark()
    with pytest.raises(ValueError, match="newest"):
        m.delta_since(old)
    newest = m.mark()
    m.reset()
    with pytest.raises(ValueError, match="newest"):
        m.delta_since(newest)


def test_breakpoints_stop_also_at_the_end_of_a_slice(make: Make) -> None:
    reference = make(2)
    hits = []
    for _ in range(2000):
        reference.step()
        if reference.cpu.pc == 0x400005:
            hits.append(reference.tick)
    assert len(hits) > 10
    for slice_ticks in (1, 7, 1 << 20):
        m = make(2)
        m._slice = slice_ticks
        m.set_breakpoints([0x400005])
        found = []
        while (stop := m.run(2000 - m.tick)).reason is StopReason.BREAKPOINT:
            assert stop.breakpoint == 0x400005
            found.append(stop.tick)
            m._slice = slice_ticks
        assert found == hits
        m.goto(hits[3])
        assert m.tick == hits[3], "breakpoints do not stop time travel"
        assert m.run().tick == hits[4]


def test_history_ends_where_it_ends(make: Make) -> None:
    m = make()
    m.run(100)
    for tick in (-1, 101):
        with pytest.raises(UsageError) as caught:
            m.goto(tick)
        assert "0 to 100" in caught.value.detail
    assert m.tick == 100


def test_wrong_edits_change_nothing(make: Make) -> None:
    m = make()
    m.run(100)
    m.goto(50)
    for name, value, title in [("rxx", 1, "Unknown register"), ("al", 256, "does not fit")]:
        with pytest.raises(UsageError, match=title):
            m.write_register(name, value)
    for address, size in [(-1, 1), (_MEMORY, 1), (_MEMORY - 1, 2)]:
        with pytest.raises(UsageError, match="no RAM"):
            m.write_memory(address, bytes(size))
    m.write_memory(0, b"")
    assert (m.tick, m.last_tick) == (50, 100)


def test_reset_is_a_fresh_machine(make: Make) -> None:
    m = make(4)
    first = state(m)
    m.run(1000)
    later = state(m)
    m.reset()
    assert state(m) == first
    assert m.last_tick == 0
    m.run(1000)
    assert state(m) == later


def test_budgets_of_instructions_and_output(make: Make) -> None:
    m = make(1, instructions=1000, output=10)
    stop = m.run()
    while stop.reason is StopReason.BUDGET and stop.tick < 1000:
        assert "output" in stop.detail
        assert len(m.serial) + len(m.debugcon) == 10
        stop = m.run()
    assert (stop.reason, stop.tick) == (StopReason.BUDGET, 1000)
    assert "instructions: 1000" in stop.detail
    assert m.step() == stop
    assert m.tick == 1000
    m.goto(990)
    while m.run().tick < 1000:
        assert "output" in m.stop.detail
    assert "instructions" in m.stop.detail


def test_events_are_bounded_and_counted(make: Make) -> None:
    m = make(2, events=100)
    m.run(3000)
    snapshot = m.snapshot()
    assert 0 < len(snapshot.events) <= 100
    whole = make(2)
    whole.run(3000)
    everything = tuple(whole.events)
    assert len(everything) == len(snapshot.events) + snapshot.events_dropped
    assert everything[snapshot.events_dropped :] == tuple(snapshot.events)


def test_a_replay_that_goes_astray_is_said(make: Make) -> None:
    m = make(1)
    m.run(3000)
    checkpoint = m._history.find(1500)
    checkpoint.positions = (1, 2, 3)
    m.goto(100)
    with pytest.raises(EngineError, match="replay"):
        m.run(2000)


def test_a_closed_machine_says_so(make: Make) -> None:
    m = make()
    m.run(10)
    memory = m.snapshot().memory
    m.close()
    m.close()
    assert memory.read(0, 16) is None
    with pytest.raises(EngineError, match="closed"):
        m.step()
