"""Guest memory as the engine's Python side sees it: physical and linear, with the rights and effects of real accesses.

The walk repeats what Unicorn's own does (40 physical address bits, A and D bits set, the same error codes), because
event delivery, descriptor loads and emulated instructions must fault exactly where an instruction would.
`kvmscope.x86.paging` explains walks; this one is made to be fast.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn.env import CR, EFER, EFLAGS, EIP, FLAG, HF, HFLAGS, M32, M64, PKRU
from kvmscope.vmm.unicorn.faults import Fault

if TYPE_CHECKING:
    from kvmscope.vmm.engine import EngineHost
    from kvmscope.vmm.unicorn.env import Env

__all__ = ["KEYED", "PHYSICAL_BITS", "Memory", "Translation", "canonical"]

PHYSICAL_BITS: Final = 40
"""MAXPHYADDR, fixed by Unicorn: page-table entries with a higher address bit set raise a reserved-bit #PF."""

_ADDRESS: Final = 0xFFFFFFFFFF000
_HIGH_RESERVED: Final = _ADDRESS & ~((1 << PHYSICAL_BITS) - 1)
_NX: Final = 1 << 63
_P, _W, _U, _RSVD, _PK = 1, 2, 4, 8, 32

_TLB_ENTRIES: Final = 4096
_SMAP, _PKE, _PKS = 1 << 21, 1 << 22, 1 << 24
KEYED: Final = _SMAP | _PKE | _PKS
"""CR4 bits without which U/S and R/W alone decide."""

_LEVELS4: Final = (
    (39, 0x1FF, True, False),
    (30, 0x1FF, False, True),
    (21, 0x1FF, False, True),
    (12, 0x1FF, False, False),
)
_LEVELS5: Final = ((48, 0x1FF, True, False), *_LEVELS4)
_LEVELS_PAE: Final = ((30, 3, False, False), (21, 0x1FF, False, True), (12, 0x1FF, False, False))


Translation = tuple[int, int, bool, int]
"""Physical page, R/W and U/S of all levels, D is set, protection key."""
_Walk = tuple[int, tuple[tuple[int, int], ...], Translation]
"""Where it began (`Memory._root`); (place as quadword, entry) on the way; where it led."""


def canonical(address: int, bits: int) -> bool:
    """True if bits 63:``bits``-1 of ``address`` are all equal."""
    top = address >> (bits - 1)
    return top == 0 or top == M64 >> (bits - 1)


