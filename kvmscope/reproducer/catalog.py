"""The processors and MSRs that a header may name, looked up where it names one."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["msr_index", "msr_names", "profile_names"]


def profile_names() -> tuple[str, ...]:
    """CPU profiles, as ``cpu`` takes them."""
    from kvmscope.x86.profiles import PROFILES

    return tuple(PROFILES)


def msr_names() -> Iterable[str]:
    """Names of the MSRs that have one."""
    from kvmscope.x86.msrs import MSRS

    return [msr.name for msr in MSRS.values()]


def msr_index(name: str) -> int | None:
    """Index of ``IA32_EFER``, in any letter case and with or without ``IA32_`` or ``MSR_``; None when unknown."""
    from kvmscope.x86.msrs import MSRS

    wanted = _bare(name)
    return next((index for index, msr in MSRS.items() if _bare(msr.name) == wanted), None)


def _bare(name: str) -> str:
    upper = name.upper()
    for prefix in ("MSR_IA32_", "IA32_", "MSR_"):
        if upper.startswith(prefix):
            return upper[len(prefix) :]
    return upper
