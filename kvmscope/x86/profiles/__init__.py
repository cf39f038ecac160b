"""CPU profiles: which processor the guest sees."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from kvmscope.x86.profiles.amd import AMD
from kvmscope.x86.profiles.intel import INTEL
from kvmscope.x86.profiles.model import Leaf, Profile, Vendor

__all__ = ["AMD", "INTEL", "PROFILES", "Leaf", "Profile", "Vendor"]

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType({p.name: p for p in (INTEL, AMD)})
"""By the name that a header's ``cpu`` takes."""
