"""The root bus: configuration mechanism #1, INTx routing, and what firmware assigns.

PCI Local Bus Specification 3.0, section 3.2.2.3.2.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Final

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range
from kvmscope.vmm.devices.pci.function import IO_SPACE, MEMORY_SPACE, PciFunction, Register
from kvmscope.vmm.devices.pci.upstream import Upstream

__all__ = ["IsaBridge", "PciRoot", "devfn"]

_ADDRESS: Final = Range(0xCF8, 4)
_DATA: Final = Range(0xCFC, 4)
_ENABLE: Final = 1 << 31
_MEMORY_TOP: Final = 0xFEC00000
"""Memory is handed out downwards from the I/O APIC, as SeaBIOS does."""
_PORTS_FROM: Final = 0xC000
_FIRMWARE_COMMAND: Final = 0x103
"""Firmware switches on both spaces and SERR#; bus mastering is the driver's."""


def devfn(device: int, function: int = 0) -> int:
    """Device and function as they stand in a configuration address."""
    return device << 3 | function


class IsaBridge(PciFunction):
    """The south bridge: it routes INTx of the root bus to interrupt lines."""

    @abstractmethod
    def pirq(self, device: int, pin: int) -> int:
        """Routing input of pin 1..4 of ``device`` on the root bus."""

    @abstractmethod
    def gsis(self, pirq: int) -> tuple[int, ...]:
        """Inputs of the I/O APIC that a routing input drives now (below 16: ISA lines, with the 8259s)."""

    @abstractmethod
    def firmware_line(self, device: int, pin: int) -> int:
        """What firmware writes into the interrupt line register."""


class PciRoot(Device):
    """Bus 0 with ``functions`` by `devfn`; one of them may be the `IsaBridge`.

    ``irq(gsi, level)`` drives an input of the I/O APIC; ``remap`` has the bus look at the ranges anew (`Bus.remap`).
    Functions are devices of their own: put them on the bus too, before or after the root.

    The address register is there for dwords only (82441FX data sheet, section 3.1.1).  Its two lowest bits ought to
    read 0; here, as in QEMU, they are kept and or-ed with the offset into the data port, since kvm-unit-tests address
    single bytes so.
    """

    name = "pci"
    ports = (_ADDRESS, _DATA)

    def __init__(
        self,
        functions: Mapping[int, PciFunction],
        upstream: Upstream,
        irq: Callable[[int, bool], None],
        remap: Callable[[], None],
    ) -> None:
        self.functions = dict(sorted(functions.items()))
        self._upstream = upstream
        self._irq = irq
        self._remap = remap
        self._bridge = next((f for f in self.functions.values() if isinstance(f, IsaBridge)), None)
        self._address = 0
        self._levels = 0
        """Levels driven, one bit for each input of the I/O APIC."""
        for source, function in self.functions.items():
            function.source = source
        self._assign()
        for function in self.functions.values():
            function.fabric = self

    def _assign(self) -> None:
        """What firmware does before the guest starts: places, lines, decoding on."""
        memory, ports = _MEMORY_TOP, _PORTS_FROM
        for source, function in self.functions.items():
            for number, bar in enumerate(function.bars):
                if bar.io:
                    place = -(-ports // bar.size) * bar.size
                    ports = place + bar.size
                else:
                    memory = place = (memory - bar.size) // bar.size * bar.size
                function.config_write(Register.BAR0 + 4 * number, 4, place)
            if function.bars:
                kinds = sum({IO_SPACE if bar.io else MEMORY_SPACE for bar in function.bars})
                function.config_write(Register.COMMAND, 2, _FIRMWARE_COMMAND & ~3 | kinds)
            if function.pin and self._bridge is not None and function.config[Register.INTERRUPT_LINE] == 0:
                line = self._bridge.firmware_line(source >> 3, function.pin)
                function.config[Register.INTERRUPT_LINE] = line

    # Fabric

    def moved(self) -> None:
        """Some function's base addresses have moved."""
        self._remap()

    def lines_changed(self) -> None:
        """Drive the inputs that functions and routing say, if they differ from before."""
        levels = 0
        if self._bridge is not None:
            for source, function in self.functions.items():
                if function.pin and function.asserted:
                    for gsi in self._bridge.gsis(self._bridge.pirq(source >> 3, function.pin)):
                        levels |= 1 << gsi
        changed, self._levels = levels ^ self._levels, levels
        while changed:
            lowest = changed & -changed
            changed ^= lowest
            self._irq(lowest.bit_length() - 1, bool(levels & lowest))

    def read(self, source: int, address: int, size: int) -> bytes | None:
        """A function reads memory."""
        return self._upstream.read(source, address, size)

    def write(self, source: int, address: int, data: bytes) -> bool:
        """A function writes memory or sends a message."""
        return self._upstream.write(source, address, data)

    # configuration mechanism #1

    def _selected(self) -> PciFunction | None:
        # Bus 0 only: there is no bridge that a configuration cycle of another bus could pass.
        if not self._address & _ENABLE or self._address >> 16 & 0xFF:
            return None
        return self.functions.get(self._address >> 8 & 0xFF)

    def port_read(self, port: int, size: int) -> int:
        """The address register, or a register of the function that it selects: all ones when there is none."""
        if port < _DATA.first:
            return self._address if size == 4 else (1 << 8 * size) - 1
        function = self._selected()
        return (1 << 8 * size) - 1 if function is None else function.config_read(self._address & 0xFF | port & 3, size)

    def port_write(self, port: int, size: int, value: int) -> None:
        """Select, or write a register of the function selected."""
        if port < _DATA.first:
            if size == 4:
                self._address = value & 0x80FFFFFF
        elif (function := self._selected()) is not None:
            function.config_write(self._address & 0xFF | port & 3, size, value)

    def view(self) -> DeviceView:
        """The address register, what it selects, and the lines."""
        address = self._address
        where = f"{address >> 16 & 0xFF:02x}:{address >> 11 & 31:02x}.{address >> 8 & 7} register {address & 0xFF:#04x}"
        function = self._selected()
        who = function.name if function is not None else "nobody" if address & _ENABLE else "off"
        lines = " ".join(str(gsi) for gsi in range(24) if self._levels >> gsi & 1) or "none"
        return DeviceView(
            self.name,
            "ports 0xcf8-0xcff",
            (
                DeviceField("CONFIG_ADDRESS", f"{address:#010x}", f"{where}, {who}"),
                DeviceField("lines high", lines, "inputs of the I/O APIC"),
            ),
        )

    def save(self) -> DeviceState:
        """Address register and levels."""
        return (self._address, self._levels)

    def restore(self, state: DeviceState) -> None:
        """Put both back (the controllers put back by themselves what they saw of the levels)."""
        address, levels = state
        assert isinstance(address, int)
        assert isinstance(levels, int)
        self._address, self._levels = address, levels
