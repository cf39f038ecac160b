"""Each device through the bus, register by register."""

from __future__ import annotations

import random

import pytest

from kvmscope.vmm.devices import Bus, Device
from kvmscope.vmm.devices.debug_exit import DebugExit
from kvmscope.vmm.devices.debugcon import DebugConsole
from kvmscope.vmm.devices.pic import Pic
from kvmscope.vmm.devices.testdev import TestDevice
from kvmscope.vmm.devices.uart import Uart16550
from tests.vmm.devices.board_parts import check_history


def bus_with(*devices: Device) -> Bus:
    return Bus(devices)


class Recorder:
    """A bus with everything on it, and what its devices said."""

    def __init__(self) -> None:
        self.serial = bytearray()
        self.console = bytearray()
        self.exits: list[int] = []
        self.bus = Bus(
            (
                Uart16550(self.serial.append),
                DebugConsole(self.console.append),
                DebugExit(self.exits.append),
                TestDevice(),
                Pic(lambda level: None),
            )
        )


@pytest.mark.parametrize(("size", "value"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFFFFFF)])
@pytest.mark.parametrize("port", [0, 0x60, 0xF0, 0xF8, 0x400, 0xCF8, 0xFFFC, 0xFFFF])
def test_unclaimed_ports_read_all_ones(port: int, size: int, value: int) -> None:
    bus = Recorder().bus
    assert bus.port_write(port, size, 0x12345678) == ""
    assert bus.port_read(port, size) == (value, "")


@pytest.mark.parametrize(("size", "value"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFFFFFF), (8, 0xFFFFFFFF_FFFFFFFF)])
@pytest.mark.parametrize("address", [0x1000000, 0xFEE00030, 0xFF010000, 1 << 39])
def test_unclaimed_memory_reads_all_ones(address: int, size: int, value: int) -> None:
    bus = Recorder().bus
    assert bus.memory_write(address, size, 0) == ""
    assert bus.memory_read(address, size) == (value, "")
    assert bus.peek(address, size) is None


@pytest.mark.parametrize(
    ("port", "size", "value"), [(0xF4, 1, 0), (0xF4, 4, 0x12345678), (0xF5, 1, 7), (0xF6, 2, 0x1234)]
)
def test_debug_exit(port: int, size: int, value: int) -> None:
    box = Recorder()
    assert box.bus.port_read(port, size) == (0, "debug-exit")
    assert box.bus.port_write(port, size, value) == "debug-exit"
    assert box.exits == [value]
    assert f"QEMU exit status {(value << 1 | 1) & 0xFF}" in str(box.bus.views())


def test_debug_exit_takes_only_its_part_of_a_straddling_write() -> None:
    box = Recorder()
    box.bus.port_write(0xF3, 2, 0x5500)
    assert box.exits == [0x55]


def test_debug_console() -> None:
    box = Recorder()
    for byte in b"hi\n":
        assert box.bus.port_write(0xE9, 1, byte) == "debugcon"
    assert box.console == b"hi\n"
    assert box.bus.port_read(0xE9, 1) == (0xE9, "debugcon")


def test_masks_read_back() -> None:
    bus = Recorder().bus
    assert bus.port_read(0x21, 1) == (0, "pic")
    bus.port_write(0x21, 1, 0xFF)
    bus.port_write(0xA1, 1, 0xA5)
    assert bus.port_read(0x21, 1) == (0xFF, "pic")
    assert bus.port_read(0xA1, 1) == (0xA5, "pic")
    assert bus.port_read(0x20, 1) == (0, "pic")


