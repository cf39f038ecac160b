"""The multiboot header of an image (Multiboot Specification version 0.6.96, section 3.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kvmscope.errors import GuestImageError

__all__ = ["MultibootHeader", "find_multiboot"]

_MAGIC: Final = 0x1BADB002
_SEARCHED: Final = 8192
"""Bytes at the front of a file that hold the header."""
_PAGE_ALIGN: Final = 1 << 0
_MEMORY_INFO: Final = 1 << 1
_UNDERSTOOD: Final = _PAGE_ALIGN | _MEMORY_INFO
_REQUIRED: Final = 0xFFFF
"""Bits that a loader which does not know them must refuse."""
_ADDRESSES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class MultibootHeader:
    """Where the header stands and, when it has them (bit 16 of the flags), the addresses that replace ELF's."""

    offset: int
    flags: int
    header_address: int = 0
    load_address: int = 0
    load_end: int = 0
    bss_end: int = 0
    entry: int = 0

    @property
    def has_addresses(self) -> bool:
        """The image says itself where it goes."""
        return bool(self.flags & _ADDRESSES)


def find_multiboot(blob: bytes, name: str) -> MultibootHeader | None:
    """The header, if there is one: aligned to 4 bytes, its checksum right.

    Raises GuestImageError when it asks for what this loader does not do.
    """
    head = blob[:_SEARCHED]
    magic = _MAGIC.to_bytes(4, "little")
    at = head.find(magic)
    while at >= 0:
        if at % 4 == 0 and at + 12 <= len(head):
            _, flags, checksum = struct.unpack_from("<III", head, at)
            if (_MAGIC + flags + checksum) & 0xFFFFFFFF == 0:
                return _header(head, at, flags, name)
        at = head.find(magic, at + 1)
    return None


def _header(head: bytes, at: int, flags: int, name: str) -> MultibootHeader:
    unknown = flags & _REQUIRED & ~_UNDERSTOOD
    if unknown:
        what = "a graphics mode" if unknown == 4 else f"features {unknown:#x}"
        raise GuestImageError(
            f"The image's multiboot header requires {what}, which kvmscope does not give",
            f"{name}: header at offset {at:#x}, flags {flags:#x}",
            "clear these bits in the header",
        )
    if not flags & _ADDRESSES:
        return MultibootHeader(at, flags)
    if at + 32 > len(head):
        raise GuestImageError(
            "The multiboot header's addresses lie beyond the end of the file",
            f"{name}: header at offset {at:#x}, flags {flags:#x}",
            "the file is truncated or damaged: build or copy it again",
        )
    return MultibootHeader(at, flags, *struct.unpack_from("<5I", head, at + 12))
