"""The timer: three modes, the divider, changes on the run, and guests that ask for too much."""

from __future__ import annotations

import pytest

from kvmscope.vmm.clock import TSC_RATIO
from kvmscope.vmm.devices.interrupts import Message
from kvmscope.vmm.devices.lapic import LocalApic
from kvmscope.vmm.devices.lapic.registers import Reg
from tests.vmm.devices.lapic.bench import (
    MASKED,
    PERIODIC,
    TSC_DEADLINE,
    Bench,
    put,
    reg,
    take,
    to_x2apic,
    vectors,
)

VECTOR = 0xEE
BY_1 = 0xB


def started(lvt: int, count: int, divide: int = BY_1) -> tuple[Bench, LocalApic]:
    bench = Bench()
    apic = bench.apics[0]
    bench.ticks = 1000
    put(apic, Reg.DIVIDE, divide)
    put(apic, Reg.LVT_TIMER, lvt)
    put(apic, Reg.INITIAL_COUNT, count)
    return bench, apic


@pytest.mark.parametrize(
    ("divide", "divisor"), [(0xB, 1), (0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (0xA, 128)]
)
def test_one_shot(divide: int, divisor: int) -> None:
    bench, apic = started(VECTOR, 100, divide)
    assert reg(apic, Reg.CURRENT_COUNT) == 100
    bench.advance(divisor - 1)
    assert reg(apic, Reg.CURRENT_COUNT) == 100
    bench.advance(1)
    assert reg(apic, Reg.CURRENT_COUNT) == 99
    bench.advance(99 * divisor - 1)
    assert reg(apic, Reg.CURRENT_COUNT) == 1
    assert take(apic) == []
    bench.advance(1)
    assert take(apic) == [VECTOR]
    assert reg(apic, Reg.CURRENT_COUNT) == 0
    assert reg(apic, Reg.INITIAL_COUNT) == 100
    bench.advance(10**9)
    assert take(apic) == []
    assert bench.clock.deadline is None


def test_periodic() -> None:
    bench, apic = started(PERIODIC | VECTOR, 100)
    for _ in range(5):
        bench.advance(99)
        assert take(apic) == []
        assert reg(apic, Reg.CURRENT_COUNT) == 1
        bench.advance(1)
        assert take(apic) == [VECTOR]
        assert reg(apic, Reg.CURRENT_COUNT) == 100
    bench.advance(250)
    assert reg(apic, Reg.CURRENT_COUNT) == 50
    # The interrupt of two periods is one.
    assert take(apic) == [VECTOR]
    bench.advance(50)
    assert take(apic) == [VECTOR]


def test_writing_zero_stops() -> None:
    bench, apic = started(PERIODIC | VECTOR, 100)
    put(apic, Reg.INITIAL_COUNT, 0)
    assert reg(apic, Reg.CURRENT_COUNT) == 0
    assert bench.advance(1000) == 0
    assert take(apic) == []


def test_writing_the_count_starts_over() -> None:
    bench, apic = started(VECTOR, 100)
    bench.advance(60)
    put(apic, Reg.INITIAL_COUNT, 100)
    bench.advance(60)
    assert reg(apic, Reg.CURRENT_COUNT) == 40
    bench.advance(40)
    assert take(apic) == [VECTOR]


def test_masked_it_counts_unseen() -> None:
    bench, apic = started(MASKED | PERIODIC | VECTOR, 100)
    assert bench.clock.deadline is None
    assert bench.advance(1050) == 0
    assert reg(apic, Reg.CURRENT_COUNT) == 50
    put(apic, Reg.LVT_TIMER, PERIODIC | VECTOR)
    assert take(apic) == []
    bench.advance(50)
    assert take(apic) == [VECTOR]


def test_masked_one_shot_expires_unseen() -> None:
    bench, apic = started(MASKED | VECTOR, 100)
    bench.advance(200)
    assert reg(apic, Reg.CURRENT_COUNT) == 0
    put(apic, Reg.LVT_TIMER, PERIODIC | VECTOR)
    bench.advance(1000)
    assert take(apic) == []
    assert reg(apic, Reg.CURRENT_COUNT) == 0


def test_masking_while_it_counts() -> None:
    bench, apic = started(VECTOR, 100)
    bench.advance(99)
    put(apic, Reg.LVT_TIMER, MASKED | VECTOR)
    bench.advance(50)
    assert take(apic) == []


def test_between_one_shot_and_periodic_the_count_goes_on() -> None:
    bench, apic = started(VECTOR, 0x999999)
    bench.advance(0x900000)
    put(apic, Reg.LVT_TIMER, PERIODIC | VECTOR)
    assert reg(apic, Reg.CURRENT_COUNT) == 0x099999
    bench.advance(0x099999)
    assert take(apic) == [VECTOR]
    assert reg(apic, Reg.CURRENT_COUNT) == 0x999999
    bench.advance(0x999999 + 0x500000)
    put(apic, Reg.LVT_TIMER, VECTOR)
    assert reg(apic, Reg.CURRENT_COUNT) == 0x499999
    assert take(apic) == [VECTOR]
    bench.advance(0x499999)
    assert take(apic) == [VECTOR]
    assert reg(apic, Reg.CURRENT_COUNT) == 0
    put(apic, Reg.LVT_TIMER, PERIODIC | VECTOR)
    assert reg(apic, Reg.CURRENT_COUNT) == 0
    assert reg(apic, Reg.INITIAL_COUNT) == 0x999999
    bench.advance(10**8)
    assert take(apic) == []


def test_changing_the_divider_keeps_the_count() -> None:
    bench, apic = started(VECTOR, 100, BY_1)
    bench.ticks = 0x3FC
    assert reg(apic, Reg.CURRENT_COUNT) == 80
    put(apic, Reg.DIVIDE, 0xA)
    assert reg(apic, Reg.CURRENT_COUNT) == 80
    bench.advance(128 * 79)
    assert reg(apic, Reg.CURRENT_COUNT) == 1
    put(apic, Reg.DIVIDE, BY_1)
    bench.advance(1)
    assert take(apic) == [VECTOR]


def test_the_vector_is_the_one_at_expiry() -> None:
    bench, apic = started(VECTOR, 100)
    bench.advance(50)
    put(apic, Reg.LVT_TIMER, 0x44)
    bench.advance(50)
    assert take(apic) == [0x44]


def test_illegal_vector() -> None:
    bench, apic = started(PERIODIC | 5, 10)
    assert bench.advance(1000) == 1
    assert apic.errors == 0x40
    put(apic, Reg.ESR, 0)
    assert bench.advance(1000) == 1
    assert apic.errors == 0x40


def test_an_expiry_due_is_not_lost_to_the_instruction_at_its_tick() -> None:
    for value in (MASKED | VECTOR, TSC_DEADLINE | VECTOR, PERIODIC | VECTOR):
        bench, apic = started(VECTOR, 100)
        bench.ticks += 100
        put(apic, Reg.LVT_TIMER, value)
        assert take(apic) == [VECTOR]
        bench.clock.run_due()
        assert take(apic) == []


# TSC deadline


def armed(delta: int) -> tuple[Bench, LocalApic]:
    bench = Bench()
    apic = bench.apics[0]
    bench.ticks = 1000
    put(apic, Reg.LVT_TIMER, TSC_DEADLINE | VECTOR)
    assert apic.write_msr(0x6E0, TSC_RATIO * (bench.ticks + delta))
    return bench, apic


def test_tsc_deadline() -> None:
    bench, apic = armed(3000)
    assert apic.read_msr(0x6E0) == 4000 * TSC_RATIO
    bench.advance(2999)
    assert take(apic) == []
    bench.advance(1)
    assert take(apic) == [VECTOR]
    assert apic.read_msr(0x6E0) == 0
    bench.advance(10**6)
    assert take(apic) == []


@pytest.mark.parametrize("delta", [0, -1, -999])
def test_a_deadline_that_has_passed_fires_at_once(delta: int) -> None:
    _, apic = armed(delta)
    assert take(apic) == [VECTOR]
    assert apic.read_msr(0x6E0) == 0


def test_disarm_and_rearm() -> None:
    bench, apic = armed(100)
    apic.write_msr(0x6E0, 0)
    assert bench.advance(200) == 0
    apic.write_msr(0x6E0, TSC_RATIO * (bench.ticks + 50))
    apic.write_msr(0x6E0, TSC_RATIO * (bench.ticks + 70) - TSC_RATIO + 1)
    bench.advance(69)
    assert take(apic) == []
    bench.advance(1)
    assert take(apic) == [VECTOR]


def test_masked_deadline_is_spent() -> None:
    bench, apic = armed(100)
    put(apic, Reg.LVT_TIMER, MASKED | TSC_DEADLINE | VECTOR)
    bench.advance(100)
    assert apic.read_msr(0x6E0) == 0
    put(apic, Reg.LVT_TIMER, TSC_DEADLINE | VECTOR)
    bench.advance(100)
    assert take(apic) == []


def test_in_other_modes_the_msr_is_zero_and_takes_nothing() -> None:
    bench = Bench()
    apic = bench.apics[0]
    for lvt in (VECTOR, PERIODIC | VECTOR):
        put(apic, Reg.LVT_TIMER, lvt)
        assert apic.write_msr(0x6E0, 5)
        assert apic.read_msr(0x6E0) == 0
    bench.advance(100)
    assert take(apic) == []


def test_initial_count_is_ignored_in_deadline_mode() -> None:
    bench, apic = armed(100)
    put(apic, Reg.INITIAL_COUNT, 10)
    assert reg(apic, Reg.INITIAL_COUNT) == reg(apic, Reg.CURRENT_COUNT) == 0
    bench.advance(99)
    assert take(apic) == []


@pytest.mark.parametrize("other", [VECTOR, PERIODIC | VECTOR, 3 << 17 | VECTOR])
def test_changes_to_and_from_deadline_mode_disarm(other: int) -> None:
    bench, apic = armed(100)
    put(apic, Reg.LVT_TIMER, other)
    assert apic.read_msr(0x6E0) == 0
    put(apic, Reg.INITIAL_COUNT, 10_000)
    put(apic, Reg.LVT_TIMER, TSC_DEADLINE | VECTOR)
    assert reg(apic, Reg.CURRENT_COUNT) == reg(apic, Reg.INITIAL_COUNT) == apic.read_msr(0x6E0) == 0
    assert bench.advance(10**6) == 0
    assert take(apic) == []


def test_reserved_mode_does_not_count() -> None:
    bench, apic = started(3 << 17 | VECTOR, 100)
    assert reg(apic, Reg.LVT_TIMER) == 3 << 17 | VECTOR
    assert reg(apic, Reg.CURRENT_COUNT) == 0
    assert bench.advance(1000) == 0


def test_deadline_follows_the_tsc() -> None:
    bench, apic = armed(1000)
    offset = 0
    apic.tsc = lambda: TSC_RATIO * (bench.ticks + offset)
    offset = -500
    apic.tsc_changed()
    bench.advance(1499)
    assert take(apic) == []
    bench.advance(1)
    assert take(apic) == [VECTOR]
    apic.write_msr(0x6E0, apic.tsc() + 1000 * TSC_RATIO)
    offset += 1000
    apic.tsc_changed()
    assert take(apic) == [VECTOR]


def test_tsc_set_back_without_a_word_does_not_fire_early() -> None:
    bench, apic = armed(1000)
    apic.tsc = lambda: TSC_RATIO * (bench.ticks - 500)
    bench.advance(1499)
    assert take(apic) == []
    bench.advance(1)
    assert take(apic) == [VECTOR]


def test_deadline_in_x2apic_mode() -> None:
    bench = Bench()
    apic = bench.apics[0]
    to_x2apic(apic)
    apic.write_msr(0x832, TSC_DEADLINE | VECTOR)
    apic.write_msr(0x6E0, 10)
    bench.advance(10)
    assert take(apic) == [VECTOR]


# hostile guests


def test_a_period_of_one_costs_one_call_for_each_interrupt_taken() -> None:
    bench, apic = started(PERIODIC | VECTOR, 1)
    assert bench.advance(10**12) == 1
    assert vectors(apic.irr) == [VECTOR]
    assert apic.acknowledge() == VECTOR
    assert bench.advance(10**12) == 1
    assert vectors(apic.irr) == vectors(apic.isr) == [VECTOR]


def test_the_furthest_deadline() -> None:
    bench, apic = armed(0)
    take(apic)
    apic.write_msr(0x6E0, (1 << 64) - 1)
    assert bench.clock.skip()
    assert take(apic) == [VECTOR]
    bench, apic = started(VECTOR, 0xFFFFFFFF, 0xA)
    assert bench.clock.deadline == 1000 + 0xFFFFFFFF * 128


def test_level_interrupt_of_the_same_vector() -> None:
    bench, apic = started(PERIODIC | VECTOR, 10)
    bench.advance(15)
    apic.receive(Message(VECTOR, level=True))
    assert vectors(apic.tmr) == [VECTOR]
    bench.advance(10)
    assert apic.tmr == 0
