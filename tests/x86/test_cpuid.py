"""CPUID, the masks that follow from it, and that it promises nothing the engine cannot do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscope.x86.cpuid import FEATURES, cpuid, describe, features_in, xsave_size
from kvmscope.x86.paging.formats import DEFAULT_MAXPHYADDR
from kvmscope.x86.profiles import AMD, INTEL, MINIMAL, PROFILES, Profile, Vendor, resolve


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("pni", "CPUID.1.0:ECX[0]"),
        ("vmx", "CPUID.1.0:ECX[5]"),
        ("cx16", "CPUID.1.0:ECX[13]"),
        ("pcid", "CPUID.1.0:ECX[17]"),
        ("x2apic", "CPUID.1.0:ECX[21]"),
        ("tsc_deadline_timer", "CPUID.1.0:ECX[24]"),
        ("osxsave", "CPUID.1.0:ECX[27]"),
        ("hypervisor", "CPUID.1.0:ECX[31]"),
        ("sep", "CPUID.1.0:EDX[11]"),
        ("pse36", "CPUID.1.0:EDX[17]"),
        ("clflush", "CPUID.1.0:EDX[19]"),
        ("sse2", "CPUID.1.0:EDX[26]"),
        ("fsgsbase", "CPUID.7.0:EBX[0]"),
        ("smep", "CPUID.7.0:EBX[7]"),
        ("invpcid", "CPUID.7.0:EBX[10]"),
        ("smap", "CPUID.7.0:EBX[20]"),
        ("clwb", "CPUID.7.0:EBX[24]"),
        ("avx512vl", "CPUID.7.0:EBX[31]"),
        ("umip", "CPUID.7.0:ECX[2]"),
        ("pku", "CPUID.7.0:ECX[3]"),
        ("shstk", "CPUID.7.0:ECX[7]"),
        ("la57", "CPUID.7.0:ECX[16]"),
        ("rdpid", "CPUID.7.0:ECX[22]"),
        ("pks", "CPUID.7.0:ECX[31]"),
        ("serialize", "CPUID.7.0:EDX[14]"),
        ("ibt", "CPUID.7.0:EDX[20]"),
        ("arch_capabilities", "CPUID.7.0:EDX[29]"),
        ("fred", "CPUID.7.1:EAX[17]"),
        ("wrmsrns", "CPUID.7.1:EAX[19]"),
        ("lam", "CPUID.7.1:EAX[26]"),
        ("syscall", "CPUID.80000001H.0:EDX[11]"),
        ("nx", "CPUID.80000001H.0:EDX[20]"),
        ("pdpe1gb", "CPUID.80000001H.0:EDX[26]"),
        ("rdtscp", "CPUID.80000001H.0:EDX[27]"),
        ("lm", "CPUID.80000001H.0:EDX[29]"),
        ("svm", "CPUID.80000001H.0:ECX[2]"),
        ("osvw", "CPUID.80000001H.0:ECX[9]"),
        ("mwaitx", "CPUID.80000001H.0:ECX[29]"),
        ("npt", "CPUID.8000000AH.0:EDX[0]"),
        ("vgif", "CPUID.8000000AH.0:EDX[16]"),
    ],
)
def test_feature_places(name: str, where: str) -> None:
    assert FEATURES[name].where == where


def test_features_have_places_of_their_own() -> None:
    places = [(f.leaf, f.subleaf, f.register, f.bit) for f in FEATURES.values()]
    assert len(set(places)) == len(places)


def test_vendor_and_signature() -> None:
    assert describe(0, 0, cpuid(INTEL, 0))[1] == "GenuineIntel"
    assert describe(0, 0, cpuid(AMD, 0))[1] == "AuthenticAMD"
    assert cpuid(INTEL, 1)[0] == 0x606A6
    assert cpuid(AMD, 1)[0] == 0x830F10
    for profile in PROFILES.values():
        words = [w for leaf in (0x80000002, 0x80000003, 0x80000004) for w in cpuid(profile, leaf)]
        text = b"".join(w.to_bytes(4, "little") for w in words)
        assert text.rstrip(b"\0").decode() == profile.brand


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_all_features_and_no_others_are_announced(profile: Profile) -> None:
    # Leaf numbers above the maximum repeat the last leaf there; they announce nothing.
    leaves = {(f.leaf, f.subleaf) for f in FEATURES.values() if f.leaf <= profile.max_leaf or f.leaf >> 31}
    leaves = {(leaf, sub) for leaf, sub in leaves if leaf <= profile.max_extended_leaf}
    found = {name for leaf, sub in leaves for name in features_in(leaf, sub, cpuid(profile, leaf, sub))}
    assert found == profile.features


def test_state_dependent_bits() -> None:
    assert not cpuid(INTEL, 1)[2] >> 27 & 1
    assert cpuid(INTEL, 1, cr4=1 << 18)[2] >> 27 & 1
    assert not cpuid(INTEL, 7)[2] >> 4 & 1
    assert cpuid(INTEL, 7, cr4=1 << 22)[2] >> 4 & 1
    assert not cpuid(AMD, 7, cr4=1 << 22)[2] >> 4 & 1
    assert cpuid(INTEL, 1, apic_id=3)[1] >> 24 == 3
    assert not cpuid(INTEL, 0x80000001, code64=False)[3] >> 11 & 1
    assert cpuid(AMD, 0x80000001, code64=False)[3] >> 11 & 1
    for leaf, profile in ((1, INTEL), (1, AMD), (0x80000001, AMD)):
        assert cpuid(profile, leaf)[3] >> 9 & 1
        assert not cpuid(profile, leaf, apic_enabled=False)[3] >> 9 & 1


def test_what_misc_enable_takes_away() -> None:
    """MONITOR, the leaves above 2, execute-disable (SDM vol. 4 table 2-2)."""
    monitor = resolve("intel,+monitor")
    assert not cpuid(monitor, 1)[2] >> 3 & 1
    assert cpuid(monitor, 1, misc_enable=1 << 18)[2] >> 3 & 1
    assert cpuid(INTEL, 0, misc_enable=1 << 22)[0] == 2
    assert cpuid(INTEL, 7, misc_enable=1 << 22) == cpuid(INTEL, 2)
    assert cpuid(INTEL, 0x80000001)[3] >> 20 & 1
    assert not cpuid(INTEL, 0x80000001, misc_enable=1 << 34)[3] >> 20 & 1


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_a_leaf_without_subleaves_does_not_look_at_ecx(profile: Profile) -> None:
    for leaf in (0, 1, 2, 6, 0x80000000, 0x80000001, 0x80000005, 0x80000006, 0x80000007, 0x80000008):
        assert cpuid(profile, leaf, 0x12345678) == cpuid(profile, leaf)
    assert cpuid(profile, 7, 5)[1:] == (0, 0, 0)


def test_topology() -> None:
    """Leaf 1 counts APIC IDs, leaf 4 cores, leaf 0BH both; AMD counts in leaf 8000_0008H (APM vol. 3 appendix E.4.7)."""
    assert cpuid(INTEL, 1)[1] >> 16 & 0xFF == 1
    assert not cpuid(INTEL, 1)[3] >> 28 & 1
    for vcpus, bits in ((2, 1), (3, 2), (4, 2), (16, 4)):
        for profile in (INTEL, AMD):
            leaf = cpuid(profile, 1, apic_id=vcpus - 1, vcpus=vcpus)
            assert leaf[1] >> 16 == (vcpus - 1) << 8 | 1 << bits
            assert leaf[3] >> 28 & 1
        assert cpuid(INTEL, 4, 1, vcpus=vcpus)[0] >> 26 == (1 << bits) - 1
        assert cpuid(INTEL, 4, 1, vcpus=vcpus)[0] >> 14 & 0xFFF == 0
        x2apic = resolve("intel,+x2apic")
        assert cpuid(x2apic, 0xB, 0, apic_id=1, vcpus=vcpus) == (0, 1, 0x100, 1)
        assert cpuid(x2apic, 0xB, 1, apic_id=1, vcpus=vcpus) == (bits, vcpus, 0x201, 1)
        assert cpuid(x2apic, 0xB, 2, apic_id=1, vcpus=vcpus) == (0, 0, 2, 1)
        assert cpuid(AMD, 0x80000008, vcpus=vcpus)[2] == bits << 12 | vcpus - 1
        assert cpuid(AMD, 0x80000001, vcpus=vcpus)[2] >> 1 & 1
        assert cpuid(AMD, 0x8000001E, apic_id=1, vcpus=vcpus) == (1, 1, 0, 0)
    assert cpuid(INTEL, 4, 3, vcpus=4) == (0, 0, 0, 0)


def test_the_hypervisor_leaves_are_kvms_where_asked_for() -> None:
    """Documentation/virt/kvm/x86/cpuid.rst."""
    profile = resolve("intel,+kvm_pv")
    assert cpuid(profile, 1)[2] >> 31 == 1
    eax, *signature = cpuid(profile, 0x40000000)
    assert eax == 0x40000001
    assert b"".join(word.to_bytes(4, "little") for word in signature) == b"KVMKVMKVM\0\0\0"
    assert cpuid(profile, 0x40000001)[0] & 0x0100_0009 == 0x0100_0009
    assert cpuid(profile, 0x40000002) == (0, 0, 0, 0)
    assert cpuid(resolve("intel,+kvm_pv,-kvm_clocksource"), 0x40000001)[0] & 9 == 8


def test_xsave_sizes() -> None:
    assert cpuid(INTEL, 0xD, 0, xcr0=3)[:3] == (0x203, 576, 2696)
    assert cpuid(INTEL, 0xD, 0, xcr0=0x203)[1] == 2696
    assert cpuid(INTEL, 0xD, 9) == (8, 2688, 0, 0)
    assert cpuid(INTEL, 0xD, 2) == (0, 0, 0, 0)
    assert cpuid(AMD, 0xD)[:3] == (3, 576, 576)
    assert xsave_size(7) == 832


def test_leaves_out_of_range() -> None:
    assert cpuid(INTEL, 0x40000000, xcr0=3) == cpuid(INTEL, 0xD, xcr0=3)
    assert cpuid(INTEL, 0x80000009, 1) == cpuid(INTEL, 0xD, 1)
    assert cpuid(AMD, 0x40000000) == (0, 0, 0, 0)
    assert cpuid(AMD, 0x80000009) == (0, 0, 0, 0)


def test_address_widths() -> None:
    assert cpuid(INTEL, 0x80000008)[0] == 57 << 8 | 40
    assert cpuid(AMD, 0x80000008)[0] == 48 << 8 | 40
    for profile in PROFILES.values():
        assert profile.maxphyaddr == DEFAULT_MAXPHYADDR
        assert (profile.linear_bits == 57) == profile.has("la57")


def test_masks_follow_from_features() -> None:
    assert INTEL.cr4_valid >> 12 & 1
    assert not AMD.cr4_valid >> 12 & 1
    for profile in PROFILES.values():
        # VME, PVI, VMXE, SMXE, CET, PKS
        assert not profile.cr4_valid & 0x1806003
        assert profile.efer_valid == 0xD01
    for profile in (INTEL, AMD):
        # UMIP, PCIDE
        assert profile.cr4_valid & 0x370FFC == 0x370FFC
        assert profile.paging.page1gb
    assert MINIMAL.cr4_valid == 0x7FC
    assert resolve("intel,+pks,-umip").cr4_valid == INTEL.cr4_valid & ~0x800 | 1 << 24
    assert (INTEL.xcr0_valid, AMD.xcr0_valid, MINIMAL.xcr0_valid) == (0x203, 3, 0)


def test_profiles_are_checked() -> None:
    with pytest.raises(ValueError, match="no_such_feature"):
        Profile("x", Vendor.INTEL, 6, 1, 1, "x", 40, 48, frozenset({"no_such_feature"}), 1, 0x80000000)
    with pytest.raises(ValueError, match="47"):
        Profile("x", Vendor.INTEL, 6, 1, 1, "x" * 48, 40, 48, frozenset(), 1, 0x80000000)


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1), st.sampled_from(list(PROFILES.values())))
def test_any_leaf_has_an_answer(leaf: int, subleaf: int, profile: Profile) -> None:
    values = cpuid(profile, leaf, subleaf)
    assert all(0 <= value < 1 << 32 for value in values)
    assert describe(leaf, subleaf, values)


EXECUTED = {
    # feature: (code, memory operand in RSI wanted)
    "pni": "f20ff006",
    "pclmulqdq": "660f3a44c100",
    "ssse3": "660f3800c1",
    "cx16": "480fc70e",
    "sse4_1": "660f3817c1",
    "sse4_2": "f2480f38f1c2",
    "movbe": "0f38f006",
    "popcnt": "f3480fb8c2",
    "aes": "660f38dcc1",
    "xsave": "0f01d0",
    "xsaveopt": "0fae36",
    "fsgsbase": "f3480faec0",
    "adx": "660f38f6c2",
    "smap": "0f01cb",
    "clflushopt": "660fae3e",
    "clwb": "660fae36",
    "pku": "0f01ee",
    "rdtscp": "0f01f9",
    "lahf_lm": "9f",
    "abm": "f3480fbdc2",
    "3dnowprefetch": "0f0d0e",
    "sse4a": "660f79c1",
    "cmov": "0f44c2",
    "cx8": "0fc70e",
    "sse2": "660fefc0",
    "mmx": "0fefc0",
    "fxsr": "0fae06",
    "clflush": "0fae3e",
}


@pytest.mark.parametrize("feature", EXECUTED)
def test_the_engine_executes_what_is_promised(feature: str) -> None:
    unicorn: Any = pytest.importorskip("unicorn")
    from unicorn import x86_const as x86

    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
    uc.mem_map(0, 1 << 16)
    code = bytes.fromhex(EXECUTED[feature])
    uc.mem_write(0x1000, code)
    uc.reg_write(x86.UC_X86_REG_CR4, 0x20 | 0x600 | 1 << 16 | 1 << 18 | 1 << 20 | 1 << 21 | 1 << 22)
    uc.reg_write(x86.UC_X86_REG_RSI, 0x2000)
    uc.reg_write(x86.UC_X86_REG_RCX, 0)
    raised: list[int] = []
    uc.hook_add(unicorn.UC_HOOK_INTR, lambda _uc, vector, _data: raised.append(vector))
    uc.emu_start(0x1000, 0x1000 + len(code), count=1)
    assert not raised
    assert uc.reg_read(x86.UC_X86_REG_RIP) == 0x1000 + len(code)


def test_every_profile_feature_is_tried_or_has_no_instruction() -> None:
    tried_elsewhere = {
        # paging, control registers, system instructions: the engine's own tests
        "fpu", "de", "pse", "tsc", "msr", "pae", "mce", "sep", "mtrr", "pge", "mca", "pat", "pse36", "sse", "smep",
        "erms", "xgetbv1", "syscall", "nx", "pdpe1gb", "lm", "la57", "apic", "x2apic", "tsc_deadline_timer", "pcid", "umip", "tsc_adjust",
        # executed by Python, so tried there
        "invpcid", "rdpid",
        # registers without effect, or statements
        "spec_ctrl", "intel_stibp", "spec_ctrl_ssbd", "flush_l1d", "arch_capabilities", "md_clear", "amd_ibpb",
        "amd_ibrs", "amd_stibp", "amd_ssbd", "topoext", "constant_tsc", "hypervisor",
    }  # fmt: skip
    for profile in PROFILES.values():
        assert profile.features <= EXECUTED.keys() | tried_elsewhere
