"""The Intel profile: an Ice Lake server reduced to what the engine can execute."""

from __future__ import annotations

from typing import Final

from kvmscope.x86.profiles.common import COMMON
from kvmscope.x86.profiles.model import Profile, Vendor

__all__ = ["INTEL"]

INTEL: Final = Profile(
    name="intel",
    vendor=Vendor.INTEL,
    family=6,
    model=0x6A,
    stepping=6,
    brand="kvmscope virtual CPU, Intel profile",
    maxphyaddr=40,
    linear_bits=57,
    features=COMMON
    | {"pku", "la57", "spec_ctrl", "intel_stibp", "spec_ctrl_ssbd", "flush_l1d", "arch_capabilities", "md_clear"},
    max_leaf=0xD,
    max_extended_leaf=0x80000008,
    leaves={
        # Descriptor 0xff: the caches are in leaf 4.
        (2, 0): (0x00FEFF01, 0, 0, 0xF0),
        # Deterministic caches: type, level, ways, line, sets (SDM vol. 2A table 3-8, leaf 4).
        (4, 0): (0x00000121, 0x02C0003F, 0x3F, 0),
        (4, 1): (0x00000122, 0x01C0003F, 0x3F, 0),
        (4, 2): (0x00000143, 0x04C0003F, 0x3FF, 0),
        (0x80000006, 0): (0, 0, 0x01006040, 0),
    },
)
