"""The I/O APIC (Intel 82093AA data sheet), version 0x11 with 24 pins: the one in KVM's kernel (`ioapic.c`).

Version 0x11 has no EOI register (QEMU's own model is version 0x20 and has one at 0x40); an EOI comes by broadcast, or
by making the entry edge triggered for a moment, which clears its remote IRR (as KVM does for Linux and Xen).  As in KVM:

- the polarity bit is kept and ignored: `IoApic.set_irq` says whether the interrupt is asserted;
- an edge at a masked pin is lost; a level that is still there when the pin is unmasked interrupts;
- a message is delivered at once, so the delivery status reads 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range
from kvmscope.vmm.devices.interrupts import ApicBus, DeliveryMode, Message
from kvmscope.vmm.devices.unheard import Source, catch_up, rearm

__all__ = ["PINS", "IoApic", "translate"]

PINS: Final = 24
_BASE: Final = 0xFEC0_0000
_VERSION: Final = (PINS - 1) << 16 | 0x11

# Offsets of the two registers in memory, and indices of the registers behind them (section 3.1, 3.2).
_IOREGSEL, _IOWIN = 0x00, 0x10
_ID, _VER, _ARB, _TABLE = 0x00, 0x01, 0x02, 0x10
_NAMES: Final = {_ID: "IOAPICID", _VER: "IOAPICVER", _ARB: "IOAPICARB"}

# Bits of a redirection entry (section 3.2.4).
_LOGICAL: Final = 1 << 11
_STATUS: Final = 1 << 12
_LOW_ACTIVE: Final = 1 << 13
_REMOTE_IRR: Final = 1 << 14
_LEVEL: Final = 1 << 15
_MASK: Final = 1 << 16
_READ_ONLY: Final = _STATUS | _REMOTE_IRR
_REMAPPABLE: Final = 1 << 48
"""Interrupt format of VT-d (section 5.1.5.1): bits 63:49 and 11 are an index into the remapping table."""
_RESERVED_MODE: Final = 3


def _is_level(entry: int) -> bool:
    """Level triggered; SMI, NMI, INIT and ExtINT are treated as edges whatever the trigger bit says."""
    return bool(entry & _LEVEL) and not entry & 0x600


def translate(entry: int) -> Message | None:
    """The message that redirection ``entry`` makes without remapping; None for the reserved delivery mode."""
    mode = entry >> 8 & 7
    if mode == _RESERVED_MODE:
        return None
    return Message(
        vector=entry & 0xFF,
        mode=DeliveryMode(mode),
        destination=entry >> 56 & 0xFF,
        logical=bool(entry & _LOGICAL),
        level=bool(entry & _LEVEL),
    )


class IoApic(Device):
    """IOREGSEL at 0xfec00000 and IOWIN at 0xfec00010.  Add it to the bus' listeners to hear of EOIs."""

    name = "ioapic"
    memory = (Range(_BASE, 0x100, access=8),)

    def __init__(self, bus: ApicBus) -> None:
        self._bus = bus
        self._select = 0
        self._id = 0
        self._entries = [_MASK] * PINS
        self._lines = 0
        """Bit n: pin n is asserted."""
        self.remap: Callable[[int], Message | None] = translate
        """Redirection entry (64 bits) to message, or None for one that is blocked.  An IOMMU puts itself here."""
        self.sources: tuple[Source, ...] = ()
        """Periodic sources at these pins: they catch up before a mask changes."""

    def set_irq(self, pin: int, level: bool) -> None:
        """The pin is asserted or not."""
        bit = 1 << pin
        if not level:
            self._lines &= ~bit
            return
        edge = not self._lines & bit
        self._lines |= bit
        if edge or _is_level(self._entries[pin]):
            self._service(pin)

    def masked(self, pin: int) -> bool:
        """True when nothing at ``pin`` can interrupt as things are set."""
        return bool(self._entries[pin] & _MASK)

    def end_of_interrupt(self, vector: int) -> None:
        """EOI broadcast of a local APIC: pins of this vector are served again if they are still asserted."""
        for pin, entry in enumerate(self._entries):
            if entry & 0xFF == vector and _is_level(entry):
                self._entries[pin] = entry & ~_REMOTE_IRR
                if self._lines >> pin & 1:
                    self._service(pin)

    def _service(self, pin: int) -> None:
        """Send the pin's message, unless it is masked or waits for the end of the one before."""
        entry = self._entries[pin]
        level = _is_level(entry)
        if entry & _MASK or (level and entry & _REMOTE_IRR):
            return
        message = self.remap(entry)
        if message is not None and self._bus.send(message) and level:
            self._entries[pin] |= _REMOTE_IRR

    def memory_read(self, address: int, size: int) -> int:
        """IOREGSEL or IOWIN; other addresses read 0."""
        offset = address - _BASE
        if offset == _IOREGSEL:
            return self._select
        if offset == _IOWIN:
            return self._register(self._select)
        return 0

    def _register(self, index: int) -> int:
        if index == _VER:
            return _VERSION
        if index in (_ID, _ARB):
            # The arbitration ID is loaded whenever the ID is written (section 3.2.3).
            return self._id << 24
        pin = index - _TABLE >> 1
        if not 0 <= pin < PINS:
            return 0xFFFF_FFFF
        return self._entries[pin] >> (32 if index & 1 else 0) & 0xFFFF_FFFF

    def memory_write(self, address: int, size: int, value: int) -> None:
        """IOREGSEL, or the register that it selects; only the low 32 bits count."""
        offset = address - _BASE
        if offset == _IOREGSEL:
            self._select = value & 0xFF
        elif offset == _IOWIN:
            if self._select == _ID:
                self._id = value >> 24 & 0xF
            elif 0 <= self._select - _TABLE < 2 * PINS:
                self._set_entry(self._select - _TABLE >> 1, bool(self._select & 1), value & 0xFFFF_FFFF)

    def _set_entry(self, pin: int, high: bool, value: int) -> None:
        catch_up(self.sources)
        entry = self._entries[pin]
        if high:
            entry = entry & 0xFFFF_FFFF | value << 32
        else:
            entry = entry & ~0xFFFF_FFFF | value & ~_READ_ONLY | entry & _READ_ONLY
        level = _is_level(entry)
        if not level:
            entry &= ~_REMOTE_IRR
        self._entries[pin] = entry
        if level and self._lines >> pin & 1:
            self._service(pin)
        rearm(self.sources)

    def view(self) -> DeviceView:
        """The registers, and every entry that was programmed."""
        fields = [
            DeviceField("IOREGSEL", f"{self._select:#04x}", _selected(self._select)),
            DeviceField("IOAPICID", f"{self._id << 24:#010x}", f"ID {self._id}"),
            DeviceField(
                "IOAPICVER", f"{_VERSION:#010x}", f"version {_VERSION & 0xFF:#x}, {PINS} entries, no EOI register"
            ),
            DeviceField("IOAPICARB", f"{self._id << 24:#010x}", f"arbitration ID {self._id}"),
            DeviceField("pins", f"{self._lines:#08x}", _pins(self._lines) or "none asserted"),
        ]
        for pin, entry in enumerate(self._entries):
            if entry != _MASK:
                fields.append(DeviceField(f"redirection {pin}", f"{entry:#018x}", describe(entry)))
        untouched = self._entries.count(_MASK)
        fields.append(DeviceField("others", str(untouched), "entries as after reset: masked"))
        return DeviceView(self.name, "memory 0xfec00000", tuple(fields))

    def save(self) -> DeviceState:
        """Selector, ID, pins and the table."""
        return (self._select, self._id, self._lines, *self._entries)

    def restore(self, state: DeviceState) -> None:
        """Put all of it back."""
        numbers = [number for number in state if isinstance(number, int)]
        self._select, self._id, self._lines = numbers[:3]
        self._entries = numbers[3:]


