"""Fast stores: Unicorn watches every page for stores into translated code, also pages that hold none.

It marks each translation in its software TLB "not dirty", which sends every store through its slow path (more than half
of the time of a loop that stores), and never takes the mark away.  Here it is taken away, every 1,024 instructions,
from translations of pages without translated code; when a page gets code the mark is put back.  Nothing but the time
changes: stores into pages with code are watched as before.

The entries are 64 bytes: addresses for reads, writes and fetches with flags in their low 12 bits, the physical address,
and what added to the linear address gives the host's (QEMU 5.0 include/exec/cpu-defs.h; a victim cache of 8 entries a mode lies in the descriptors).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn.layout import TLB

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.env import Env
    from kvmscope.vmm.unicorn.memory import Memory
    from kvmscope.vmm.unicorn.probe import Probe

__all__ = ["Stores"]

# void clean(..., fields in rcx): take the mark from every translation of RAM without code.
_CLEAN: Final = bytes.fromhex(
    "53525657"  # push rbx; push rdx; push rsi; push rdi
    "4c8b81a8000000"  # mov r8, [rcx+8*P_TLB]
    "ba03000000"  # mov edx, 3                                          modes
    "4d8b084d8b50084f8d4c0a40"  # mode: r10 = table, r9 = its end
    "498b7a08"  # entry: mov rdi, [r10+8]                               address for writes
    "89fb81e3ff0f000081fb000400007539"  # flags other than "not dirty": jne next
    "4989fb4981e300f0ffff4d035a20"  # r11 = the page at the host
    "4c2b99b00000004c3b99b8000000731b"  # r11 -= RAM; not in RAM: jae next
    "49c1eb0c488bb1c000000042803c1e007509"  # the page has code: jne next
    "480fbaf70a49897a08"  # btr rdi, 10; mov [r10+8], rdi
    "4983c2404d39ca72aa"  # next: the next entry
    "4983c010ffca7596"  # the next mode
    "5f5e5a5bc3"  # pop rdi; pop rsi; pop rdx; pop rbx; ret
)
# void protect(fields, page's offset in RAM): put the mark back.
_PROTECT: Final = bytes.fromhex(
    "4c8b87a8000000"  # mov r8, [rdi+8*P_TLB]
    "4c8b9fc8000000"  # mov r11, [rdi+8*P_VICTIMS]
    "ba03000000"  # mov edx, 3                                          modes
    "4d8b084d8b50084f8d4c0a40"  # mode: r10 = table, r9 = its end
    "498b4208a9ff0f0000751c"  # entry: rax = address for writes; flags set: jnz next
    "498b4a204801c1482b8fb00000004839f17509"  # another page: jne next
    "480fbae80a49894208"  # bts rax, 10; mov [r10+8], rax
    "4983c2404d39ca72d0"  # next: the next entry
    "4d89da4d8d8b00020000"  # the same for the victims: r10 = first, r9 = end
    "498b4208a9ff0f0000751c"
    "498b4a204801c1482b8fb00000004839f17509"
    "480fbae80a49894208"
    "4983c2404d39ca72d0"
    "4983c0104981c3b8020000ffca0f8577ffffff"  # the next mode
    "c3"
)

_MODES: Final = 3
_FAST: Final = -64
"""The table and mask of each mode's TLB, relative to ``CPUX86State``."""
_VICTIMS: Final = 48
"""The victim cache in a mode's descriptor."""
_SMALLEST_MASK: Final = 0x3FC0


class Stores:
    """Pages with translated code, as the native routines know them."""

    def __init__(self, probe: Probe, env: Env, memory: Memory) -> None:
        self._page: mmap.mmap | None = None
        masks = [ctypes.c_uint64.from_address(env.address + _FAST + 16 * mode).value for mode in range(_MODES)]
        if not probe.native or platform.machine().lower() not in ("x86_64", "amd64") or set(masks) != {_SMALLEST_MASK}:
            # Slower, not wrong.
            return
        self._page = page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code = _CLEAN.ljust(-(-len(_CLEAN) // 16) * 16, b"\xcc")
        page[: len(code) + len(_PROTECT)] = code + _PROTECT
        self._anchor = ctypes.c_char.from_buffer(page)
        start = ctypes.addressof(self._anchor)
        self._protect = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)(start + len(code))
        self._map = mmap.mmap(-1, max(1, memory.size >> 12))
        self._map_anchor = ctypes.c_char.from_buffer(self._map)
        self._fields = ctypes.addressof(probe.fields)
        descriptors = env.address + TLB["start"]
        probe.clean_with(
            start,
            (
                env.address + _FAST,
                memory.address,
                memory.size,
                ctypes.addressof(self._map_anchor),
                descriptors + _VICTIMS,
            ),
        )

    def has_code(self, page: int) -> None:
        """RAM's page number ``page`` has translated code from now on."""
        if self._page is not None and page < len(self._map) and not self._map[page]:
            self._map[page] = 1
            self._protect(self._fields, page << 12)

    def has_none(self, first: int, end: int) -> None:
        """Pages ``first`` to ``end`` have none any more."""
        if self._page is not None:
            end = min(end, len(self._map))
            self._map[first:end] = bytes(max(0, end - first))

    def close(self) -> None:
        """Give the memory back; only after the engine is gone."""
        if self._page is not None:
            del self._anchor, self._map_anchor
            self._page.close()
            self._map.close()
            self._page = None
