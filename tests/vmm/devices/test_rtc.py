"""The MC146818A: time, formats, SET and divider, updates, alarms, periodic interrupts, memory."""

from __future__ import annotations

import random

import pytest

from kvmscope.vmm.devices import Bus
from kvmscope.vmm.devices.rtc import Rtc
from tests.vmm.devices.board_parts import HandClock, check_history

SECOND = 1_000_000_000
FIRST = 10_000_000
UIP = 244_000
SEC, SEC_ALARM, MIN, MIN_ALARM, HOUR, HOUR_ALARM, WEEKDAY, DAY, MONTH, YEAR, A, B, C, D = range(14)
CENTURY = 0x32
SET, PIE, AIE, UIE, BINARY, H24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02


class Box:
    def __init__(self, below: int = 0, above: int = 0) -> None:
        self.clock = HandClock()
        self.levels: list[tuple[int, bool]] = []
        self.wakes: list[int] = []
        self.rtc = Rtc(
            self.clock,
            lambda level: self.levels.append((self.clock.now, level)),
            lambda: self.wakes.append(self.clock.now),
            below,
            above,
        )
        self.bus = Bus((self.rtc,))

    def read(self, index: int) -> int:
        self.bus.port_write(0x70, 1, index)
        return self.bus.port_read(0x71, 1)[0]

    def write(self, index: int, value: int) -> None:
        self.bus.port_write(0x70, 1, index)
        self.bus.port_write(0x71, 1, value)

    def at(self, time: int) -> None:
        self.clock.advance(time - self.clock.now)

    def time(self) -> list[int]:
        """Century, year, month, day, weekday, hour, minute, second as the bytes are."""
        return [self.read(i) for i in (CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOUR, MIN, SEC)]

    def set_time(self, *values: int) -> None:
        before = self.read(B)
        self.write(B, before | SET)
        for index, value in zip((CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOUR, MIN, SEC), values, strict=True):
            self.write(index, value)
        self.write(B, before & ~SET)


def test_power_on_state() -> None:
    box = Box()
    assert [box.read(i) for i in (A, B, C, D, 0x0F)] == [0x26, 0x02, 0x00, 0x80, 0x00]
    assert box.time() == [0x20, 0x25, 0x01, 0x01, 0x04, 0x00, 0x00, 0x00], "Wednesday, 1 January 2025"
    box.clock.advance(SECOND)
    assert box.clock.deadline is None
    assert not box.levels


def test_seconds_pass_with_guest_time() -> None:
    box = Box()
    box.at(FIRST - 1)
    assert box.read(SEC) == 0
    box.at(FIRST)
    assert box.read(SEC) == 1
    box.at(FIRST + 59 * SECOND)
    assert box.time()[-2:] == [0x01, 0x00]
    box.at(FIRST + 86399 * SECOND)
    assert box.time() == [0x20, 0x25, 0x01, 0x02, 0x05, 0x00, 0x00, 0x00]


def test_the_update_in_progress() -> None:
    box = Box()
    for update in (FIRST, FIRST + SECOND, FIRST + 7 * SECOND):
        box.at(update - UIP - 1)
        assert not box.read(A) & 0x80
        box.at(update - UIP)
        assert box.read(A) & 0x80
        box.at(update - 1)
        assert box.read(A) & 0x80
        box.at(update)
        assert not box.read(A) & 0x80
    box.write(A, 0xFF & ~0x60 | 0x20)
    assert not box.read(A) & 0x80, "read only"


@pytest.mark.parametrize(
    ("time", "later"),
    [
        ((0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59), [0x20, 0x00, 0x01, 0x01, 7, 0, 0, 0]),
        ((0x20, 0x24, 0x02, 0x28, 4, 0x23, 0x59, 0x59), [0x20, 0x24, 0x02, 0x29, 5, 0, 0, 0]),
        ((0x20, 0x23, 0x02, 0x28, 3, 0x23, 0x59, 0x59), [0x20, 0x23, 0x03, 0x01, 4, 0, 0, 0]),
        # The weekday is a counter of its own.
        ((0x20, 0x23, 0x02, 0x28, 7, 0x23, 0x59, 0x59), [0x20, 0x23, 0x03, 0x01, 1, 0, 0, 0]),
        ((0x20, 0x99, 0x12, 0x31, 5, 0x23, 0x59, 0x59), [0x21, 0x00, 0x01, 0x01, 6, 0, 0, 0]),
    ],
)
def test_the_calendar(time: tuple[int, ...], later: list[int]) -> None:
    box = Box()
    box.set_time(*time)
    assert box.time() == list(time)
    box.clock.advance(SECOND)
    assert box.time() == later


@pytest.mark.parametrize(
    ("mode", "hour", "shown"),
    [
        (H24, 0x23, 0x23),
        (H24 | BINARY, 23, 23),
        (0, 0x12, 0x12),
        (0, 0x92, 0x92),
        (0, 0x81, 0x81),
        (BINARY, 0x8B, 0x8B),
        (BINARY, 12, 12),
    ],
)
def test_formats(mode: int, hour: int, shown: int) -> None:
    box = Box()
    box.write(B, mode)
    box.write(HOUR, hour)
    assert box.read(HOUR) == shown
    assert box.read(YEAR) == (25 if mode & BINARY else 0x25)


