"""Which instructions stand around an address.

x86 code cannot be read backwards.  Inside the program the source map says where instructions begin, and decoding starts
at a boundary it gives; outside, the start whose decoding meets the address with the longest run of known instructions is
taken, as other debuggers do.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import Final, NamedTuple

from kvmscope.asm.disasm import Instruction, disassemble
from kvmscope.asm.image import Image, LineEntry
from kvmscope.ui.render.reader import IdentityCache, Reader
from kvmscope.x86.state import Seg

__all__ = ["Entry", "entries_before", "entries_from"]

_LONGEST: Final = 15
_DATA_CHUNK: Final = 8
"""Bytes of a data directive that one row shows."""
_PAGES: Final = 3
"""Whole pages of zeros that one entry takes."""
_DULL: Final = 0x1000
"""Bytes of zeros behind which a listing ends."""
_FARTHEST: Final = 64
"""Pages looked through for the end of a gap."""
_OFFSETS: Final = {16: 0xFFFF, 32: 0xFFFFFFFF, 64: (1 << 64) - 1}


class Entry(NamedTuple):
    """One row of the listing: an instruction, data of the program, or bytes that cannot be read (``size`` 0: no more)."""

    address: int
    data: bytes
    mnemonic: str
    operands: str
    kind: str
    """``code``, ``data``, ``zeros`` (outside of the program), ``bad`` (no instruction), ``gone`` (not mapped, or not RAM)."""

    length: int = 0
    """Bytes, where ``data`` does not hold them."""

    @property
    def end(self) -> int:
        """Address of what follows."""
        return self.address + max(1, self.length or len(self.data))


class _Map:
    """The image's line entries by address."""

    def __init__(self, image: Image) -> None:
        self.entries = tuple(sorted(image.lines, key=lambda entry: entry.address))
        self.starts = [entry.address for entry in self.entries]

    def at(self, address: int) -> LineEntry | None:
        i = bisect_right(self.starts, address) - 1
        if i < 0:
            return None
        entry = self.entries[i]
        return entry if address < entry.address + len(entry.data) else None

    def next_after(self, address: int) -> int | None:
        """Start of the first entry behind ``address``."""
        i = bisect_right(self.starts, address)
        return self.starts[i] if i < len(self.starts) else None


_map_of: Final[IdentityCache[Image, _Map]] = IdentityCache(_Map)


@lru_cache(maxsize=4096)
def _decode(code: bytes, address: int, base: int, bits: int, count: int) -> tuple[Entry, ...]:
    """``code`` as instructions; bytes that are none come one by one.

    Operands count in offsets of the code segment, as the processor does; entries stand at linear addresses.
    """
    offset = address - base & _OFFSETS[bits]
    found = disassemble(code, offset, bits, count=count)
    return tuple(_entry(instruction, address + instruction.address - offset) for instruction in found)


def _entry(found: Instruction, address: int) -> Entry:
    return Entry(address, found.data, found.mnemonic, found.operands, "code" if found.known else "bad")


def _next(reader: Reader, lines: _Map, address: int, bits: int, forced: int) -> Entry:
    """The entry at ``address``; ``forced`` is decoded as code whatever the source map calls it."""
    known = lines.at(address)
    if known is not None and not known.code and address != forced:
        room = known.address + len(known.data) - address
        if address < forced:
            room = min(room, forced - address)
        data = reader.read_some(address, min(room, _DATA_CHUNK))
        if data:
            return Entry(address, data, ".byte", " ".join(f"{byte:02x}" for byte in data), "data")
        return Entry(address, b"", "··", "", "gone")
    code = reader.read_some(address, _LONGEST)
    if not code:
        return Entry(address, b"", "··", "not mapped, or not RAM", "gone")
    if known is None and address != forced and len(code) == _LONGEST and not any(code):
        return _zeros(reader, lines, address, forced)
    found = _decode(code, address, reader.segment_base(Seg.CS), bits, 1)
    if not found:
        return Entry(address, code[:1], "(bad)", "", "bad")
    entry = found[0]
    if address < forced < entry.end:
        # Two ways to read the same bytes: the processor's comes first.
        return Entry(address, code[: forced - address], "(bad)", "", "bad")
    return entry


