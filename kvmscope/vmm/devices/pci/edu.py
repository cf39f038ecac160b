"""The edu device, made to learn drivers on: factorial, interrupts by pin and message, DMA (QEMU docs/specs/edu)."""

from __future__ import annotations

from typing import Final

from kvmscope.vmm.clock import Clock
from kvmscope.vmm.devices.device import DeviceField, DeviceState, bit_names
from kvmscope.vmm.devices.pci.function import Bar, Identity, PciFunction

__all__ = ["Edu"]

_ID: Final = 0x010000ED
"""Version 1.0, and ed."""
_LIVENESS, _FACTORIAL, _STATUS, _IRQ_STATUS, _IRQ_RAISE, _IRQ_ACK = 0x04, 0x08, 0x20, 0x24, 0x60, 0x64
_DMA_SOURCE, _DMA_DESTINATION, _DMA_COUNT, _DMA_COMMAND = 0x80, 0x88, 0x90, 0x98
_WIDE: Final = 0x80
"""From here on accesses of 8 bytes are allowed, too."""

_COMPUTING: Final = 0x01
_IRQ_FACTORIAL: Final = 0x80
_STATUS_BITS: Final = ((0, "COMPUTING"), (7, "IRQ_FACT"))
_RUN: Final = 0x01
_TO_MEMORY: Final = 0x02
_DMA_IRQ: Final = 0x04
_COMMAND_BITS: Final = ((0, "RUN"), (1, "TO_RAM"), (2, "IRQ"))
_FACTORIAL_DONE: Final = 0x001
_DMA_DONE: Final = 0x100
"""Interrupt status bits."""

_BUFFER: Final = 0x40000
"""Where the DMA buffer lies in the device's own address space."""
_BUFFER_SIZE: Final = 4096

_MULTIPLY: Final = 10
"""Nanoseconds a factor."""
_ALWAYS_ZERO: Final = 34
"""From 34! on the product is 0 modulo 2^32, and no later factor changes it."""
_DMA_START: Final = 1000
"""Nanoseconds until the first byte has moved; then one byte a nanosecond."""


