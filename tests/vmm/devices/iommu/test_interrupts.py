"""Interrupt remapping of MSIs and of the I/O APIC's pins."""

from __future__ import annotations

import pytest

from kvmscope.vmm.devices.interrupts import DeliveryMode, Message
from tests.vmm.devices.iommu.machine import CFI, FSTS, IommuMachine
from tests.vmm.devices.pci.machine import EDU

VERIFY = 1 << 18
INDEX = 3
REMAPPABLE = 0xFEE00010 | INDEX << 5


def remapping(**kwargs: bool) -> IommuMachine:
    machine = IommuMachine(x2apic=kwargs.get("extended", False))
    machine.remap_interrupts(**kwargs)
    return machine


@pytest.mark.parametrize(
    ("low", "message"),
    [
        (0x00EE0001, Message(0xEE)),
        (0x00EE0001 | 5 << 40, Message(0xEE, destination=5)),
        (0x00EE0005 | 3 << 40, Message(0xEE, destination=3, logical=True)),
        (0x00EE0011, Message(0xEE, level=True)),
        (0x00EE0021, Message(0xEE, DeliveryMode.LOWEST)),
        (0x00000081, Message(0, DeliveryMode.NMI)),
        (0x00EE0F09, Message(0xEE)),
    ],
)
def test_entries_make_messages(low: int, message: Message) -> None:
    machine = remapping()
    machine.entry(INDEX, low, VERIFY | EDU)
    assert machine.unit.interrupt(EDU, REMAPPABLE, 0)
    assert machine.take() == [message]
    assert machine.get(FSTS) == 0


def test_extended_destinations() -> None:
    machine = remapping(extended=True)
    machine.entry(INDEX, 0x00EE0001 | 0x12345678 << 32)
    machine.unit.interrupt(EDU, REMAPPABLE, 0)
    assert machine.take() == [Message(0xEE, destination=0x12345678)]


@pytest.mark.parametrize(("address", "index"), [(0xFEE00010 | 2 << 5, 2), (0xFEE0001C, 0x8000 | 5), (0xFEE00018, 5)])
def test_index(address: int, index: int) -> None:
    machine = IommuMachine()
    machine.remap_interrupts(15)
    machine.entry(index, 0x00550001)
    machine.unit.interrupt(EDU, address, 5)
    assert machine.take() == [Message(0x55)]


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [
        (0x00EE0000, 0, 0x22),
        (0x00EE1001, 0, 0x24),
        (0x00EE8001, 0, 0x24),
        (0x01EE0001, 0, 0x24),
        (0x00EE0061, 0, 0x24),
        (0x00EE00C1, 0, 0x24),
        (0x00EE0001 | 1 << 32, 0, 0x24),
        (0x00EE0001 | 1 << 48, 0, 0x24),
        (0x00EE0001, 1 << 20, 0x24),
        (0x00EE0001, 3 << 18, 0x24),
        (0x00EE0001, VERIFY | EDU ^ 1, 0x26),
    ],
)
@pytest.mark.parametrize("fpd", [0, 2])
def test_blocked_entries(low: int, high: int, reason: int, fpd: int) -> None:
    machine = remapping()
    machine.entry(INDEX, low | fpd, high)
    assert not machine.unit.interrupt(EDU, REMAPPABLE, 0)
    assert machine.take() == []
    assert machine.fault() == (None if fpd else (reason, EDU, INDEX << 48, False))


@pytest.mark.parametrize(
    ("address", "data", "reason", "index"),
    [(REMAPPABLE | 8, 1 << 16, 0x20, INDEX), (0xFEE00010 | 16 << 5, 0, 0x21, 16)],
)
def test_blocked_requests(address: int, data: int, reason: int, index: int) -> None:
    machine = remapping()
    machine.unit.interrupt(EDU, address, data)
    assert machine.fault() == (reason, EDU, index << 48, False)


