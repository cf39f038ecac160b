"""Which pages of RAM changed since the last look: the footing of history and of exact deltas.

Two trackers with one interface.  `UffdTracker` lets the kernel note writes (userfaultfd asynchronous write protection
and PAGEMAP_SCAN, Linux 6.7 on): a look costs the number of pages written.  `CompareTracker` compares RAM with a copy
(64 KiB, then 4 KiB at a time) wherever the kernel cannot.  A tracker is made at the first look, not at boot: pages of a
fresh anonymous mapping that were never touched are not present, so the first look needs no tracker.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, Protocol

__all__ = ["CompareTracker", "DirtyTracker", "UffdTracker", "make_tracker", "tracker_name"]

_PAGE: Final = 4096
_SYS_USERFAULTFD: Final = {"x86_64": 323, "aarch64": 282, "riscv64": 282}
_UFFD_USER_MODE_ONLY: Final = 1
_UFFD_API: Final = 0xAA
# WP_HUGETLBFS_SHMEM, WP_UNPOPULATED, WP_ASYNC (include/uapi/linux/userfaultfd.h).
_UFFD_FEATURES: Final = 1 << 12 | 1 << 13 | 1 << 15
_UFFDIO_API: Final = 0xC018AA3F
_UFFDIO_REGISTER: Final = 0xC020AA00
_UFFDIO_REGISTER_MODE_WP: Final = 2
# PAGEMAP_SCAN with PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC for PAGE_IS_WRITTEN (include/uapi/linux/fs.h).
_PAGEMAP_SCAN: Final = 0xC0606610
_SCAN_FLAGS: Final = 3
_PAGE_IS_WRITTEN: Final = 2
_SCAN_ARG: Final = struct.Struct("<12Q")
_VECTOR_LENGTH: Final = 1024
_PRESENT_OR_SWAPPED: Final = 3 << 62

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_libc.memcmp.restype = ctypes.c_int


class DirtyTracker(Protocol):
    """Says which pages were written since it last said so (a superset: a page may be written with what it held)."""

    name: str

    def collect(self) -> list[int]:
        """Page numbers, ascending; the next call counts from here."""
        ...

    def close(self) -> None:
        """Release what the tracker holds."""
        ...


class _Region:
    """Address of an mmap's memory; holding an export of it, released by `close` before the mmap can be closed."""

    def __init__(self, ram: mmap.mmap) -> None:
        self._export: ctypes.c_char | None = ctypes.c_char.from_buffer(ram)
        self.address = ctypes.addressof(self._export)
        self.size = len(ram)

    def close(self) -> None:
        self._export = None


