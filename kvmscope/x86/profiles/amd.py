"""The AMD profile: a Zen 2 server (Rome) reduced to what the engine can execute."""

from __future__ import annotations

from typing import Final

from kvmscope.x86.profiles.common import COMMON
from kvmscope.x86.profiles.model import Profile, Vendor

__all__ = ["AMD"]

AMD: Final = Profile(
    name="amd",
    vendor=Vendor.AMD,
    family=0x17,
    model=0x31,
    stepping=0,
    brand="kvmscope virtual CPU, AMD profile",
    maxphyaddr=40,
    linear_bits=48,
    features=(COMMON - {"tsc_deadline_timer"}) | {"sse4a", "topoext", "amd_ibpb", "amd_ibrs", "amd_stibp", "amd_ssbd"},
    max_leaf=0xD,
    max_extended_leaf=0x8000001E,
    leaves={
        # L1 TLBs and caches, L2 TLBs and caches (APM vol. 3 appendix E.4.4, E.4.5).
        (0x80000005, 0): (0xFF40FF40, 0xFF40FF40, 0x20080140, 0x20080140),
        (0x80000006, 0): (0x48006400, 0x68006400, 0x02006140, 0x00809140),
        # Caches as in Intel's leaf 4 (appendix E.4.15).
        (0x8000001D, 0): (0x00000121, 0x01C0003F, 0x3F, 0),
        (0x8000001D, 1): (0x00000122, 0x01C0003F, 0x3F, 0),
        (0x8000001D, 2): (0x00000143, 0x01C0003F, 0x3FF, 2),
    },
    msr_resets={0x8B: 0},
)
