"""Whatever a guest writes, no device raises, and going back gives the same future."""

from __future__ import annotations

import random

import pytest

from kvmscope.vmm.devices.fw_cfg import FwCfg
from kvmscope.vmm.devices.i8042 import KeyboardController
from kvmscope.vmm.devices.iommu import IOMMU_BASE
from kvmscope.vmm.devices.reset import ResetControl
from tests.vmm.devices.iommu.machine import PAGES, ROOT, TABLE, IommuMachine
from tests.vmm.devices.pci.machine import EDU, TESTDEV

PORTS = [0x60, 0x64, 0x92, 0xB2, 0xB3, 0xCF9, *range(0xCF8, 0xD00), *range(0x510, 0x51C), *range(0x600, 0x60C), 0xAFE0]
REGISTERS = [*range(0, 0x100, 4), *range(0x220, 0x230, 4)]
EDU_REGISTERS = [0, 4, 8, 0x20, 0x24, 0x60, 0x64, 0x80, 0x88, 0x90, 0x98]


class Wild:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.machine = machine = IommuMachine(x2apic=bool(seed & 1))
        nothing = [].append
        reset = ResetControl(nothing)
        machine.bus.devices = (
            *machine.bus.devices,
            FwCfg(machine.ram, 1 << 20, 1),
            reset,
            KeyboardController(nothing, lambda level: None, lambda level: None),
        )
        machine.bus.remap()
        for place in (ROOT, ROOT + 0x1000, PAGES, PAGES + 0x1000, TABLE, 0x18000):
            # Entries that are often valid and lead to one another.
            for i in range(512):
                target = self.random.choice((ROOT, PAGES, TABLE, 0x30000)) | self.random.choice((0, 1, 3, 0x83, 0x87))
                machine.ram.put(place + 8 * i, target if self.random.random() < 0.8 else self.random.getrandbits(64))

    def value(self) -> int:
        return self.random.choice(
            (0, 1, 0xFFFFFFFF, ROOT, TABLE | 7, 0x30000, 0x40000, 0xFEE00010, 1 << self.random.randrange(64))
        ) | (self.random.getrandbits(64) if self.random.random() < 0.3 else 0)

    def step(self) -> object:
        machine, pick = self.machine, self.random.choice
        size, value = pick((1, 2, 4, 8)), self.value()
        kind = self.random.randrange(6)
        if kind == 0:
            return machine.bus.port_write(pick(PORTS), min(size, 4), value)
        if kind == 1:
            return machine.bus.port_read(pick(PORTS), min(size, 4))
        if kind == 2:
            machine.bus.memory_write(IOMMU_BASE + pick(REGISTERS), size, value)
            return machine.bus.memory_read(IOMMU_BASE + pick(REGISTERS), size)
        if kind == 3:
            machine.select(pick((EDU, TESTDEV, 0, 0xF8)), pick((4, 0x10, 0x14, 0x3C, 0x40, 0x44, 0x4C, 0x60, 0x80)))
            return machine.bus.port_write(0xCFC, 4, value)
        if kind == 4:
            machine.edu_write(pick(EDU_REGISTERS), value, size)
            return machine.edu_read(pick(EDU_REGISTERS), size)
        machine.clock.advance(self.random.randrange(20000))
        return len(machine.apics.messages)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_raises_and_history_repeats(seed: int) -> None:
    wild = Wild(seed)
    machine = wild.machine
    for _ in range(15):
        saved, state = machine.bus.save(), wild.random.getstate()
        now, ram, messages = machine.clock.ticks, bytes(machine.ram.data), list(machine.apics.messages)
        first = [wild.step() for _ in range(120)]
        after, views, memory = machine.bus.save(), machine.bus.views(), bytes(machine.ram.data)
        machine.clock.ticks = now
        machine.bus.restore(saved)
        machine.ram.data[:], machine.apics.messages = ram, messages
        wild.random.setstate(state)
        assert [wild.step() for _ in range(120)] == first
        assert machine.bus.save() == after
        assert machine.bus.views() == views
        assert machine.ram.data == memory
