"""History, the panel, and guests that write anything anywhere."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from kvmscope.vmm.devices.interrupts import DeliveryMode, Message, MsrFault
from kvmscope.vmm.devices.lapic.registers import REGISTERS, Reg
from tests.vmm.devices.lapic.bench import MASKED, PERIODIC, SELF, TSC_DEADLINE, Bench, icr, put, reg, take, to_x2apic


def fields(bench: Bench, index: int = 0) -> dict[str, tuple[str, str]]:
    return {field.name: (field.value, field.meaning) for field in bench.apics[index].view().fields}


def test_view() -> None:
    bench = Bench(2)
    apic = bench.apics[1]
    put(apic, Reg.LVT_TIMER, PERIODIC | 0xEE)
    put(apic, Reg.DIVIDE, 0xB)
    put(apic, Reg.INITIAL_COUNT, 1000)
    put(apic, Reg.TPR, 0x30)
    icr(apic, SELF | 0x91)
    icr(apic, SELF | 0x43)
    icr(apic, 0x44, 0)
    apic.acknowledge()
    reg(apic, 0x40)
    bench.advance(250)
    view = apic.view()
    assert (view.name, view.where) == ("lapic 1", "xAPIC, memory 0xfee00000-0xfee00fff")
    shown = fields(bench, 1)
    assert shown["APIC_BASE"] == ("0xfee00800", "EN")
    assert shown["ID"] == ("0x01000000", "APIC ID 1")
    assert shown["TPR"] == ("0x30", "class 3 (CR8)")
    assert shown["PPR"] == ("0x90", "classes above 9 are delivered")
    assert shown["SVR"] == ("0x000001ff", "enabled, spurious vector 0xff")
    assert shown["ISR"] == ("1", "0x91")
    assert shown["IRR"] == ("1", "0x43")
    assert shown["errors"] == ("0x00000080", "illegal-register-address")
    assert shown["ICR"] == ("0x0000000000000044", "fixed, vector 0x44, to APIC 0x0")
    assert shown["LVT timer"] == ("0x000200ee", "fixed, vector 0xee, periodic")
    assert shown["LVT LINT0"] == ("0x00010000", "fixed, vector 0x0, edge, masked")
    assert shown["CURRENT_COUNT"] == ("0x000002ee", "750")
    assert shown["DIVIDE"] == ("0x0b", "1 GHz / 1")
    assert shown["TSC_DEADLINE"] == ("0x0000000000000000", "not armed")
    assert shown["INTR"] == ("0", "")


def test_view_of_the_other_modes() -> None:
    bench = Bench()
    apic = bench.apics[0]
    to_x2apic(apic)
    apic.write_msr(0x832, TSC_DEADLINE | 0x55)
    apic.write_msr(0x6E0, 500)
    icr(apic, 2 << 18 | 0x400)
    assert apic.view().where == "x2APIC, MSRs 0x800-0x83f"
    shown = fields(bench)
    assert "DFR" not in shown
    assert shown["LDR"] == ("0x00000001", "cluster 0, bit 0")
    assert shown["TSC_DEADLINE"] == ("0x00000000000001f4", "in 500 ticks of the TSC")
    assert shown["ICR"][1] == "NMI, to all"
    apic.write_msr(0x1B, 0xFEE00000)
    assert apic.view().where == "disabled"


def test_view_has_no_side_effects() -> None:
    bench, rng = Bench(2), random.Random(1)
    for _ in range(300):
        hammer(bench, rng)
        before = [apic.save() for apic in bench.apics]
        for apic in bench.apics:
            apic.view()
        assert [apic.save() for apic in bench.apics] == before


def hammer(bench: Bench, rng: random.Random) -> None:
    """One random thing that a guest or a device can do."""
    apic = rng.choice(bench.apics)
    offset = rng.choice((rng.randrange(0x1000), rng.choice(list(REGISTERS)), rng.choice(list(REGISTERS))))
    value = rng.choice((rng.getrandbits(32), rng.getrandbits(8), rng.getrandbits(8) | rng.choice((0, 1, 2, 3)) << 17))
    mode = rng.choice(list(DeliveryMode))

    def message() -> None:
        bench.bus.send(
            Message(
                rng.getrandbits(8), mode, rng.choice((0, 1, 0xFF)), bool(rng.getrandbits(1)), bool(rng.getrandbits(1))
            )
        )

    def base() -> None:
        apic.write_msr(0x1B, 0xFEE00000 | rng.choice((0, 0x800, 0xC00, 0x400, 0x800)))

    def stores() -> None:
        put(apic, offset, value)
        put(apic, Reg.SVR, 0x1FF)

    actions: tuple[Callable[[], object], ...] = (
        stores,
        lambda: put(apic, offset, value),
        lambda: apic.write(offset, rng.choice((1, 2, 4, 8)), value),
        lambda: apic.read(offset, rng.choice((1, 2, 4, 8))),
        lambda: apic.write_msr(0x800 + (offset >> 4 & 0x3F), value),
        lambda: apic.read_msr(0x800 + (offset >> 4 & 0x3F)),
        lambda: apic.write_msr(0x6E0, bench.ticks + rng.randrange(-10, 1000)),
        lambda: apic.set_lint(rng.randrange(2), bool(rng.getrandbits(1))),
        lambda: apic.set_cr8(rng.getrandbits(4)),
        lambda: apic.acknowledge() if apic.signals.interrupt else None,
        apic.init_reset if rng.random() < 0.1 else lambda: None,
        base,
        message,
        lambda: bench.advance(rng.randrange(500)),
    )
    try:
        rng.choice(actions)()
    except MsrFault:
        pass


def run(bench: Bench, seed: int, steps: int) -> list[object]:
    """Do random things, and what was to be seen after each."""
    rng, seen = random.Random(seed), []
    for _ in range(steps):
        hammer(bench, rng)
        seen.append([(apic.save(), apic.signals.interrupt) for apic in bench.apics])
    return seen


@pytest.mark.parametrize("seed", range(8))
def test_history_goes_back_exactly(seed: int) -> None:
    bench = Bench(2)
    run(bench, seed, 400)
    states, ticks = [apic.save() for apic in bench.apics], bench.ticks
    first = run(bench, seed + 100, 200)
    run(bench, seed + 200, 50)
    bench.ticks = ticks
    for apic, state in zip(bench.apics, states, strict=True):
        apic.restore(state)
        assert apic.save() == state
    assert run(bench, seed + 100, 200) == first


@pytest.mark.parametrize("seed", range(8))
def test_invariants(seed: int) -> None:
    bench, rng = Bench(2), random.Random(seed)
    for _ in range(1500):
        hammer(bench, rng)
        for apic in bench.apics:
            assert all(isinstance(item, int | bytes) for item in apic.save())
            # Vectors 0 to 15 are in none of the sets.
            assert (apic.irr | apic.isr | apic.tmr) & 0xFFFF == 0
            highest = apic.irr.bit_length() - 1
            own = highest >= 0 and highest >> 4 > apic.priority >> 4
            assert apic.signals.interrupt >= own
            if apic.index == 1:
                assert apic.signals.interrupt == own
            for offset in range(0x320, 0x380, 0x10):
                assert apic.software_enabled or apic.values[offset] & MASKED


def test_suspended_timer_is_exact() -> None:
    """The clock is not asked while an expiry changes nothing: the same must come out as by asking it every period."""
    for seed in range(20):
        rng = random.Random(seed)
        lazy, eager = Bench(), Bench()
        eager.apics[0].timer._matters = lambda: True
        period = rng.randrange(1, 40)
        for bench in (lazy, eager):
            put(bench.apics[0], Reg.DIVIDE, 0xB)
            put(bench.apics[0], Reg.LVT_TIMER, PERIODIC | 0xEE)
            put(bench.apics[0], Reg.INITIAL_COUNT, period)
        for _ in range(200):
            step, action = rng.randrange(1, 60), rng.randrange(4)
            for bench in (lazy, eager):
                apic = bench.apics[0]
                bench.advance(step)
                if action == 0:
                    take_one(bench)
                elif action == 1:
                    put(apic, Reg.LVT_TIMER, PERIODIC | 0xEE | rng_bit(seed, step) << 16)
                elif action == 2:
                    apic.receive(Message(0xEE, level=True))
            a, b = lazy.apics[0], eager.apics[0]
            assert (a.irr, a.isr, a.tmr, a.timer.current) == (b.irr, b.isr, b.tmr, b.timer.current)


def take_one(bench: Bench) -> None:
    apic = bench.apics[0]
    if apic.signals.interrupt:
        apic.acknowledge()
        put(apic, Reg.EOI, 0)


def rng_bit(seed: int, step: int) -> int:
    return random.Random(seed * 1000 + step).getrandbits(1)


def test_restore_sets_intr_without_a_kick() -> None:
    bench = Bench()
    apic = bench.apics[0]
    idle = apic.save()
    icr(apic, SELF | 0x40)
    waiting = apic.save()
    apic.restore(idle)
    assert not apic.signals.interrupt
    kicks = bench.kicks[0]
    apic.restore(waiting)
    assert apic.signals.interrupt
    assert bench.kicks[0] == kicks
    assert take(apic) == [0x40]
