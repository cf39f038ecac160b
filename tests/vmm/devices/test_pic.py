"""The 8259A pair: initialization, priorities, edges and levels, the cascade and spurious interrupts."""

from __future__ import annotations

import random

import pytest

from tests.vmm.devices.board_parts import check_history
from tests.vmm.devices.pic_box import EOI, MASTER, SLAVE, Box


def test_power_on_state_raises_nothing() -> None:
    box = Box(raw=True)
    assert (box.read(0x21), box.read(0xA1), box.read(0x20), box.read(0xA0)) == (0, 0, 0, 0)
    box.write(0x21, 0xA5)
    box.write(0xA1, 0x5A)
    assert (box.read(0x21), box.read(0xA1)) == (0xA5, 0x5A)
    box.write(0x21, 0)
    box.pulse(*range(16))
    assert not box.levels
    assert box.irr(MASTER) == 0xFB
    assert all(box.pic.masked(irq) for irq in range(16))


@pytest.mark.parametrize("irq", [irq for irq in range(16) if irq != 2])
def test_each_interrupt_has_its_vector(irq: int) -> None:
    box = Box()
    box.pulse(irq)
    assert box.intr
    assert box.pic.acknowledge() == 0x20 + irq
    assert not box.intr
    assert box.isr(SLAVE if irq >= 8 else MASTER) == 1 << (irq & 7)
    assert box.isr(MASTER) == (0x04 if irq >= 8 else 1 << irq)


def test_initialization_takes_its_words_in_order() -> None:
    box = Box(raw=True)
    box.write(MASTER, 0x11)
    box.pulse(1)
    for word in (0x43, 0x04):
        box.write(0x21, word)
        assert not box.intr, "not before ICW4"
    box.write(0x21, 0x01)
    assert box.intr
    assert box.pic.acknowledge() == 0x41, "the low bits of ICW2 are the level"
    box.write(0x21, 0xF0)
    assert box.read(0x21) == 0xF0, "after the sequence the port is the mask"


@pytest.mark.parametrize(("icw1", "words"), [(0x11, 3), (0x10, 2), (0x13, 2), (0x12, 1)])
def test_icw1_says_which_words_follow(icw1: int, words: int) -> None:
    box = Box(raw=True)
    box.write(MASTER, icw1)
    for _ in range(words):
        assert box.pic.masked(0)
        box.write(0x21, 0x01)
    assert not box.pic.masked(0)
    assert box.read(0x21) == 0


def test_icw1_forgets_edges_masks_and_service() -> None:
    box = Box()
    box.pulse(3)
    box.pic.acknowledge()
    box.pulse(4)
    box.write(0x21, 0x0F)
    box.write(MASTER, 0x11)
    assert (box.irr(MASTER), box.isr(MASTER)) == (0, 0)
    for word in (0x20, 0x04, 0x01):
        box.write(0x21, word)
    assert box.read(0x21) == 0
    assert not box.intr


def test_a_line_that_is_high_at_icw1_needs_a_new_edge() -> None:
    box = Box()
    box.pic.set_irq(5, True)
    box.initialize()
    assert not box.intr
    box.pic.set_irq(5, True)
    assert not box.intr
    box.pic.set_irq(5, False)
    box.pic.set_irq(5, True)
    assert box.intr


def test_priorities_and_nesting() -> None:
    box = Box()
    box.pulse(4)
    assert box.pic.acknowledge() == 0x24
    box.pulse(6, 4)
    assert not box.intr, "lower ones and itself wait"
    box.pulse(3)
    assert box.intr
    assert box.pic.acknowledge() == 0x23
    assert box.isr(MASTER) == 0x18
    box.write(MASTER, EOI)
    assert box.isr(MASTER) == 0x10, "the highest in service has ended"
    box.write(MASTER, EOI)
    assert box.drain() == [0x24, 0x26]


def test_all_at_once_come_in_order() -> None:
    box = Box()
    box.pulse(*range(15, -1, -1))
    # The slave's eight are between IRQ1 and IRQ3.
    assert box.drain() == [0x20, 0x21, *range(0x28, 0x30), *range(0x23, 0x28)]


@pytest.mark.parametrize("irq", [3, 11])
def test_the_mask_holds_back_but_does_not_forget(irq: int) -> None:
    box = Box()
    port = SLAVE + 1 if irq >= 8 else MASTER + 1
    box.write(port, 1 << (irq & 7))
    assert box.pic.masked(irq)
    box.pulse(irq)
    assert not box.intr
    assert box.irr(port - 1) == 1 << (irq & 7)
    box.write(port, 0)
    assert not box.pic.masked(irq)
    assert box.drain() == [0x20 + irq]


def test_a_masked_cascade_holds_back_the_slave() -> None:
    box = Box()
    box.write(0x21, 0x04)
    assert box.pic.masked(12)
    assert not box.pic.masked(1)
    box.pulse(12)
    assert not box.intr
    box.write(0x21, 0)
    assert box.drain() == [0x2C]


