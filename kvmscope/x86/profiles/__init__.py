"""CPU profiles: which processor the guest sees."""

from __future__ import annotations

from kvmscope.x86.profiles.amd import AMD
from kvmscope.x86.profiles.intel import INTEL
from kvmscope.x86.profiles.minimal import MINIMAL
from kvmscope.x86.profiles.model import Leaf, Profile, Vendor
from kvmscope.x86.profiles.resolve import PROFILES, resolve

__all__ = ["AMD", "INTEL", "MINIMAL", "PROFILES", "Leaf", "Profile", "Vendor", "resolve"]
