"""What a CPU profile is, and what follows from its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Final

from kvmscope.x86.features import FEATURES
from kvmscope.x86.paging.formats import PagingFeatures

__all__ = ["CR4_FEATURES", "EFER_FEATURES", "XCR0_FEATURES", "Leaf", "Profile", "Vendor"]

Leaf = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""


class Vendor(StrEnum):
    """Whose rules apply where the vendors differ; the value is the CPUID string."""

    INTEL = "GenuineIntel"
    AMD = "AuthenticAMD"


CR4_FEATURES: Final[tuple[tuple[int, str], ...]] = (
    (0, "vme"),
    (1, "vme"),
    (2, "tsc"),
    (3, "de"),
    (4, "pse"),
    (5, "pae"),
    (6, "mce"),
    (7, "pge"),
    # RDPMC is older than its own enumeration: PCE is valid on every processor with MSRs.
    (8, "msr"),
    (9, "fxsr"),
    (10, "sse"),
    (11, "umip"),
    (12, "la57"),
    (13, "vmx"),
    (14, "smx"),
    (16, "fsgsbase"),
    (17, "pcid"),
    (18, "xsave"),
    (19, "keylocker"),
    (20, "smep"),
    (21, "smap"),
    (22, "pku"),
    (23, "shstk"),
    (23, "ibt"),
    (24, "pks"),
    (25, "uintr"),
    (27, "lass"),
    (28, "lam"),
    (32, "fred"),
)
"""(bit of CR4, feature that makes it valid)."""

EFER_FEATURES: Final[tuple[tuple[int, str], ...]] = (
    (0, "syscall"),
    (8, "lm"),
    (10, "lm"),
    (11, "nx"),
    (12, "svm"),
    (14, "fxsr_opt"),
    (15, "tce"),
    (21, "autoibrs"),
)
"""(bit of IA32_EFER, feature that makes it valid)."""

XCR0_FEATURES: Final[tuple[tuple[int, str], ...]] = (
    (0, "xsave"),
    (1, "xsave"),
    (2, "avx"),
    (3, "mpx"),
    (4, "mpx"),
    (5, "avx512f"),
    (6, "avx512f"),
    (7, "avx512f"),
    (9, "pku"),
    (17, "amx_tile"),
    (18, "amx_tile"),
)
"""(bit of XCR0, feature that makes it valid)."""


@dataclass(frozen=True)
class Profile:
    """A processor model as data.  ``leaves`` are CPUID answers that no feature bit determines, by (leaf, subleaf)."""

    name: str
    vendor: Vendor
    family: int
    model: int
    stepping: int
    brand: str
    """At most 47 characters."""
    maxphyaddr: int
    linear_bits: int
    """Widest linear address: 57 with LA57, whether or not CR4 enables it."""
    features: frozenset[str]
    max_leaf: int
    max_extended_leaf: int
    leaves: Mapping[tuple[int, int], Leaf] = field(default_factory=dict)
    msr_resets: Mapping[int, int] = field(default_factory=dict)
    """Reset values of MSRs that differ from the table in `kvmscope.x86.msrs`."""
    options: frozenset[str] = frozenset()
    """Options that are no feature bits (`kvmscope.x86.profiles.common.OPTIONS`)."""

    def __post_init__(self) -> None:
        unknown = sorted(self.features - FEATURES.keys())
        if unknown:
            raise ValueError(f"profile {self.name}: unknown features {', '.join(unknown)}")
        if len(self.brand) > 47:
            raise ValueError(f"profile {self.name}: the brand string is longer than 47 characters")

    def has(self, feature: str) -> bool:
        """Whether CPUID announces ``feature``."""
        return feature in self.features

    @property
    def intel(self) -> bool:
        """Intel's rules."""
        return self.vendor is Vendor.INTEL

    @cached_property
    def version(self) -> int:
        """EAX of CPUID leaf 1: stepping, model, family with their extensions."""
        family, extended = (self.family, 0) if self.family < 15 else (15, self.family - 15)
        return self.stepping | (self.model & 0xF) << 4 | family << 8 | self.model >> 4 << 16 | extended << 20

    @cached_property
    def cr4_valid(self) -> int:
        """Bits of CR4 that can be set without #GP."""
        return self._mask(CR4_FEATURES)

    @cached_property
    def efer_valid(self) -> int:
        """Bits of IA32_EFER that can be set without #GP."""
        return self._mask(EFER_FEATURES)

    @cached_property
    def xcr0_valid(self) -> int:
        """Bits of XCR0 that can be set; 0 without XSAVE."""
        return self._mask(XCR0_FEATURES) if self.has("xsave") else 0

    @cached_property
    def paging(self) -> PagingFeatures:
        """The features that `kvmscope.x86.paging` asks for."""
        return PagingFeatures(page1gb=self.has("pdpe1gb"), pse36=self.has("pse36"), pat=self.has("pat"))

    def _mask(self, table: tuple[tuple[int, str], ...]) -> int:
        mask = 0
        for bit, feature in table:
            if feature in self.features:
                mask |= 1 << bit
        return mask
