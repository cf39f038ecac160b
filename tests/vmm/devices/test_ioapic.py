"""The I/O APIC: registers, edges and levels, remote IRR and EOI, delivery, remapping."""

from __future__ import annotations

import random

import pytest

from kvmscope.vmm.devices import Bus
from kvmscope.vmm.devices.interrupts import DeliveryMode, Message
from kvmscope.vmm.devices.ioapic import PINS, IoApic, translate
from tests.vmm.devices.board_parts import AllApics, check_history

BASE = 0xFEC00000
LEVEL, MASK, LOGICAL, REMOTE_IRR = 1 << 15, 1 << 16, 1 << 11, 1 << 14


class Box:
    def __init__(self) -> None:
        self.apics = AllApics()
        self.ioapic = IoApic(self.apics.bus)
        self.apics.bus.listeners.append(self.ioapic)
        self.bus = Bus((self.ioapic,))

    def write(self, index: int, value: int) -> None:
        self.bus.memory_write(BASE, 4, index)
        self.bus.memory_write(BASE + 0x10, 4, value)

    def read(self, index: int) -> int:
        self.bus.memory_write(BASE, 4, index)
        return self.bus.memory_read(BASE + 0x10, 4)[0]

    def program(self, pin: int, low: int, high: int = 0) -> None:
        self.write(0x10 + 2 * pin, low)
        self.write(0x11 + 2 * pin, high)

    def entry(self, pin: int) -> int:
        return self.read(0x10 + 2 * pin) | self.read(0x11 + 2 * pin) << 32

    def pulse(self, pin: int) -> None:
        self.ioapic.set_irq(pin, True)
        self.ioapic.set_irq(pin, False)

    def eoi(self, vector: int) -> None:
        self.apics.bus.end_of_interrupt(vector)

    def vectors(self) -> list[int]:
        """Vectors sent since the last call."""
        sent = [message.vector for message in self.apics.messages]
        self.apics.messages.clear()
        return sent


def test_reset_state() -> None:
    box = Box()
    assert (box.read(0), box.read(1), box.read(2)) == (0, 0x00170011, 0)
    assert all(box.entry(pin) == MASK for pin in range(PINS))
    assert all(box.ioapic.masked(pin) for pin in range(PINS))


def test_id_has_four_bits_and_is_the_arbitration_id() -> None:
    box = Box()
    box.write(0, 0xFFFFFFFF)
    assert (box.read(0), box.read(2)) == (0x0F000000, 0x0F000000)
    box.write(2, 0)
    assert box.read(2) == 0x0F000000


def test_version_takes_no_writes() -> None:
    box = Box()
    box.write(1, 0xFFE8FFEE)
    assert box.read(1) == 0x00170011


@pytest.mark.parametrize("index", [0x03, 0x0F, 0x40, 0x80, 0xFF])
def test_registers_that_do_not_exist(index: int) -> None:
    box = Box()
    saved = box.ioapic.save()[1:]
    box.write(index, 0)
    assert box.read(index) == 0xFFFFFFFF
    assert box.ioapic.save()[1:] == saved


def test_there_is_no_eoi_register() -> None:
    box = Box()
    box.program(4, 0x50 | LEVEL)
    box.ioapic.set_irq(4, True)
    box.bus.memory_write(BASE + 0x40, 4, 0x50)
    assert box.entry(4) & REMOTE_IRR
    assert box.bus.memory_read(BASE + 0x40, 4)[0] == 0


@pytest.mark.parametrize(
    ("size", "select", "value"), [(1, 0x00, 0), (2, 0x01, 0x0011), (4, 0x01, 0x170011), (8, 1, 0x170011)]
)
def test_access_sizes(size: int, select: int, value: int) -> None:
    box = Box()
    box.bus.memory_write(BASE, size, select)
    assert box.bus.memory_read(BASE, size)[0] == select
    assert box.bus.memory_read(BASE + 0x10, size)[0] == value


def test_read_only_bits_of_an_entry() -> None:
    box = Box()
    box.program(0, 0xFFFFFFFF, 0xFFFFFFFF)
    assert box.entry(0) == 0xFFFFFFFF_FFFFFFFF & ~(REMOTE_IRR | 1 << 12)


def test_an_edge_interrupts_once() -> None:
    box = Box()
    box.program(14, 0x76)
    box.ioapic.set_irq(14, True)
    box.ioapic.set_irq(14, True)
    assert box.vectors() == [0x76]
    box.eoi(0x76)
    assert box.vectors() == []
    box.ioapic.set_irq(14, False)
    assert box.vectors() == []
    box.pulse(14)
    assert box.vectors() == [0x76]
    assert not box.entry(14) & REMOTE_IRR


