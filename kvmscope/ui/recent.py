"""Files opened lately, newest first."""

from __future__ import annotations

import json
from pathlib import Path

from kvmscope.errors import UsageError
from kvmscope.ui.files import state_dir, write_atomically

__all__ = ["RecentFiles"]

_KEPT = 20


class RecentFiles:
    """The list on disk; an unreadable one is an empty one."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or state_dir() / "recent.json"

    def paths(self) -> list[Path]:
        """Those that still exist."""
        try:
            value = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        names = value if isinstance(value, list) else []
        return [path for path in map(Path, filter(lambda n: isinstance(n, str), names)) if path.is_file()]

    def add(self, path: Path) -> None:
        """Put ``path`` first; a disk that does not take it is not worth a message."""
        first = path.absolute()
        names = [str(first), *(str(other) for other in self.paths() if other != first)]
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self.file, json.dumps(names[:_KEPT]))
        except (OSError, UsageError):
            return