def _zeros(reader: Reader, lines: _Map, address: int, forced: int) -> Entry:
    """Memory that nobody has written, up to the next thing that is something, in one entry."""
    ends = [end for end in (lines.next_after(address), forced) if end is not None and end > address]
    most = min([(address | 0xFFF) + 1 + _PAGES * 4096, *ends])
    position = address
    while position < most:
        data = reader.read(position, min(4096 - (position & 0xFFF), most - position))
        if data is None:
            break
        rest = len(data.lstrip(b"\0"))
        position += len(data) - rest
        if rest:
            break
    return Entry(address, b"", "00", f"× {position - address}", "zeros", position - address)


def entries_from(reader: Reader, address: int, count: int, bits: int) -> list[Entry]:
    """``count`` entries from ``address`` on; the instruction at the current position is always among them as such."""
    lines = _map_of(reader.view.image)
    forced = reader.cpu.pc
    out: list[Entry] = []
    while len(out) < count:
        entry = _next(reader, lines, address & reader.address_mask, bits, forced)
        out.append(entry)
        if entry.kind == "zeros" and entry.length > _DULL:
            # What lies behind is too far away to be of interest here.
            break
        if entry.kind != "gone":
            address = entry.end
            continue
        found = _after_gap(reader, address)
        if found is None:
            break
        address = found
    return out


def _after_gap(reader: Reader, address: int) -> int | None:
    """The next page that can be read, not too far away: a gap takes one row, however long."""
    for _ in range(_FARTHEST):
        address = (address | 0xFFF) + 1
        if address > reader.address_mask:
            return None
        if reader.read(address, 1) is not None:
            return address
    return None


def entries_before(reader: Reader, address: int, count: int, bits: int) -> list[Entry]:
    """Up to ``count`` entries that end exactly at ``address``."""
    if count <= 0:
        return []
    lines = _map_of(reader.view.image)
    start = address
    inside = lines.at(address - 1) is not None
    if inside:
        # Step back over entries of the source map: each begins an instruction or a datum.
        for _ in range(count + 1):
            known = lines.at(start - 1)
            if known is None:
                break
            start = known.address
        found = _run(reader, lines, start, address, bits)
        if found:
            return found[-count:]
    return _guess(reader, address, count, bits)


def _run(reader: Reader, lines: _Map, start: int, end: int, bits: int) -> list[Entry]:
    """Entries from ``start`` that meet ``end``; empty when they step over it."""
    out: list[Entry] = []
    position = start
    while position < end:
        entry = _next(reader, lines, position, bits, end)
        if entry.kind == "gone":
            return []
        out.append(entry)
        position = entry.end
    return out if position == end else []


def _guess(reader: Reader, address: int, count: int, bits: int) -> list[Entry]:
    """Entries before an address outside of the program: the longest row of instructions that meets it."""
    span = min(count * 4 + _LONGEST, address)
    code = reader.read(address - span, span)
    while code is None and span > 1:
        span //= 2
        code = reader.read(address - span, span)
    # What nobody has written is no code that leads here.
    if not code or not any(code[-_LONGEST:]):
        return []
    base = reader.segment_base(Seg.CS)
    best: tuple[Entry, ...] = ()
    for skip in range(min(_LONGEST, span)):
        found = _decode(code[skip:], address - span + skip, base, bits, 0)
        good = [entry for entry in found if entry.kind == "code"]
        if found and found[-1].end == address and len(good) == len(found):
            return list(found[-count:])
        if len(found) > len(best) and found[-1].end == address:
            best = found
    return list(best[-count:])