# (writes as (port, size, value)), then (port, size, expected)
LATCH = [
    ([(0xE0, 4, 0x12345678)], (0xE0, 4, 0x12345678)),
    ([(0xE0, 4, 0x12345678)], (0xE1, 1, 0x56)),
    ([(0xE0, 4, 0x12345678)], (0xE2, 2, 0x1234)),
    ([(0xE0, 4, 0x12345678), (0xE1, 1, 0xAA)], (0xE0, 4, 0x1234AA78)),
    ([(0xE0, 4, 0x12345678), (0xE2, 2, 0xBEEF)], (0xE0, 4, 0xBEEF5678)),
    ([(0xE0, 4, 0x12345678)], (0xE8, 1, 0x78)),
    ([(0xE8, 1, 0x9A), (0xEB, 1, 0xBC)], (0xE0, 4, 0xBC00009A)),
    ([(0xE0, 4, 0xFFFFFFFF), (0xE3, 1, 0)], (0xE0, 4, 0x00FFFFFF)),
    # A read past the latch goes on at the flush ports, which read all ones.
    ([(0xE0, 4, 0x11223344)], (0xE3, 2, 0xFF11)),
    ([], (0xE4, 4, 0xFFFFFFFF)),
]


@pytest.mark.parametrize(("writes", "read"), LATCH)
def test_latch(writes: list[tuple[int, int, int]], read: tuple[int, int, int]) -> None:
    bus = bus_with(TestDevice())
    for port, size, value in writes:
        assert bus.port_write(port, size, value) == "pc-testdev"
    port, size, expected = read
    assert bus.port_read(port, size) == (expected, "pc-testdev")


def test_flush_is_remembered() -> None:
    bus = bus_with(TestDevice())
    bus.port_write(0xE4, 4, 0x123456)
    assert "0x123000" in str(bus.views())


def test_device_memory_is_memory() -> None:
    bus = Recorder().bus
    base = 0xFF000000
    assert bus.memory_read(base, 8) == (0, "pc-testdev")
    bus.memory_write(base, 8, 0x1122334455667788)
    assert bus.memory_read(base + 1, 2) == (0x6677, "pc-testdev")
    assert bus.memory_read(base, 8) == (0x1122334455667788, "pc-testdev")
    bus.memory_write(base + 0xFFFF, 1, 0x5A)
    assert bus.memory_read(base + 0xFFFF, 1) == (0x5A, "pc-testdev")
    # The last byte is the device's, the rest nobody's.
    bus.memory_write(base + 0xFFFE, 4, 0xDDCCBBAA)
    assert bus.memory_read(base + 0xFFFE, 4) == (0xFFFFBBAA, "pc-testdev")
    assert bus.peek(base, 4) == bytes.fromhex("88776655")
    assert bus.peek(base + 0xFFFE, 4) is None


BASE = 0x3F8


class Uart:
    def __init__(self) -> None:
        self.sent = bytearray()
        self.device = Uart16550(self.sent.append)
        self.bus = bus_with(self.device)

    def write(self, offset: int, value: int) -> None:
        self.bus.port_write(BASE + offset, 1, value)

    def read(self, offset: int) -> int:
        return self.bus.port_read(BASE + offset, 1)[0]


def test_uart_sends() -> None:
    uart = Uart()
    for byte in b"Hello":
        assert uart.read(5) & 0x20
        uart.write(0, byte)
    assert uart.sent == b"Hello"


def test_uart_divisor_latch_hides_data_and_ier() -> None:
    uart = Uart()
    uart.write(1, 0x05)
    uart.write(3, 0x83)
    uart.write(0, 0x01)
    uart.write(1, 0xC2)
    assert (uart.read(0), uart.read(1)) == (0x01, 0xC2)
    uart.write(3, 0x03)
    assert uart.read(1) == 0x05
    assert uart.sent == b""
    assert "115200 baud" not in str(uart.device.view())
    uart.write(3, 0x83)
    uart.write(1, 0)
    assert "115200 baud" in str(uart.device.view())


@pytest.mark.parametrize(
    ("offset", "written", "read"), [(1, 0xFF, 0x0F), (3, 0x5A, 0x5A), (4, 0xFF, 0x1F), (7, 0xA5, 0xA5)]
)
def test_uart_registers_keep_their_bits(offset: int, written: int, read: int) -> None:
    uart = Uart()
    uart.write(offset, written)
    assert uart.read(offset) == read


@pytest.mark.parametrize("offset", [5, 6])
def test_uart_status_registers_ignore_writes(offset: int) -> None:
    uart = Uart()
    before = uart.read(offset)
    uart.write(offset, ~before & 0xFF)
    assert uart.read(offset) == before


