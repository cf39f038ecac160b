"""Interrupts that nobody hears cost nothing: a periodic source keeps no timer while its line is masked.

The controllers tell their sources before a guest looks at pending requests or changes a mask, and after the change.
A source then tells the line what it missed: where it stands now and, if it rose meanwhile, one rising edge (the 8259A
keeps one, an I/O APIC's masked pin none).  So a plain guest's HLT stays final and a short period floods nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

__all__ = ["Source", "catch_up", "rearm"]


class Source(Protocol):
    """A device whose line is a function of time."""

    def catch_up(self) -> None:
        """Drive the line as it stands now, after the edge that has not been told yet if there was one."""
        ...

    def rearm(self) -> None:
        """Masks may have changed: keep a timer if the line is heard now, else none."""
        ...


def catch_up(sources: Iterable[Source]) -> None:
    """Before a controller's state is looked at or its masks change."""
    for source in sources:
        source.catch_up()


def rearm(sources: Iterable[Source]) -> None:
    """After the masks changed."""
    for source in sources:
        source.rearm()
