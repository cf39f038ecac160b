"""What a panel draws: one immutable `View`, built by the controller once per stop.

A panel never asks an engine, a session or another panel; everything it may show is here.  Positions that the user
chooses (which address the memory panel shows, which event is selected) travel as `Focus`, so that a jump made in one
panel reaches the others through the screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    # A view is made long after the first paint; the machine's modules must not delay it.
    from kvmscope.asm.image import Image
    from kvmscope.reproducer.verdict import Result
    from kvmscope.vmm.config import MachineConfig
    from kvmscope.vmm.snapshot import Delta, Snapshot

__all__ = ["ExplanationText", "Focus", "Space", "View"]


class Space(StrEnum):
    """Which addresses a memory view counts in."""

    LINEAR = "linear"
    PHYSICAL = "physical"


class ExplanationText(Protocol):
    """The part of `kvmscope.debug` explanations that is drawn."""

    @property
    def title(self) -> str:
        """One line: what happened."""
        ...

    @property
    def lines(self) -> Sequence[str]:
        """Why, one fact a line."""
        ...

    @property
    def references(self) -> Sequence[str]:
        """Sections of the manuals."""
        ...


@dataclass(frozen=True, slots=True)
class Focus:
    """What the user looks at; None means "follow the machine" (RIP, CR2, the last event)."""

    memory: int | None = None
    """First address of the memory panel."""
    memory_space: Space = Space.LINEAR
    memory_register: str = ""
    """Register that the memory panel follows (``rsp``); empty: `memory` stands still."""
    walk: int | None = None
    """Linear address whose page walk is shown."""
    code: int | None = None
    """Linear address around which the disassembly is shown."""
    event_tick: int | None = None
    """Tick of the event selected in the timeline."""


@dataclass(frozen=True, slots=True)
class View:
    """A stopped machine with the program it runs and what the user looks at."""

    snapshot: Snapshot
    delta: Delta
    image: Image
    config: MachineConfig
    breakpoints: frozenset[int] = frozenset()
    """Linear addresses with an enabled breakpoint."""
    focus: Focus = field(default_factory=Focus)
    explanation: ExplanationText | None = None
    """Of the stop, or of the selected event; None when there is nothing to explain."""
    outcome: Result | None = None
    """The verdict of the header's expectations; None while the guest has not ended."""
    running: bool = False
    """True while a free run goes on: the snapshot is the one before it."""

    @property
    def source(self) -> str:
        """The text that was assembled into ``image``."""
        return self.image.source

    @property
    def line(self) -> int | None:
        """Source line (from 1) of the next instruction; None outside the program."""
        return self.image.line_at(self.snapshot.cpu.pc)

    @property
    def in_past(self) -> bool:
        """True when history goes on after this point."""
        return self.snapshot.tick < self.snapshot.last_tick

    def looking_at(self, focus: Focus) -> View:
        """The same machine, looked at elsewhere."""
        return replace(self, focus=focus)