def test_uart_loopback_receives_what_it_sends() -> None:
    uart = Uart()
    uart.write(4, 0x10)
    assert not uart.read(5) & 1
    uart.write(0, 0x42)
    assert uart.read(5) & 1
    assert uart.read(0) == 0x42
    assert not uart.read(5) & 1
    assert uart.sent == b""


@pytest.mark.parametrize(("fifo", "kept"), [(0, [0x33]), (1, [0x30, 0x31, 0x32, 0x33])])
def test_uart_loopback_depth(fifo: int, kept: list[int]) -> None:
    uart = Uart()
    uart.write(4, 0x10)
    uart.write(2, fifo)
    for i in range(4):
        uart.write(0, 0x30 + i)
    lsr = uart.read(5)
    assert lsr >> 1 & 1 == (not fifo)
    assert uart.read(5) >> 1 & 1 == 0, "reading LSR clears the overrun"
    received = []
    while uart.read(5) & 1:
        received.append(uart.read(0))
    assert received == kept


def test_uart_fifo_overruns_after_16() -> None:
    uart = Uart()
    uart.write(4, 0x10)
    uart.write(2, 1)
    for i in range(17):
        uart.write(0, i)
    assert uart.read(5) & 2
    assert [uart.read(0) for _ in range(16)] == list(range(16))
    uart.write(0, 1)
    uart.write(2, 3)
    assert not uart.read(5) & 1, "FCR bit 1 clears the FIFO"


def test_uart_modem_lines_follow_in_loopback() -> None:
    uart = Uart()
    assert uart.read(6) == 0xB0
    uart.write(4, 0x1F)
    assert uart.read(6) & 0xF0 == 0xF0
    uart.write(4, 0x11)
    value = uart.read(6)
    assert value & 0xF0 == 0x20
    assert value & 0x0F == 0b1101, "CTS and DCD dropped, RI ended"
    assert uart.read(6) == 0x20, "reading MSR clears the changes"


def test_uart_interrupt_identification_has_priorities() -> None:
    uart = Uart()
    assert uart.read(2) == 0x01
    uart.write(1, 0x02)
    assert uart.read(2) == 0x02, "the transmitter is empty"
    assert uart.read(2) == 0x01, "reading IIR clears it"
    uart.write(0, 0x41)
    assert uart.read(2) == 0x02
    uart.write(4, 0x10)
    uart.write(1, 0x07)
    uart.write(0, 1)
    assert uart.read(2) == 0x04
    uart.write(0, 2)
    assert uart.read(2) == 0x06
    uart.write(2, 1)
    assert uart.read(2) & 0xC0 == 0xC0


def test_a_wide_access_is_split_as_on_isa() -> None:
    uart = Uart()
    uart.bus.port_write(BASE + 3, 2, 0x1F_03)
    assert uart.read(3) == 0x03
    assert uart.read(4) == 0x1F
    assert uart.bus.port_read(BASE + 3, 2) == (0x1F03, "uart")


def test_save_and_restore_are_exact_for_every_device() -> None:
    rng = random.Random(7)
    box = Recorder()
    bus = box.bus
    ports = [0x21, 0xA1, 0xE9, *range(0xE0, 0xEC), *range(0xF4, 0xF8), *range(BASE, BASE + 8)]

    def shake() -> list[object]:
        seen: list[object] = []
        for _ in range(60):
            port, size = rng.choice(ports), rng.choice((1, 2, 4))
            if rng.random() < 0.5:
                bus.port_write(port, size, rng.getrandbits(32))
            else:
                seen.append(bus.port_read(port, size))
            address = 0xFF000000 + rng.randrange(0x10000)
            bus.memory_write(address, 8, rng.getrandbits(64))
            seen.append(bus.memory_read(address - 3, 8))
        return [*seen, bus.views()]

    check_history(bus, rng, shake)


def test_saving_unchanged_device_memory_copies_nothing() -> None:
    device = TestDevice()
    device.memory_write(0xFF000000, 1, 1)
    assert device.save()[2] is device.save()[2]
