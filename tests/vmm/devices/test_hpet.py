"""The HPET: counter, one-shot and periodic timers in both widths, edges and levels, legacy replacement, messages."""

from __future__ import annotations

import random

import pytest

from kvmscope.vmm.devices import Bus
from kvmscope.vmm.devices.hpet import Hpet
from tests.vmm.devices.board_parts import HandClock, Levels, check_history

BASE = 0xFED00000
CAP, CONF, STATUS, COUNTER = 0x00, 0x10, 0x20, 0xF0
LEVEL, INT, PERIODIC, VAL_SET, MODE32, FSB = 0x2, 0x4, 0x8, 0x40, 0x100, 0x4000
ONES = (1 << 64) - 1


def route(gsi: int) -> int:
    return gsi << 9


class Box:
    def __init__(self, messages: bool = False) -> None:
        self.clock = HandClock()
        self.lines = Levels()
        self.times: list[tuple[int, int]] = []
        """(clocks, interrupt) of each rise."""
        self.sent: list[tuple[int, int]] = []
        self.hpet = Hpet(self.clock, self.irq, (lambda *m: self.sent.append(m)) if messages else None)
        self.bus = Bus((self.hpet,))

    def irq(self, gsi: int, level: bool) -> None:
        self.lines(gsi, level)
        if level:
            self.times.append((self.clock.now // 10, gsi))

    def read(self, offset: int, size: int = 8) -> int:
        return self.bus.memory_read(BASE + offset, size)[0]

    def write(self, offset: int, value: int, size: int = 8) -> None:
        self.bus.memory_write(BASE + offset, size, value)

    def config(self, timer: int) -> int:
        return 0x100 + 0x20 * timer

    def comparator(self, timer: int) -> int:
        return 0x108 + 0x20 * timer

    def go(self, clocks: int) -> None:
        self.clock.advance(10 * clocks)

    def periodic(self, timer: int, first: int, period: int, config: int) -> None:
        self.write(self.config(timer), PERIODIC | VAL_SET | INT | config)
        self.write(self.comparator(timer), first)
        self.write(self.comparator(timer), period)


def test_reset_state() -> None:
    box = Box()
    assert box.read(CAP) == 0x00989680_8086A201
    assert (box.read(CONF), box.read(STATUS), box.read(COUNTER)) == (0, 0, 0)
    for timer in range(3):
        assert box.read(box.config(timer)) == 0x00FF0104_00000030
        assert box.read(box.comparator(timer)) == ONES
    assert box.read(0x160) == 0, "no fourth timer"
    box.clock.advance(1 << 40)
    assert box.read(COUNTER) == 0
    assert box.clock.deadline is None


def test_the_counter_counts_when_enabled() -> None:
    box = Box()
    box.clock.advance(12345)
    box.write(CONF, 1)
    box.clock.advance(99)
    assert box.read(COUNTER) == 9
    box.clock.advance(1)
    assert box.read(COUNTER) == 10
    box.write(CONF, 0)
    box.go(100)
    assert box.read(COUNTER) == 10
    box.write(CONF, 1)
    box.go(5)
    assert box.read(COUNTER) == 15
    assert box.clock.deadline is None, "a counter needs no timer"


def test_the_counter_is_written_while_halted() -> None:
    box = Box()
    box.write(COUNTER, 0x11223344_FFFFFFFE)
    box.write(CONF, 1)
    box.go(3)
    assert box.read(COUNTER) == 0x11223345_00000001
    box.write(COUNTER, 0)
    assert box.read(COUNTER) == 0x11223345_00000001, "dropped"
    box.write(CONF, 0)
    box.write(COUNTER + 4, 0x55, 4)
    assert box.read(COUNTER) == 0x55_00000001
    box.write(COUNTER, ONES)
    box.write(CONF, 1)
    box.go(1)
    assert box.read(COUNTER) == 0


def test_halves() -> None:
    box = Box()
    assert (box.read(0, 4), box.read(4, 4)) == (0x8086A201, 0x00989680)
    box.write(0x108, 0x11111111, 4)
    box.write(0x10C, 0x22222222, 4)
    assert box.read(0x108) == 0x22222222_11111111
    assert box.read(0x10C, 4) == 0x22222222


def test_configuration_keeps_what_is_writable() -> None:
    box = Box()
    box.write(CONF, ONES)
    assert box.read(CONF) == 3
    box.write(0x100, ONES & ~route(0x1F) | route(16))
    assert box.read(0x100) & 0xFFFFFFFF == 0x30 | LEVEL | INT | PERIODIC | MODE32 | route(16)
    assert box.read(0x100) >> 32 == 0x00FF0104


@pytest.mark.parametrize(("gsi", "kept"), [(2, 2), (8, 8), (16, 16), (23, 23), (0, 16), (9, 16), (31, 16)])
def test_only_possible_routes_are_kept(gsi: int, kept: int) -> None:
    box = Box()
    box.write(0x100, route(16))
    box.write(0x100, route(gsi))
    assert box.read(0x100) >> 9 & 0x1F == kept


def test_one_shot() -> None:
    box = Box()
    box.write(0x120, INT | route(20))
    box.write(0x128, 1000)
    box.write(CONF, 1)
    box.go(999)
    assert not box.times
    box.go(1)
    assert box.lines.changes == [(20, True), (20, False)], "an edge"
    assert box.times == [(1000, 20)]
    box.go(100_000)
    assert len(box.times) == 1
    assert box.clock.deadline is None
    assert box.read(STATUS) == 0, "edges leave no status"
    box.write(0x128, box.read(COUNTER) + 50)
    box.go(50)
    assert len(box.times) == 2


def test_a_comparator_in_the_past_never_matches() -> None:
    box = Box()
    box.write(CONF, 1)
    box.go(1000)
    box.write(0x100, INT | route(2))
    box.write(0x108, 500)
    assert box.clock.deadline is None
    box.write(0x108, 1000)
    assert box.clock.deadline is None, "it is reached, not equalled"


def test_a_32_bit_one_shot_matches_in_the_low_half_and_at_its_wrap() -> None:
    box = Box()
    box.write(COUNTER, 0x7_00001000)
    box.write(0x100, INT | MODE32 | route(2))
    box.write(0x108, 0xFFFFFFFF_00000800)
    assert box.read(0x108) == 0x800
    box.write(CONF, 1)
    box.clock.advance(10 << 33)
    assert [at for at, _ in box.times] == [0xFFFFF000, 0xFFFFF800, 0x1_FFFFF000, 0x1_FFFFF800]


def test_periodic() -> None:
    box = Box()
    box.periodic(0, 100, 30, route(2))
    box.write(CONF, 1)
    box.go(200)
    assert [at for at, _ in box.times] == [100, 130, 160, 190]
    assert box.read(0x108) == 220
    box.write(0x108, 50)
    assert box.read(0x108) == 220, "only the period changes"
    box.go(100)
    assert [at for at, _ in box.times[4:]] == [220, 270]


def test_one_write_with_val_set_sets_both() -> None:
    box = Box()
    box.write(0x100, PERIODIC | VAL_SET | INT | route(2))
    box.write(0x108, 40)
    box.write(CONF, 1)
    box.go(125)
    assert [at for at, _ in box.times] == [40, 80, 120]


def test_periodic_in_32_bits_wraps() -> None:
    box = Box()
    box.write(COUNTER, 0x1_FFFFFF00)
    box.periodic(0, 0xFFFFFF80, 0x100, MODE32 | route(2))
    box.write(CONF, 1)
    box.go(0x300)
    assert [at for at, _ in box.times] == [0x80, 0x180, 0x280]
    assert box.read(0x108) == 0x280


def test_a_level_holds_until_the_status_is_written() -> None:
    box = Box()
    box.periodic(1, 10, 10, LEVEL | route(21))
    box.write(CONF, 1)
    box.go(1000)
    assert box.lines.changes == [(21, True)]
    assert box.read(STATUS) == 2
    assert box.clock.deadline is None, "up already"
    box.write(STATUS, 5)
    assert box.lines.high == {21}
    box.write(STATUS, 2)
    assert box.lines.high == set()
    assert box.read(STATUS) == 0
    assert box.read(0x128) == 1010, "it went on meanwhile"
    box.go(10)
    assert box.lines.high == {21}
    box.write(CONF, 0)
    assert box.lines.high == set(), "halting disables interrupts"
    box.write(CONF, 1)
    assert box.lines.high == {21}


def test_status_without_interrupt_enable() -> None:
    box = Box()
    box.write(0x140, LEVEL | route(16))
    box.write(0x148, 5)
    box.write(CONF, 1)
    assert box.clock.deadline is None
    box.go(5)
    assert box.read(STATUS) == 4
    assert not box.times
    box.write(0x140, LEVEL | INT | route(16))
    assert box.lines.high == {16}


def test_levels_share_an_interrupt() -> None:
    box = Box()
    for timer in (0, 1):
        box.write(box.config(timer), LEVEL | INT | route(17))
        box.write(box.comparator(timer), 10 + timer)
    box.write(CONF, 1)
    box.go(20)
    box.write(STATUS, 1)
    assert box.lines.changes == [(17, True)]
    box.write(STATUS, 2)
    assert box.lines.changes == [(17, True), (17, False)]


def test_a_timer_without_a_route_interrupts_nobody() -> None:
    box = Box()
    box.write(0x100, INT)
    box.write(0x108, 5)
    box.write(CONF, 1)
    assert box.clock.deadline is None
    box.go(10)
    assert not box.times
    assert "not routed" in str(box.hpet.view())


def test_legacy_replacement_routes_timers_0_and_1() -> None:
    box = Box()
    for timer in range(3):
        box.write(box.config(timer), INT | route(19))
        box.write(box.comparator(timer), 10 + timer)
    box.write(CONF, 3)
    assert box.hpet.legacy
    box.go(20)
    assert box.times == [(10, 0), (11, 8), (12, 19)]


def test_legacy_replacement_cuts_off_pit_and_rtc() -> None:
    box = Box()
    pit, rtc = box.hpet.legacy_input(0), box.hpet.legacy_input(8)
    pit(True)
    assert box.lines.high == {0}
    box.write(CONF, 2)
    assert box.lines.high == set()
    pit(False)
    rtc(True)
    assert box.lines.high == set()
    box.write(CONF, 0)
    assert box.lines.high == {8}


def test_messages() -> None:
    box = Box(messages=True)
    assert box.read(0x100) & 0x8000
    box.write(0x100, INT | FSB | route(2))
    box.write(0x110, 0xFEE01000_00004031)
    assert box.read(0x110) == 0xFEE01000_00004031
    box.write(0x108, 7)
    box.write(CONF, 1)
    box.go(10)
    assert box.sent == [(0xFEE01000, 0x4031)]
    assert not box.times


def test_no_messages_without_a_bus_for_them() -> None:
    box = Box()
    box.write(0x100, FSB)
    box.write(0x110, ONES)
    assert box.read(0x100) & 0xC000 == 0
    assert box.read(0x110) == 0


def test_unheard_edges_need_no_timer_and_are_told_once() -> None:
    box = Box()
    heard = False
    box.hpet.heard = lambda gsi: heard
    box.periodic(0, 1, 1, route(2))
    box.write(CONF, 1)
    assert box.clock.deadline is None
    box.go(10**12)
    assert not box.times
    box.hpet.catch_up()
    assert box.times == [(10**12, 2)]
    heard = True
    box.hpet.rearm()
    box.times.clear()
    box.go(5)
    assert len(box.times) == 5
    assert box.read(0x108) == box.read(COUNTER) + 1


@pytest.mark.parametrize("seed", range(20))
def test_reading_often_or_seldom_is_the_same(seed: int) -> None:
    """Comparators and status are functions of time: looking does not change them."""
    rng = random.Random(seed)
    often, seldom = Box(), Box()
    for _ in range(40):
        what, state = rng.randrange(6), rng.getstate()
        for box in (often, seldom):
            rng.setstate(state)
            timer = rng.randrange(3)
            if what == 0:
                box.write(box.config(timer), rng.getrandbits(9) | route(rng.choice((2, 16))))
            elif what == 1:
                box.write(box.comparator(timer), rng.randrange(1 << rng.choice((6, 12))))
            elif what == 2:
                box.write(CONF, rng.choice((0, 1, 1, 1)))
            elif what == 3:
                box.write(STATUS, rng.getrandbits(3))
            else:
                clocks = rng.randrange(200)
                for _ in range(clocks if box is often else 0):
                    box.go(1)
                    box.read(STATUS)
                if box is seldom:
                    box.go(clocks)
    registers = (CONF, STATUS, COUNTER, 0x100, 0x108, 0x120, 0x128, 0x140, 0x148)
    assert [often.read(r) for r in registers] == [seldom.read(r) for r in registers]
    assert often.lines.high == seldom.lines.high
    assert often.times == seldom.times


def test_the_view_follows_time_and_changes_nothing() -> None:
    box = Box()
    box.periodic(0, 10, 10, LEVEL | route(2))
    box.write(CONF, 1)
    box.hpet.heard = lambda gsi: False
    box.hpet.rearm()
    views, saved = box.bus.views(), box.hpet.save()
    box.go(25)
    assert box.bus.views() != views
    shown = {field.name: field for field in box.hpet.view().fields}
    assert shown["GINTR_STA"].meaning == "T0"
    assert shown["MAIN_CNT"].value == f"{25:#018x}"
    assert (shown["T0_COMPARATOR"].value, shown["T0_COMPARATOR"].meaning) == ("0x1e", "in 5 clocks")
    assert shown["T0 period"].meaning == "100 ns"
    assert box.hpet.save() == saved


def test_save_and_restore() -> None:
    rng = random.Random(2)
    box = Box(messages=True)
    offsets = [*range(0, 0x28, 4), 0xF0, 0xF4, *range(0x100, 0x160, 4)]

    def shake() -> list[object]:
        box.lines.changes.clear()
        seen: list[object] = []
        for _ in range(60):
            offset, size = rng.choice(offsets), rng.choice((4, 8))
            if rng.random() < 0.5:
                box.write(offset, rng.getrandbits(rng.choice((10, 64))), size)
            else:
                seen.append(box.read(offset, size))
            box.clock.advance(rng.choice((1, 100, 1000)))
        return [*seen, box.hpet.view(), box.clock.deadline, tuple(box.lines.changes)]

    check_history(box.hpet, rng, shake, clock=box.clock, rounds=30)
