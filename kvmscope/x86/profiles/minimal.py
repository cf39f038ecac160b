"""The minimal profile: an early 64-bit processor, which QEMU calls ``qemu64`` (with Intel's name in CPUID)."""

from __future__ import annotations

from typing import Final

from kvmscope.x86.profiles.common import BASELINE
from kvmscope.x86.profiles.model import Profile, Vendor

__all__ = ["MINIMAL"]

MINIMAL: Final = Profile(
    name="minimal",
    vendor=Vendor.INTEL,
    family=15,
    model=0x6B,
    stepping=1,
    brand="kvmscope virtual CPU, minimal profile",
    maxphyaddr=40,
    linear_bits=48,
    features=BASELINE | {"hypervisor"},
    max_leaf=0xD,
    max_extended_leaf=0x80000008,
    leaves={
        (2, 0): (0x00FEFF01, 0, 0, 0xF0),
        (4, 0): (0x00000121, 0x01C0003F, 0x3F, 0),
        (4, 1): (0x00000122, 0x01C0003F, 0x3F, 0),
        (4, 2): (0x00000143, 0x03C0003F, 0xFFF, 0),
        (0x80000006, 0): (0, 0, 0x02008140, 0),
    },
)
