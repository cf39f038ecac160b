"""MSR names, reset values and the checks of a write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscope.x86.msrs import (
    MSRS,
    check_read,
    check_write,
    lookup,
    msr_by_name,
    msr_index,
    msr_name,
    reset_values,
    stored_value,
    unsupported_write,
)
from kvmscope.x86.profiles import AMD, INTEL, PROFILES, Profile, resolve
from kvmscope.x86.registers import KNOWN_NAMES

EFER, LSTAR, PAT, MISC, DEBUGCTL = 0xC0000080, 0xC0000082, 0x277, 0x1A0, 0x1D9


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("IA32_EFER", EFER),
        ("MSR_EFER", EFER),
        ("efer", EFER),
        ("MSR_IA32_CR_PAT", PAT),
        ("IA32_PAT", PAT),
        ("MSR_SYSCALL_MASK", 0xC0000084),
        ("IA32_FMASK", 0xC0000084),
        ("MSR_KERNEL_GS_BASE", 0xC0000102),
        ("MSR_IA32_TSC", 0x10),
        ("MSR_MTRRcap", 0xFE),
        ("IA32_VMX_BASIC", 0x480),
        ("IA32_VMX_PROCBASED_CTLS2", 0x48B),
        ("IA32_VMX_VMFUNC", 0x491),
        ("IA32_MTRR_FIX4K_F8000", 0x26F),
        ("IA32_MTRR_PHYSMASK7", 0x20F),
    ],
)
def test_names(name: str, index: int) -> None:
    assert msr_index(name) == index


def test_every_name_leads_back() -> None:
    for index, msr in MSRS.items():
        assert msr_index(msr.name) == index
        assert msr_name(index) == msr.name
        assert not msr.register or msr.register in KNOWN_NAMES
    assert msr_by_name("IA32_NONSENSE") is None
    assert msr_name(0x12345) == "0x12345"


WRITES = [
    # index, old, value, word of the reason on Intel, on AMD (empty: accepted)
    (0x12345, 0, 0, "does not exist", "does not exist"),
    (EFER, 0x500, 0xD01, "", ""),
    (EFER, 0x500, 0x502, "reserved bit 1", "reserved bit 1"),
    (EFER, 0x500, 0x1500, "reserved bit 12", "reserved bit 12"),
    (EFER, 0, 1 << 63, "reserved bit 63", "reserved bit 63"),
    (LSTAR, 0, 0x7FFF_FFFF_FFFF, "", ""),
    # Canonical for the widest address the processor has, whatever CR4.LA57 says
    (LSTAR, 0, 0x8000_0000_0000, "", "not canonical"),
    (LSTAR, 0, 0x0100_0000_0000_0000, "not canonical", "not canonical"),
    (LSTAR, 0, 0xFFFF_8000_0000_0000, "", ""),
    (0xC0000100, 0, 0x0100_0000_0000_0000, "not canonical", "not canonical"),
    # SYSENTER's addresses are checked by Intel only
    (0x175, 0, 0x0100_0000_0000_0000, "not canonical", ""),
    (0x176, 0, 0x0100_0000_0000_0000, "not canonical", ""),
    (0xC0000081, 0, (1 << 64) - 1, "", ""),
    (0xC0000084, 0, 1 << 32, "reserved bit 32", "reserved bit 32"),
    (0xC0000103, 0, 1 << 32, "reserved", "reserved"),
    (PAT, 0, 0x0007040600070406, "", ""),
    (PAT, 0, 0x0007040600070206, "byte 1 is 0x2", "byte 1 is 0x2"),
    (PAT, 0, 0x0800000000000000, "byte 7 is 0x8", "byte 7 is 0x8"),
    (0xFE, 0x508, 0x508, "read-only", "read-only"),
    (0x2FF, 0, 0xC06, "", ""),
    (0x2FF, 0, 0x106, "reserved bit 8", "reserved bit 8"),
    (0x2FF, 0, 0xC02, "memory type", "memory type"),
    (0x200, 0, 0xFF_FFFFF006, "", ""),
    (0x200, 0, 0x100_00000006, "reserved bit 40", "reserved bit 40"),
    (0x201, 0, 0x800, "", ""),
    (0x250, 0, 0x0606060606060606, "", ""),
    (0x250, 0, 0x0707070707070707, "byte 0 is 0x7", "byte 0 is 0x7"),
    (0x17A, 0, 8, "reserved bit 3", "reserved bit 3"),
    (MISC, 0x1801, 0x1800, "", "does not exist on the amd profile"),
    (MISC, 0x1801, 0x1803, "reserved bit 1", "does not exist"),
    (0xC0010015, 0, 0, "does not exist on the intel profile", ""),
    (0x1B, 0, 0xFEE00800, "", ""),
    (0x1B, 0, 1 << 40, "reserved bit 40", "reserved bit 40"),
    (MISC, 0x1801, 0x4_00C5_1809, "", "does not exist"),
    (0x3B, 0, (1 << 64) - 1, "", ""),
    # Speculation: all three controls, no others
    (0x48, 0, 7, "", ""),
    (0x48, 0, 8, "reserved bit 3", "reserved bit 3"),
    (0x49, 0, 1, "", ""),
    (0x10B, 0, 1, "", "needs CPUID feature flush_l1d"),
    (0x10B, 0, 2, "reserved bit 1", "needs CPUID feature flush_l1d"),
    # Machine check
    (0x179, 0, 0, "read-only", "read-only"),
    (0x17B, 0, 1, "neither 0 nor all ones", "neither 0 nor all ones"),
    (0x400, 0, (1 << 64) - 1, "", ""),
    (0x400, 0, 2, "neither 0 nor all ones", "neither 0 nor all ones"),
    (0x401, 0, 0, "", ""),
    (0x401, 0, 1, "only 0", "only 0"),
    (0x402, 0, (1 << 64) - 1, "", ""),
    (0x427, 0, 5, "", "does not exist"),
    (0x428, 0, 0, "does not exist", "does not exist"),
    # AMD's counters
    (0xC0010000, 0, 0x30076, "does not exist", ""),
    (0xC0010000, 0, 1 << 19, "does not exist", "reserved bit 19"),
    (0xC0010007, 0, 1 << 48, "does not exist", "reserved bit 48"),
    (0x4B564D00, 0, 0, "needs CPUID feature kvm_clocksource2", "needs CPUID feature kvm_clocksource2"),
    (0x480, 0, 0, "needs CPUID feature vmx", "does not exist"),
    (0x6E1, 0, 0, "needs CPUID feature pks", "needs CPUID feature pks"),
    (0x79, 0, 1, "", "does not exist"),
]


@pytest.mark.parametrize(("index", "old", "value", "intel", "amd"), WRITES)
def test_check_write(index: int, old: int, value: int, intel: str, amd: str) -> None:
    for profile, word in ((INTEL, intel), (AMD, amd)):
        reason = check_write(index, old, value, profile)
        assert (reason is None) == (word == ""), reason
        assert word in (reason or "")


def test_check_read() -> None:
    assert check_read(EFER, INTEL) is None
    assert "write-only" in (check_read(0x79, INTEL) or "")
    assert "does not exist" in (check_read(0x79, AMD) or "")
    assert "does not exist" in (check_read(0x12345, INTEL) or "")


def test_bits_that_ignore_writes() -> None:
    assert stored_value(EFER, 0x500, 0x100, INTEL) == 0x500
    assert stored_value(EFER, 0x100, 0x500, INTEL) == 0x100
    assert stored_value(MISC, 0x1801, 0, INTEL) == 0x1800
    assert stored_value(LSTAR, 5, 7, INTEL) == 7


def test_what_processors_accept_and_we_cannot_do_is_said() -> None:
    assert check_write(DEBUGCTL, 0, 2, INTEL) is None
    assert "not emulated" in (unsupported_write(DEBUGCTL, 2, INTEL) or "")
    assert unsupported_write(DEBUGCTL, 0, INTEL) is None
    assert unsupported_write(EFER, 0xFFF, INTEL) is None


def test_what_depends_on_features_and_on_other_registers() -> None:
    assert check_write(0x48, 0, 4, resolve("intel,-ssbd")) == "IA32_SPEC_CTRL (0x48) = 0x4: reserved bit 2 set"
    assert check_write(0x48, 0, 3, resolve("intel,-ssbd")) is None
    assert check_write(0x401, 0, 1, AMD, status_writable=True) is None
    assert check_write(0x401, 0, 1, INTEL, status_writable=True) is not None
    assert check_write(0x6E1, 0, 0xFFFFFFFF, resolve("intel,+pks")) is None
    assert reset_values(INTEL)[0x179] & 0xFF == 10
    assert reset_values(resolve("intel,+monitor"))[MISC] == reset_values(INTEL)[MISC] | 1 << 18


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_reset_values_can_be_written_back(profile: Profile) -> None:
    values = reset_values(profile)
    assert values[PAT] == 0x0007040600070406
    assert (MISC in values) == profile.intel
    for index, value in values.items():
        found = lookup(index, profile)
        assert found is not None
        if not found.read_only:
            assert check_write(index, value, value, profile) is None, found.name


@given(st.sampled_from([*MSRS, 0x12345]), st.integers(0, (1 << 64) - 1), st.sampled_from(list(PROFILES.values())))
def test_any_write_has_an_answer(index: int, value: int, profile: Profile) -> None:
    reason = check_write(index, 0, value, profile)
    assert reason is None or msr_name(index) in reason
    if lookup(index, profile) is None:
        assert reason is not None
        assert check_read(index, profile) is not None
