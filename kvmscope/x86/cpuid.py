"""CPUID as a pure function of profile and state (SDM vol. 2A CPUID; APM vol. 3 appendix E)."""

from __future__ import annotations

from typing import Final

from kvmscope.x86.features import FEATURES, REGISTERS, Feature, features_in
from kvmscope.x86.profiles.model import Leaf, Profile

__all__ = ["FEATURES", "Feature", "core_bits", "cpuid", "describe", "features_in", "xsave_size"]

_CR4_OSXSAVE: Final = 1 << 18
_CR4_PKE: Final = 1 << 22
_WITH_SUBLEAVES: Final = frozenset({4, 7, 0xB, 0xD, 0x8000001D})

_APIC: Final = 1 << 9
_HTT: Final = 1 << 28
_MONITOR: Final = 1 << 3
_CMP_LEGACY: Final = 1 << 1

# Bits of IA32_MISC_ENABLE that CPUID shows (SDM vol. 4 table 2-2).
_MONITOR_ENABLE: Final = 1 << 18
_LIMIT_MAXIMUM: Final = 1 << 22
_XD_DISABLE: Final = 1 << 34
_LIMITED_MAXIMUM: Final = 2

_XSAVE_COMPONENTS: Final = {
    2: (576, 256),
    3: (960, 64),
    4: (1024, 64),
    5: (1088, 64),
    6: (1152, 512),
    7: (1664, 1024),
    9: (2688, 8),
    17: (2752, 64),
    18: (2816, 8192),
}
"""XCR0 bit to (offset, size) in the standard XSAVE format; the legacy area and header are 576 bytes."""


def xsave_size(xcr0: int) -> int:
    """Bytes of a standard-format XSAVE area for the components in ``xcr0``."""
    return max([576, *(offset + size for bit, (offset, size) in _XSAVE_COMPONENTS.items() if xcr0 >> bit & 1)])


def _feature_words(profile: Profile, leaf: int, subleaf: int) -> list[int]:
    words = [0, 0, 0, 0]
    for name in profile.features:
        feature = FEATURES[name]
        if feature.leaf == leaf and feature.subleaf == subleaf:
            words[feature.register] |= 1 << feature.bit
    return words


def _text(text: str, size: int) -> list[int]:
    data = text.encode("ascii").ljust(size, b"\0")
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, size, 4)]


def cpuid(
    profile: Profile,
    leaf: int,
    subleaf: int = 0,
    *,
    cr4: int = 0,
    xcr0: int = 1,
    apic_id: int = 0,
    vcpus: int = 1,
    apic_enabled: bool = True,
    misc_enable: int = 0,
    code64: bool = True,
) -> Leaf:
    """EAX, EBX, ECX and EDX for ``leaf`` in EAX and ``subleaf`` in ECX.

    ``cr4`` and ``xcr0`` give the bits that follow the state (OSXSAVE, OSPKE, the XSAVE size), ``apic_enabled``
    (IA32_APIC_BASE.EN) the APIC's, ``misc_enable`` (IA32_MISC_ENABLE) those it can take away; ``vcpus`` cores are in
    the package, of which this one has ``apic_id``; ``code64`` says that CPUID runs in 64-bit mode, where alone Intel
    announces SYSCALL.  A leaf above the maximum gives on Intel what the highest basic leaf gives, on AMD zeros.
    """
    leaf &= 0xFFFFFFFF
    subleaf &= 0xFFFFFFFF
    if leaf >> 28 == 4 and hypervisor_leaves(profile):
        return _hypervisor_leaf(profile, leaf)
    max_leaf = _LIMITED_MAXIMUM if misc_enable & _LIMIT_MAXIMUM else profile.max_leaf
    basic = leaf <= max_leaf
    if not basic and not 0x80000000 <= leaf <= profile.max_extended_leaf:
        if not profile.intel:
            return 0, 0, 0, 0
        leaf = max_leaf
    if leaf not in _WITH_SUBLEAVES:
        # Others do not look at ECX.
        subleaf = 0
    words = _feature_words(profile, leaf, subleaf)
    if leaf in (0, 0x80000000):
        vendor = _text(profile.vendor.value, 12)
        if leaf == 0:
            return max_leaf, vendor[0], vendor[2], vendor[1]
        # Intel leaves the vendor out of the extended range.
        return (profile.max_extended_leaf, *((0, 0, 0) if profile.intel else (vendor[0], vendor[2], vendor[1])))
    if leaf == 1:
        words[0] = profile.version
        # CLFLUSH line in 8-byte units, APIC IDs reserved for the package, initial APIC ID.
        words[1] = 8 << 8 | min(1 << core_bits(vcpus), 255) << 16 | (apic_id & 0xFF) << 24
        if vcpus > 1:
            words[3] |= _HTT
        if not apic_enabled:
            words[3] &= ~_APIC
        if profile.intel and not misc_enable & _MONITOR_ENABLE:
            words[2] &= ~_MONITOR
        if profile.has("xsave") and cr4 & _CR4_OSXSAVE:
            words[2] |= 1 << 27
    elif leaf == 5 and profile.has("monitor"):
        # The line that MONITOR watches, smallest and largest, in bytes.
        words = [64, 64, 0, 0]
    elif leaf == 7 and subleaf == 0:
        if profile.has("pku") and cr4 & _CR4_PKE:
            words[2] |= 1 << 4
        # EAX is the highest subleaf.
        words[0] = int(any(FEATURES[name].leaf == 7 and FEATURES[name].subleaf == 1 for name in profile.features))
    elif leaf == 0xB and profile.intel:
        return _topology(profile, subleaf, apic_id, vcpus)
    elif leaf == 0xD:
        return _xsave_leaf(profile, subleaf, xcr0, words)
    elif leaf == 0x80000001:
        if profile.intel:
            if not code64:
                words[3] &= ~(1 << 11)
            if misc_enable & _XD_DISABLE:
                words[3] &= ~(1 << 20)
        else:
            words[0] = profile.version
            # AMD repeats the features of leaf 1 that its own extensions began with.
            words[3] |= _feature_words(profile, 1, 0)[3] & 0x0183F3FF
            if not apic_enabled:
                words[3] &= ~_APIC
            if vcpus > 1:
                words[2] |= _CMP_LEGACY
    elif 0x80000002 <= leaf <= 0x80000004:
        words = _text(profile.brand, 48)[4 * (leaf - 0x80000002) :][:4]
    elif leaf == 0x80000008:
        words[0] = profile.maxphyaddr | profile.linear_bits << 8
        if not profile.intel:
            words[2] = core_bits(vcpus) << 12 | vcpus - 1
    elif leaf == 0x8000001E and profile.has("topoext"):
        # Extended APIC ID; one thread a core, the core's number; one node.
        return apic_id, apic_id & 0xFF, 0, 0
    fixed = profile.leaves.get((leaf, subleaf))
    if fixed is not None:
        words = [word | more for word, more in zip(words, fixed, strict=True)]
        if leaf == 4 and fixed[0]:
            # Cores in the package; every cache is a core's own.
            words[0] |= (1 << core_bits(vcpus)) - 1 << 26
    return words[0], words[1], words[2], words[3]


