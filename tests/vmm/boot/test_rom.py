"""A ROM after reset."""

from __future__ import annotations

import pytest

from kvmscope.errors import GuestImageError
from kvmscope.vmm.boot import prepare
from kvmscope.vmm.boot.rom import MAX_ROM, rom_image
from kvmscope.vmm.config import MachineConfig, Mode
from kvmscope.x86.profiles import resolve
from kvmscope.x86.state import Gpr, Seg


def test_it_ends_at_4_gib_and_starts_at_the_reset_vector() -> None:
    boot = prepare(MachineConfig(mode=Mode.ROM), rom_image(b"\x90" * 0x1000 + b"\xf4" * 16, "r.bin"))
    state = boot.state
    assert (state.pc, state.mode) == (0xFFFFFFF0, 16)
    assert (state.segments[Seg.CS].selector, state.segments[Seg.CS].base, state.rip) == (0xF000, 0xFFFF0000, 0xFFF0)
    assert state.gpr[Gpr.RDX] == resolve("intel").version
    address, data = boot.rom or (0, b"")
    assert (address, len(data), data[-16:], data[:1]) == (0xFFFFE000, 0x2000, b"\xf4" * 16, b"\xff")
    # The last 128 KiB stand below 1 MiB, too.
    assert boot.pages[0xFF][-16:] == b"\xf4" * 16
    assert not boot.firmware


@pytest.mark.parametrize("size", [0, 15, MAX_ROM + 1])
def test_sizes(size: int) -> None:
    with pytest.raises(GuestImageError, match="A ROM has 16 bytes to 8 MiB"):
        rom_image(bytes(size), "r.bin")
