"""The guest as panels read it: registers by name, memory through the page tables, symbols, and what changed.

A `Reader` lives as long as one drawing; page translations are kept for that long.  Nothing is written, no accessed bit
set, and device memory is never read: `GuestMemory` does not offer it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from kvmscope.asm.image import Image
from kvmscope.ui.view import View
from kvmscope.vmm.snapshot import MemoryChange
from kvmscope.x86.paging import translate
from kvmscope.x86.registers import KNOWN_NAMES, read_register
from kvmscope.x86.state import CpuState, Seg

__all__ = ["IdentityCache", "Reader", "Symbols", "symbols_of"]

_K = TypeVar("_K")
_V = TypeVar("_V")

_PAGE: Final = 4096


class IdentityCache(Generic[_K, _V]):
    """Results kept for the last few objects, by identity: for values that are costly or impossible to hash."""

    def __init__(self, make: Callable[[_K], _V], size: int = 4) -> None:
        self._make = make
        self._size = size
        self._kept: list[tuple[_K, _V]] = []

    def __call__(self, thing: _K) -> _V:
        for known, result in self._kept:
            if known is thing:
                return result
        result = self._make(thing)
        self._kept = [(thing, result), *self._kept[: self._size - 1]]
        return result


class Symbols:
    """An image's labels by address.  Constants that only happen to be a small number name nothing."""

    def __init__(self, image: Image) -> None:
        self._ranges = sorted((s.address, s.end) for s in image.sections)
        found = sorted((address, name) for name, address in image.symbols.items() if self._holds(address, end=True))
        self._sizes = image.sizes
        self._addresses: list[int] = []
        self._names: list[str] = []
        for address, name in found:
            if not self._addresses or self._addresses[-1] != address:
                self._addresses.append(address)
                self._names.append(name)

    def _holds(self, address: int, *, end: bool = False) -> bool:
        return any(first <= address < last + end for first, last in self._ranges)

    def at(self, address: int) -> str | None:
        """The label that stands exactly at ``address``."""
        i = bisect_left(self._addresses, address)
        return self._names[i] if i < len(self._addresses) and self._addresses[i] == address else None

    def near(self, address: int) -> tuple[str, int] | None:
        """(nearest label at or below, offset), for an address inside of the program only."""
        i = bisect_right(self._addresses, address) - 1
        if i < 0 or not self._holds(address, end=self._addresses[i] == address):
            return None
        name, offset = self._names[i], address - self._addresses[i]
        size = self._sizes.get(name)
        return None if size is not None and offset >= size else (name, offset)

    def words(self, address: int) -> str:
        """``<loop>``, ``<loop+3>`` (offsets decimal below 10, else hexadecimal), or empty."""
        found = self.near(address)
        if found is None:
            return ""
        name, offset = found
        return f"<{name}>" if not offset else f"<{name}+{offset}>" if offset < 10 else f"<{name}+{offset:#x}>"


symbols_of: Final[IdentityCache[Image, Symbols]] = IdentityCache(Symbols)
"""`Symbols` of an image, built once."""


class Reader:
    """A view's memory and registers for the length of one drawing."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.cpu: CpuState = view.snapshot.cpu
        self.memory = view.snapshot.memory
        self.symbols = symbols_of(view.image)
        self._pages: dict[int, int | None] = {}
        cpu = self.cpu
        self.paged = bool(cpu.cr0 >> 31 & 1)
        self.address_mask = (1 << 64) - 1 if cpu.efer >> 10 & 1 else 0xFFFFFFFF
        self.changes: tuple[MemoryChange, ...] = view.delta.memory

    def physical(self, linear: int) -> int | None:
        """Physical address that ``linear`` maps to, rights aside; None where nothing is mapped."""
        linear &= self.address_mask
        number = linear // _PAGE
        if number not in self._pages:
            cpu = self.cpu
            found = translate(self.memory, cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer, number * _PAGE)
            self._pages[number] = found
        base = self._pages[number]
        return None if base is None else base + linear % _PAGE

    def read(self, linear: int, size: int) -> bytes | None:
        """``size`` bytes; None when any is not mapped or not RAM."""
        out = b""
        while size > 0:
            linear &= self.address_mask
            chunk = min(size, _PAGE - linear % _PAGE)
            where = self.physical(linear)
            data = None if where is None else self.memory.read(where, chunk)
            if data is None:
                return None
            out += data
            linear += chunk
            size -= chunk
        return out

    def read_some(self, linear: int, size: int) -> bytes:
        """As many of ``size`` bytes as there are before the first page that cannot be read."""
        parts: list[bytes] = []
        while size > 0:
            chunk = min(size, _PAGE - linear % _PAGE)
            data = self.read(linear, chunk)
            if data is None:
                break
            parts.append(data)
            linear = linear + chunk & self.address_mask
            size -= chunk
        return b"".join(parts)

    def word(self, linear: int, size: int) -> int | None:
        """A little-endian integer."""
        data = self.read(linear, size)
        return None if data is None else int.from_bytes(data, "little")

    def old_bytes(self, physical: int, new: bytes) -> bytes | None:
        """What stood at ``physical`` before the last command; None when that is what stands there now."""
        old: bytearray | None = None
        end = physical + len(new)
        for change in self.changes:
            first, last = max(change.address, physical), min(change.address + len(change.old), end)
            if first < last:
                if old is None:
                    old = bytearray(new)
                at = first - change.address
                old[first - physical : last - physical] = change.old[at : at + last - first]
        return bytes(old) if old is not None and old != new else None

    def segment_base(self, segment: Seg) -> int:
        """Base that an access through ``segment`` adds: 0 in 64-bit mode but for FS and GS."""
        if self.cpu.mode == 64 and segment not in (Seg.FS, Seg.GS):
            return 0
        return self.cpu.segments[segment].base

    def pointer(self, register: str) -> int | None:
        """Linear address that a register's value points to: RIP through CS, RSP and RBP through SS, others through DS."""
        if register not in KNOWN_NAMES:
            return None
        if register in ("rip", "eip", "ip"):
            return self.cpu.pc
        value = read_register(self.cpu, register)
        if register in _SYSTEM_POINTERS:
            return value & self.address_mask
        if self.cpu.mode != 64:
            value &= 0xFFFF if self._stack_is_16(register) else 0xFFFFFFFF
        segment = Seg.SS if register.endswith(("sp", "bp")) else Seg.DS
        return value + self.segment_base(segment) & self.address_mask

    def _stack_is_16(self, register: str) -> bool:
        if register.endswith(("sp", "bp")):
            return not self.cpu.segments[Seg.SS].db
        return self.cpu.mode == 16


_SYSTEM_POINTERS: Final = frozenset({
    "cr2", "gdtr", "idtr", "gdtr.base", "idtr.base", "dr0", "dr1", "dr2", "dr3", "ldtr.base", "tr.base",
    "fs.base", "gs.base", "cs.base", "ss.base", "ds.base", "es.base",
})  # fmt: skip
"""Registers that hold a linear address as it is."""
