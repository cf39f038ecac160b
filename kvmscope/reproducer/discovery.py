"""Finding reproducers: files of the right suffix that carry a kvmscope header."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from kvmscope.errors import UsageError

__all__ = ["HEADER_START", "SUFFIXES", "discover", "has_header", "near_path"]

SUFFIXES: Final = (".asm", ".s", ".S")
HEADER_START: Final = re.compile(r"^[ \t]*(#|;|//)[ \t]*/// kvmscope[ \t]*\r?$", re.MULTILINE)
"""The first line of a header, with its comment leader."""

_PEEK: Final = 64 << 10
"""A header begins in a file's leading comments: no need to read a huge file to find that it has none."""
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})


def has_header(path: Path) -> bool:
    """True when the file carries a kvmscope header; False also when it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(_PEEK)
    except OSError:
        return False
    return HEADER_START.search(start.decode("utf-8", "replace")) is not None


def discover(paths: Iterable[Path]) -> list[Path]:
    """Reproducers under ``paths``, each once.

    A file is taken as it is named; a directory is searched, in sorted order, for files with a header.  Hidden directories,
    virtual environments and caches are skipped, and links to directories are not followed.

    Raises UsageError for a path that does not exist.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(_search(path)))
        elif path.exists():
            found[path] = None
        else:
            raise UsageError(f"{path}: no such file or directory", hint=near_path(path))
    return list(found)


def _search(root: Path) -> Iterator[Path]:
    for here, directories, files in os.walk(root):
        directory = Path(here)
        directories[:] = sorted(name for name in directories if not _is_skipped(directory / name))
        for name in sorted(files):
            path = directory / name
            if path.suffix in SUFFIXES and not name.startswith(".") and has_header(path):
                yield path


def _is_skipped(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _SKIPPED or (path / "pyvenv.cfg").exists()


def near_path(path: Path) -> str:
    """A hint naming the existing file nearest to one that is not there; empty when none is."""
    from kvmscope.expr.nearest import nearest

    try:
        siblings = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return ""
    close = nearest(path.name, siblings)
    return f"did you mean {path.parent / close}?" if close else ""