class UffdTracker:
    """Written pages as the kernel notes them.  Raises OSError where it cannot."""

    name = "userfaultfd"

    def __init__(self, ram: mmap.mmap) -> None:
        number = _SYS_USERFAULTFD.get(os.uname().machine)
        if number is None:
            raise OSError("userfaultfd: system call number unknown on this machine")
        self._fd = _libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK | _UFFD_USER_MODE_ONLY)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "userfaultfd")
        self._region = _Region(ram)
        try:
            fcntl.ioctl(self._fd, _UFFDIO_API, bytearray(struct.pack("<QQQ", _UFFD_API, _UFFD_FEATURES, 0)))
            where = struct.pack("<QQQQ", self._region.address, self._region.size, _UFFDIO_REGISTER_MODE_WP, 0)
            fcntl.ioctl(self._fd, _UFFDIO_REGISTER, bytearray(where))
            self._vector = (ctypes.c_uint64 * (3 * _VECTOR_LENGTH))()
            self._vector_address = ctypes.addressof(self._vector)
            self._pagemap = _pagemap()
            self.collect()
        except OSError:
            self.close()
            raise

    def collect(self) -> list[int]:
        """Pages written since the last call."""
        first, end = self._region.address, self._region.address + self._region.size
        out: list[int] = []
        start = first
        while start < end:
            arg = bytearray(
                _SCAN_ARG.pack(
                    _SCAN_ARG.size,
                    _SCAN_FLAGS,
                    start,
                    end,
                    0,
                    self._vector_address,
                    _VECTOR_LENGTH,
                    0,
                    0,
                    _PAGE_IS_WRITTEN,
                    0,
                    _PAGE_IS_WRITTEN,
                )
            )
            found = fcntl.ioctl(self._pagemap, _PAGEMAP_SCAN, arg)
            for i in range(0, 3 * found, 3):
                out.extend(range((self._vector[i] - first) // _PAGE, (self._vector[i + 1] - first) // _PAGE))
            start = _SCAN_ARG.unpack(arg)[4]
        return out

    def close(self) -> None:
        """Stop tracking."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._region.close()


class CompareTracker:
    """Changed pages by comparison with a copy of RAM; works everywhere."""

    name = "compare"
    _CHUNK: Final = 16

    def __init__(self, ram: mmap.mmap) -> None:
        self._ram = ram
        self._region = _Region(ram)
        self._copy = mmap.mmap(-1, len(ram), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._copy_region = _Region(self._copy)
        for page in present_pages(ram):
            self._update(page)

    def collect(self) -> list[int]:
        """Pages that differ from what they held at the last call."""
        ram, copy = self._region.address, self._copy_region.address
        memcmp = _libc.memcmp
        out: list[int] = []
        for first, last in _runs(present_pages(self._ram)):
            for chunk in range(first, last + 1, self._CHUNK):
                count = min(self._CHUNK, last + 1 - chunk)
                at = chunk * _PAGE
                if not memcmp(ram + at, copy + at, count * _PAGE):
                    continue
                for page in range(chunk, chunk + count):
                    if memcmp(ram + page * _PAGE, copy + page * _PAGE, _PAGE):
                        out.append(page)
                        self._update(page)
        return out

    def _update(self, page: int) -> None:
        ctypes.memmove(self._copy_region.address + page * _PAGE, self._region.address + page * _PAGE, _PAGE)

    def close(self) -> None:
        """Release the copy."""
        self._region.close()
        self._copy_region.close()
        self._copy.close()


def _runs(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of each run of consecutive numbers."""
    first = last = -1
    for page in pages:
        if page != last + 1 or first < 0:
            if first >= 0:
                yield first, last
            first = page
        last = page
    if first >= 0:
        yield first, last


def _pagemap() -> int:
    """/proc/self/pagemap, opened once a process.  Raises OSError where there is none."""
    return _pagemap_of(os.getpid())


@lru_cache(maxsize=1)
def _pagemap_of(_pid: int) -> int:
    # The file is about the memory of whoever opened it: after a fork the parent's would answer, wrongly, for the child.
    return os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)


def present_pages(ram: mmap.mmap) -> list[int]:
    """Pages that were ever touched (present or swapped out); every page where the kernel does not say."""
    region = _Region(ram)
    address = region.address
    region.close()
    count = len(ram) // _PAGE
    try:
        raw = os.pread(_pagemap(), count * 8, address // _PAGE * 8)
    except OSError:
        return list(range(count))
    if len(raw) != count * 8:
        return list(range(count))
    entries = memoryview(raw).cast("Q")
    return [page for page, entry in enumerate(entries) if entry & _PRESENT_OR_SWAPPED]


@lru_cache(maxsize=1)
def tracker_name() -> str:
    """The tracker this host gets: ``userfaultfd`` if it passes a self-test, else ``compare``.

    The test is needed: some kernels accept the calls and then report nothing (or everything).
    """
    ram = mmap.mmap(-1, 64 * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        ram[5 * _PAGE] = 1
        tracker = UffdTracker(ram)
    except OSError:
        ram.close()
        return CompareTracker.name
    try:
        seen = []
        for pages in ((5, 9, 10), (), (5, 63), (0,)):
            for page in pages:
                # Page 9 is read before it is written: the zero page must not hide the write.
                ram[page * _PAGE + 7] = ram[page * _PAGE + 7] + 1
            seen.append(tracker.collect() == list(pages))
    except OSError:
        seen = [False]
    finally:
        tracker.close()
        ram.close()
    return UffdTracker.name if all(seen) else CompareTracker.name


def make_tracker(ram: mmap.mmap) -> DirtyTracker:
    """The best tracker the host has, armed: the first `collect` counts from now."""
    if tracker_name() == UffdTracker.name:
        try:
            return UffdTracker(ram)
        except OSError:
            # The limit of descriptors, say: the other tracker needs none.
            pass
    return CompareTracker(ram)
