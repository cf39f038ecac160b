"""The real engine's history: whatever the way to a tick, the guest is the same there."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator

import pytest

from kvmscope.vmm import board as board_module
from kvmscope.vmm import dirty
from kvmscope.vmm import machine as machine_module
from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.machine import Machine
from tests.vmm.guests import GUESTS, Guest, build

Make = Callable[..., Machine]
IDS = [guest.name for guest in GUESTS]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    # Closer together than in earnest, so that a short run passes many of them.
    monkeypatch.setattr(machine_module, "SYNC_TICKS", 400)
    monkeypatch.setattr(board_module, "SYNC_EVENTS", 60)
    made: list[Machine] = []

    def build_machine(guest: Guest, **options: int) -> Machine:
        made.append(Machine(guest.config(), build(guest.source, guest.mode), **options))
        return made[-1]

    yield build_machine
    for one in made:
        one.close()


def state(m: Machine) -> tuple[object, ...]:
    snapshot = m.snapshot()
    return (
        snapshot.tick,
        snapshot.cpu,
        zlib.crc32(m.memory.read(0, m.memory.size) or b""),
        snapshot.serial,
        snapshot.debugcon,
        snapshot.devices,
        tuple(snapshot.events),
        snapshot.vcpus,
        snapshot.time,
    )


def references(make: Make, guest: Guest, ticks: list[int]) -> dict[int, tuple[object, ...]]:
    """States of one straight run at ``ticks``."""
    m = make(guest)
    out = {}
    for tick in sorted(ticks):
        if tick > m.tick:
            stop = m.run(tick - m.tick)
            assert stop.reason is StopReason.SLICE, stop
        out[tick] = state(m)
    return out


@pytest.mark.parametrize("guest", GUESTS, ids=IDS)
def test_the_guest_does_what_it_is_for(make: Make, guest: Guest) -> None:
    m = make(guest)
    assert m.run(guest.ticks).reason is StopReason.SLICE
    assert m.tick == guest.ticks


def test_stale_translations_are_seen_and_end_at_the_same_tick(make: Make) -> None:
    """The guest moves a page without INVLPG: loads go on through the old translation until the TLB is flushed."""
    m = make(GUESTS[1])
    seen = []
    while m.tick < 2000:
        m.step()
        if m.cpu.pc == 0x40001D:  # the load is done
            physical = m.translate(0x210000)
            assert physical is not None
            seen.append((m.tick, m.cpu.gpr[0] != int.from_bytes(m.memory.read(physical, 4) or b"", "little")))
    assert {stale for _, stale in seen} == {False, True}
    again = make(GUESTS[1])
    for tick, stale in seen:
        if tick > again.tick:
            again.run(tick - again.tick)
        physical = again.translate(0x210000)
        assert physical is not None
        assert (again.cpu.gpr[0] != int.from_bytes(again.memory.read(physical, 4) or b"", "little")) == stale


@pytest.mark.parametrize("guest", GUESTS, ids=IDS)
def test_one_run_slices_and_steps_are_the_same(make: Make, guest: Guest) -> None:
    chooser = random.Random(1)
    whole, sliced = make(guest), make(guest)
    while sliced.tick < guest.ticks:
        if chooser.random() < 0.6:
            for _ in range(min(chooser.randrange(30), guest.ticks - sliced.tick)):
                sliced.step()
        else:
            sliced.run(min(chooser.randrange(1, 500), guest.ticks - sliced.tick))
    # A step of one processor may have given the others their turns.
    whole.run(sliced.tick)
    assert state(sliced) == state(whole)


@pytest.mark.parametrize("guest", GUESTS, ids=IDS)
def test_every_jump_is_exact(make: Make, guest: Guest) -> None:
    chooser = random.Random(2)
    ticks = [chooser.randrange(guest.ticks + 1) for _ in range(15)]
    wanted = references(make, guest, [*ticks, *(max(0, tick - 1) for tick in ticks), guest.ticks])
    m = make(guest)
    m.run(guest.ticks)
    for tick in ticks:
        m.goto(tick)
        assert state(m) == wanted[tick]
        m.goto(max(0, tick - 1))
        assert state(m) == wanted[max(0, tick - 1)], "step back"
        if tick:
            if guest.smp == 1:
                m.step()
            else:
                # A step of one processor of several may give the others their turns.
                m.run(1)
            assert state(m) == wanted[tick], "and forward again"
    m.run(guest.ticks - m.tick)
    assert state(m) == wanted[guest.ticks]


@pytest.mark.parametrize("seed", range(3, 7))
def test_every_jump_is_exact_where_interrupts_come_between(make: Make, seed: int) -> None:
    """An interrupt that wakes a HLT may not make the synchronization at the HLT's own tick, before it was taken."""
    guest = next(guest for guest in GUESTS if guest.name.startswith("timers"))
    chooser = random.Random(seed)
    ticks = [chooser.randrange(guest.ticks + 1) for _ in range(15)]
    wanted = references(make, guest, [*ticks, *(max(0, tick - 1) for tick in ticks), guest.ticks])
    m = make(guest)
    m.run(guest.ticks)
    for tick in ticks:
        for wish in (tick, max(0, tick - 1)):
            m.goto(wish)
            assert state(m) == wanted[wish]


