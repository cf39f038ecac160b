"""The 8254 against a reference that is stepped clock by clock, and its interrupt line and system port."""

from __future__ import annotations

import random

import pytest

from kvmscope.vmm.devices import Bus
from kvmscope.vmm.devices.pit import PIT_HZ, Pit
from tests.vmm.devices.board_parts import HandClock, check_history
from tests.vmm.devices.pit_reference import ReferenceCounter

SECOND = 1_000_000_000


def time_of(clock: int) -> int:
    return -(-clock * SECOND // PIT_HZ)


class Box:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.edges: list[tuple[int, bool]] = []
        self.pit = Pit(self.clock, lambda level: self.edges.append((self.now, level)))
        self.bus = Bus((self.pit,))

    @property
    def now(self) -> int:
        """Clocks of the counters."""
        return self.clock.now * PIT_HZ // SECOND

    def go(self, clocks: int) -> None:
        """To the first nanosecond of the clock so many further on."""
        self.clock.advance(time_of(self.now + clocks) - self.clock.now)

    def write(self, port: int, *values: int) -> None:
        for value in values:
            self.bus.port_write(port, 1, value)

    def read(self, port: int) -> int:
        return self.bus.port_read(port, 1)[0]

    def count(self, channel: int) -> int:
        """Latch and read two bytes."""
        self.write(0x43, channel << 6)
        return self.read(0x40 + channel) | self.read(0x40 + channel) << 8

    def status(self, channel: int) -> int:
        self.write(0x43, 0xE0 | 2 << channel)
        return self.read(0x40 + channel)

    def program(self, channel: int, mode: int, count: int, bcd: int = 0) -> None:
        self.write(0x43, channel << 6 | 0x30 | mode << 1 | bcd)
        self.write(0x40 + channel, count & 0xFF, count >> 8)

    def rises(self) -> list[int]:
        return [at for at, level in self.edges if level]


def test_nothing_counts_after_power_on() -> None:
    box = Box()
    box.write(0x40, 1, 0)
    box.write(0x61, 1)
    box.clock.advance(SECOND)
    assert box.clock.deadline is None
    assert not box.edges
    assert [box.read(0x40 + channel) for channel in range(4)] == [0, 0, 0, 0]


def test_a_control_word_alone_does_not_count() -> None:
    box = Box()
    box.write(0x43, 0x34)
    assert box.clock.deadline is None
    assert box.status(0) == 0xF4, "OUT high, null count"
    box.write(0x40, 0)
    assert box.clock.deadline is None
    box.write(0x40, 0)
    assert box.clock.deadline is not None


@pytest.mark.parametrize("seed", range(60))
def test_channel_2_counts_as_the_reference_does(seed: int) -> None:
    """Random control words, counts, gates and pauses: value, output and null count after each."""
    rng = random.Random(seed)
    box, model = Box(), ReferenceCounter(gate=False)
    for _ in range(120):
        what = rng.randrange(8)
        if what == 0 or model.mode < 0:
            access, mode, bcd = rng.randint(1, 3), rng.randrange(6), rng.random() < 0.3
            box.write(0x43, 0x80 | access << 4 | mode << 1 | bcd)
            model.control(access, mode, bcd)
        elif what <= 2:
            # Short counts come round often; a digit is at most 9 and a count of 1 is illegal in modes 2 and 3.
            byte = rng.choice((0, 2, 3, 4, 5, 6, 7, 8, 9)) if model.access != 2 else rng.choice((0, 1))
            if model.access == 3 and model.low is not None:
                byte = rng.choice((0, 0, 0, 1))
            box.write(0x42, byte)
            model.write(byte)
        elif what <= 4:
            gate = rng.random() < 0.7
            box.write(0x61, int(gate))
            model.set_gate(gate)
        else:
            clocks = rng.choice((1, 1, 2, 3, 5, 8, 13, 40, 300))
            box.go(clocks)
            for _ in range(clocks):
                model.clock()
        status = box.status(2)
        where = f"after {box.now} clocks, mode {model.mode}"
        assert status >> 7 == model.out, where
        assert box.read(0x61) >> 5 & 1 == model.out, where
        assert status >> 6 & 1 == model.null, where
        assert status & 0x3F == model.access << 4 | model.mode << 1 | model.bcd
        box.write(0x43, 0x80)
        shown = model.shown()
        if model.access & 1:
            assert box.read(0x42) == shown & 0xFF, where
        if model.access & 2:
            assert box.read(0x42) == shown >> 8, where


@pytest.mark.parametrize("seed", range(30))
def test_channel_0_drives_its_line_as_the_reference_does(seed: int) -> None:
    rng = random.Random(seed)
    box, model = Box(), ReferenceCounter(gate=True)
    expected: list[tuple[int, bool]] = []
    level = False

    def look() -> None:
        nonlocal level
        if model.out != level:
            level = model.out
            expected.append((now, level))

    now = 0
    for _ in range(60):
        what = rng.randrange(5)
        if what == 0 or model.mode < 0:
            mode = rng.randrange(6)
            box.write(0x43, 0x10 | mode << 1)
            model.control(1, mode, False)
        elif what == 1:
            count = rng.randint(2, 12)
            box.write(0x40, count)
            model.write(count)
        else:
            clocks = rng.choice((1, 2, 3, 7, 20))
            box.go(clocks)
            for _ in range(clocks):
                now += 1
                model.clock()
                look()
        look()
    assert box.edges == expected


@pytest.mark.parametrize(("count", "clocks"), [(0, 65536), (1193, 1193), (100, 100), (2, 2)])
@pytest.mark.parametrize("mode", [2, 3])
def test_periodic_interrupts(mode: int, count: int, clocks: int) -> None:
    box = Box()
    box.program(0, mode, count)
    box.go(1 + 10 * clocks)
    # The control word takes the output high; then a rise ends each period.
    assert box.rises() == [0, *range(1 + clocks, 2 + 10 * clocks, clocks)]


@pytest.mark.parametrize("mode", [2, 3])
def test_a_count_of_one_never_interrupts(mode: int) -> None:
    box = Box()
    box.program(0, mode, 1)
    box.clock.advance(SECOND)
    assert box.rises() == [0]
    assert box.clock.deadline is None
    box.program(0, mode, 1)
    box.go(3)
    box.write(0x40, 5, 0)
    box.edges.clear()
    box.go(20)
    assert len(box.rises()) >= 3, "a legal count takes over"


def test_one_shot_interrupt_and_its_time() -> None:
    box = Box()
    box.clock.advance(12345)
    start = box.now
    box.program(0, 0, 1000)
    assert box.edges == []
    box.clock.advance(SECOND)
    assert box.edges == [(start + 1 + 1000, True)]
    assert box.clock.deadline is None, "it fires once"


def test_edges_are_at_the_first_nanosecond_of_their_clock() -> None:
    box = Box()
    times: list[int] = []
    box.pit._irq = lambda level: times.append(box.clock.now)
    box.program(0, 0, 3)
    box.clock.advance(SECOND)
    assert times == [time_of(4)] == [3353]


def test_firmware_state() -> None:
    box = Box()
    box.pit.set_bios_state()
    assert box.status(0) & 0x3F == 0x34
    box.clock.advance(SECOND)
    assert len(box.rises()) == 1 + 18
    shown = {field.name: field for field in box.pit.view().fields}
    assert shown["counter 0 count"].meaning == "65536 clocks, 54.93 ms, 18.207 Hz"


class Muffled(Box):
    """Nobody listens until the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.listening = False
        self.pit.heard = lambda: self.listening

    def listen(self, on: bool) -> None:
        """As a controller does when its mask changes."""
        self.pit.catch_up()
        self.listening = on
        self.pit.rearm()


def test_no_timer_while_nobody_listens() -> None:
    box = Muffled()
    box.program(0, 2, 2)
    assert box.clock.deadline is None
    box.edges.clear()
    box.clock.advance(1000 * SECOND)
    assert not box.edges
    box.listen(True)
    assert len(box.rises()) == 1, "a thousand million edges are told as one"
    box.edges.clear()
    box.go(20)
    assert len(box.rises()) == 10
    box.listen(False)
    assert box.clock.deadline is None


def test_nothing_to_tell_when_the_line_did_not_rise() -> None:
    box = Muffled()
    box.program(0, 3, 1000)
    box.edges.clear()
    box.go(700)
    box.listen(True)
    assert box.edges == [(700, False)]
    box.listen(False)
    box.edges.clear()
    box.go(10)
    box.listen(True)
    assert not box.edges


@pytest.mark.parametrize("seed", range(30))
def test_what_is_told_late_is_what_a_listener_heard(seed: int) -> None:
    """At each look: the level of a line always heard, and a rising edge exactly if it had one meanwhile."""
    rng = random.Random(seed)
    heard, muffled = Box(), Muffled()
    for _ in range(80):
        what = rng.randrange(6)
        for box in (heard, muffled):
            state = rng.getstate()
            if what == 0:
                box.write(0x43, 0x10 | rng.randrange(6) << 1)
            elif what == 1:
                box.write(0x40, rng.randint(1, 30))
            elif what <= 4:
                box.go(rng.choice((1, 3, 10, 200)))
            else:
                box.pit.catch_up()
            if box is heard:
                rng.setstate(state)
        if what == 5:
            assert bool(heard.rises()) == bool(muffled.rises())
            if heard.edges or muffled.edges:
                assert heard.edges[-1][1] == muffled.edges[-1][1]
            heard.edges.clear()
            muffled.edges.clear()
    assert muffled.clock.deadline is None


def test_latches_hold_until_read() -> None:
    box = Box()
    box.program(0, 2, 1000)
    box.go(101)
    box.write(0x43, 0x00)
    box.go(50)
    box.write(0x43, 0x00)
    assert (box.read(0x40), box.read(0x40)) == (900 & 0xFF, 900 >> 8)
    assert (box.read(0x40), box.read(0x40)) == (850 & 0xFF, 850 >> 8), "live"


def test_read_back_gives_status_first_and_many_channels() -> None:
    box = Box()
    box.program(0, 2, 1000)
    box.program(1, 3, 18)
    box.go(10)
    box.write(0x43, 0xC6)
    box.go(5)
    assert [box.read(0x40) for _ in range(3)] == [0xB4, 991 & 0xFF, 991 >> 8]
    assert box.read(0x41) & 0x3F == 0x36
    assert (box.read(0x41), box.read(0x41)) == (18, 0)


def test_a_control_word_drops_latches() -> None:
    box = Box()
    box.program(0, 2, 1000)
    box.go(10)
    box.write(0x43, 0xC2)
    box.write(0x43, 0x34)
    assert box.read(0x40) == 991 & 0xFF


def test_bcd_counts_in_decimal() -> None:
    box = Box()
    box.program(0, 2, 0x1000, bcd=1)
    box.go(2)
    assert box.count(0) == 0x0999
    box.program(0, 2, 0, bcd=1)
    box.go(2)
    assert box.count(0) == 0x9999


@pytest.mark.parametrize(("written", "mode"), [(6, 2), (7, 3)])
def test_modes_6_and_7_are_2_and_3(written: int, mode: int) -> None:
    box = Box()
    box.write(0x43, 0x30 | written << 1)
    assert box.status(0) >> 1 & 7 == mode


def test_system_port() -> None:
    box = Box()
    box.write(0x61, 0xFF)
    assert box.read(0x61) & 0xCF == 0x0F
    toggles = []
    for _ in range(6):
        toggles.append(box.read(0x61) >> 4 & 1)
        box.go(18)
    assert toggles == [0, 1, 0, 1, 0, 1]
    assert "gate 2 speaker" in str(box.pit.view())


def test_the_speaker_gate_times_a_delay() -> None:
    """What boot code does to calibrate: channel 2, mode 0, gate up, wait for OUT2."""
    box = Box()
    box.write(0x61, 0x00)
    box.program(2, 0, 11932)
    box.go(50000)
    assert not box.read(0x61) & 0x20
    box.write(0x61, 0x01)
    box.go(11931)
    assert not box.read(0x61) & 0x20
    box.go(1)
    assert box.read(0x61) & 0x20
    assert box.clock.deadline is None, "nobody has to be told"


def test_views_change_nothing_and_follow_time() -> None:
    box = Box()
    box.program(2, 3, 1000)
    box.write(0x61, 1)
    box.go(10)
    saved = box.pit.save()
    first = box.bus.views()
    box.go(300)
    assert box.bus.views() != first
    assert box.pit.save() == saved


def test_save_and_restore() -> None:
    box = Box()
    rng = random.Random(9)

    def shake() -> list[object]:
        box.edges.clear()
        seen: list[object] = []
        for _ in range(50):
            if rng.random() < 0.5:
                box.write(rng.choice((0x40, 0x41, 0x42, 0x43, 0x61)), rng.getrandbits(8))
            else:
                seen.append(box.read(rng.choice((0x40, 0x41, 0x42, 0x61))))
            box.clock.advance(rng.choice((1, 1000, 100_000)))
        return [*seen, box.pit.view(), box.clock.deadline, tuple(box.edges)]

    check_history(box.pit, rng, shake, clock=box.clock)
