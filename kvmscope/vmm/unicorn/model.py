"""What the CPU profile means to the engine: feature words for translation, CPUID, MSR rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn.env import CR, HF, HFLAGS, XCR0, Env
from kvmscope.vmm.unicorn.layout import ENV, FEATURE_WORDS
from kvmscope.x86.cpuid import cpuid
from kvmscope.x86.features import FEATURES
from kvmscope.x86.msrs import MISC_ENABLE, reset_values

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.x86.profiles import Profile

__all__ = ["Model"]

_WORD: Final = {
    (1, 0, 3): "1.edx",
    (1, 0, 2): "1.ecx",
    (7, 0, 1): "7.ebx",
    (7, 0, 2): "7.ecx",
    (7, 0, 3): "7.edx",
    (0x80000001, 0, 3): "80000001.edx",
    (0x80000001, 0, 2): "80000001.ecx",
    (0x8000000A, 0, 3): "8000000a.edx",
    (0xD, 1, 0): "d.1.eax",
}


_CR4_SHOWN: Final = 1 << 18 | 1 << 22
"""Bits of CR4 that CPUID shows."""
_ANSWERS: Final = 1024
"""CPUID results that are remembered."""


class Model:
    """The processor model of one engine."""

    def __init__(self, profile: Profile, vcpus: int = 1) -> None:
        self.profile = profile
        self.intel = profile.intel
        self.linear_bits = profile.linear_bits
        """Width that bases of segments and tables are checked against, whatever CR4.LA57 says."""
        self.cr4_valid = profile.cr4_valid
        self.efer_valid = profile.efer_valid
        self.xcr0_valid = profile.xcr0_valid
        self.msr_resets = reset_values(profile)
        self.vcpus = vcpus
        self._misc_enable = self.msr_resets.get(MISC_ENABLE, 0)
        self._answers: dict[tuple[int, ...], tuple[int, int, int, int]] = {}

    def install(self, env: Env) -> None:
        """Make Unicorn's translator decode the profile's features and no others."""
        words = dict.fromkeys(FEATURE_WORDS, 0)
        for name in self.profile.features:
            feature = FEATURES[name]
            key = _WORD.get((feature.leaf, feature.subleaf, feature.register))
            if key is not None:
                words[key] |= 1 << feature.bit
        first = ENV["features"] // 8
        for key, index in FEATURE_WORDS.items():
            env.q[first + index] = words[key]

    def cpuid(self, cpu: Cpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX."""
        env = cpu.env
        state = (
            leaf,
            subleaf,
            env.q[CR + 4] & _CR4_SHOWN,
            env.q[XCR0],
            cpu.vcpu,
            bool(env.d[HFLAGS] & HF.CS64),
            cpu.msrs.get(MISC_ENABLE, self._misc_enable),
            cpu.host.apic_enabled(cpu.vcpu),
        )
        known = self._answers.get(state)
        if known is None:
            if len(self._answers) >= _ANSWERS:
                self._answers.clear()
            known = self._answers[state] = cpuid(
                self.profile,
                leaf,
                subleaf,
                cr4=state[2],
                xcr0=state[3],
                apic_id=cpu.vcpu,
                vcpus=self.vcpus,
                code64=state[5],
                misc_enable=state[6],
                apic_enabled=state[7],
            )
        return known
