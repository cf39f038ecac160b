"""Features that the embedded engine executes, and reasons for the others.

`COMMON` is what every full profile has; `EXECUTABLE` is all that a profile may announce.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["BASELINE", "COMMON", "EXECUTABLE", "INSEPARABLE", "KVM", "OPTIONS", "REASONS"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


BASELINE: Final = _names(
    "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 pni "
    "cx16 syscall nx pdpe1gb lm lahf_lm"
)
"""The first 64-bit processors: what 64-bit code takes for granted, and the 1 GiB pages that the engine always has."""

COMMON: Final = BASELINE | _names(
    "pclmulqdq ssse3 pcid sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave fsgsbase "
    "tsc_adjust smep erms invpcid adx smap clflushopt clwb umip rdpid xsaveopt xgetbv1 rdtscp abm "
    "3dnowprefetch constant_tsc"
)
"""What both vendors' present processors have, as far as the engine executes it."""

KVM: Final = _names(
    "kvm_clocksource kvm_nop_io_delay kvm_clocksource2 kvm_pv_send_ipi kvm_poll_control "
    "kvm_pv_sched_yield kvm_clocksource_stable"
)
"""What the ``kvm_pv`` option announces."""

OPTIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "kvm_pv": KVM | {"hypervisor"},
        "fep": frozenset(),
    }
)
"""Options that are no feature bits, and the features that come with them: KVM's paravirtual interface (CPUID leaves
4000_0000H, MSRs, hypercalls) and its forced-emulation prefix."""

INSEPARABLE: Final = _names("fpu tsc msr mmx fxsr sse sse2 pni pse36 pdpe1gb")
"""Features that the engine's translator always has, so that no profile is without them."""

_SPECULATION: Final = _names(
    "spec_ctrl intel_stibp spec_ctrl_ssbd flush_l1d arch_capabilities md_clear amd_ibpb amd_ibrs amd_stibp amd_ssbd"
)
"""Controls of speculation, which this machine has none of: their registers exist and do nothing."""

EXECUTABLE: Final = COMMON | KVM | _SPECULATION | _names("la57 pku pks sse4a topoext hypervisor monitor")
"""What a profile may announce; a test holds each profile to it."""

_VEX: Final = "the engine's translator executes VEX code wrongly"
_RANDOM: Final = "a random number would make runs differ"
_CET: Final = "the engine has no shadow stacks and no indirect-branch tracking"
REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(
            ["avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "vaes", "vpclmulqdq", "fma4", "xop", "tbm"], _VEX
        ),
        **dict.fromkeys(("rdrand", "rdseed"), _RANDOM),
        **dict.fromkeys(("shstk", "ibt"), _CET),
        "kvm_pv_eoi": "no interrupt is taken without an EOI here",
        "kvm_pv_unhalt": "nothing wakes a halted processor but an interrupt",
        "vme": "virtual-8086 extensions are not modelled",
        "lam": "the engine's translator checks addresses before their tags could be masked",
        "hle": "the engine executes no transactions",
        "rtm": "the engine executes no transactions",
        "sha_ni": "the engine's translator does not know the instructions",
    }
)
"""Why a feature is not in `EXECUTABLE`, where there is more to say than that the engine does not have it."""
