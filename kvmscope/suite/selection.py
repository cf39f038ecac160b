"""Which entries are run, and why the others are not: the rules of ``run`` in scripts/runtime.bash, in its order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from kvmscope.errors import UsageError
from kvmscope.expr.nearest import nearest
from kvmscope.suite.config import Entry
from kvmscope.suite.tree import Tree

__all__ = ["Selected", "Selection", "select"]

_ACCELERATORS: Final = ("", "tcg")
"""``accel`` of the entries that ask for nothing that we are not."""
_UNSUPPORTED_GROUPS: Final = {
    "pv-host": "no gen-se-header available for pv-host test",
    "migration": "needs a second machine to migrate to",
    "panic": "needs a panic notifier device",
}
_TEST: Final = re.compile(
    r"""\[{1,2}\s+ "?\$\{?(\w+)\}?"? \s+ (==?|!=) \s+ (?:"([^"$`\\]*)"|'([^']*)'|([\w.-]+)) \s+\]{1,2}""", re.VERBOSE
)
_JOINT: Final = re.compile(r"\s*(&&|\|\|)\s*")


@dataclass(frozen=True, slots=True)
class Selection:
    """What the command line says."""

    only: tuple[str, ...] = ()
    """Names or glob patterns; empty: all."""
    skip: tuple[str, ...] = ()
    group: str = ""
    all: bool = False
    """Those of the group nodefault too."""


@dataclass(frozen=True, slots=True)
class Selected:
    """An entry that gets a row; ``skip`` says why it is not run, empty when it is."""

    entry: Entry
    skip: str = ""


def select(tree: Tree, selection: Selection, *, max_smp: int) -> list[Selected]:
    """The entries that get a row, in the configuration's order.

    Raises UsageError for a name that matches no entry.
    """
    entries = tree.config.entries
    for pattern in (*selection.only, *selection.skip):
        _must_match(pattern, tree)
    groups = sorted({group for entry in entries for group in entry.groups})
    if selection.group and selection.group not in groups:
        close = nearest(selection.group, groups)
        hint = f"did you mean {close!r}?" if close else f"groups: {', '.join(groups)}"
        raise UsageError(f"no entry is in a group {selection.group!r}", hint=hint)
    return [
        Selected(entry, _why_not(entry, tree, selection, max_smp)) for entry in entries if _is_wanted(entry, selection)
    ]


def _must_match(pattern: str, tree: Tree) -> None:
    names = [entry.name for entry in tree.config.entries]
    if any(fnmatchcase(name, pattern) for name in names):
        return
    if pattern in tree.config.disabled:
        raise UsageError(f"{pattern!r} is commented out in {tree.config.filename}")
    close = nearest(pattern, names)
    raise UsageError(
        f"no entry of {tree.config.filename} is named {pattern!r}",
        hint=f"did you mean {close!r}?" if close else "kvmscope suite TREE --list lists them",
    )


def _is_wanted(entry: Entry, selection: Selection) -> bool:
    if selection.only and not any(fnmatchcase(entry.name, pattern) for pattern in selection.only):
        return False
    if any(fnmatchcase(entry.name, pattern) for pattern in selection.skip):
        return False
    return not selection.group or selection.group in entry.groups


def _why_not(entry: Entry, tree: Tree, selection: Selection, max_smp: int) -> str:
    if "nodefault" in entry.groups and not selection.group and not selection.all:
        return "test marked as manual run only"
    if entry.arch and entry.arch != tree.arch:
        return f"{entry.arch} only"
    if entry.accel not in _ACCELERATORS:
        return f"{entry.accel} only, but the machine is kvmscope's own"
    reason = _disabled(entry.disabled_if, tree) or next(
        (reason for group, reason in _UNSUPPORTED_GROUPS.items() if group in entry.groups), ""
    )
    if not reason and entry.check:
        # A check asks for a setting of the host's kvm module; our machine runs on none.
        first = entry.check[0]
        reason = f"{first.path} not equal to {first.value}: the machine is kvmscope's own"
    if not reason and tree.settings.get("CONFIG_EFI") == "y":
        reason = "an EFI build: its images need UEFI firmware"
    if not reason and not tree.image(entry.file).is_file():
        reason = f"Test file '{tree.directory.name}/{entry.file}' not found"
    if not reason and entry.smp > max_smp:
        reason = f"needs {entry.smp} processors, and the machine has {max_smp} at most"
    return reason


def _disabled(condition: str, tree: Tree) -> str:
    """``disabled_if`` for the forms that need no shell: comparisons joined by && and ||, from left to right as in bash."""
    if not condition:
        return ""
    variables = {**tree.settings, "ACCEL": "tcg", "TARGET": "qemu", "ARCH": tree.arch}
    parts = _JOINT.split(condition.strip())
    value = True
    joint = "&&"
    for index, part in enumerate(parts):
        if index % 2:
            joint = part
            continue
        answer = _compared(part, variables)
        if answer is None:
            return f"disabled_if needs a shell, and none is run: {condition}"
        value = (value and answer) if joint == "&&" else (value or answer)
    return f"disabled because: {condition}" if value else ""


def _compared(text: str, variables: Mapping[str, str]) -> bool | None:
    found = _TEST.fullmatch(text.strip())
    if found is None:
        return None
    name, operator, *values = found.groups()
    wanted = next((value for value in values if value is not None), "")
    return (variables.get(name, "") == wanted) == (operator != "!=")
