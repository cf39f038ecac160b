"""Files of the terminal UI: written whole or not at all, never over what the user did not name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from kvmscope.errors import UsageError

__all__ = ["free_name", "read_text", "state_dir", "write_atomically"]

_LARGEST = 4 << 20


def state_dir() -> Path:
    """Where recovery files, recent files and command history live (XDG base directories)."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "kvmscope"


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 so that the file is either the old one or the new one, also after a power cut.

    The file's permissions are kept, and a symbolic link stays one.  Raises UsageError when it cannot be written.
    """
    target = path.resolve()
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode)
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise UsageError(f"Cannot write {path}", error.strerror or str(error), "save as another file") from None


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def read_text(path: Path) -> str:
    """The text of a source file, line ends as they are.

    Raises UsageError when it cannot be read, is too large or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"Cannot read {path}", error.strerror or str(error)) from None
    if len(data) > _LARGEST:
        raise UsageError(f"{path} is larger than {_LARGEST >> 20} MiB", hint="is it a source file?")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path} is not text", f"line {line}: byte {data[error.start]:#04x} is not UTF-8") from None


def free_name(directory: Path, stem: str, suffix: str) -> Path:
    """``stem`` + ``suffix`` in ``directory``, numbered so that it names nothing that exists."""
    candidate = directory / f"{stem}{suffix}"
    number = 2
    while candidate.exists() or candidate.is_symlink():
        candidate = directory / f"{stem}-{number}{suffix}"
        number += 1
    return candidate
