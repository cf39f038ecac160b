"""Where the reproducers that come with kvmscope are: beside the package in a checkout, in share/ when installed."""

from __future__ import annotations

import sysconfig
from pathlib import Path

__all__ = ["first_lesson", "shipped_dir"]

_FIRST = "page-fault-write.asm"


def shipped_dir() -> Path | None:
    """The directory of the shipped reproducers, or None where the installation left them out."""
    for candidate in (
        Path(__file__).resolve().parents[2] / "reproducers",
        Path(sysconfig.get_path("data")) / "share" / "kvmscope" / "reproducers",
    ):
        if (candidate / _FIRST).is_file():
            return candidate
    return None


def first_lesson() -> Path | None:
    """The file that opens when none is named."""
    directory = shipped_dir()
    return directory / _FIRST if directory else None