@pytest.mark.parametrize(
    ("hour24", "bcd12", "binary12"),
    [(0, 0x12, 12), (1, 0x01, 1), (11, 0x11, 11), (12, 0x92, 0x8C), (13, 0x81, 0x81), (23, 0x91, 0x8B)],
)
def test_hours_of_half_a_day(hour24: int, bcd12: int, binary12: int) -> None:
    box = Box()
    box.write(B, H24 | BINARY)
    box.write(HOUR, hour24)
    box.write(B, 0)
    assert box.read(HOUR) == bcd12
    box.write(B, BINARY)
    assert box.read(HOUR) == binary12
    box.write(HOUR, binary12)
    box.write(B, H24 | BINARY)
    assert box.read(HOUR) == hour24


def test_set_holds_the_time_still() -> None:
    box = Box()
    box.at(FIRST - 1)
    box.write(B, 0x82)
    box.write(SEC, 0x30)
    box.clock.advance(10 * SECOND)
    assert box.read(SEC) == 0x30
    assert not box.read(A) & 0x80
    assert box.read(C) & 0x10 == 0, "no updates"
    box.write(B, 0x02)
    assert box.read(SEC) == 0x30
    box.clock.advance(1)
    assert box.read(SEC) == 0x31, "the divider went on"


def test_set_clears_uie() -> None:
    box = Box()
    box.write(B, UIE | H24)
    box.write(B, SET | UIE | H24)
    assert box.read(B) == SET | H24