def test_the_irr_keeps_an_edge_whose_line_has_fallen() -> None:
    box = Box()
    box.pulse(7)
    assert box.intr
    assert box.pic.acknowledge() == 0x27
    assert box.isr(MASTER) == 0x80, "a real IRQ7, not a spurious one"


def test_a_masked_request_leaves_a_spurious_irq7() -> None:
    box = Box()
    box.pulse(3)
    box.write(0x21, 0x08)
    assert not box.intr
    assert box.pic.acknowledge() == 0x27
    assert box.isr(MASTER) == 0, "nothing is in service"


def test_a_masked_request_of_the_slave_leaves_a_spurious_irq15() -> None:
    box = Box()
    box.pulse(9)
    box.write(0xA1, 0x02)
    assert box.intr, "the master still has the request of its IR2"
    assert box.pic.acknowledge() == 0x2F
    assert box.isr(SLAVE) == 0
    assert box.isr(MASTER) == 0x04, "the master needs its EOI"
    box.write(0xA1, 0)
    assert not box.intr
    box.write(MASTER, EOI)
    assert box.drain() == [0x29]


def test_a_level_interrupts_as_long_as_it_is_there() -> None:
    box = Box()
    box.write(0x4D0, 0x20)
    box.pic.set_irq(5, True)
    assert box.pic.acknowledge() == 0x25
    assert box.irr(MASTER) == 0x20
    box.write(MASTER, EOI)
    assert box.intr, "again"
    assert box.pic.acknowledge() == 0x25
    box.pic.set_irq(5, False)
    assert box.irr(MASTER) == 0
    box.write(MASTER, EOI)
    assert not box.intr


def test_a_level_that_goes_away_is_spurious() -> None:
    box = Box()
    box.write(0x4D1, 0x08)
    box.pic.set_irq(11, True)
    box.pic.set_irq(11, False)
    assert box.pic.acknowledge() == 0x2F


def test_elcr_keeps_the_bits_that_may_be_level() -> None:
    box = Box()
    box.write(0x4D0, 0xFF)
    box.write(0x4D1, 0xFF)
    assert (box.read(0x4D0), box.read(0x4D1)) == (0xF8, 0xDE)


def test_elcr_turns_a_high_line_into_a_request() -> None:
    box = Box()
    box.pic.set_irq(10, True)
    assert box.drain() == [0x2A]
    box.write(0x4D1, 0x04)
    assert box.intr


def test_irq2_has_no_input() -> None:
    box = Box()
    box.pulse(2)
    assert not box.levels


def test_firmware_state() -> None:
    box = Box(raw=True)
    box.pic.set_bios_state()
    assert [box.read(port) for port in (0x21, 0xA1, 0x4D0, 0x4D1)] == [0xB8, 0x8E, 0x00, 0x0C]
    box.pulse(0)
    assert box.pic.acknowledge() == 0x08
    box.write(MASTER, EOI)
    box.pulse(8)
    assert box.pic.acknowledge() == 0x70


class Lazy:
    """A source that has an edge to tell when it is asked."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.waiting = True
        self.calls: list[str] = []

    def catch_up(self) -> None:
        self.calls.append("catch up")
        if self.waiting:
            self.waiting = False
            self.box.pulse(0)

    def rearm(self) -> None:
        self.calls.append("heard" if not self.box.pic.masked(0) else "masked")


def test_sources_catch_up_before_and_learn_after_a_change_of_the_mask() -> None:
    box = Box()
    box.write(0x21, 0x01)
    lazy = Lazy(box)
    box.pic.sources = (lazy,)
    assert not box.irr(SLAVE)
    box.write(0x21, 0x00)
    assert lazy.calls[-2:] == ["catch up", "heard"]
    assert box.drain() == [0x20]
    lazy.waiting = True
    box.write(MASTER, 0x0A)
    lazy.waiting = True
    assert box.read(MASTER) == 0x01, "reading the IRR asks too"


def test_the_view_names_what_is_there() -> None:
    box = Box(raw=True)
    assert "not initialized: raises nothing" in str(box.pic.view())
    box.initialize()
    box.pulse(3, 12)
    box.pic.acknowledge()
    shown = {field.name: field for field in box.pic.view().fields}
    assert shown["IRR master"].meaning == "IRQ3"
    assert shown["ISR slave"].meaning == "IRQ12"
    assert shown["ICW1-4 slave"].meaning == "vectors 0x28-0x2f"
    assert shown["INTR"].value == "0"


def test_save_and_restore() -> None:
    rng = random.Random(3)
    box = Box()
    ports = [0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1]

    def shake() -> list[object]:
        seen: list[object] = []
        for _ in range(40):
            what = rng.randrange(4)
            if what == 0:
                box.pic.set_irq(rng.randrange(16), bool(rng.getrandbits(1)))
            elif what == 1:
                box.write(rng.choice(ports), rng.getrandbits(8))
            elif what == 2:
                seen.append(box.read(rng.choice(ports)))
            else:
                seen.append(box.pic.acknowledge())
        return [*seen, box.pic.view()]

    check_history(box.pic, rng, shake, rounds=30)