def test_history_without_help_of_the_kernel(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirty, "tracker_name", lambda: "compare")
    test_every_jump_is_exact(make, GUESTS[0])
    test_step_deltas_are_exact(make, GUESTS[3])


@pytest.mark.parametrize("guest", GUESTS, ids=IDS)
def test_step_deltas_are_exact(make: Make, guest: Guest) -> None:
    m = make(guest)
    m.run(random.Random(3).randrange(500))
    for _ in range(120):
        before = bytearray(m.memory.read(0, m.memory.size) or b"")
        old, events = m.cpu, len(m.events)
        mark = m.mark()
        m.step()
        delta = m.delta_since(mark)
        for change in delta.memory:
            span = slice(change.address, change.address + len(change.old))
            assert before[span] == change.old
            before[span] = change.new
        assert before == m.memory.read(0, m.memory.size)
        assert ("rip" in delta.registers) == (old.rip != m.cpu.rip)
        assert ("rflags" in delta.registers) == (old.rflags != m.cpu.rflags)
        assert delta.events == tuple(m.events[events:])
        assert delta.ticks == 1 or guest.smp > 1


def test_accessed_and_dirty_bits_are_in_the_delta(make: Make) -> None:
    guest = Guest("touch", "mov [0x300000], al\n hlt", paging=None)
    m = make(guest)
    cpu = m.cpu
    assert cpu.cr3 == 0x90000
    m.step()
    m.goto(0)
    mark = m.mark()
    m.step()
    touched = {change.address for change in m.delta_since(mark).memory}
    page_tables = {address & ~0xFFF for address in touched}
    assert 0x90000 in page_tables, "the PML4 entry's A bit"
    assert len(page_tables) >= 4
    assert 0x300000 not in touched, "a byte written with what it held did not change"


@pytest.mark.parametrize("guest", GUESTS, ids=IDS)
def test_edits_survive_travel(make: Make, guest: Guest) -> None:
    chooser = random.Random(4)
    m = make(guest)
    seen: dict[int, tuple[object, ...]] = {}
    for i in range(8):
        stop = m.run(chooser.randrange(1, 300))
        if stop.reason.final:
            break
        if i % 3 == 2:
            m.goto(chooser.randrange(m.last_tick))
        m.write_register(chooser.choice(["r12", "r13"] if guest.mode is guest.mode.LONG64 else ["esi"]), i)
        m.write_memory(0x3F0000, bytes([i] * 3))
        seen = {tick: value for tick, value in seen.items() if tick < m.tick}
        seen[m.tick] = state(m)
    for tick in [*seen, *reversed(seen)]:
        m.goto(tick)
        assert state(m) == seen[tick]
        m.goto(0)


def test_code_edited_by_the_user_is_executed(make: Make) -> None:
    m = make(Guest("loop", "start: inc eax\n jmp start"))
    m.run(100)
    assert m.cpu.gpr[0] == 50
    m.write_memory(0x400000, bytes.fromhex("ffc8"))  # dec eax
    m.run(100)
    assert m.cpu.gpr[0] == 0
    m.goto(100)
    assert m.cpu.gpr[0] == 50
    m.goto(50)
    assert m.memory.read(0x400000, 2) == bytes.fromhex("ffc0")
    m.run(150)
    assert m.cpu.gpr[0] == 0