def test_a_released_divider_updates_after_half_a_second() -> None:
    box = Box()
    box.write(A, 0x76)
    box.clock.advance(5 * SECOND)
    assert box.read(SEC) == 0
    box.write(A, 0x26)
    box.clock.advance(SECOND // 2 - 1)
    assert box.read(SEC) == 0
    box.clock.advance(1)
    assert box.read(SEC) == 1


def test_update_ended_interrupt() -> None:
    box = Box()
    box.write(B, UIE | H24)
    box.at(FIRST + 3 * SECOND)
    assert box.levels == [(FIRST, True)], "one until it is read"
    assert box.read(C) == 0x80 | 0x40 | 0x10, "the periodic flag comes without its enable"
    assert box.levels[1:] == [(FIRST + 3 * SECOND, False)]
    assert box.read(C) == 0
    box.clock.advance(SECOND)
    assert box.levels[2:] == [(FIRST + 4 * SECOND, True)]


def test_flags_come_without_their_enables() -> None:
    box = Box()
    for index in (SEC_ALARM, MIN_ALARM, HOUR_ALARM):
        box.write(index, 0xFF)
    box.at(FIRST)
    assert box.read(C) == 0x70
    assert not box.levels
    assert box.clock.deadline is None
    box.clock.advance(SECOND)
    box.write(B, UIE | H24)
    assert box.levels == [(FIRST + SECOND, True)], "enabling what has happened"


@pytest.mark.parametrize(
    ("alarm", "after"),
    [
        ((0xC0, 0xC0, 0xC0), 1),
        ((0xFF, 0xFF, 0x05), 5),
        ((0xFF, 0x02, 0xFF), 120),
        ((0xFF, 0x02, 0x05), 125),
        ((0x01, 0x02, 0x03), 3723),
        ((0x00, 0x00, 0x00), 86400),
        ((0xFF, 0xFF, 0x00), 60),
    ],
)
def test_alarms(alarm: tuple[int, int, int], after: int) -> None:
    """Hour, minute, second; the time is midnight."""
    box = Box()
    for index, value in zip((HOUR_ALARM, MIN_ALARM, SEC_ALARM), alarm, strict=True):
        box.write(index, value)
    box.write(B, AIE | H24)
    at = FIRST + (after - 1) * SECOND
    box.at(at - 1)
    assert not box.levels
    box.at(at)
    assert box.levels == [(at, True)]
    assert box.wakes == [at]
    assert box.read(C) & 0xA0 == 0xA0


def test_an_alarm_wakes_again_though_the_line_is_up() -> None:
    box = Box()
    box.write(SEC_ALARM, 0xFF)
    box.write(MIN_ALARM, 0xFF)
    box.write(HOUR_ALARM, 0xFF)
    box.write(B, AIE | H24)
    box.at(FIRST + 2 * SECOND)
    assert box.wakes == [FIRST, FIRST + SECOND, FIRST + 2 * SECOND]
    assert len(box.levels) == 1


def test_an_alarm_in_half_days_and_binary() -> None:
    box = Box()
    box.write(B, BINARY)
    box.write(HOUR, 0x8B)
    box.write(MIN, 59)
    box.write(HOUR_ALARM, 12)
    box.write(MIN_ALARM, 0)
    box.write(SEC_ALARM, 0)
    box.write(B, BINARY | AIE)
    box.at(FIRST + 59 * SECOND)
    assert box.wakes == [FIRST + 59 * SECOND], "midnight is 12 AM"


def test_an_impossible_alarm_arms_nothing() -> None:
    box = Box()
    box.write(SEC_ALARM, 0x7A)
    box.write(B, AIE | H24)
    assert box.clock.deadline is None
    box.clock.advance(3 * 86400 * SECOND)
    assert box.read(C) & 0x20 == 0


@pytest.mark.parametrize(("rate", "clocks"), [(1, 128), (2, 256), (3, 4), (6, 32), (10, 512), (15, 16384)])
def test_periodic_interrupts(rate: int, clocks: int) -> None:
    box = Box()
    box.write(A, 0x20 | rate)
    box.read(C)
    box.write(B, PIE | H24)
    # In step with the seconds.
    origin = FIRST - SECOND
    for _ in range(5):
        assert box.clock.deadline is not None
        passed = (box.clock.now - origin) * 32768 // SECOND
        due = origin - (-(passed // clocks + 1) * clocks * SECOND // 32768)
        assert box.clock.deadline == due
        box.levels.clear()
        box.at(due)
        assert box.levels == [(due, True)]
        assert box.clock.deadline is None, "nothing can change before register C is read"
        assert box.read(C) & 0xC0 == 0xC0


def test_no_rate_no_interrupt() -> None:
    box = Box()
    box.write(A, 0x20)
    box.write(B, PIE | H24)
    assert box.clock.deadline is None
    box.clock.advance(SECOND)
    assert box.read(C) & 0x40 == 0


def test_the_sequence_of_a_suspending_guest() -> None:
    """Wait for an update to pass, clear flags, alarm at any second, sleep: the wake comes a second later."""
    box = Box()
    while not box.read(A) & 0x80:
        box.clock.advance(1000)
    while box.read(A) & 0x80:
        box.clock.advance(1000)
    box.read(C)
    for index in (SEC_ALARM, MIN_ALARM, HOUR_ALARM):
        box.write(index, 0xC0)
    box.write(B, box.read(B) | AIE)
    assert box.wakes == []
    assert box.clock.skip()
    assert box.wakes == [FIRST + SECOND]


def test_memory_and_read_only_registers() -> None:
    box = Box()
    for index in (0x0E, 0x0F, 0x40, 0x7F):
        box.write(index, 0xA5)
        assert box.read(index) == 0xA5
    assert box.rtc.shutdown_status == 0xA5
    box.write(C, 0xFF)
    box.write(D, 0x00)
    assert (box.read(C), box.read(D)) == (0, 0x80)


@pytest.mark.parametrize(
    ("below", "above", "extended", "high", "beyond"),
    [
        (128 << 20, 0, 0xFFFF, 0x0700, 0),
        (16 << 20, 0, 0x3C00, 0, 0),
        (1 << 20, 0, 0, 0, 0),
        (3 << 30, 1 << 30, 0xFFFF, 0xBF00, 0x4000),
    ],
)
def test_sizes_of_memory(below: int, above: int, extended: int, high: int, beyond: int) -> None:
    box = Box(below, above)

    def word(index: int) -> int:
        return box.read(index) | box.read(index + 1) << 8

    assert (word(0x15), word(0x17), word(0x30), word(0x34)) == (640, extended, extended, high)
    assert word(0x5B) | box.read(0x5D) << 16 == beyond


def test_the_index_port() -> None:
    box = Box()
    box.bus.port_write(0x70, 1, 0x8F)
    assert box.rtc.nmi_masked
    assert box.bus.port_read(0x70, 1)[0] == 0xFF
    box.bus.port_write(0x71, 1, 0x55)
    assert box.read(0x0F) == 0x55
    assert not box.rtc.nmi_masked


def test_the_view() -> None:
    box = Box(128 << 20)
    box.write(SEC_ALARM, 0xC0)
    shown = {field.name: field for field in box.rtc.view().fields}
    assert shown["time"].value == "Wed 2025-01-01 00:00:00"
    assert shown["alarm"].value == "00:00:any"
    assert shown["A"].meaning == "periodic 1024 Hz, divider runs"
    views, saved = box.bus.views(), box.rtc.save()
    box.clock.advance(SECOND)
    assert box.bus.views() != views
    assert box.rtc.save() == saved


def test_any_bytes_are_survived() -> None:
    rng = random.Random(11)
    box = Box()
    for _ in range(1500):
        box.write(rng.choice((*range(14), CENTURY)), rng.getrandbits(8))
        box.clock.advance(rng.choice((0, 1, SECOND // 3, 90 * SECOND)))
        box.time()
        box.rtc.view()


def test_save_and_restore() -> None:
    rng = random.Random(4)
    box = Box(1 << 26)

    def shake() -> list[object]:
        box.levels.clear()
        seen: list[object] = []
        for _ in range(60):
            index = rng.choice((*range(14), CENTURY, 0x40))
            if rng.random() < 0.5:
                box.write(index, rng.getrandbits(8))
            else:
                seen.append(box.read(index))
            box.clock.advance(rng.choice((1, 100_000, SECOND // 7, 90 * SECOND)))
        return [*seen, box.rtc.view(), box.clock.deadline, tuple(box.levels)]

    check_history(box.rtc, rng, shake, clock=box.clock)
