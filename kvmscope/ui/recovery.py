"""Autosave: what was typed survives a crash, a closed terminal and a power cut.

One recovery file a process and document, so that two editors of the same file do not overwrite each other's; a file
whose process still runs is not offered.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kvmscope.errors import UsageError
from kvmscope.ui.files import state_dir, write_atomically

__all__ = ["Recovered", "Recovery"]

_OLDEST = 90 * 24 * 3600
"""Seconds after which a recovery file nobody asked for is thrown away."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """Unsaved text found at start."""

    text: str
    saved_at: float
    """Seconds since the epoch."""
    file: Path

    def forget(self) -> None:
        """The user has decided about it."""
        with suppress(OSError):
            self.file.unlink()


class Recovery:
    """The recovery file of one document (``path`` None: a new one without a name)."""

    def __init__(self, path: Path | None, directory: Path | None = None) -> None:
        self.directory = directory or state_dir() / "recovery"
        self._name = str(path.absolute()) if path else ""
        self._stem = hashlib.sha256(self._name.encode()).hexdigest()[:16]
        self.file = self.directory / f"{self._stem}-{os.getpid()}.json"

    def save(self, text: str) -> None:
        """Keep ``text``.  Raises UsageError when the disk does not take it."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UsageError("Cannot keep a recovery file", f"{self.directory}: {error.strerror}") from None
        write_atomically(self.file, json.dumps({"path": self._name, "saved": time.time(), "text": text}))

    def discard(self) -> None:
        """The text is safe elsewhere."""
        with suppress(OSError):
            self.file.unlink()

    def find(self, current: str) -> Recovered | None:
        """The newest text left by a process that is gone and that differs from ``current``; older ones are removed."""
        found: list[Recovered] = []
        for file in sorted(self.directory.glob(f"{self._stem}-*.json")):
            if _alive(file):
                continue
            recovered = _read(file, self._name)
            if recovered is None or recovered.text == current or time.time() - recovered.saved_at > _OLDEST:
                with suppress(OSError):
                    file.unlink()
            else:
                found.append(recovered)
        return max(found, key=lambda item: item.saved_at, default=None)


def _alive(file: Path) -> bool:
    try:
        pid = int(file.stem.rpartition("-")[2])
        os.kill(pid, 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _read(file: Path, name: str) -> Recovered | None:
    """None for a file that is torn, foreign or of another document."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        if value["path"] != name or not isinstance(value["text"], str):
            return None
        return Recovered(value["text"], float(value["saved"]), file)
    except (OSError, ValueError, KeyError, TypeError):
        return None
