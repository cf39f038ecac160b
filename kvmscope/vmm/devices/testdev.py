"""pc-testdev, the device that kvm-unit-tests drive (QEMU hw/misc/pc-testdev.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range

__all__ = ["TestDevice"]

_LATCH: Final = Range(0xE0, 4)
_FLUSH: Final = Range(0xE4, 4)
_LATCH_BYTES: Final = Range(0xE8, 4, access=1)
_LINES: Final = Range(0x2000, 24, access=1)
_MEMORY: Final = Range(0xFF00_0000, 0x1_0000, access=8)


class TestDevice(Device):
    """A 32-bit latch (ports 0xe0-0xe3; by bytes at 0xe8-0xeb), a page flush (0xe4), interrupt lines, device memory.

    The latch keeps what was written at the byte offset of the port; a write that would run past bit 31 is cut.  The
    flush makes QEMU unmap a page of guest memory for a moment; here it only remembers the address.  (The debug console
    claims port 0xe9 before this device does.)

    A byte written to port 0x2000+n, n = 0..23, calls ``irq(n, byte != 0)``: the level of that interrupt line.
    """

    # Not a test case, whatever its name looks like.
    __test__ = False

    name = "pc-testdev"
    ports = (_LATCH, _FLUSH, _LATCH_BYTES, _LINES)
    memory = (_MEMORY,)

    def __init__(self, irq: Callable[[int, bool], None] = lambda line, level: None) -> None:
        self._irq = irq
        self._latch = 0
        self._flushed = -1
        self._levels = 0
        # Made when first written: most guests never touch it.
        self._memory: bytearray | None = None
        self._saved: bytes | None = b""

    def port_read(self, port: int, size: int) -> int:
        """The latch from the port's byte on; the flush ports and the interrupt lines read all ones."""
        if _FLUSH.first <= port < _FLUSH.end or port >= _LINES.first:
            return (1 << 8 * size) - 1
        return self._latch >> 8 * (port & 3)

    def port_write(self, port: int, size: int, value: int) -> None:
        """Change the latch's bytes from the port's on, note a flush, or set the level of a line."""
        if port >= _LINES.first:
            line = port - _LINES.first
            self._levels = self._levels & ~(1 << line) | (value != 0) << line
            self._irq(line, value != 0)
            return
        if _FLUSH.first <= port < _FLUSH.end:
            self._flushed = value & ~0xFFF
            return
        shift = 8 * (port & 3)
        mask = (1 << 8 * size) - 1 << shift
        self._latch = (self._latch & ~mask | value << shift & mask) & 0xFFFFFFFF

    def memory_read(self, address: int, size: int) -> int:
        """Load from the device memory."""
        if self._memory is None:
            return 0
        offset = address - _MEMORY.first
        return int.from_bytes(self._memory[offset : offset + size], "little")

    def memory_write(self, address: int, size: int, value: int) -> None:
        """Store into the device memory."""
        if self._memory is None:
            self._memory = bytearray(_MEMORY.size)
        offset = address - _MEMORY.first
        self._memory[offset : offset + size] = value.to_bytes(size, "little")
        self._saved = None

    def peek(self, address: int, size: int) -> bytes:
        """Contents of the device memory."""
        offset = address - _MEMORY.first
        return bytes(size) if self._memory is None else bytes(self._memory[offset : offset + size])

    def view(self) -> DeviceView:
        """Latch, last flush, lines, and how much of the device memory is in use."""
        used = 0 if self._memory is None else _MEMORY.size - self._memory.count(0)
        return DeviceView(
            self.name,
            "ports 0xe0-0xeb, 0x2000-0x2017, memory 0xff000000-0xff00ffff",
            (
                DeviceField("latch", f"{self._latch:#010x}", "32 bits at 0xe0-0xe3, by bytes at 0xe8-0xeb"),
                DeviceField("flush", "-" if self._flushed < 0 else f"{self._flushed:#x}", "page last flushed"),
                DeviceField("lines", f"{self._levels:#08x}", "interrupt lines held high"),
                DeviceField("memory", f"{used} bytes not 0", "64 KiB at 0xff000000"),
            ),
        )

    def save(self) -> DeviceState:
        """Latch, flush, lines and device memory; the latter is copied once a change."""
        if self._saved is None:
            self._saved = bytes(self._memory or b"")
        return (self._latch, self._flushed, self._saved, self._levels)

    def restore(self, state: DeviceState) -> None:
        """Put all of it back (whoever hears of the lines puts back by itself what it heard)."""
        latch, flushed, memory, levels = state
        assert isinstance(latch, int)
        assert isinstance(flushed, int)
        assert isinstance(memory, bytes)
        assert isinstance(levels, int)
        self._latch, self._flushed, self._saved, self._levels = latch, flushed, memory, levels
        self._memory = bytearray(memory) if memory else None
