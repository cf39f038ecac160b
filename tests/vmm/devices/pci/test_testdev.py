"""pci-testdev, driven as kvm-unit-tests drive it."""

from __future__ import annotations

import pytest

from tests.vmm.devices.pci.machine import TESTDEV, PciMachine

NAMES = [f"{kind}-{test}-eventfd" for kind in ("mmio", "portio") for test in ("no", "wildcard", "datamatch")]
TRIGGERS = [2048, 2049, 2050, 131, 132, 133]


class Window:
    def __init__(self, io: bool) -> None:
        self.machine = PciMachine()
        self.io = io
        self.base = self.machine.bar(TESTDEV, int(io))

    def read(self, offset: int, size: int = 1) -> int:
        bus = self.machine.bus
        return (bus.port_read if self.io else bus.memory_read)(self.base + offset, size)[0]

    def write(self, offset: int, value: int, size: int = 1) -> None:
        bus = self.machine.bus
        (bus.port_write if self.io else bus.memory_write)(self.base + offset, size, value)


@pytest.mark.parametrize("io", [False, True])
@pytest.mark.parametrize("test", [0, 1, 2])
def test_header_and_count(io: bool, test: int) -> None:
    window = Window(io)
    assert window.read(4, 4) == 0, "nothing selected"
    window.write(0, test)
    which = 3 * io + test
    trigger, data = window.read(4, 4), window.read(8, 4)
    assert (window.read(0), window.read(1)) == (which, 1)
    assert (trigger, data) == (TRIGGERS[which], 0xCE if test == 1 else 0xFA)
    assert bytes(window.read(16 + i) for i in range(40)).split(b"\0")[0].decode() == NAMES[which]
    for _ in range(16):
        window.write(trigger, data)
    window.write(trigger + 1, data)
    window.write(trigger, 0x11)
    assert window.read(12, 4) == 16 + (test == 1), "the wildcard takes any data"
    window.write(0, test)
    assert window.read(12, 4) == 0


def test_no_such_test_selects_none() -> None:
    window = Window(False)
    window.write(0, 1)
    window.write(0, 3)
    assert window.read(1) == 0
    window.write(2049, 0xCE)
    assert window.read(12, 4) == 0


def test_save_and_restore() -> None:
    window = Window(False)
    window.write(0, 1)
    window.write(2049, 0)
    saved = window.machine.bus.save()
    window.write(2049, 0)
    window.machine.bus.restore(saved)
    assert window.read(12, 4) == 1
    assert window.machine.bus.save() == saved