def describe(entry: int) -> str:
    """A redirection entry in words, ``vector 0x76 fixed to APIC 0x0, edge, masked``."""
    trigger = "level" if entry & _LEVEL else "edge"
    if entry & _REMAPPABLE:
        index = entry >> 49 & 0x7FFF | (entry >> 11 & 1) << 15
        parts = [f"vector {entry & 0xFF:#04x}, remapped by entry {index}", trigger]
    else:
        mode = entry >> 8 & 7
        kind = "reserved mode" if mode == _RESERVED_MODE else DeliveryMode(mode).name.lower()
        target = "logical destination" if entry & _LOGICAL else "APIC"
        parts = [f"vector {entry & 0xFF:#04x} {kind} to {target} {entry >> 56 & 0xFF:#x}", trigger]
    if entry & _LOW_ACTIVE:
        parts.append("active low")
    if entry & _STATUS:
        parts.append("send pending")
    if entry & _REMOTE_IRR:
        parts.append("remote IRR: waits for EOI")
    if entry & _MASK:
        parts.append("masked")
    return ", ".join(parts)


def _selected(index: int) -> str:
    """Name of the register that IOREGSEL selects."""
    pin = index - _TABLE >> 1
    if 0 <= pin < PINS:
        return f"redirection {pin}, {'high' if index & 1 else 'low'} half"
    return _NAMES.get(index, "no register")


def _pins(lines: int) -> str:
    """Numbers of the pins asserted."""
    return " ".join(str(pin) for pin in range(PINS) if lines >> pin & 1)
