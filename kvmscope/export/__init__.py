"""Exports: one module a target, all found through `targets`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final, cast

from kvmscope.errors import UsageError
from kvmscope.export.model import Edit, Export, ExportedFile, Target, c_name
from kvmscope.expr import nearest
from kvmscope.reproducer import Reproducer

__all__ = ["TARGETS", "Edit", "Export", "ExportedFile", "Target", "export", "target"]

TARGETS: Final[Mapping[str, str]] = {
    "kvm-unit-tests": "kvmscope.export.kut:KvmUnitTests",
    "pytest": "kvmscope.export.pytest_target:Pytest",
}
"""Name -> ``module:class``; imported when asked for."""


def target(name: str) -> Target:
    """The target called ``name``.  Raises UsageError with the nearest name."""
    home = TARGETS.get(name)
    if home is None:
        close = nearest(name, TARGETS)
        hint = f"did you mean {close!r}?" if close else f"known: {', '.join(TARGETS)}"
        raise UsageError(f"unknown export target {name!r}", hint=hint)
    module, _, attribute = home.partition(":")
    return cast(Target, getattr(import_module(module), attribute)())


def export(reproducer: Reproducer, to: str, *, name: str = "") -> Export:
    """``reproducer`` as a test of the target ``to``, called ``name`` (by default after the file).

    Raises UsageError for an unknown target, ExportError for what the target cannot say.
    """
    return target(to).export(reproducer, c_name(name or reproducer.name))