class Memory:
    """RAM, device space behind it, and the linear address space on top."""

    def __init__(self, ram: mmap.mmap, env: Env, host: EngineHost) -> None:
        self.size = len(ram)
        self.ram = memoryview(ram)
        self.quadwords = self.ram.cast("Q")
        """RAM as 64-bit words."""
        self._d = self.ram.cast("I")
        self._anchor = ctypes.c_char.from_buffer(ram)
        self.address = ctypes.addressof(self._anchor)
        self._env = env
        self._host = host
        self._tlb: dict[int, Translation] = env.tlb
        """By linear page: what a TLB may keep."""
        self._pages: dict[int, int] = env.pages
        """The same for looks without effects: linear page to physical page."""
        self._walks: dict[int, _Walk] = {}
        """Walks through four or five levels that went well, by linear page: the same entries lead to the same page."""
        self._looks: dict[int, _Walk] = {}
        """The same for looks, which set no A bit."""
        self.has_code: Callable[[int], None] = lambda page: None
        """Hears of every page that gets translated code."""
        self.code_pages: set[int] = set()
        """Physical page numbers that hold translated code."""
        self.code_written: Callable[[int, int], None] = lambda physical, size: None
        """Called when Python stores into a page that holds translated code."""
        self.supervisor_keys: Callable[[], int] = lambda: 0
        """IA32_PKRS."""

    def note_code(self, page: int) -> None:
        """RAM's page number ``page`` has translated code."""
        if page not in self.code_pages:
            self.code_pages.add(page)
            self.has_code(page)

    def close(self) -> None:
        """Release the views, so that the owner can close the buffer."""
        del self._anchor
        self.quadwords.release()
        self._d.release()
        self.ram.release()

    # physical

    def read_physical(self, address: int, size: int) -> bytes:
        """Bytes of RAM, or of a device through the bus (in pieces of up to 8 bytes)."""
        if address + size <= self.size:
            return bytes(self.ram[address : address + size])
        out = bytearray()
        rip = self._env.q[EIP]
        while size:
            piece = _piece(address, size)
            out += self._host.mmio_read(address, piece, rip).to_bytes(piece, "little")
            address += piece
            size -= piece
        return bytes(out)

    def write_physical(self, address: int, data: bytes) -> None:
        """Store into RAM or a device."""
        size = len(data)
        if address + size <= self.size:
            self.ram[address : address + size] = data
            if address >> 12 in self.code_pages or (address + size - 1) >> 12 in self.code_pages:
                self.code_written(address, size)
            return
        rip = self._env.q[EIP]
        position = 0
        while position < size:
            piece = _piece(address, size - position)
            value = int.from_bytes(data[position : position + piece], "little")
            self._host.mmio_write(address, piece, value, rip)
            address += piece
            position += piece

    def _entry(self, address: int, size: int) -> int:
        if address + size <= self.size:
            return self.quadwords[address >> 3] if size == 8 else self._d[address >> 2]
        return int.from_bytes(self.read_physical(address, size), "little")

    def _set_entry(self, address: int, size: int, value: int) -> None:
        self.write_physical(address, value.to_bytes(size, "little"))

    # linear

    @property
    def linear_bits(self) -> int:
        """Width of canonical addresses: 57 with CR4.LA57, else 48."""
        return 57 if self._env.q[CR + 4] >> 12 & 1 else 48

    def translate(self, linear: int, write: bool, user: bool, implicit: bool = False, stack: bool = False) -> int:
        """Physical address for an access, setting A and D bits.

        ``user`` is a user-mode access, ``implicit`` a system-structure access (EFLAGS.AC does not lift SMAP).
        Raises `Fault`: #PF, or #GP(0) (#SS(0) where ``stack``) for a non-canonical address.
        """
        q = self._env.q
        if not q[CR] & 1 << 31:
            return linear & (M64 if self._env.d[HFLAGS] & HF.LMA else M32)
        cr4 = q[CR + 4]
        known = self._tlb.get(linear >> 12) or self._walked(linear >> 12)
        if known is not None:
            page, rights, dirty, key = known
            plain = (rights & _U or not user) and (not write or rights & _W) and not cr4 & KEYED
            if (dirty or not write) and (plain or not self._denied(rights, key, write, user, implicit)):
                self._tlb[linear >> 12] = known
                return page | linear & 0xFFF
        cr3 = q[CR + 3]
        if self._env.d[HFLAGS] & HF.LMA:
            bits = 57 if cr4 & 1 << 12 else 48
            if not canonical(linear, bits):
                raise Fault(12 if stack else 13, 0)
            return self._walk(linear, cr3 & ~0xFFF, _LEVELS5 if bits == 57 else _LEVELS4, write, user, implicit)
        linear &= M32
        if cr4 & 1 << 5:
            return self._walk(linear, cr3 & 0xFFFFFFE0, _LEVELS_PAE, write, user, implicit)
        return self._walk32(linear, cr3 & 0xFFFFF000, write, user, implicit)

    def plain(self, translation: Translation) -> bool:
        """Whether nothing but R/W decides about a supervisor's access to the page, to system structures too."""
        cr4 = self._env.q[CR + 4]
        if translation[1] & _U:
            return not cr4 & _SMAP and (not cr4 & _PKE or not self._env.d[PKRU] >> 2 * translation[3] & 3)
        return not cr4 & _PKS

    def translated(self, linear: int) -> int | None:
        """The physical address where the translation is at hand, without effects."""
        if not self._env.q[CR] & 1 << 31:
            return None
        known = self._tlb.get(linear >> 12)
        return None if known is None else known[0] | linear & 0xFFF

    def _root(self) -> int:
        """The table that a walk begins at, and what else decides what its entries mean; 0 for fewer than four levels."""
        q = self._env.q
        if not self._env.d[HFLAGS] & HF.LMA:
            return 0
        return q[CR + 3] & ~0xFFF | q[EFER] >> 11 & 1 | q[CR + 4] >> 11 & 2 | 4

    def _walked(self, page: int) -> Translation | None:
        """What a walk of linear ``page`` would find, if it has been walked before and no entry has changed."""
        known = self._walks.get(page)
        if known is None or known[0] != self._root() or len(self._tlb) >= _TLB_ENTRIES:
            return None
        q = self.quadwords
        for place, entry in known[1]:
            if q[place] != entry:
                return None
        return known[2]

    def _walk(
        self,
        linear: int,
        table: int,
        levels: tuple[tuple[int, int, bool, bool], ...],
        write: bool,
        user: bool,
        implicit: bool,
    ) -> int:
        q = self._env.q
        pae = len(levels) == 3
        error = (_W if write else 0) | (_U if user else 0)
        reserved = _HIGH_RESERVED if q[EFER] & 1 << 11 else _HIGH_RESERVED | _NX
        rights = _W | _U
        trail: list[tuple[int, int]] = []
        table &= _ADDRESS | 0xFE0
        for depth, (shift, mask, root, may_map) in enumerate(levels):
            address = table + (linear >> shift & mask) * 8
            entry = self._entry(address, 8)
            if not entry & 1:
                raise Fault(14, error, linear)
            bad = reserved
            if pae:
                bad |= 0x7FF0000000000000 | (_NX if depth == 0 else 0)
            if root:
                bad |= 0x80
            large = may_map and entry & 0x80
            if large:
                bad |= ((1 << shift) - 1) & _ADDRESS & ~0x1000
            if entry & bad:
                raise Fault(14, error | _RSVD | _P, linear)
            if not pae or depth:
                rights &= entry
                trail.append((address, entry))
            table = entry & _ADDRESS
            if large:
                table &= ~((1 << shift) - 1)
                break
        offset = linear & ((1 << shift) - 1)
        return self._granted(linear, table + offset, trail, 8, rights, error, write, user, implicit)

    def _walk32(self, linear: int, table: int, write: bool, user: bool, implicit: bool) -> int:
        error = (_W if write else 0) | (_U if user else 0)
        address = table + (linear >> 22) * 4
        entry = self._entry(address, 4)
        if not entry & 1:
            raise Fault(14, error, linear)
        trail = [(address, entry)]
        if entry & 0x80 and self._env.q[CR + 4] & 1 << 4:
            if entry & 1 << 21:
                raise Fault(14, error | _RSVD | _P, linear)
            page = entry & 0xFFC00000 | (entry >> 13 & 0xFF) << 32
            return self._granted(linear, page | linear & 0x3FFFFF, trail, 4, entry, error, write, user, implicit)
        rights = entry
        address = (entry & 0xFFFFF000) + (linear >> 12 & 0x3FF) * 4
        entry = self._entry(address, 4)
        if not entry & 1:
            raise Fault(14, error, linear)
        trail.append((address, entry))
        page = entry & 0xFFFFF000
        return self._granted(linear, page | linear & 0xFFF, trail, 4, rights & entry, error, write, user, implicit)

    def _granted(
        self,
        linear: int,
        physical: int,
        trail: list[tuple[int, int]],
        size: int,
        rights: int,
        error: int,
        write: bool,
        user: bool,
        implicit: bool,
    ) -> int:
        """Check the accumulated rights, set A and D, and give the address."""
        key = trail[-1][1] >> 59 & 15
        denied = self._denied(rights, key, write, user, implicit)
        if denied:
            raise Fault(14, error | denied, linear)
        last = len(trail) - 1
        for i, (address, entry) in enumerate(trail):
            bits = 0x60 if write and i == last else 0x20
            if entry & bits != bits:
                # D of the leaf; A of everything on the way.
                self._set_entry(address, size, entry | bits)
        if len(self._tlb) >= _TLB_ENTRIES:
            self._tlb.clear()
        dirty = write or bool(trail[last][1] & 0x40)
        self._tlb[linear >> 12] = found = (physical & ~0xFFF, rights, dirty, key)
        root = self._root()
        if root and max(trail)[0] + size <= self.size:
            bits = 0x60 if dirty else 0x20
            way = [(address >> 3, entry | (bits if i == last else 0x20)) for i, (address, entry) in enumerate(trail)]
            _remember(self._walks, linear >> 12, (root, tuple(way), found))
        return physical

    def _denied(self, rights: int, key: int, write: bool, user: bool, implicit: bool) -> int:
        """Error code bits if the accumulated rights forbid the access, else 0."""
        env = self._env
        cr0, cr4 = env.q[CR], env.q[CR + 4]
        denied = 0
        if not rights & _U:
            if user:
                denied = _P
        elif not user and cr4 & 1 << 21 and (implicit or not env.q[EFLAGS] & FLAG.AC):
            denied = _P
        if write and not rights & _W and (user or cr0 & 1 << 16):
            denied = _P
        if cr4 & (1 << 24 | 1 << 22) and env.d[HFLAGS] & HF.LMA:
            # Protection keys: of user pages by PKRU, of the others by IA32_PKRS.
            if rights & _U:
                keys = env.d[PKRU] if cr4 & 1 << 22 else 0
            else:
                keys = self.supervisor_keys() if cr4 & 1 << 24 else 0
            access = keys >> 2 * key & 3
            if access & 1 or (access & 2 and write and (user or cr0 & 1 << 16)):
                denied |= _P | _PK
        return denied

    def read(self, linear: int, size: int, user: bool = False, implicit: bool = False, stack: bool = False) -> bytes:
        """Bytes at a linear address, as one access; raises `Fault`."""
        first = 0x1000 - (linear & 0xFFF)
        if size <= first:
            return self.read_physical(self.translate(linear, False, user, implicit, stack), size)
        low = self.translate(linear, False, user, implicit, stack)
        high = self.translate(self._next_page(linear), False, user, implicit, stack)
        return self.read_physical(low, first) + self.read_physical(high, size - first)

    def write(self, linear: int, data: bytes, user: bool = False, implicit: bool = False, stack: bool = False) -> None:
        """Store at a linear address, as one access: nothing is written if any byte faults.  Raises `Fault`."""
        first = 0x1000 - (linear & 0xFFF)
        low = self.translate(linear, True, user, implicit, stack)
        size = len(data)
        if size <= first:
            if low + size <= self.size and low >> 12 not in self.code_pages:
                self.ram[low : low + size] = data
            else:
                self.write_physical(low, data)
            return
        high = self.translate(self._next_page(linear), True, user, implicit, stack)
        self.write_physical(low, data[:first])
        self.write_physical(high, data[first:])

    def _next_page(self, linear: int) -> int:
        following = (linear | 0xFFF) + 1
        return following & (M64 if self._env.d[HFLAGS] & HF.LMA else M32)

    def probe(self, linear: int) -> int | None:
        """Physical address that ``linear`` maps to for an ordinary supervisor, without effects; None if to nothing."""
        q = self._env.q
        cr0, cr4 = q[CR], q[CR + 4]
        levels: tuple[tuple[int, int, bool, bool], ...]
        if not cr0 & 1 << 31:
            return linear & (M64 if self._env.d[HFLAGS] & HF.LMA else M32)
        if self._env.d[HFLAGS] & HF.LMA:
            if not canonical(linear, 57 if cr4 & 1 << 12 else 48):
                return None
            levels, table, size = (_LEVELS5 if cr4 & 1 << 12 else _LEVELS4), q[CR + 3] & _ADDRESS, 8
        elif cr4 & 1 << 5:
            levels, table, size = _LEVELS_PAE, q[CR + 3] & 0xFFFFFFE0, 8
        else:
            levels, table, size = (
                ((22, 0x3FF, False, bool(cr4 & 1 << 4)), (12, 0x3FF, False, False)),
                q[CR + 3] & ~0xFFF,
                4,
            )
        way = []
        for shift, mask, _root, may_map in levels:
            address = table + (linear >> shift & mask) * size
            if address + size > self.size:
                return None
            entry = self._entry(address, size)
            if not entry & 1:
                return None
            way.append((address >> 3, entry))
            table = entry & (_ADDRESS if size == 8 else 0xFFFFF000)
            if may_map and entry & 0x80:
                table = (
                    table & ~((1 << shift) - 1) | (entry >> 13 & 0xFF) << 32
                    if size == 4
                    else table & ~((1 << shift) - 1)
                )
                break
        physical: int = table | linear & ((1 << shift) - 1)
        root = self._root()
        if root:
            _remember(self._looks, linear >> 12, (root, tuple(way), (physical & ~0xFFF, 0, False, 0)))
        return physical

    def _looked(self, page: int) -> int | None:
        """What `probe` would find for linear ``page``: it looks again only where an entry has changed."""
        known = self._looks.get(page)
        if known is not None and self._env.q[CR] & 1 << 31 and known[0] == self._root():
            q = self.quadwords
            for place, entry in known[1]:
                if q[place] != entry:
                    break
            else:
                return known[2][0]
        return self.probe(page << 12)

    def peek(self, linear: int, size: int) -> bytes:
        """Up to ``size`` bytes of RAM at a linear address, without effects; short where a page is missing."""
        offset = linear & 0xFFF
        if offset + size <= 0x1000:
            page = self._pages.get(linear >> 12)
            if page is None:
                page = self._looked(linear >> 12)
                if page is None:
                    return b""
                self._pages[linear >> 12] = page
            start = page + offset
            return bytes(self.ram[start : start + size]) if start + size <= self.size else b""
        out = b""
        while size > 0:
            physical = self.probe(linear)
            piece = min(size, 0x1000 - (linear & 0xFFF))
            if physical is None or physical + piece > self.size:
                break
            out += bytes(self.ram[physical : physical + piece])
            linear = self._next_page(linear)
            size -= piece
        return out


def _remember(walks: dict[int, _Walk], page: int, walk: _Walk) -> None:
    if len(walks) >= _TLB_ENTRIES:
        walks.clear()
    walks[page] = walk


def _piece(address: int, size: int) -> int:
    """Largest aligned device access (1, 2, 4 or 8 bytes) at ``address`` within ``size``."""
    for piece in (8, 4, 2):
        if size >= piece and not address % piece:
            return piece
    return 1
