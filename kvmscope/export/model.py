"""What an export is: files and edits of files, as values; and what a target has to be."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kvmscope.errors import ExportError
from kvmscope.reproducer import Reproducer

__all__ = ["Edit", "Export", "ExportedFile", "Target", "c_name", "refuse"]


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One new file; ``path`` is relative to the tree."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of a file that a tree already has.

    ``apply`` gives the new text, or None when the file has the entry already.  ``shown`` is what to add by hand.
    """

    path: str
    shown: str
    apply: Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Export:
    """The outcome: the first file is the test itself."""

    files: tuple[ExportedFile, ...]
    edits: tuple[Edit, ...] = ()
    notes: tuple[str, ...] = ()
    """What the user should know, a line each."""


class Target(Protocol):
    """One kind of test to export to."""

    name: str
    summary: str

    def export(self, reproducer: Reproducer, name: str) -> Export:
        """The test called ``name``.  Raises ExportError for what the target cannot say."""
        ...

    def is_tree(self, tree: Path) -> str:
        """Why ``tree`` is no place for this target; empty when it is one."""
        ...


def c_name(text: str) -> str:
    """A file name as a C identifier: ``page-fault`` -> ``page_fault``."""
    name = re.sub(r"\W+", "_", text).strip("_").lower()
    return f"test_{name}" if not name or name[0].isdigit() else name


def refuse(reproducer: Reproducer, line: int | None, what: str, why: str, hint: str = "") -> ExportError:
    """An ExportError that names the line."""
    place = f"{reproducer.filename}:{line}: " if line else f"{reproducer.filename}: "
    return ExportError(what, place + why, hint)