class Edu(PciFunction):
    """One base address of 1 MiB.  ``dma_bits`` are the address lines it drives (28 unless told otherwise).

    The specification leaves open how long a factorial and a transfer take; QEMU needs a thread and 100 ms, here the clock
    says: 10 ns a factor, 1 us and 1 ns a byte.  A transfer that does not fit the buffer ends without moving anything
    (QEMU ends itself).
    """

    name = "edu"
    identity = Identity(0x1234, 0x11E8, 0x00FF00, revision=0x10)
    bars = (Bar(1 << 20, access=8),)
    pin = 1
    msi_offset = 0x40

    def __init__(self, clock: Clock, dma_bits: int = 28) -> None:
        super().__init__()
        self._clock = clock
        self._mask = (1 << dma_bits) - 1
        self._computed = clock.timer(self._factorial_done)
        self._transferred = clock.timer(self._transfer_done)
        self._liveness = self._factorial = self._status = self._irq = 0
        self._dma = [0, 0, 0, 0]
        """Source, destination, count, command."""
        self._buffer = bytearray(_BUFFER_SIZE)

    def bar_read(self, number: int, offset: int, size: int) -> int:
        """A register; a width that it does not take, and what is no register, read all ones."""
        if not _allowed(offset, size):
            return (1 << 8 * size) - 1
        if offset in _DMA_INDEX:
            return self._dma[_DMA_INDEX[offset]]
        registers = {
            0: _ID,
            _LIVENESS: self._liveness,
            _FACTORIAL: self._factorial,
            _STATUS: self._status,
            _IRQ_STATUS: self._irq,
        }
        return registers.get(offset, (1 << 8 * size) - 1)

    def bar_write(self, number: int, offset: int, size: int, value: int) -> None:
        """Set a register, raise or acknowledge interrupts, start a factorial or a transfer."""
        if not _allowed(offset, size):
            return
        if offset == _LIVENESS:
            self._liveness = ~value & 0xFFFFFFFF
        elif offset == _FACTORIAL:
            if not self._status & _COMPUTING:
                self._factorial = value
                self._status |= _COMPUTING
                self._computed.arm(self._clock.now + _MULTIPLY * min(value, _ALWAYS_ZERO))
        elif offset == _STATUS:
            self._status = self._status & ~_IRQ_FACTORIAL | value & _IRQ_FACTORIAL
        elif offset == _IRQ_RAISE:
            self._raise(value)
        elif offset == _IRQ_ACK:
            self._irq &= ~value
            self.set_intx(bool(self._irq))
        elif offset in _DMA_INDEX and not self._dma[3] & _RUN and (offset != _DMA_COMMAND or value & _RUN):
            self._dma[_DMA_INDEX[offset]] = value
            if offset == _DMA_COMMAND:
                self._transferred.arm(self._clock.now + _DMA_START + min(self._dma[2], _BUFFER_SIZE))

    def _raise(self, bits: int) -> None:
        self._irq |= bits
        if self._irq:
            # The pin follows the status even while messages are sent instead: `asserted` holds it back.
            self.set_intx(True)
            if self.msi_enabled:
                self.send_msi()

    def _factorial_done(self) -> None:
        product = 1
        for factor in range(1, min(self._factorial, _ALWAYS_ZERO) + 1):
            product = product * factor & 0xFFFFFFFF
        self._factorial = product
        self._status &= ~_COMPUTING
        if self._status & _IRQ_FACTORIAL:
            self._raise(_FACTORIAL_DONE)

    def _transfer_done(self) -> None:
        source, destination, count, command = self._dma
        if command & _TO_MEMORY:
            if _fits(source, count):
                first = source - _BUFFER
                self.dma_write(destination & self._mask, bytes(self._buffer[first : first + count]))
        elif _fits(destination, count):
            data = self.dma_read(source & self._mask, count)
            first = destination - _BUFFER
            # What a blocked read returns is not defined; real root complexes complete it with ones.
            self._buffer[first : first + count] = b"\xff" * count if data is None else data
        self._dma[3] &= ~_RUN
        if command & _DMA_IRQ:
            self._raise(_DMA_DONE)

    def fields(self) -> tuple[DeviceField, ...]:
        """All registers."""
        source, destination, count, command = self._dma
        return (
            DeviceField("liveness", f"{self._liveness:#010x}", "inverse of what was written"),
            DeviceField("factorial", f"{self._factorial:#x}"),
            DeviceField("status", f"{self._status:#04x}", bit_names(_STATUS_BITS, self._status)),
            DeviceField("irq status", f"{self._irq:#x}"),
            DeviceField("DMA", f"{command:#x}", bit_names(_COMMAND_BITS, command)),
            DeviceField("DMA from", f"{source:#x}", f"to {destination:#x}, {count:#x} bytes"),
        )

    def save(self) -> DeviceState:
        """Configuration, registers, buffer and both deadlines."""
        deadlines = (self._computed.deadline, self._transferred.deadline)
        return (
            *super().save(),
            bytes(self._buffer),
            self._liveness,
            self._factorial,
            self._status,
            self._irq,
            *self._dma,
            *(-1 if deadline is None else deadline for deadline in deadlines),
        )

    def restore(self, state: DeviceState) -> None:
        """Put all of it back."""
        config, buffer, *registers = state
        assert isinstance(buffer, bytes)
        super().restore((config,))
        self._buffer[:] = buffer
        numbers = [number for number in registers if isinstance(number, int)]
        self._liveness, self._factorial, self._status, self._irq = numbers[:4]
        self._dma = numbers[4:8]
        for timer, deadline in zip((self._computed, self._transferred), numbers[8:], strict=True):
            timer.restore(None if deadline < 0 else deadline)


_DMA_INDEX: Final = {_DMA_SOURCE: 0, _DMA_DESTINATION: 1, _DMA_COUNT: 2, _DMA_COMMAND: 3}


def _allowed(offset: int, size: int) -> bool:
    return size == 4 or (size == 8 and offset >= _WIDE)


def _fits(place: int, count: int) -> bool:
    """The bytes lie in the buffer."""
    return place >= _BUFFER and place + count <= _BUFFER + _BUFFER_SIZE
