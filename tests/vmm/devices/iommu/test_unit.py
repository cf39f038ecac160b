"""Registers, commands, invalidation queue and events of the remapping unit."""

from __future__ import annotations

import pytest

from kvmscope.vmm.devices.interrupts import DeliveryMode, Message
from tests.vmm.devices.iommu.machine import (
    CCMD,
    CFI,
    FEADDR,
    FECTL,
    FEDATA,
    FSTS,
    GCMD,
    GSTS,
    ICS,
    IEADDR,
    IECTL,
    IEDATA,
    IOTLB,
    IQA,
    IQH,
    IQT,
    IRE,
    IRTA,
    QIE,
    QUEUE,
    RTADDR,
    SIRTP,
    SRTP,
    TE,
    IommuMachine,
)
from tests.vmm.devices.pci.machine import EDU


def test_capabilities_say_what_is_there() -> None:
    machine = IommuMachine()
    assert machine.get(0x00) == 0x10
    cap, ecap = machine.get(0x08, 8), machine.get(0x10, 8)
    assert cap == 0x00D2008C222F0606
    assert machine.get(0x08) | machine.get(0x0C) << 32 == cap
    assert ecap == 0xF00F4B
    assert IommuMachine(x2apic=True).get(0x10, 8) == ecap | 0x10


@pytest.mark.parametrize(
    ("register", "size", "mask"),
    [
        (0x00, 4, 0),
        (0x08, 8, 0),
        (GSTS, 4, 0),
        (RTADDR, 8, 0xFFFFFFFFFFFFF000),
        (FEDATA, 4, 0xFFFF),
        (FEADDR, 4, 0xFFFFFFFC),
        (0x44, 4, 0),
        (0x58, 8, 0),
        (0x64, 4, 0),
        (IQH, 8, 0),
        (IQT, 8, 0x7FFF0),
        (IQA, 8, 0xFFFFFFFFFFFFF007),
        (IRTA, 8, 0xFFFFFFFFFFFFF00F),
        (0x300, 4, 0),
    ],
)
def test_writable_bits(register: int, size: int, mask: int) -> None:
    machine = IommuMachine()
    before = machine.get(register, size)
    machine.set(register, (1 << 8 * size) - 1, size)
    assert machine.get(register, size) == before & ~mask | mask


@pytest.mark.parametrize(("register", "size"), [(RTADDR, 1), (RTADDR, 2), (RTADDR + 2, 4), (RTADDR + 4, 8)])
def test_other_accesses_are_dropped(register: int, size: int) -> None:
    machine = IommuMachine()
    machine.set(register, 0x1234_5000 if size > 2 else 0xFF, size)
    assert machine.get(RTADDR, 8) == 0


def test_commands_set_their_status() -> None:
    machine = IommuMachine()
    for bit in (QIE, SRTP, SIRTP, TE, IRE, CFI):
        machine.set(GCMD, machine.get(GSTS) | bit)
        assert machine.get(GSTS) & bit
    assert machine.get(GCMD) == 0
    machine.set(GCMD, 0)
    assert machine.get(GSTS) == SRTP | SIRTP, "the pointers stay set"


def test_invalidation_by_register_is_done_at_once() -> None:
    machine = IommuMachine()
    machine.set(CCMD, 1 << 63 | 2 << 61 | 0x42, 8)
    assert machine.get(CCMD, 8) == 2 << 61 | 2 << 59 | 0x42
    machine.set(IOTLB, 1 << 63 | 3 << 60 | 0x42 << 32, 8)
    assert machine.get(IOTLB, 8) == 3 << 60 | 3 << 57 | 0x42 << 32


class Queue:
    def __init__(self, on: bool = True) -> None:
        self.machine = IommuMachine()
        self.machine.set(IQA, QUEUE, 8)
        self.tail = 0
        if on:
            self.machine.command(QIE)

    def post(self, low: int, high: int = 0) -> None:
        self.machine.ram.put(QUEUE + self.tail, low, high)
        self.tail = (self.tail + 16) % 0x1000
        self.machine.set(IQT, self.tail, 8)

    @property
    def done(self) -> bool:
        return self.machine.get(IQH, 8) == self.tail and not self.machine.get(FSTS)


@pytest.mark.parametrize(
    ("low", "high", "valid"),
    [
        (0x11, 0, True),
        (0x31 | 7 << 16 | 0x20 << 32, 0, True),
        (0x01, 0, False),
        (0x11 | 1 << 12, 0, False),
        (0x11, 1, False),
        (0x12, 0, True),
        (0x32 | 7 << 16, 0x12345000 | 0x49, True),
        (0x02, 0, False),
        (0x32, 0x100, False),
        (0x03, 0, False),
        (0x04, 0, True),
        (0x14 | 5 << 27 | 9 << 32, 0, True),
        (0x04 | 1 << 48, 0, False),
        (0x05, 0, True),
        (0x25 | 1 << 8, 0x3000, False),
        (0x25, 0x3001, False),
        (0x06, 0, False),
        (0x211, 0, False),
        (0x00, 0, False),
    ],
)
def test_descriptors(low: int, high: int, valid: bool) -> None:
    queue = Queue()
    queue.post(low, high)
    assert queue.done == valid
    assert queue.machine.get(FSTS) == (0 if valid else 0x10)


