"""The edu device: registers, factorial by the clock, interrupts and DMA."""

from __future__ import annotations

import math

import pytest

from kvmscope.vmm.devices.interrupts import DeliveryMode, Message
from tests.vmm.devices.pci.machine import EDU, PciMachine

BUFFER = 0x40000
TO_DEVICE, TO_MEMORY, WITH_IRQ = 1, 3, 4


def master(dma_bits: int = 28) -> PciMachine:
    machine = PciMachine(dma_bits=dma_bits)
    machine.write(EDU, 4, 0x0006, 2)
    return machine


def test_identification_and_liveness() -> None:
    machine = PciMachine()
    assert machine.edu_read(0) == 0x010000ED
    machine.edu_write(4, 0x12345678)
    assert machine.edu_read(4) == 0xEDCBA987


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 2), (0, 8), (0x20, 2), (0x80, 1), (0x80, 2), (0x40, 4)])
def test_widths_and_places_that_are_none(offset: int, size: int) -> None:
    assert PciMachine().edu_read(offset, size) == (1 << 8 * size) - 1


@pytest.mark.parametrize("n", [0, 1, 5, 12, 13, 33, 34, 0xFFFFFFFF])
def test_factorial(n: int) -> None:
    machine = PciMachine()
    machine.edu_write(8, n)
    assert machine.edu_read(0x20) == 1
    machine.edu_write(8, 3)
    machine.clock.advance(1000)
    assert machine.edu_read(0x20) == 0
    assert machine.edu_read(8) == (math.factorial(n) % (1 << 32) if n < 100 else 0)
    assert machine.edu_read(0x24) == 0


def test_factorial_takes_the_same_time_always() -> None:
    machine = PciMachine()
    machine.edu_write(8, 10)
    machine.clock.advance(99)
    assert machine.edu_read(0x20) == 1
    machine.clock.advance(1)
    assert machine.edu_read(0x20) == 0


def test_factorial_interrupts() -> None:
    machine = PciMachine()
    machine.edu_write(0x20, 0xFFFFFFFF)
    assert machine.edu_read(0x20) == 0x80
    machine.edu_write(8, 4)
    machine.clock.advance(100)
    assert machine.edu_read(0x24) == 1
    assert machine.lines.high == {11}
    machine.edu_write(0x64, 1)
    assert machine.lines.high == set()


def test_raise_and_acknowledge() -> None:
    machine = PciMachine()
    machine.edu_write(0x60, 0)
    assert machine.lines.high == set()
    machine.edu_write(0x60, 0x5)
    machine.edu_write(0x64, 0x4)
    assert machine.edu_read(0x24) == 1
    assert machine.lines.high == {11}
    machine.edu_write(0x64, 1)
    assert machine.lines.changes == [(11, True), (11, False)]


def test_msi() -> None:
    machine = master()
    machine.write(EDU, 0x44, 0xFEE03004)
    machine.write(EDU, 0x48, 0)
    machine.write(EDU, 0x4C, 0x8153, 2)
    machine.write(EDU, 0x42, 1, 2)
    machine.edu_write(0x60, 2)
    assert machine.apics.messages == [Message(0x53, DeliveryMode.LOWEST, destination=3, logical=True, level=True)]
    assert machine.lines.high == set()
    machine.write(EDU, 4, 0x0002, 2)
    machine.edu_write(0x60, 2)
    assert len(machine.apics.messages) == 1, "only a bus master writes messages"


def test_dma_both_ways() -> None:
    machine = master()
    machine.ram.write(0x1FFE, b"abcdefgh")
    machine.edu_dma(0x1FFE, BUFFER + 16, 8, TO_DEVICE)
    machine.edu_dma(BUFFER + 17, 0x3000, 4, TO_MEMORY)
    assert machine.ram.read(0x3000, 5) == b"bcde\0"
    assert machine.edu_read(0x24) == 0


def test_dma_takes_time_and_holds_its_registers() -> None:
    machine = master()
    machine.edu_write(0x80, 0x1000, 8)
    machine.edu_write(0x88, BUFFER, 8)
    machine.edu_write(0x90, 100, 8)
    machine.edu_write(0x98, 0)
    assert machine.clock.deadline is None, "nothing starts without the run bit"
    machine.edu_write(0x98, TO_DEVICE | WITH_IRQ)
    machine.edu_write(0x80, 0x5555, 8)
    assert machine.edu_read(0x80, 8) == 0x1000
    machine.clock.advance(1099)
    assert machine.edu_read(0x98) & 1
    machine.clock.advance(1)
    assert machine.edu_read(0x98) == WITH_IRQ
    assert machine.edu_read(0x24) == 0x100
    assert machine.lines.high == {11}


@pytest.mark.parametrize(
    ("place", "count"), [(BUFFER - 1, 1), (BUFFER + 4096, 1), (BUFFER + 1, 4096), (0, 4), (BUFFER, 1 << 40)]
)
def test_dma_outside_the_buffer_moves_nothing(place: int, count: int) -> None:
    machine = master()
    machine.ram.write(0x2000, b"\x5a" * 16)
    machine.edu_dma(place, 0x2000, count, TO_MEMORY)
    machine.edu_dma(0x2000, place, count, TO_DEVICE)
    assert machine.ram.read(0x2000, 16) == b"\x5a" * 16


@pytest.mark.parametrize(("bits", "address"), [(28, 0x2000), (32, 0x10002000)])
def test_dma_drives_28_address_lines(bits: int, address: int) -> None:
    machine = master(bits)
    machine.ram.write(0x2000, b"\x5a")
    machine.edu_dma(0x10002000, BUFFER, 1, TO_DEVICE)
    machine.edu_dma(BUFFER, 0x3000, 1, TO_MEMORY)
    assert machine.ram.read(0x3000, 1) == (b"\x5a" if address == 0x2000 else b"\xff"), "no RAM there"


def test_dma_needs_bus_mastering() -> None:
    machine = PciMachine()
    machine.edu_dma(BUFFER, 0x3000, 1, TO_MEMORY)
    machine.edu_dma(0x3000, BUFFER, 1, TO_DEVICE)
    machine.write(EDU, 4, 0x0006, 2)
    machine.edu_dma(BUFFER, 0x3001, 1, TO_MEMORY)
    assert machine.ram.read(0x3000, 2) == b"\0\xff"


def test_save_and_restore_in_the_middle_of_both() -> None:
    machine = master()
    machine.ram.write(0x1000, b"data")
    for register, value in ((0x80, 0x1000), (0x88, BUFFER), (0x90, 4)):
        machine.edu_write(register, value, 8)
    machine.edu_write(0x98, TO_DEVICE)
    machine.edu_write(8, 6)
    saved, now = machine.bus.save(), machine.clock.ticks
    machine.clock.advance(5000)
    after = machine.bus.save()
    machine.clock.ticks = now
    machine.bus.restore(saved)
    assert machine.bus.save() == saved
    assert machine.edu_read(0x20) == 1
    machine.clock.advance(5000)
    assert machine.bus.save() == after
    assert machine.edu_read(8) == 720


@pytest.mark.parametrize(("bits", "written"), [(28, b"\x5a"), (32, b"\0")])
def test_dma_writes_by_28_address_lines(bits: int, written: bytes) -> None:
    machine = master(bits)
    machine.ram.write(0x2000, b"\x5a")
    machine.edu_dma(0x2000, BUFFER, 1, TO_DEVICE)
    machine.edu_dma(BUFFER, 0x10003000, 1, TO_MEMORY)
    assert machine.ram.read(0x3000, 1) == written