def test_a_masked_edge_is_lost() -> None:
    box = Box()
    box.program(14, 0x81 | MASK)
    box.pulse(14)
    box.program(14, 0x81)
    assert box.vectors() == []
    box.ioapic.set_irq(14, True)
    assert box.vectors() == [0x81]


def test_an_edge_line_that_is_high_when_unmasked_does_not_interrupt() -> None:
    box = Box()
    box.ioapic.set_irq(3, True)
    box.program(3, 0x81)
    assert box.vectors() == []


def test_a_level_waits_for_its_end() -> None:
    box = Box()
    box.program(14, 0x77 | LEVEL)
    box.ioapic.set_irq(14, True)
    assert box.vectors() == [0x77]
    assert box.entry(14) & REMOTE_IRR
    box.ioapic.set_irq(14, False)
    box.ioapic.set_irq(14, True)
    assert box.vectors() == [], "coalesced"
    box.eoi(0x78)
    assert box.vectors() == []
    box.eoi(0x77)
    assert box.vectors() == [0x77], "still asserted"
    box.ioapic.set_irq(14, False)
    box.eoi(0x77)
    assert box.vectors() == []
    assert not box.entry(14) & REMOTE_IRR


def test_a_masked_level_interrupts_when_unmasked() -> None:
    box = Box()
    box.program(14, 0x82 | LEVEL | MASK)
    box.ioapic.set_irq(14, True)
    assert box.vectors() == []
    box.program(14, 0x82 | LEVEL)
    assert box.vectors() == [0x82]


def test_a_level_masked_in_service_comes_back_when_unmasked() -> None:
    box = Box()
    box.program(14, 0x83 | LEVEL)
    box.ioapic.set_irq(14, True)
    box.program(14, 0x83 | LEVEL | MASK)
    box.eoi(0x83)
    assert box.vectors() == [0x83]
    assert not box.entry(14) & REMOTE_IRR
    box.program(14, 0x83 | LEVEL)
    assert box.vectors() == [0x83]


def test_a_level_that_fell_while_masked_is_gone() -> None:
    box = Box()
    box.program(14, 0x82 | LEVEL | MASK)
    box.pulse(14)
    box.program(14, 0x82 | LEVEL)
    assert box.vectors() == []


def test_becoming_edge_clears_remote_irr() -> None:
    box = Box()
    box.program(5, 0x50 | LEVEL)
    box.ioapic.set_irq(5, True)
    assert box.entry(5) & REMOTE_IRR
    box.write(0x10 + 10, 0x50 | MASK)
    assert not box.entry(5) & REMOTE_IRR
    box.vectors()
    box.write(0x10 + 10, 0x50 | LEVEL)
    assert box.vectors() == [0x50]


def test_a_new_destination_keeps_remote_irr() -> None:
    box = Box()
    box.program(14, 0x84 | LEVEL)
    box.ioapic.set_irq(14, True)
    box.ioapic.set_irq(14, False)
    box.write(0x10 + 2 * 14 + 1, 1 << 24)
    assert box.entry(14) & REMOTE_IRR
    box.eoi(0x84)
    assert box.entry(14) == 0x84 | LEVEL | 1 << 56
    assert box.vectors() == [0x84]


def test_one_eoi_ends_every_pin_of_the_vector() -> None:
    box = Box()
    for pin in (3, 9):
        box.program(pin, 0x60 | LEVEL)
        box.ioapic.set_irq(pin, True)
    box.ioapic.set_irq(3, False)
    assert box.vectors() == [0x60, 0x60]
    box.eoi(0x60)
    assert box.vectors() == [0x60]
    assert not box.entry(3) & REMOTE_IRR
    assert box.entry(9) & REMOTE_IRR


def test_polarity_is_kept_and_ignored() -> None:
    box = Box()
    box.program(7, 0x45 | 1 << 13)
    assert box.vectors() == []
    box.ioapic.set_irq(7, True)
    assert box.vectors() == [0x45]
    assert box.entry(7) == 0x45 | 1 << 13


MESSAGES = [
    (0x31, 0x02 << 24, Message(0x31, DeliveryMode.FIXED, 2)),
    (0x31 | LOGICAL, 0x0D << 24, Message(0x31, DeliveryMode.FIXED, 0x0D, logical=True)),
    (0x31 | LEVEL, 0xFF << 24, Message(0x31, DeliveryMode.FIXED, 0xFF, level=True)),
    (0x131 | LOGICAL, 0xFF << 24, Message(0x31, DeliveryMode.LOWEST, 0xFF, logical=True)),
    (0x200, 0, Message(0, DeliveryMode.SMI)),
    (0x400, 1 << 24, Message(0, DeliveryMode.NMI, 1)),
    (0x500, 1 << 24, Message(0, DeliveryMode.INIT, 1)),
    (0x700, 0, Message(0, DeliveryMode.EXTINT)),
]