@pytest.mark.parametrize(
    "instruction", ["mov [rbx], al", "div ecx", "rdmsr", "mov cr8, rbx", "mov byte ptr [rip + next], 0x90"]
)
@pytest.mark.parametrize(
    "flags", ["add r8, rax", "sub r8, rax", "neg r8", "shl r8, 1", "imul r8, rax, 99", "bsf r8, rax"]
)
def test_flags_are_those_of_the_instruction_before(make: Make, flags: str, instruction: str) -> None:
    """A free run keeps flags lazily; a fault, a trap or a store into the running code must not spoil them."""
    guest = Guest(
        "flags",
        f"""
start:  mov     r8, -7
        mov     eax, 15
        mov     rbx, 0x500000000
        xor     edx, edx
        {flags}
        {instruction}
next:   nop
        pushfq
        pop     r9
        hlt
""",
    )
    run, step = make(guest), make(guest)
    run.run(20)
    while step.tick < run.tick:
        step.step()
    assert state(run) == state(step)


def test_breakpoints_and_continuing(make: Make) -> None:
    m = make(Guest("loop", "start: inc eax\n nop\n jmp start"))
    m.set_breakpoints([0x400002])
    for i in range(1, 6):
        stop = m.run()
        assert (stop.reason, stop.breakpoint, m.cpu.gpr[0]) == (StopReason.BREAKPOINT, 0x400002, i)
    m.goto(0)
    assert m.run().tick == 1
    m.step()
    assert m.tick == 2
    m.set_breakpoints([])
    assert m.run(1000).reason is StopReason.SLICE


def test_memory_by_linear_address(make: Make) -> None:
    m = make(GUESTS[1])
    m.run(5)
    assert m.translate(0x210004) == 0x211004
    assert m.read_linear(0x210000, 4) == b"\x11" * 4
    assert m.read_linear(0x210FFE, 4) == b"\0\0\x11\x11", "two pages, apart in physical memory"
    assert m.translate(1 << 46) is None
    assert m.read_linear(1 << 46, 1) is None
    assert m.read_linear(0x80000000, 4) is None, "mapped, but nothing is there"
    assert m.read_linear(0xFF000000, 4) == bytes(4), "the test device's memory is memory"


def test_freezing_is_an_edit_of_history(make: Make) -> None:
    """Back before a freeze and forward again: frozen is who was, and the guest is the same at every tick."""
    guest = GUESTS[-1]
    assert guest.smp == 4
    m = make(guest)
    m.run(500)
    before = state(m)
    m.freeze({2, 3})
    at_freeze = state(m)
    assert at_freeze != before
    m.run(700)
    assert m.tick == 1200, "the others go on"
    middle = state(m)
    m.freeze(())
    m.freeze({1})
    m.run(900)
    end = state(m)
    unfrozen = make(guest)
    unfrozen.run(2100)
    assert state(unfrozen) != end, "who is frozen makes a difference"
    chooser = random.Random(4)
    for _ in range(8):
        m.goto(chooser.randrange(500))
        assert m.frozen == frozenset()
        if chooser.random() < 0.5:
            m.goto(501 + chooser.randrange(600))
            assert m.frozen == {2, 3}
            m.run(1200 - m.tick)
        else:
            m.goto(1200)
        # At the tick of an edit history stands behind it.
        assert m.frozen == {1}
        m.run(2100 - m.tick)
        assert state(m) == end
    m.goto(500)
    assert state(m) == at_freeze
    m.goto(1199)
    m.run(1)
    again = state(m)
    assert again[1:6] == middle[1:6], "but for who is frozen now"
    # An edit in the past makes another future, and ends the one that was.
    m.goto(700)
    m.freeze(())
    assert m.last_tick == 700
    m.run(1400)
    assert state(m) != end
    other = state(m)
    m.goto(699)
    assert m.frozen == {2, 3}
    m.goto(2100)
    assert state(m) == other
