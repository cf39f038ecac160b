"""A PCI function: its configuration header, base addresses, INTx, MSI and bus mastering.

PCI Local Bus Specification 3.0, chapter 6 (configuration space) and section 6.8 (MSI).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range, bit_names

__all__ = ["CONFIG_SIZE", "Bar", "Fabric", "Identity", "PciFunction", "Register"]

CONFIG_SIZE: Final = 256


class Register:
    """Offsets in the configuration header of type 0."""

    VENDOR: Final = 0x00
    DEVICE: Final = 0x02
    COMMAND: Final = 0x04
    STATUS: Final = 0x06
    REVISION: Final = 0x08
    CLASS: Final = 0x09
    HEADER_TYPE: Final = 0x0E
    BAR0: Final = 0x10
    SUBSYSTEM_VENDOR: Final = 0x2C
    SUBSYSTEM: Final = 0x2E
    CAPABILITIES: Final = 0x34
    INTERRUPT_LINE: Final = 0x3C
    INTERRUPT_PIN: Final = 0x3D


IO_SPACE: Final = 0x001
MEMORY_SPACE: Final = 0x002
BUS_MASTER: Final = 0x004
_PARITY_SERR: Final = 0x140
INTX_DISABLE: Final = 0x400
_COMMAND_BITS: Final = ((0, "IO"), (1, "MEM"), (2, "MASTER"), (6, "PERR"), (8, "SERR"), (10, "INTX_OFF"))
_STATUS_BITS: Final = ((3, "INTX"), (4, "CAPS"), (7, "FAST"))
_INTX_STATUS: Final = 0x08
_CAPABILITIES: Final = 0x10
_STATUS_ERRORS: Final = 0xF900
"""Error bits of the status register: a one clears."""
_MSI: Final = 0x05
_MSI_ENABLE: Final = 0x01
_MSI_64BIT: Final = 0x80


class Identity(NamedTuple):
    """The read-only part of the header."""

    vendor: int
    device: int
    class_code: int
    """Base class, subclass and programming interface, 24 bits."""
    revision: int = 0
    subsystem_vendor: int = 0x1AF4
    subsystem: int = 0x1100
    multifunction: bool = False
    status: int = 0


class Bar(NamedTuple):
    """A base address register: ``size`` is a power of two, of at least 16 bytes of memory or 4 ports."""

    size: int
    io: bool = False
    access: int = 4
    """Widest access that the function takes whole."""


class Fabric(Protocol):
    """What a function is plugged into."""

    def moved(self) -> None:
        """Some function's ports or memory have moved."""

    def lines_changed(self) -> None:
        """Some function's INTx has changed."""

    def read(self, source: int, address: int, size: int) -> bytes | None:
        """Read memory for the function ``source``; None when the access was refused."""

    def write(self, source: int, address: int, data: bytes) -> bool:
        """Write memory, or send the message that a write to 0xfeexxxxx is."""


class _Nowhere:
    """Not plugged in."""

    def moved(self) -> None: ...

    def lines_changed(self) -> None: ...

    def read(self, source: int, address: int, size: int) -> bytes | None:
        return None

    def write(self, source: int, address: int, data: bytes) -> bool:
        return False


