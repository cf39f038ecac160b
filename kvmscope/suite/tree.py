"""A built tree of kvm-unit-tests: where its configuration and its images are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kvmscope.errors import SuiteError
from kvmscope.suite.config import Config, load_config

__all__ = ["CONFIG", "Tree", "is_tree", "open_tree"]

CONFIG: Final = "unittests.cfg"
_ARCH: Final = "x86"
_SETTING: Final = re.compile(r"^([A-Z_]+)=(\S*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree; ``directory`` holds the configuration and the images."""

    root: Path
    directory: Path
    config: Config
    settings: Mapping[str, str] = field(default_factory=dict)
    """config.mak, as ``configure`` wrote it; empty without one."""

    @property
    def arch(self) -> str:
        """What it was built for: ``x86_64`` or ``i386``."""
        return self.settings.get("ARCH") or "x86_64"

    def image(self, file: str) -> Path:
        """The image of an entry's ``file``."""
        return self.directory / file


def is_tree(path: Path) -> bool:
    """Whether `open_tree` finds a configuration at ``path``."""
    return _directory(path) is not None


def _directory(path: Path) -> Path | None:
    return next((place for place in (path / _ARCH, path) if (place / CONFIG).is_file()), None)


def open_tree(path: Path) -> Tree:
    """The tree at ``path``: its root, or the directory of the configuration itself.

    Raises SuiteError where there is none, or its configuration is wrong.
    """
    directory = _directory(path)
    if directory is None:
        raise SuiteError(
            f"{path}: no kvm-unit-tests tree there",
            f"neither {path / _ARCH / CONFIG} nor {path / CONFIG} exists",
            "git clone https://gitlab.com/kvm-unit-tests/kvm-unit-tests, then ./configure && make in it",
        )
    root = directory.parent if directory.name == _ARCH else directory
    return Tree(root, directory, load_config(directory / CONFIG), _settings(root / "config.mak"))


def _settings(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return dict(_SETTING.findall(text))