def test_wait_writes_its_status() -> None:
    queue = Queue()
    queue.machine.ram.put(0x3000, 0xFFFFFFFFFFFFFFFF)
    queue.post(0x25 | 0xCAFE << 32, 0x3000)
    assert queue.machine.ram.get(0x3000, 8) == 0xFFFFFFFF0000CAFE
    assert queue.machine.get(ICS) == 0


def test_wait_interrupts_once() -> None:
    queue = Queue()
    machine = queue.machine
    machine.set(IEDATA, 0x51)
    machine.set(IEADDR, 0xFEE02000)
    queue.post(0x15)
    assert machine.get(ICS) == 1
    assert machine.get(IECTL) == 0xC0000000, "masked: pending"
    assert machine.take() == []
    machine.set(IECTL, 0)
    assert machine.take() == [Message(0x51, destination=2)]
    assert machine.get(IECTL) == 0
    queue.post(0x15)
    assert machine.take() == [], "software has not seen the first"
    machine.set(ICS, 1)
    assert machine.get(ICS) == 0
    queue.post(0x15)
    assert machine.take() == [Message(0x51, destination=2)]


def test_the_queue_wraps() -> None:
    queue = Queue()
    for number in range(300):
        queue.post(0x25 | number << 32, 0x3000)
        assert queue.done
        assert queue.machine.ram.get(0x3000, 4) == number


def test_an_invalid_descriptor_stops_the_queue_until_software_clears_the_error() -> None:
    queue = Queue()
    machine = queue.machine
    queue.post(0x0F)
    queue.post(0x25 | 1 << 32, 0x3000)
    assert machine.get(IQH, 8) == 0
    assert machine.ram.get(0x3000, 4) == 0
    machine.ram.put(QUEUE, 0x05, 0)
    machine.set(FSTS, 0x10)
    assert queue.done
    assert machine.ram.get(0x3000, 4) == 1


def test_a_tail_beyond_the_queue_is_an_error() -> None:
    queue = Queue()
    queue.machine.set(IQT, 0x1000, 8)
    assert queue.machine.get(FSTS) == 0x10
    larger = Queue(on=False)
    larger.machine.set(IQA, QUEUE | 1, 8)
    larger.machine.command(QIE)
    for i in range(257):
        larger.machine.ram.put(QUEUE + 16 * i, 0x05, 0)
    larger.machine.set(IQT, 0x1010, 8)
    assert larger.machine.get(IQH, 8) == 0x1010
    assert larger.machine.get(FSTS) == 0


def test_a_queue_switched_on_starts_at_its_head() -> None:
    queue = Queue(on=False)
    queue.post(0x25 | 7 << 32, 0x3000)
    assert queue.machine.get(IQH, 8) == 0
    queue.machine.command(QIE)
    assert queue.done
    assert queue.machine.ram.get(0x3000, 4) == 7
    queue.machine.set(GCMD, 0)
    assert queue.machine.get(IQH, 8) == 0


def test_fault_event() -> None:
    machine = IommuMachine()
    machine.translate_edu()
    machine.set(FEDATA, 0x161)
    machine.set(FEADDR, 0xFEE0100C)
    machine.unit.translate(EDU, 0x5000, True)
    assert machine.get(FECTL) == 0xC0000000
    machine.set(FECTL, 0)
    assert machine.take() == [Message(0x61, DeliveryMode.LOWEST, destination=1, logical=True)]
    machine.unit.translate(EDU, 0x5000, True)
    assert machine.take() == [], "the status was set already"


def test_a_pending_event_ends_with_the_faults() -> None:
    machine = IommuMachine()
    machine.translate_edu()
    machine.unit.translate(EDU, 0x5000, True)
    assert machine.fault() is not None
    assert machine.get(FECTL) == 0x80000000
    machine.set(FECTL, 0)
    assert machine.take() == []


def test_the_view_names_the_fault() -> None:
    machine = IommuMachine()
    machine.translate_edu()
    machine.unit.translate(EDU, 0x5432, False)
    shown = str(machine.unit.view())
    assert "read refused: read 0x5000 of source 0x0020" in shown
    assert "TE RTP" in shown


def test_save_and_restore() -> None:
    machine = IommuMachine()
    machine.translate_edu()
    machine.map(0x5000, 0x30003)
    saved = machine.bus.save()
    machine.set(RTADDR, 0, 8)
    machine.command(SRTP)
    machine.unit.translate(EDU, 0x5000, True)
    machine.bus.restore(saved)
    assert machine.bus.save() == saved
    assert machine.unit.translate(EDU, 0x5000, True) == 0x30000
    assert machine.get(FSTS) == 0
