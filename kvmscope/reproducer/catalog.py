"""The processors and MSRs that a header may name, imported where it names one."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["check_profile", "msr_index", "msr_names"]


def check_profile(text: str) -> None:
    """Raise UsageError for what is no CPU profile, as ``cpu`` takes them: a name, with changes to its features."""
    from kvmscope.x86.profiles import resolve

    resolve(text)


def msr_names() -> Iterable[str]:
    """Names of the MSRs that have one."""
    from kvmscope.x86.msrs import MSRS

    return [msr.name for msr in MSRS.values()]


def msr_index(name: str) -> int | None:
    """Index of ``IA32_EFER``, ``MSR_EFER`` or ``efer``; None when unknown."""
    from kvmscope.x86 import msrs

    return msrs.msr_index(name)
