"""A ROM as the processor finds it after reset (SDM vol. 3A sections 10.1.1 and 10.1.4).

The image ends at 4 GiB; its last 128 KiB also stand below 1 MiB, as a PC's chipset shows them.  The copy below 1 MiB is
RAM with the ROM's contents (what a BIOS makes of it by shadowing); the one below 4 GiB cannot be written.
"""

from __future__ import annotations

from typing import Final

from kvmscope.asm.image import Image, Section
from kvmscope.errors import GuestImageError
from kvmscope.vmm.boot.memory import BootMemory
from kvmscope.vmm.boot.model import Boot
from kvmscope.vmm.config import MachineConfig
from kvmscope.x86.profiles import resolve
from kvmscope.x86.reset import reset_state

__all__ = ["MAX_ROM", "RESET_VECTOR", "TOP", "prepare_rom", "rom_image"]

TOP: Final = 1 << 32
RESET_VECTOR: Final = TOP - 16
MAX_ROM: Final = 8 << 20
"""Largest ROM: the top 16 MiB of the first 4 GiB, less the test device's memory at 0xff000000."""
_PAGE: Final = 4096
_SHADOW: Final = 128 << 10
_MEBIBYTE: Final = 1 << 20


def rom_image(blob: bytes, name: str) -> Image:
    """The image of a ROM's bytes.  Raises GuestImageError for a size that no ROM has."""
    if not 16 <= len(blob) <= MAX_ROM:
        raise GuestImageError(
            f"A ROM has 16 bytes to {MAX_ROM >> 20} MiB",
            f"{name}: {len(blob):#x} bytes",
            "--mode real16, prot32 or long64 starts raw bytes elsewhere",
        )
    # A ROM fills whole pages; what is missing of the first one reads as erased flash does.
    data = blob.rjust(-(-len(blob) // _PAGE) * _PAGE, b"\xff")
    section = Section("rom", TOP - len(data), data)
    return Image((section,), {}, entry=RESET_VECTOR, bits=16, name=name)


def prepare_rom(config: MachineConfig, image: Image) -> Boot:
    """Memory and state after reset."""
    (rom,) = image.sections
    memory = BootMemory(config.memory)
    low = rom.data[-_SHADOW:]
    memory.write(_MEBIBYTE - len(low), low, "the ROM's copy below 1 MiB")
    state = reset_state(resolve(config.cpu).version)
    return Boot(memory.pages(), state, RESET_VECTOR, rom=(rom.address, rom.data))
