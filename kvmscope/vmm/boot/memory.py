"""Memory contents to be: sparse pages that boot fills, and the resolving of labels in declared values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvmscope.errors import ReproducerError
from kvmscope.vmm.boot.layout import PAGE

__all__ = ["ZERO_PAGE", "BootMemory", "Labels", "at_line", "nearest"]

ZERO_PAGE: Final = bytes(PAGE)


def at_line(line: int, text: str) -> str:
    """``text`` with the header line it is about, where one is known."""
    return f"line {line}: {text}" if line else text


def nearest(name: str, known: list[str]) -> str:
    """A hint naming the known name most like ``name``; empty when none is."""
    # Imported where it is needed: a correct header never pays for it.
    from difflib import get_close_matches

    found = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else ""


class Labels:
    """Resolves ``int | label`` values of a header against the program's symbols."""

    def __init__(self, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols

    def resolve(self, value: int | str, what: str, line: int = 0) -> int:
        """The number that ``value`` stands for.  Raises ReproducerError for a label the program does not define."""
        if isinstance(value, int):
            return value
        found = self._symbols.get(value)
        if found is not None:
            return found
        known = sorted(self._symbols)
        close = nearest(value, known)
        hint = close or (f"labels: {', '.join(known[:8])}" if known else "the program defines no label")
        raise ReproducerError(f"Unknown label {value!r}", at_line(line, what), hint)


class BootMemory:
    """Guest RAM before the guest runs, as the pages that hold something."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._pages: dict[int, bytes | bytearray] = {}

    def write(self, address: int, data: bytes, what: str, line: int = 0) -> None:
        """Write ``data``.  Raises ReproducerError when it does not lie in RAM."""
        end = address + len(data)
        if address < 0 or end > self.size:
            raise ReproducerError(
                f"{what} lies outside of memory",
                at_line(line, f"{what}: {address:#x}-{max(address, end - 1):#x}; RAM is 0x0-{self.size - 1:#x}"),
                'choose a lower address or more memory (memory = "64M")',
            )
        offset = 0
        while offset < len(data):
            page, start = divmod(address + offset, PAGE)
            part = data[offset : offset + PAGE - start]
            if len(part) == PAGE:
                self._pages[page] = part
            else:
                self._own(page)[start : start + len(part)] = part
            offset += len(part)

    def read(self, address: int, size: int) -> bytes:
        """Bytes as written so far; zero where nothing was."""
        out = bytearray()
        while size:
            page, start = divmod(address, PAGE)
            part = self._pages.get(page, ZERO_PAGE)[start : start + size]
            out += part
            address += len(part)
            size -= len(part)
        return bytes(out)

    def pages(self) -> dict[int, bytes]:
        """Page number to content of every page that holds something."""
        return {number: bytes(content) for number, content in self._pages.items()}

    def _own(self, page: int) -> bytearray:
        content = self._pages.get(page)
        if not isinstance(content, bytearray):
            content = bytearray(content if content is not None else ZERO_PAGE)
            self._pages[page] = content
        return content
