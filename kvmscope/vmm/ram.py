"""RAM of a machine: an anonymous mapping, whose pages cost nothing until they are touched."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["PAGE", "Dma", "Ram"]

PAGE: Final = 4096


class Ram:
    """`GuestMemory`: RAM from physical address 0, and behind it RAM-like device memory (``peek``)."""

    def __init__(self, size: int, pages: Mapping[int, bytes]) -> None:
        self.size = size
        self.buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for number, content in pages.items():
            self.buffer[number * PAGE : (number + 1) * PAGE] = content
        self.peek: Callable[[int, int], bytes | None] = lambda address, size: None

    def read(self, physical: int, size: int) -> bytes | None:
        """Bytes at a physical address; None if any of them is not backed, and after `close`."""
        if physical < 0 or size < 0:
            return None
        if physical + size <= self.size:
            return None if self.buffer.closed else self.buffer[physical : physical + size]
        return self.peek(physical, size)

    def close(self) -> None:
        """Give the memory back, even if something still holds the mapping."""
        self.buffer.madvise(mmap.MADV_DONTNEED)
        try:
            self.buffer.close()
        except BufferError:
            # A view of it lives until it is collected; only address space waits for that.
            pass


class Dma:
    """RAM as devices see it (`kvmscope.vmm.devices.device.GuestRam`); ``written`` hears of every store."""

    def __init__(self, ram: Ram, written: Callable[[int, int], None]) -> None:
        self._ram = ram
        self._written = written

    def read(self, physical: int, size: int) -> bytes:
        """Bytes of RAM, all ones where there is none."""
        data = self._ram.buffer[physical : max(physical, min(physical + size, self._ram.size))]
        return data.ljust(size, b"\xff")

    def write(self, physical: int, data: bytes) -> None:
        """Store what falls into RAM."""
        data = data[: max(0, self._ram.size - physical)]
        if data:
            self._ram.buffer[physical : physical + len(data)] = data
            self._written(physical, len(data))
