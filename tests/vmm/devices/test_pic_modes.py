"""The 8259A pair: ends of interrupts, rotation, special mask, special fully nested mode, poll."""

from __future__ import annotations

from tests.vmm.devices.pic_box import EOI, MASTER, SLAVE, Box


def test_specific_eoi_ends_the_one_named() -> None:
    box = Box()
    box.pulse(6)
    box.pic.acknowledge()
    box.pulse(1)
    box.pic.acknowledge()
    box.write(MASTER, 0x66)
    assert box.isr(MASTER) == 0x02
    box.write(MASTER, 0x61)
    assert box.isr(MASTER) == 0


def test_eoi_with_nothing_in_service_does_nothing() -> None:
    box = Box()
    box.write(MASTER, 0x40)
    box.write(MASTER, 0xA0)
    assert box.irr(MASTER) == 0
    box.pulse(0, 7)
    assert box.drain() == [0x20, 0x27], "the priorities have not been rotated"


def test_rotation() -> None:
    box = Box()
    box.pulse(*range(8))
    assert box.pic.acknowledge() == 0x20
    box.write(MASTER, 0xA0)
    assert box.pic.acknowledge() == 0x21, "0 is lowest now"
    box.write(MASTER, 0xE5)
    assert box.isr(MASTER) == 0x02, "5 was not in service; it is lowest now"
    box.write(MASTER, 0x61)
    assert box.pic.acknowledge() == 0x26
    box.write(MASTER, EOI)
    box.write(MASTER, 0xC6)
    assert box.drain() == [0x27, 0x23, 0x24, 0x25]


def test_automatic_eoi() -> None:
    box = Box(icw4=0x03)
    box.pulse(3, 9)
    assert box.pic.acknowledge() == 0x29
    assert (box.isr(MASTER), box.isr(SLAVE)) == (0, 0)
    assert box.pic.acknowledge() == 0x23
    assert not box.intr


def test_automatic_eoi_may_rotate() -> None:
    box = Box(icw4=0x03)
    box.write(MASTER, 0x80)
    box.pulse(0, 1)
    assert box.pic.acknowledge() == 0x20
    box.pulse(0)
    assert [box.pic.acknowledge(), box.pic.acknowledge()] == [0x21, 0x20]
    box.write(MASTER, 0x00)
    box.pulse(3, 4)
    assert box.pic.acknowledge() == 0x23
    box.pulse(3)
    assert box.pic.acknowledge() == 0x23, "no rotation any more"


def test_special_mask_lets_lower_ones_through() -> None:
    box = Box()
    box.pulse(3)
    box.pic.acknowledge()
    box.pulse(6)
    assert not box.intr
    box.write(0x21, 0x08)
    assert not box.intr, "masking alone does not help"
    box.write(MASTER, 0x68)
    assert box.intr
    assert box.pic.acknowledge() == 0x26
    box.write(MASTER, 0x48)
    box.write(MASTER, EOI)
    assert box.isr(MASTER) == 0x40, "mode off: the highest in service is IRQ3 again"


def test_the_slave_nests_only_in_special_fully_nested_mode() -> None:
    box = Box()
    box.pulse(12)
    assert box.pic.acknowledge() == 0x2C
    box.pulse(9)
    assert not box.intr
    box = Box(icw4=0x11)
    box.pulse(12)
    assert box.pic.acknowledge() == 0x2C
    box.pulse(9)
    assert box.intr
    assert box.pic.acknowledge() == 0x29


def test_a_poll_acknowledges() -> None:
    box = Box()
    box.write(MASTER, 0x0C)
    assert box.read(MASTER) == 0x07, "nothing is pending"
    box.pulse(4)
    box.write(MASTER, 0x0C)
    assert box.read(MASTER) == 0x84
    assert box.isr(MASTER) == 0x10
    assert not box.intr
    assert box.read(0x21) == 0, "one read, one poll"


def test_polling_the_slave_takes_its_request_back() -> None:
    box = Box()
    box.pulse(14)
    box.write(SLAVE, 0x0C)
    assert box.read(SLAVE) == 0x86
    assert not box.intr