def core_bits(vcpus: int) -> int:
    """Bits of an APIC ID that number the cores of the package."""
    return (vcpus - 1).bit_length()


def hypervisor_leaves(profile: Profile) -> bool:
    """Whether leaves 4000_0000H and 4000_0001H are KVM's."""
    return "kvm_pv" in profile.options


def _hypervisor_leaf(profile: Profile, leaf: int) -> Leaf:
    """KVM's signature and features (Documentation/virt/kvm/x86/cpuid.rst)."""
    if leaf == 0x40000000:
        ebx, ecx, edx = _text("KVMKVMKVM", 12)
        return 0x40000001, ebx, ecx, edx
    if leaf == 0x40000001:
        return _feature_words(profile, leaf, 0)[0], 0, 0, 0
    return 0, 0, 0, 0


def _topology(profile: Profile, subleaf: int, apic_id: int, vcpus: int) -> Leaf:
    """Leaf 0BH: threads of a core (one), then cores of the package (SDM vol. 2A, vol. 3A section 9.9.1)."""
    if not profile.has("x2apic"):
        return 0, 0, 0, 0
    shift, count, kind = {0: (0, 1, 1), 1: (core_bits(vcpus), vcpus, 2)}.get(subleaf, (0, 0, 0))
    return shift, count, kind << 8 | subleaf & 0xFF, apic_id


def _xsave_leaf(profile: Profile, subleaf: int, xcr0: int, words: list[int]) -> Leaf:
    valid = profile.xcr0_valid
    if not valid:
        return 0, 0, 0, 0
    if subleaf == 0:
        return valid & 0xFFFFFFFF, xsave_size(xcr0), xsave_size(valid), valid >> 32
    if subleaf == 1:
        return words[0], 0, 0, 0
    if subleaf < 63 and valid >> subleaf & 1 and subleaf in _XSAVE_COMPONENTS:
        offset, size = _XSAVE_COMPONENTS[subleaf]
        return size, offset, 0, 0
    return 0, 0, 0, 0


def describe(leaf: int, subleaf: int, values: Leaf) -> tuple[str, ...]:
    """A CPUID result in words: the four registers, then the features or texts it holds."""
    lines = [" ".join(f"{name}={value:#x}" for name, value in zip(REGISTERS, values, strict=True))]
    if leaf in (0, 0x80000000) and values[1]:
        order = (values[1], values[3], values[2])
        lines.append(b"".join(v.to_bytes(4, "little") for v in order).decode("ascii", "replace"))
    names = features_in(leaf, subleaf, values)
    if names:
        lines.append(" ".join(names))
    return tuple(lines)
