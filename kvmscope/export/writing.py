"""Putting an export where it belongs: into a tree, into a file, or on paper.

Nothing is overwritten unasked, and nothing is written before everything is known to fit.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from kvmscope.errors import ExportError, UsageError
from kvmscope.export.model import Export

__all__ = ["place", "shown", "write_file"]


def shown(export: Export) -> str:
    """The whole export as text for a terminal: the file, then what to add by hand."""
    text = export.files[0].text
    for edit in export.edits:
        entry = "\n".join(f"    {line}".rstrip() for line in edit.shown.rstrip("\n").split("\n"))
        text += f"\n/* Add to {edit.path}:\n{entry}\n */\n"
    return text


def write_file(path: Path, text: str, *, force: bool) -> None:
    """Write one file atomically.  Raises UsageError when it exists and ``force`` is not given, or cannot be written."""
    if path.exists() and not force:
        raise UsageError(f"{path} exists", hint="--force overwrites it, --name NAME gives the test another name")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            # mkstemp's file is for its owner alone; a source is for everybody whom the umask allows.
            mask = os.umask(0)
            os.umask(mask)
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~mask
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written", error.strerror or str(error)) from None


def place(export: Export, tree: Path, *, force: bool) -> list[str]:
    """Put the files into ``tree`` and make its edits; what was done, a line each.

    Raises UsageError when a file exists (without ``force``), ExportError when a file to edit is missing.
    """
    tree = tree.resolve()
    for file in export.files:
        if (tree / file.path).exists() and not force:
            raise UsageError(
                f"{tree / file.path} exists", hint="--force overwrites it, --name NAME gives the test another name"
            )
        if not (tree / file.path).parent.is_dir():
            raise ExportError(f"{(tree / file.path).parent} is no directory")
    changes: list[tuple[Path, str]] = []
    done: list[str] = []
    for edit in export.edits:
        path = tree / edit.path
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ExportError(f"{path} cannot be read", error.strerror or str(error)) from None
        changed = edit.apply(text)
        if changed is None:
            done.append(f"{path}: has the entry already")
        else:
            changes.append((path, changed))
    for file in export.files:
        write_file(tree / file.path, file.text, force=force)
        done.append(f"{tree / file.path}: written")
    for path, text in changes:
        write_file(path, text, force=True)
        done.append(f"{path}: entry added")
    return done
