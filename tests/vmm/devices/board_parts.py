"""Parts of a board for tests of single devices: a clock set by hand, memory, lines that remember."""

from __future__ import annotations

import random
from collections.abc import Callable

from kvmscope.vmm.clock import Clock
from kvmscope.vmm.devices.bus import Bus
from kvmscope.vmm.devices.device import Device
from kvmscope.vmm.devices.interrupts import ApicBus, Message


class HandClock(Clock):
    """Time passes when the test says so."""

    def __init__(self) -> None:
        self.ticks = 0
        super().__init__(lambda: self.ticks)

    def advance(self, ticks: int) -> None:
        """Go on, expiring what is due at its own time."""
        end = self.ticks + ticks
        while self.deadline is not None and self.deadline <= end:
            self.ticks = max(self.ticks, self.deadline)
            self.run_due()
        self.ticks = end


class Memory:
    """`GuestRam` of a few pages from 0."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.data = bytearray(size)

    def read(self, physical: int, size: int) -> bytes:
        return bytes(self.data[physical : physical + size]).ljust(size, b"\xff")

    def write(self, physical: int, data: bytes) -> None:
        if physical + len(data) <= len(self.data):
            self.data[physical : physical + len(data)] = data

    def put(self, physical: int, *values: int, size: int = 8) -> None:
        for i, value in enumerate(values):
            self.write(physical + i * size, value.to_bytes(size, "little"))

    def get(self, physical: int, size: int) -> int:
        return int.from_bytes(self.data[physical : physical + size], "little")


class Levels:
    """Interrupt lines by number; every change is kept."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, bool]] = []
        self.high: set[int] = set()

    def __call__(self, line: int, level: bool) -> None:
        self.changes.append((line, level))
        (self.high.add if level else self.high.discard)(line)


class AllApics:
    """A receiver that takes every message."""

    def __init__(self) -> None:
        self.bus = ApicBus()
        self.bus.receivers.append(self)
        self.messages: list[Message] = []
        self.priority = 0

    def accepts(self, message: Message) -> bool:
        return True

    def receive(self, message: Message) -> None:
        self.messages.append(message)


def check_history(
    device: Device | Bus,
    rng: random.Random,
    shake: Callable[[], object],
    *,
    clock: HandClock | None = None,
    rounds: int = 20,
) -> None:
    """Put back, the device does again all that it did: what ``shake`` sees, by ``rng``'s choices, and leaves behind."""
    for _ in range(rounds):
        saved, state, ticks = device.save(), rng.getstate(), clock.ticks if clock else 0
        first, after = shake(), device.save()
        if clock:
            clock.ticks = ticks
        device.restore(saved)  # type: ignore[arg-type]
        assert device.save() == saved
        rng.setstate(state)
        assert shake() == first
        assert device.save() == after
