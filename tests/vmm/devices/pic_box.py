"""A pair of 8259As on a bus, for their tests."""

from __future__ import annotations

from kvmscope.vmm.devices import Bus
from kvmscope.vmm.devices.pic import Pic

MASTER, SLAVE = 0x20, 0xA0
EOI = 0x20


class Box:
    """Both controllers at vectors 0x20 and 0x28, nothing masked, unless ``raw``."""

    def __init__(self, raw: bool = False, icw4: int = 0x01) -> None:
        self.levels: list[bool] = []
        self.pic = Pic(self.levels.append)
        self.bus = Bus((self.pic,))
        if not raw:
            self.initialize(icw4)

    def initialize(self, icw4: int = 0x01) -> None:
        for port, icw3, base in ((MASTER, 0x04, 0x20), (SLAVE, 0x02, 0x28)):
            self.write(port, 0x11)
            for word in (base, icw3, icw4):
                self.write(port + 1, word)

    def write(self, port: int, value: int) -> None:
        self.bus.port_write(port, 1, value)

    def read(self, port: int) -> int:
        return self.bus.port_read(port, 1)[0]

    def pulse(self, *irqs: int) -> None:
        for irq in irqs:
            self.pic.set_irq(irq, True)
            self.pic.set_irq(irq, False)

    def irr(self, port: int) -> int:
        self.write(port, 0x0A)
        return self.read(port)

    def isr(self, port: int) -> int:
        self.write(port, 0x0B)
        return self.read(port)

    @property
    def intr(self) -> bool:
        return bool(self.levels) and self.levels[-1]

    def drain(self) -> list[int]:
        """Acknowledge and end everything, as a handler that sends non-specific EOIs does."""
        vectors = []
        while self.intr:
            vectors.append(self.pic.acknowledge())
            if vectors[-1] >= 0x28:
                self.write(SLAVE, EOI)
            self.write(MASTER, EOI)
        return vectors
