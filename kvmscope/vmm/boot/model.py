"""What boot hands to the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kvmscope.x86.state import CpuState

__all__ = ["Boot"]


@dataclass(frozen=True, slots=True)
class Boot:
    """A guest ready to start.  ``pages`` are the pages of RAM that are not all zero, by page number."""

    pages: Mapping[int, bytes]
    state: CpuState
    entry: int
    firmware: bool = False
    """Devices start as a PC's firmware leaves them, not as after reset: PIT channel 0 at 18.2 Hz, 8259A remapped."""
    rom: tuple[int, bytes] | None = None
    """Physical address and contents of read-only memory above RAM; whole pages."""
    facs: int | None = None
    """Physical address of the ACPI FACS, which holds the waking vector of S3."""
