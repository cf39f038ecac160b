"""CPU profiles with changes to them."""

from __future__ import annotations

import pytest

from kvmscope.errors import UsageError
from kvmscope.x86.features import FEATURES
from kvmscope.x86.profiles import AMD, INTEL, PROFILES, resolve
from kvmscope.x86.profiles.common import EXECUTABLE, INSEPARABLE, OPTIONS, REASONS


def test_a_bare_name_is_the_profile() -> None:
    for name, profile in PROFILES.items():
        assert resolve(name) is profile
    assert resolve("intel,+umip,-pks") is INTEL


def test_changes_go_from_left_to_right() -> None:
    assert resolve("intel,+pks").features == INTEL.features | {"pks"}
    assert resolve("intel, -umip").features == INTEL.features - {"umip"}
    assert not resolve("intel,+pks,-pks").has("pks")
    assert resolve("intel,-pcid,+pcid").has("pcid")
    assert resolve("intel,+pks").name == "intel,+pks"
    assert resolve("amd,-SSE4.1").features == AMD.features - {"sse4_1"}


def test_a_feature_takes_with_it_those_that_need_it() -> None:
    assert resolve("intel,-xsave").features == INTEL.features - {"xsave", "xsaveopt", "xgetbv1"}
    assert not resolve("intel,-lm").has("pcid")
    assert resolve("intel,-la57").linear_bits == 48
    assert resolve("amd,+la57").linear_bits == 57


def test_options_come_with_features() -> None:
    profile = resolve("amd,+kvm_pv")
    assert profile.options == {"kvm_pv"}
    assert profile.features == AMD.features | OPTIONS["kvm_pv"]
    assert resolve("amd,+kvm_pv,-kvm_pv") is AMD
    assert resolve("intel,+fep").options == {"fep"}


@pytest.mark.parametrize(
    ("text", "title", "more"),
    [
        ("itel", "Unknown CPU profile 'itel'", "did you mean intel?"),
        ("", "Unknown CPU profile ''", "intel, amd, minimal"),
        ("intel,+pcdi", "Unknown CPU feature 'pcdi'", "did you mean pcid?"),
        ("intel,umip", "'umip' is no change to a CPU profile", "+feature or -feature"),
        ("intel,", "'' is no change to a CPU profile", "+feature or -feature"),
        ("intel,-sse2", "CPU feature sse2 cannot be taken away", "always has it"),
        ("intel,+avx", "CPU feature avx cannot be executed", "VEX"),
        ("intel,+lam", "CPU feature lam cannot be executed", "tags"),
        ("intel,+sgx", "CPU feature sgx cannot be executed", "the engine does not have it"),
    ],
)
def test_what_cannot_be_is_said(text: str, title: str, more: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(text)
    assert error.value.title == title
    assert more in str(error.value)


def test_the_tables_agree() -> None:
    assert FEATURES.keys() >= EXECUTABLE
    assert REASONS.keys() <= FEATURES.keys()
    assert not REASONS.keys() & EXECUTABLE
    assert not OPTIONS.keys() & FEATURES.keys()
    for features in OPTIONS.values():
        assert features <= EXECUTABLE
    for profile in PROFILES.values():
        assert INSEPARABLE <= profile.features <= EXECUTABLE
