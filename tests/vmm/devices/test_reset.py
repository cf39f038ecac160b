"""Ports 0x92 and 0xcf9, the keyboard controller, port 0x80 and the test device's interrupt lines."""

from __future__ import annotations

import pytest

from kvmscope.vmm.devices import Bus
from kvmscope.vmm.devices.i8042 import KeyboardController
from kvmscope.vmm.devices.post_code import PostCode
from kvmscope.vmm.devices.reset import ResetControl
from kvmscope.vmm.devices.testdev import TestDevice
from tests.vmm.devices.board_parts import Levels


class Box:
    def __init__(self) -> None:
        self.resets: list[str] = []
        self.lines = Levels()
        self.bus = Bus(
            (
                ResetControl(self.resets.append),
                KeyboardController(
                    self.resets.append, lambda level: self.lines(1, level), lambda level: self.lines(12, level)
                ),
                PostCode(),
                TestDevice(self.lines),
            )
        )

    def write(self, port: int, *values: int) -> None:
        for value in values:
            self.bus.port_write(port, 1, value)

    def read(self, port: int) -> int:
        return self.bus.port_read(port, 1)[0]


@pytest.mark.parametrize(
    ("writes", "resets"),
    [
        ([(0x92, 0x01)], ["init"]),
        ([(0x92, 0x01), (0x92, 0x03)], ["init"]),
        ([(0x92, 0x01), (0x92, 0x00), (0x92, 0x01)], ["init", "init"]),
        ([(0x92, 0x02)], []),
        ([(0xCF9, 0x00), (0xCF9, 0x04)], ["init"]),
        ([(0xCF9, 0x02), (0xCF9, 0x06)], ["reset"]),
        ([(0xCF9, 0x0E)], ["reset"]),
        ([(0xCF9, 0x06), (0xCF9, 0x06)], ["reset"]),
        ([(0xCF9, 0x0A)], []),
        ([(0x64, 0xFE)], ["init"]),
        ([(0x64, 0xF0)], ["init"]),
        ([(0x64, 0xFF)], []),
        ([(0x64, 0xD1), (0x60, 0xDE)], ["init"]),
        ([(0x64, 0xD1), (0x60, 0xDF)], []),
    ],
)
def test_resets(writes: list[tuple[int, int]], resets: list[str]) -> None:
    box = Box()
    for port, value in writes:
        box.write(port, value)
    assert box.resets == resets


def test_an_init_leaves_port_92_set_and_a_reset_clears_it() -> None:
    resets: list[str] = []
    device = ResetControl(resets.append)
    device.port_write(0x92, 1, 0x03)
    assert device.port_read(0x92, 1) == 0x03
    device.restart()
    assert device.port_read(0x92, 1) == 0x02


@pytest.mark.parametrize(("command", "answer"), [(0xAA, 0x55), (0xAB, 0), (0xA9, 0), (0x20, 0x34), (0xD0, 0xC3)])
def test_keyboard_controller_answers(command: int, answer: int) -> None:
    box = Box()
    assert box.read(0x64) == 0x14
    box.write(0x64, command)
    assert box.read(0x64) == 0x1D
    assert box.read(0x60) == answer
    assert box.read(0x64) & 0x03 == 0


def test_keyboard_controller_configuration() -> None:
    box = Box()
    box.write(0x64, 0x60)
    box.write(0x60, 0xFF)
    box.write(0x64, 0x20)
    assert box.read(0x60) == 0x77, "bits 3 and 7 are not there"
    box.write(0x64, 0xAE, 0xA8, 0x20)
    assert box.read(0x60) == 0x47
    box.write(0x64, 0xAD, 0xA7, 0x20)
    assert box.read(0x60) == 0x77


def test_keyboard_controller_a20() -> None:
    box = Box()
    box.write(0x64, 0xDD, 0xD0)
    assert not box.read(0x60) & 2
    box.write(0x64, 0xDF, 0xD0)
    assert box.read(0x60) & 2


def test_no_keyboard_no_answer() -> None:
    box = Box()
    box.write(0x60, 0xED)
    assert box.read(0x64) == 0x55, "time-out, output buffer full"
    assert box.read(0x60) == 0xFE
    box.write(0x64, 0xD4)
    box.write(0x60, 0xFF)
    assert box.read(0x64) == 0x75, "the same from the mouse's side"
    assert box.read(0x60) == 0xFE
    assert box.read(0x64) == 0x14


def test_a_full_output_buffer_interrupts() -> None:
    box = Box()
    box.write(0x64, 0xD2)
    box.write(0x60, 0x1C)
    assert not box.lines.changes
    box.write(0x64, 0x60)
    box.write(0x60, 0x03)
    assert box.lines.changes == [(1, True)], "enabled while full"
    assert box.read(0x60) == 0x1C
    assert not box.lines.high
    box.write(0x64, 0xD3)
    box.write(0x60, 0x08)
    assert box.lines.high == {12}
    assert box.read(0x60) == 0x08
    assert not box.lines.high


def test_post_code_reads_back() -> None:
    box = Box()
    box.write(0x80, 0xA5)
    assert box.read(0x80) == 0xA5
    assert "0xa5" in str(box.bus.views())


def test_interrupt_lines_of_the_test_device() -> None:
    box = Box()
    box.write(0x200E, 1)
    box.write(0x2017, 0x80)
    box.write(0x200E, 0)
    assert box.lines.changes == [(14, True), (23, True), (14, False)]
    assert box.read(0x200E) == 0xFF
    assert "0x800000" in str(box.bus.views())
    # A wide write is split into bytes; behind line 23 there is none.
    box.bus.port_write(0x2017, 2, 0x0100)
    assert box.lines.changes[3:] == [(23, False)]


def test_save_and_restore() -> None:
    box = Box()
    box.write(0x64, 0x60)
    box.write(0x60, 0x01)
    box.write(0x64, 0xD2)
    box.write(0x60, 0x42)
    box.write(0xCF9, 0x02)
    saved = box.bus.save()
    assert box.read(0x60) == 0x42
    box.write(0xCF9, 0x06)
    box.bus.restore(saved)
    assert box.bus.save() == saved
    changes = len(box.lines.changes)
    assert box.read(0x60) == 0x42
    assert box.lines.changes[changes:] == [(1, False)], "the level was put back too"
    box.write(0xCF9, 0x06)
    assert box.resets == ["reset", "reset"]


def test_the_reset_line_is_high_again_after_its_pulse() -> None:
    box = Box()
    for _ in range(2):
        box.write(0x64, 0xD1)
        box.write(0x60, 0xDE)
    box.write(0x64, 0xD0)
    assert box.read(0x60) & 1
    assert box.resets == ["init", "init"]