@pytest.mark.parametrize(("low", "high", "message"), MESSAGES)
def test_entries_become_messages(low: int, high: int, message: Message) -> None:
    box = Box()
    box.program(20, low, high)
    box.ioapic.set_irq(20, True)
    assert box.apics.messages == [message]


def test_the_reserved_mode_sends_nothing() -> None:
    box = Box()
    box.program(20, 0x331 | LEVEL)
    box.ioapic.set_irq(20, True)
    assert box.vectors() == []
    assert translate(0x331) is None


@pytest.mark.parametrize("mode", [2, 4, 5, 7])
def test_only_fixed_and_lowest_are_levels(mode: int) -> None:
    box = Box()
    box.program(1, mode << 8 | LEVEL)
    box.ioapic.set_irq(1, True)
    box.ioapic.set_irq(1, True)
    assert len(box.vectors()) == 1
    assert not box.entry(1) & REMOTE_IRR
    box.pulse(1)
    box.pulse(1)
    assert len(box.vectors()) == 1


def test_a_message_that_nobody_takes_leaves_no_remote_irr() -> None:
    box = Box()
    box.apics.bus.receivers.clear()
    box.program(6, 0x66 | LEVEL)
    box.ioapic.set_irq(6, True)
    assert not box.entry(6) & REMOTE_IRR
    box.apics.bus.receivers.append(box.apics)
    box.program(6, 0x66 | LEVEL)
    assert 0x66 in box.vectors(), "the level is still there when the entry is written again"


def test_remapping_replaces_the_translation() -> None:
    box = Box()
    asked: list[int] = []

    def remap(entry: int) -> Message | None:
        asked.append(entry)
        return Message(0xED, DeliveryMode.FIXED, 300) if entry >> 48 & 1 else None

    box.ioapic.remap = remap
    box.program(10, 0xED, 0x00030000)
    box.ioapic.set_irq(10, True)
    assert box.apics.messages == [Message(0xED, DeliveryMode.FIXED, 300)]
    assert asked == [0x00030000_000000ED]
    assert "remapped by entry 1" in str(box.ioapic.view())
    box.program(11, 0x55 | LEVEL)
    box.vectors()
    box.ioapic.set_irq(11, True)
    assert box.vectors() == [], "blocked"
    assert not box.entry(11) & REMOTE_IRR


class Lazy:
    def __init__(self, box: Box) -> None:
        self.box = box
        self.calls: list[tuple[str, bool]] = []

    def catch_up(self) -> None:
        self.calls.append(("catch up", self.box.ioapic.masked(2)))
        self.box.pulse(2)

    def rearm(self) -> None:
        self.calls.append(("rearm", self.box.ioapic.masked(2)))


def test_edges_of_the_time_under_the_mask_are_told_before_it_is_lifted() -> None:
    box = Box()
    lazy = Lazy(box)
    box.ioapic.sources = (lazy,)
    box.write(0x14, 0x30)
    assert lazy.calls == [("catch up", True), ("rearm", False)]
    assert box.vectors() == []


def test_the_view_shows_every_programmed_entry() -> None:
    box = Box()
    box.program(14, 0x76 | LEVEL | LOGICAL | 1 << 13, 0x0D << 24)
    box.ioapic.set_irq(14, True)
    shown = {field.name: field for field in box.ioapic.view().fields}
    entry = shown["redirection 14"]
    assert entry.value == "0x0d0000000000e876"
    assert entry.meaning == (
        "vector 0x76 fixed to logical destination 0xd, level, active low, remote IRR: waits for EOI"
    )
    assert shown["others"].value == "23"
    assert shown["pins"].meaning == "14"
    assert shown["IOREGSEL"].meaning == "redirection 14, high half"


def test_save_and_restore() -> None:
    rng = random.Random(5)
    box = Box()

    def shake() -> list[object]:
        for _ in range(60):
            what = rng.randrange(3)
            if what == 0:
                box.ioapic.set_irq(rng.randrange(PINS), bool(rng.getrandbits(1)))
            elif what == 1:
                box.write(rng.randrange(0x10, 0x40), rng.getrandbits(32) & ~(MASK | 0xE0))
            else:
                box.eoi(rng.randrange(0x20))
        return [*box.vectors(), box.ioapic.view()]

    check_history(box.ioapic, rng, shake)
