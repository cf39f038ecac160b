"""Profiles with changes: ``intel,+pks,-pcid``, as QEMU's ``-cpu`` takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Final

from kvmscope.errors import UsageError
from kvmscope.x86.features import FEATURES
from kvmscope.x86.profiles.amd import AMD
from kvmscope.x86.profiles.common import EXECUTABLE, INSEPARABLE, OPTIONS, REASONS
from kvmscope.x86.profiles.intel import INTEL
from kvmscope.x86.profiles.minimal import MINIMAL
from kvmscope.x86.profiles.model import Profile

__all__ = ["PROFILES", "resolve"]

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType({p.name: p for p in (INTEL, AMD, MINIMAL)})
"""By the name that a header's ``cpu`` begins with."""

_ALIASES: Final = {
    "tsc_deadline": "tsc_deadline_timer",
    "sse3": "pni",
    "ibrs": "spec_ctrl",
    "stibp": "intel_stibp",
    "ssbd": "spec_ctrl_ssbd",
    "ibpb": "amd_ibpb",
    "lzcnt": "abm",
    "invtsc": "constant_tsc",
}
"""Names that QEMU and the manuals use for some features."""

_NEEDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "xsaveopt": ("xsave",),
        "xsavec": ("xsave",),
        "xgetbv1": ("xsave",),
        "xsaves": ("xsave",),
        "x2apic": ("apic",),
        "tsc_deadline_timer": ("apic", "tsc"),
        "tsc_adjust": ("tsc",),
        "constant_tsc": ("tsc",),
        "la57": ("lm",),
        "syscall": ("lm",),
        "pcid": ("lm",),
        "pku": ("lm",),
        "pks": ("lm",),
    }
)
"""Features that make no sense without others: those go with them."""


def _nearest(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    found = get_close_matches(word, sorted(known), 1, 0.5)
    return f"did you mean {found[0]}?" if found else ""


def _known(text: str, word: str) -> str:
    """The feature or option that ``word`` names.  Raises UsageError."""
    name = word.lower().replace("-", "_").replace(".", "_")
    name = _ALIASES.get(name, name)
    if name not in FEATURES and name not in OPTIONS:
        near = _nearest(name, [*EXECUTABLE, *OPTIONS])
        raise UsageError(f"Unknown CPU feature {word!r}", f"in CPU profile {text!r}", near)
    return name


@cache
def resolve(text: str) -> Profile:
    """The profile that ``text`` names: a name of `PROFILES`, then ``+feature`` and ``-feature`` by commas, in order.

    A feature taken away takes with it those that need it.  Raises UsageError for what is unknown, and for a feature
    that the engine cannot execute.
    """
    base, *changes = (part.strip() for part in text.split(","))
    profile = PROFILES.get(base)
    if profile is None:
        raise UsageError(
            f"Unknown CPU profile {base!r}",
            f"profiles: {', '.join(PROFILES)}",
            _nearest(base, PROFILES) or "a profile may be followed by ,+feature and ,-feature",
        )
    features, options = set(profile.features), set(profile.options)
    for change in changes:
        if change[:1] not in ("+", "-") or not change[1:]:
            raise UsageError(
                f"{change!r} is no change to a CPU profile", f"in {text!r}", "write +feature or -feature, by commas"
            )
        name = _known(text, change[1:])
        if change[0] == "-":
            if name in INSEPARABLE:
                raise UsageError(
                    f"CPU feature {name} cannot be taken away",
                    "the engine's translator always has it",
                    f"leave -{name} out",
                )
            options.discard(name)
            features -= {name, *OPTIONS.get(name, ())}
        elif name in OPTIONS:
            options.add(name)
            features |= OPTIONS[name]
        elif name not in EXECUTABLE:
            reason = REASONS.get(name, "the engine does not have it")
            raise UsageError(f"CPU feature {name} cannot be executed", reason, f"leave +{name} out")
        else:
            features.add(name)
    while lost := {f for f in features if any(need not in features for need in _NEEDS.get(f, ()))}:
        features -= lost
    if features == profile.features and options == profile.options:
        return profile
    linear = profile.linear_bits if "la57" in profile.features else 48
    return replace(
        profile,
        name=text,
        features=frozenset(features),
        options=frozenset(options),
        linear_bits=57 if "la57" in features else 48 if linear == 57 else linear,
    )
