"""ACPI's fixed hardware: events, the timer against the clock, sleep and wake."""

from __future__ import annotations

import pytest

from kvmscope.vmm.devices import Bus
from kvmscope.vmm.devices.acpi_pm import AcpiPm
from tests.vmm.devices.board_parts import HandClock

EVENT, ENABLE, CONTROL, TIMER = 0x600, 0x602, 0x604, 0x608
SECOND = 1_000_000_000
HALF_24 = -(-(1 << 23) * SECOND // 3_579_545)


class Box:
    def __init__(self, timer_bits: int = 24) -> None:
        self.clock = HandClock()
        self.calls: list[object] = []
        self.pm = AcpiPm(
            self.clock,
            lambda level: self.calls.append(("sci", level)),
            lambda state: self.calls.append(("suspend", state)),
            lambda: self.calls.append("off"),
            lambda: self.calls.append("wake"),
            timer_bits,
            lambda: self.bus.remap(),
        )
        self.bus = Bus((self.pm,))

    def read(self, port: int, size: int = 2) -> int:
        return self.bus.port_read(port, size)[0]

    def write(self, port: int, value: int, size: int = 2) -> None:
        self.bus.port_write(port, size, value)


@pytest.mark.parametrize("bits", [24, 32])
@pytest.mark.parametrize("now", [0, 1, 279, 280, SECOND, 4 * SECOND + 7, 5 * SECOND, 2000 * SECOND])
def test_timer_counts_at_its_frequency(bits: int, now: int) -> None:
    box = Box(bits)
    box.clock.advance(now)
    assert box.read(TIMER, 4) == now * 3_579_545 // SECOND % (1 << bits)


def test_timer_takes_no_writes_and_reads_by_parts() -> None:
    box = Box()
    box.clock.advance(SECOND)
    box.write(TIMER, 0, 4)
    assert box.read(TIMER, 4) == 3_579_545
    assert box.read(TIMER + 1, 1) == 3_579_545 >> 8 & 0xFF


def test_timer_status_follows_the_highest_bit() -> None:
    box = Box()
    box.clock.advance(HALF_24 - 1)
    assert box.read(EVENT) == 0
    box.clock.advance(1)
    assert box.read(TIMER, 4) == 1 << 23
    assert box.read(EVENT) == 1
    box.write(EVENT, 1)
    assert box.read(EVENT) == 0
    box.clock.advance(HALF_24)
    assert box.read(EVENT) == 1, "it falls, too"
    # Nobody waits for it: nothing is armed.
    assert box.clock.deadline is None


def test_timer_interrupts_when_enabled() -> None:
    box = Box()
    box.write(ENABLE, 1)
    assert box.clock.deadline is None, "not in ACPI mode"
    box.write(0xB2, 0xF1, 1)
    assert box.read(CONTROL) & 1
    assert box.clock.deadline == HALF_24
    box.clock.advance(HALF_24)
    assert box.calls == [("sci", True)]
    box.write(EVENT, 1)
    assert box.calls == [("sci", True), ("sci", False)]
    assert box.clock.deadline == -(-(1 << 24) * SECOND // 3_579_545)
    box.write(0xB2, 0xF0, 1)
    assert box.read(CONTROL) & 1 == 0
    assert box.clock.deadline is None


def test_smi_port_keeps_other_commands() -> None:
    box = Box()
    box.write(0xB3, 0x5A, 1)
    box.write(0xB2, 0x77, 1)
    assert (box.read(0xB2, 1), box.read(0xB3, 1)) == (0x77, 0x5A)
    assert box.read(CONTROL) == 0


@pytest.mark.parametrize(("written", "read"), [(0xFFFF & ~0x2000, 0x1C03), (0x0400, 0x0400)])
def test_control_keeps_its_bits(written: int, read: int) -> None:
    box = Box()
    box.write(CONTROL, written)
    assert box.read(CONTROL) == read
    assert box.calls == []


def test_control_by_bytes() -> None:
    box = Box()
    box.write(CONTROL, 1, 1)
    box.write(CONTROL + 1, 0x24, 1)
    assert box.calls == [("suspend", 3)]
    assert box.read(CONTROL) == 0x0401, "SLP_EN reads 0"


def test_enables_keep_their_bits() -> None:
    box = Box()
    box.write(ENABLE, 0xFFFF)
    assert box.read(ENABLE) == 0x0721
    assert box.read(EVENT, 4) == 0x0721_0000
    box.write(EVENT, 0x0400_8000, 4)
    assert box.read(ENABLE) == 0x0400


def test_an_alarm_interrupts() -> None:
    box = Box()
    box.write(CONTROL, 1)
    box.pm.rtc_alarm()
    assert box.read(EVENT) == 0x400
    assert box.calls == []
    box.write(ENABLE, 0x400)
    assert box.calls == [("sci", True)]
    box.write(EVENT, 0x400)
    assert box.calls[-1] == ("sci", False)


def test_general_purpose_events() -> None:
    box = Box()
    box.write(CONTROL, 1)
    box.write(0xAFE1, 0xFF, 1)
    box.write(0xAFE3, 0x02, 1)
    assert [box.read(0xAFE0 + offset, 1) for offset in range(4)] == [0, 0, 0, 0x02]
    assert box.calls == []


def test_suspend_and_wake_by_the_clock() -> None:
    box = Box()
    box.write(CONTROL, 0x2400)
    box.pm.rtc_alarm()
    assert box.calls == [("suspend", 3)], "not enabled"
    box.write(EVENT, 0x400)
    box.write(ENABLE, 0x400)
    box.pm.rtc_alarm()
    assert box.calls == [("suspend", 3), "wake"]
    assert box.read(EVENT) == 0x8400
    box.write(EVENT, 0x8000)
    assert box.read(EVENT) == 0x0400
    box.pm.rtc_alarm()
    assert box.calls == [("suspend", 3), "wake"], "awake already"


def test_a_pending_event_wakes_at_once() -> None:
    box = Box()
    box.write(ENABLE, 0x400)
    box.pm.rtc_alarm()
    box.write(CONTROL, 0x2400)
    assert box.calls == [("suspend", 3), "wake"]


def test_power_off() -> None:
    box = Box()
    box.write(CONTROL, 0x2000)
    assert box.calls == ["off"]


def test_relocation() -> None:
    box = Box()
    saved = box.bus.save()
    box.pm.relocate(0xB000)
    box.write(0xB004, 0x0400)
    assert box.read(0xB004) == 0x0400
    assert box.read(CONTROL) == 0xFFFF
    box.pm.relocate(None)
    assert box.read(0xB004) == 0xFFFF
    assert box.read(0xB2, 1) == 0
    box.bus.restore(saved)
    assert box.read(CONTROL) == 0


def test_save_and_restore() -> None:
    box = Box()
    box.write(CONTROL, 1)
    box.write(ENABLE, 1)
    box.clock.advance(HALF_24 // 2)
    saved, deadline = box.bus.save(), box.clock.deadline
    box.clock.advance(HALF_24)
    assert box.calls == [("sci", True)]
    box.clock.ticks = HALF_24 // 2
    box.bus.restore(saved)
    assert box.bus.save() == saved
    assert box.clock.deadline == deadline
    box.clock.advance(HALF_24)
    assert box.calls == [("sci", True), ("sci", True)]


def test_the_timer_does_not_interrupt_while_suspended() -> None:
    box = Box()
    box.write(ENABLE, 0x401)
    box.write(CONTROL, 0x2401)
    assert box.clock.deadline is None
    box.pm.rtc_alarm()
    assert box.clock.deadline == HALF_24