@pytest.mark.parametrize(
    ("high", "source", "passes"),
    [
        (0x1234, 0x20, True),
        (VERIFY | 0x20, 0x20, True),
        (VERIFY | 0x20, 0x24, False),
        (VERIFY | 1 << 16 | 0x20, 0x24, True),
        (VERIFY | 1 << 16 | 0x20, 0x22, False),
        (VERIFY | 2 << 16 | 0x20, 0x26, True),
        (VERIFY | 2 << 16 | 0x20, 0x21, False),
        (VERIFY | 3 << 16 | 0x20, 0x27, True),
        (VERIFY | 3 << 16 | 0x20, 0x28, False),
        (2 << 18 | 0x0205, 0x0320, True),
        (2 << 18 | 0x0205, 0x0620, False),
        (2 << 18 | 0x0205, 0x0120, False),
    ],
)
def test_source_verification(high: int, source: int, passes: bool) -> None:
    machine = remapping()
    machine.entry(INDEX, 0x00EE0001, high)
    assert machine.unit.interrupt(source, REMAPPABLE, 0) == passes


def test_compatibility_format() -> None:
    machine = IommuMachine()
    assert machine.unit.interrupt(EDU, 0xFEE01004, 0x8144)
    assert machine.take() == [Message(0x44, DeliveryMode.LOWEST, destination=1, logical=True, level=True)]
    machine.remap_interrupts()
    assert not machine.unit.interrupt(EDU, 0xFEE01004, 0x44)
    assert machine.fault() == (0x25, EDU, 0, False)
    machine.command(CFI)
    assert machine.unit.interrupt(EDU, 0xFEE01004, 0x44)
    assert machine.take() == [Message(0x44, destination=1, logical=True)]


def test_compatibility_format_never_goes_with_extended_destinations() -> None:
    machine = remapping(extended=True)
    machine.command(CFI)
    assert not machine.unit.interrupt(EDU, 0xFEE01004, 0x44)
    assert machine.fault() == (0x25, EDU, 0, False)


def test_msi_of_a_function_bears_its_source() -> None:
    machine = remapping()
    machine.entry(INDEX, 0x00EE0001, VERIFY | EDU)
    machine.write(EDU, 0x44, REMAPPABLE)
    machine.write(EDU, 0x42, 1, 2)
    machine.edu_write(0x60, 1)
    assert machine.take() == [Message(0xEE)]
    machine.entry(INDEX, 0x00EE0001, VERIFY | EDU + 8)
    machine.edu_write(0x60, 1)
    assert machine.take() == []
    assert machine.fault() == (0x26, EDU, INDEX << 48, False)


@pytest.mark.parametrize("index", [INDEX, 0x8001])
def test_io_apic_pins_are_remapped(index: int) -> None:
    machine = IommuMachine()
    machine.remap_interrupts(15)
    # The entry bears the id of the device at the pin; the I/O APIC's requests bear none.
    machine.entry(index, 0x00ED0001 | 4 << 40, VERIFY | EDU)
    entry = 0xED | (index >> 15) << 11 | 1 << 48 | (index & 0x7FFF) << 49
    for half in range(2):
        machine.ioapic.memory_write(0xFEC00000, 4, 0x10 + 2 * 10 + half)
        machine.ioapic.memory_write(0xFEC00010, 4, entry >> 32 * half & 0xFFFFFFFF)
    machine.ioapic.set_irq(10, True)
    assert machine.take() == [Message(0xED, destination=4)]
    machine.ioapic.set_irq(10, False)
    machine.entry(index, 0)
    machine.ioapic.set_irq(10, True)
    assert machine.take() == []
    assert machine.fault() == (0x22, 0, index << 48, False)


@pytest.mark.parametrize("entry", [0x0300000000000876, 0x0200000000008131, 0x00])
def test_io_apic_entries_in_compatibility_format_are_as_without_a_unit(entry: int) -> None:
    from kvmscope.vmm.devices.ioapic import translate

    machine = IommuMachine()
    assert machine.unit.redirection(entry) == translate(entry)
