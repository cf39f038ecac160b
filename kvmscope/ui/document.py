"""The file being edited: its name, what is on disk, and what changed in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvmscope.ui.files import read_text

if TYPE_CHECKING:
    from kvmscope.reproducer.document import Reproducer

__all__ = ["Document", "line_mover"]

_UNNAMED = "untitled.asm"


@dataclass
class Document:
    """One source.  ``saved`` is the text on disk as last read or written (empty for one that was never saved)."""

    path: Path | None
    saved: str
    text: str
    """As opened; the editor has the present one."""
    shipped: bool = False
    """It came with kvmscope: saving asks for another name."""
    program: Reproducer | None = None
    """An image with the machine it gets: the text is about it, and nothing is assembled, edited or saved."""

    @classmethod
    def load(cls, path: Path) -> Document:
        """Read a source or an image.  Raises KvmscopeError when it cannot be read, or is neither."""
        if path.suffix.lower() not in (".asm", ".s"):
            from kvmscope.reproducer.images import is_image, open_image

            if is_image(path):
                return cls.of_image(path, open_image(path))
        text = read_text(path)
        from kvmscope.reproducer.shipped import shipped_dir

        home = shipped_dir()
        shipped = home is not None and home.resolve() in path.resolve().parents
        return cls(path, text, text, shipped)

    @classmethod
    def blank(cls, text: str = "") -> Document:
        """One without a name."""
        return cls(None, "", text)

    @classmethod
    def of_program(cls, path: Path, program: Reproducer, about: str) -> Document:
        """An image; ``about`` is shown in the place of its source."""
        return cls(path, about, about, program=program)

    @classmethod
    def of_image(cls, path: Path, program: Reproducer) -> Document:
        """An image as it is."""
        from kvmscope.ui.source_view import about_image

        assert program.image is not None
        return cls.of_program(path, program, about_image(program.image))

    @property
    def filename(self) -> str:
        """The name for messages and for telling the syntax by its suffix."""
        return str(self.path) if self.path else _UNNAMED

    @property
    def name(self) -> str:
        """The last part of it."""
        return self.path.name if self.path else _UNNAMED

    def changed_on_disk(self) -> bool:
        """Somebody else wrote the file since we read it."""
        if self.program is not None or self.path is None or not self.path.exists():
            return False
        return read_text(self.path) != self.saved


def line_mover(old: list[str], new: list[str]) -> Callable[[int], int] | None:
    """How line numbers (from 1) moved between two versions of a text; None when no line moved.

    Lines before the first difference stay, lines behind the last one keep their distance from the end.
    """
    if len(old) == len(new):
        return None
    short = min(len(old), len(new))
    tail = 0
    while tail < short and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    head = 0
    while head < short - tail and old[head] == new[head]:
        head += 1
    by = len(new) - len(old)
    first_moved = len(old) - tail + 1
    last_kept = max(head, len(new) - tail)

    def moved(line: int) -> int:
        if line >= first_moved:
            return line + by
        return line if line <= head else min(line, max(1, last_kept))

    return moved
