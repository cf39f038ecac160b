"""RAM of a machine: an anonymous mapping, whose pages cost nothing until they are touched."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["PAGE", "Ram"]

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