class PciFunction(Device):
    """One function.  A subclass gives identity, base addresses, pin and what stands behind the base addresses.

    Configuration space is bytes with a mask of writable bits; sizing a base address falls out of that.  The root plugs
    the function in and tells it its ``source`` id (bus, device, function).
    """

    identity: Identity
    bars: Sequence[Bar] = ()
    pin: int = 0
    """Interrupt pin: 0 none, 1 INTA# .. 4 INTD#."""
    msi_offset: int = 0
    """Where the MSI capability lies (one vector, 64-bit address, no masking); 0: there is none."""

    def __init__(self) -> None:
        self.source = 0
        self.fabric: Fabric = _Nowhere()
        self._ranges: dict[int, Range] = {}
        self.config = bytearray(CONFIG_SIZE)
        self.writable = bytearray(CONFIG_SIZE)
        """A one for each bit of the configuration space that takes what is written."""
        who = self.identity
        self.set_config(Register.VENDOR, 2, who.vendor)
        self.set_config(Register.DEVICE, 2, who.device)
        self.set_config(Register.STATUS, 2, who.status | (_CAPABILITIES if self.msi_offset else 0))
        self.set_config(Register.REVISION, 4, who.class_code << 8 | who.revision)
        self.config[Register.HEADER_TYPE] = 0x80 if who.multifunction else 0
        self.set_config(Register.SUBSYSTEM_VENDOR, 2, who.subsystem_vendor)
        self.set_config(Register.SUBSYSTEM, 2, who.subsystem)
        self.config[Register.INTERRUPT_PIN] = self.pin
        self.allow(0x0C, 1, 0xFF)  # cache line size: software's, and of no effect
        self.allow(Register.INTERRUPT_LINE, 1, 0xFF)
        command = BUS_MASTER | _PARITY_SERR | (INTX_DISABLE if self.pin else 0)
        for number, bar in enumerate(self.bars):
            self.set_config(Register.BAR0 + 4 * number, 4, 1 if bar.io else 0)
            # The lowest bits say what kind of register it is.
            self.allow(Register.BAR0 + 4 * number, 4, ~(bar.size - 1) & (0xFFFFFFFC if bar.io else 0xFFFFFFF0))
            command |= IO_SPACE if bar.io else MEMORY_SPACE
        self.allow(Register.COMMAND, 2, command)
        if self.msi_offset:
            at = self.msi_offset
            self.config[Register.CAPABILITIES] = at
            self.set_config(at, 4, _MSI | _MSI_64BIT << 16)
            self.allow(at + 2, 2, _MSI_ENABLE)
            self.allow(at + 4, 4, 0xFFFFFFFC)
            self.allow(at + 8, 4, 0xFFFFFFFF)
            self.allow(at + 12, 2, 0xFFFF)

    # configuration space

    def get_config(self, offset: int, size: int) -> int:
        """A register, little-endian."""
        return int.from_bytes(self.config[offset : offset + size], "little")

    def set_config(self, offset: int, size: int, value: int) -> None:
        """Set a register, whatever is writable."""
        self.config[offset : offset + size] = value.to_bytes(size, "little")

    def allow(self, offset: int, size: int, mask: int) -> None:
        """Make the bits of ``mask`` writable."""
        self.writable[offset : offset + size] = mask.to_bytes(size, "little")

    def config_read(self, offset: int, size: int) -> int:
        """A configuration read; what lies beyond the space reads all ones."""
        data = bytes(self.config[offset : offset + size])
        return int.from_bytes(data.ljust(size, b"\xff"), "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        """A configuration write."""
        asserted = self.asserted
        before = bytes(self.config)
        for at, byte in enumerate(value.to_bytes(size, "little"), offset):
            if at < CONFIG_SIZE:
                mask = self.writable[at]
                self.config[at] = self.config[at] & ~mask | byte & mask
                if at in (Register.STATUS, Register.STATUS + 1):
                    self.config[at] &= ~(byte & _STATUS_ERRORS >> 8 * (at - Register.STATUS))
        if self.config == before:
            return
        self._place()
        self.configured(offset, size)
        if self.asserted != asserted:
            self.fabric.lines_changed()

    # Most functions have no registers of their own there.
    def configured(self, offset: int, size: int) -> None:
        """For subclasses: configuration space has changed somewhere in these bytes."""

    @property
    def command(self) -> int:
        """The command register."""
        return self.get_config(Register.COMMAND, 2)

    # base addresses

    def bar_range(self, number: int) -> Range | None:
        """Ports or memory that base address ``number`` decodes; None while it is disabled or has no place.

        As QEMU, a range that starts at 0 or reaches the end of its space decodes nothing: that is what sizing writes.
        """
        bar = self.bars[number]
        if not self.command & (IO_SPACE if bar.io else MEMORY_SPACE):
            return None
        first = self.get_config(Register.BAR0 + 4 * number, 4) & (0xFFFFFFFC if bar.io else 0xFFFFFFF0)
        if first == 0 or first + bar.size >= (0x10000 if bar.io else 1 << 32):
            return None
        return Range(first, bar.size, bar.access)

    def _place(self) -> None:
        """Take over base addresses; tell the fabric when they have moved."""
        ranges = {n: found for n in range(len(self.bars)) if (found := self.bar_range(n)) is not None}
        if ranges != self._ranges:
            self._ranges = ranges
            self.ports = tuple(r for n, r in ranges.items() if self.bars[n].io)
            self.memory = tuple(r for n, r in ranges.items() if not self.bars[n].io)
            self.fabric.moved()

    def _decode(self, address: int, io: bool) -> tuple[int, int]:
        """(base address register, offset) of an access."""
        for number, found in self._ranges.items():
            if self.bars[number].io == io and found.first <= address < found.end:
                return number, address - found.first
        raise AssertionError(f"{self.name} does not decode {address:#x}")

    def bar_read(self, number: int, offset: int, size: int) -> int:
        """For subclasses: a read behind a base address."""
        return (1 << 8 * size) - 1

    def bar_write(self, number: int, offset: int, size: int, value: int) -> None:
        """For subclasses: a write behind a base address."""

    def port_read(self, port: int, size: int) -> int:
        """IN from an I/O base address."""
        return self.bar_read(*self._decode(port, io=True), size)

    def port_write(self, port: int, size: int, value: int) -> None:
        """OUT to an I/O base address."""
        self.bar_write(*self._decode(port, io=True), size, value)

    def memory_read(self, address: int, size: int) -> int:
        """Load from a memory base address."""
        return self.bar_read(*self._decode(address, io=False), size)

    def memory_write(self, address: int, size: int, value: int) -> None:
        """Store to a memory base address."""
        self.bar_write(*self._decode(address, io=False), size, value)

    # interrupts and bus mastering

    @property
    def asserted(self) -> bool:
        """INTx is low (asserted): the function wants an interrupt and is allowed to ask for it by the pin."""
        wanted = bool(self.config[Register.STATUS] & _INTX_STATUS)
        return wanted and not self.command & INTX_DISABLE and not self.msi_enabled

    def set_intx(self, level: bool) -> None:
        """Want an interrupt by the pin, or no more."""
        before = self.asserted
        status = self.config[Register.STATUS]
        self.config[Register.STATUS] = status & ~_INTX_STATUS | (_INTX_STATUS if level else 0)
        if self.asserted != before:
            self.fabric.lines_changed()

    @property
    def msi_enabled(self) -> bool:
        """Interrupts go by message, never by the pin."""
        return bool(self.msi_offset and self.config[self.msi_offset + 2] & _MSI_ENABLE)

    def send_msi(self) -> None:
        """Write the message; only a bus master can."""
        at = self.msi_offset
        self.dma_write(self.get_config(at + 4, 8), self.get_config(at + 12, 2).to_bytes(4, "little"))

    def dma_read(self, address: int, size: int) -> bytes | None:
        """Read memory as a bus master; None when that is not allowed."""
        return self.fabric.read(self.source, address, size) if self.command & BUS_MASTER else None

    def dma_write(self, address: int, data: bytes) -> bool:
        """Write memory as a bus master; False when that is not allowed."""
        return bool(self.command & BUS_MASTER) and self.fabric.write(self.source, address, data)

    # for the panel and for history

    def view(self) -> DeviceView:
        """The header and the function's own registers."""
        fields = [
            DeviceField("COMMAND", f"{self.command:#06x}", bit_names(_COMMAND_BITS, self.command)),
            DeviceField("STATUS", f"{self.get_config(6, 2):#06x}", bit_names(_STATUS_BITS, self.get_config(6, 2))),
        ]
        for number, bar in enumerate(self.bars):
            value = self.get_config(Register.BAR0 + 4 * number, 4)
            kind = f"{bar.size:#x} {'ports' if bar.io else 'bytes'}"
            shown = kind if number in self._ranges else f"{kind}, not decoded"
            fields.append(DeviceField(f"BAR{number}", f"{value:#010x}", shown))
        if self.pin:
            line = self.config[Register.INTERRUPT_LINE]
            level = "asserted" if self.asserted else "not asserted"
            fields.append(DeviceField(f"INT{'ABCD'[self.pin - 1]}#", str(line), level))
        if self.msi_offset:
            at = self.msi_offset
            message = f"{self.get_config(at + 4, 8):#x} = {self.get_config(at + 12, 2):#x}"
            fields.append(DeviceField("MSI", "on" if self.msi_enabled else "off", message))
        where = f"{self.source >> 8:02x}:{self.source >> 3 & 31:02x}.{self.source & 7}"
        who = f"{self.identity.vendor:04x}:{self.identity.device:04x}"
        return DeviceView(self.name, f"PCI {where} {who}", (*fields, *self.fields()))

    def fields(self) -> tuple[DeviceField, ...]:
        """For subclasses: the function's own registers."""
        return ()

    def save(self) -> DeviceState:
        """Configuration space; a subclass adds its own."""
        return (bytes(self.config),)

    def restore(self, state: DeviceState) -> None:
        """Put configuration space back, and the ranges that follow from it."""
        (config,) = state
        assert isinstance(config, bytes)
        self.config[:] = config
        self._place()
