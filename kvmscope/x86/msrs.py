"""MSRs by name and index, and what RDMSR and WRMSR check (SDM vol. 2B RDMSR, vol. 2D WRMSR, vol. 4).

``check_read`` and ``check_write`` give the reason for #GP(0), or None; they know nothing of the engine, so what depends
on the processor's state (LME while paging) is the caller's to check.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from kvmscope.x86.msr_table import MSRS, Check, Msr, for_vendor
from kvmscope.x86.paging.formats import is_canonical
from kvmscope.x86.profiles.model import Profile

__all__ = [
    "MISC_ENABLE",
    "MSRS",
    "Msr",
    "check_read",
    "check_write",
    "lookup",
    "msr_by_name",
    "msr_index",
    "msr_name",
    "reset_values",
    "stored_value",
    "unsupported_write",
]

MISC_ENABLE: Final = 0x1A0
_MTRR_TYPES: Final = frozenset({0, 1, 4, 5, 6})
_PAT_TYPES: Final = frozenset({0, 1, 4, 5, 6, 7})
_ALL: Final = (1 << 64) - 1
_PREFIXES: Final = ("MSR_IA32_", "IA32_", "MSR_")


def _bare(name: str) -> str:
    upper = name.strip().upper()
    for prefix in _PREFIXES:
        if upper.startswith(prefix):
            return upper[len(prefix) :]
    return upper


_BY_NAME: Final = {_bare(name): msr for msr in MSRS.values() for name in (msr.linux or msr.name, msr.name)}


def msr_by_name(name: str) -> Msr | None:
    """The MSR called ``name``: the SDM's or Linux's name in any case, with or without ``IA32_`` and ``MSR_``."""
    return _BY_NAME.get(_bare(name))


def msr_index(name: str) -> int | None:
    """Index of the MSR called ``name``, None when unknown."""
    found = msr_by_name(name)
    return None if found is None else found.index


def msr_name(index: int) -> str:
    """``IA32_EFER``, or ``0x12345`` for an unknown one."""
    found = MSRS.get(index)
    return found.name if found else f"{index:#x}"


def lookup(index: int, profile: Profile) -> Msr | None:
    """The MSR if ``profile`` has it, else None (an access raises #GP)."""
    found = for_vendor(index, profile.vendor)
    if found is None or (found.feature and not _has(profile, found.feature)):
        return None
    return found


_resets: dict[tuple[object, ...], Mapping[int, int]] = {}


def reset_values(profile: Profile) -> Mapping[int, int]:
    """Value after reset of every readable MSR that ``profile`` has, by index."""
    key = profile.name, profile.features, tuple(profile.msr_resets.items())
    known = _resets.get(key)
    if known is None:
        # Every machine asks, and a test run makes many.
        known = _resets[key] = MappingProxyType(_reset_values(profile))
    return known


def _reset_values(profile: Profile) -> dict[int, int]:
    values: dict[int, int] = {}
    for index in MSRS:
        found = lookup(index, profile)
        if found is not None and not found.write_only:
            values[index] = profile.msr_resets.get(index, found.reset)
    if MISC_ENABLE in values and profile.has("monitor"):
        values[MISC_ENABLE] |= 1 << 18
    return values


def _absent(index: int, profile: Profile) -> str:
    known = MSRS.get(index)
    if known is None:
        return f"MSR {index:#x} does not exist"
    if for_vendor(index, profile.vendor) is None:
        return f"{known.name} ({index:#x}) does not exist on the {profile.name} profile"
    return (
        f"{known.name} ({index:#x}) needs CPUID feature {known.feature.replace('|', ' or ')}, which the profile lacks"
    )


def check_read(index: int, profile: Profile) -> str | None:
    """Why RDMSR of ``index`` raises #GP(0); None when it does not."""
    found = lookup(index, profile)
    if found is None:
        return _absent(index, profile)
    return f"{found.name} ({index:#x}) is write-only" if found.write_only else None


def _has(profile: Profile, features: str) -> bool:
    """Whether ``profile`` has one of ``a|b``."""
    return any(profile.has(name) for name in features.split("|"))


def _valid_bits(msr: Msr, profile: Profile) -> int:
    valid = msr.writable
    for mask, features in msr.bits:
        if not _has(profile, features):
            valid &= ~mask
    if msr.check == Check.EFER:
        valid &= profile.efer_valid
    if msr.address:
        valid &= (1 << profile.maxphyaddr) - 1
    return valid


def check_write(index: int, old: int, value: int, profile: Profile, *, status_writable: bool = False) -> str | None:
    """Why WRMSR of ``value`` raises #GP(0); None when it does not.

    ``old`` is the present value; ``status_writable`` is AMD's HWCR.McStatusWrEn.
    """
    found = lookup(index, profile)
    if found is None:
        return _absent(index, profile)
    place = f"{found.name} ({index:#x})"
    if found.read_only:
        return f"{place} is read-only"
    # Bits that ignore writes may be written with whatever they hold.
    bad = value & ~_valid_bits(found, profile) & ~(found.ignored & old)
    if bad:
        bits = [str(bit) for bit in range(63, -1, -1) if bad >> bit & 1]
        shown = ", ".join(bits[:4]) + (", ..." if len(bits) > 4 else "")
        return f"{place} = {value:#x}: reserved bit{'s' if len(bits) > 1 else ''} {shown} set"
    if found.check == Check.CANONICAL and not is_canonical(value, profile.linear_bits):
        return f"{place} = {value:#x} is not canonical ({profile.linear_bits}-bit linear addresses)"
    if found.check == Check.ALL_OR_NONE and value not in (0, _ALL):
        return f"{place} = {value:#x} is neither 0 nor all ones"
    if found.check == Check.CLEAR and value and not (status_writable and not profile.intel):
        return f"{place} = {value:#x}: only 0 can be written"
    if found.check in (Check.MEMORY_TYPES, Check.PAT, Check.LOW_TYPE):
        types = _PAT_TYPES if found.check == Check.PAT else _MTRR_TYPES
        count = 1 if found.check == Check.LOW_TYPE else 8
        for i, kind in enumerate(value.to_bytes(8, "little")[:count]):
            if kind not in types:
                return f"{place} = {value:#x}: byte {i} is {kind:#x}, no memory type"
    return None


def unsupported_write(index: int, value: int, profile: Profile) -> str | None:
    """Why a write that processors accept cannot be executed exactly here; None when it can."""
    found = lookup(index, profile)
    bits = found.unsupported & value if found else 0
    if found is None or not bits:
        return None
    return f"{found.name} ({index:#x}) = {value:#x}: bits {bits:#x} are not emulated"


def stored_value(index: int, old: int, value: int, profile: Profile) -> int:
    """What a successful WRMSR leaves in the register: bits that ignore writes keep their ``old`` value."""
    found = lookup(index, profile)
    keep = found.ignored if found else 0
    return old & keep | value & ~keep
