"""What a machine's session has to tell the screen, as messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from kvmscope.debug.commands import CommandResult
    from kvmscope.errors import KvmscopeError
    from kvmscope.ui.view import View

__all__ = ["CommandDone", "FromSession", "MachineFailed", "MachineProgress", "MachineStopped"]


@dataclass
class FromSession(Message):
    """Common part: which machine it is about; news of one that was replaced are dropped."""

    machine: int


@dataclass
class MachineStopped(FromSession):
    """The machine stands; ``view`` is without the user's focus."""

    view: View
    lines: Mapping[int, int | None] | None = None
    """Enabled breakpoints by number, with their lines in the program's source; None: not known yet."""
    displays: tuple[str, ...] = ()
    """Expressions that the user wants to see at every stop, with their values."""


@dataclass
class MachineProgress(FromSession):
    """A run goes on."""

    tick: int

    def can_replace(self, message: Message) -> bool:
        """Only the newest counts."""
        return isinstance(message, MachineProgress)


@dataclass
class MachineFailed(FromSession):
    """A command could not be done; with ``view`` where the machine stands."""

    error: KvmscopeError
    view: View | None = None


@dataclass
class CommandDone(FromSession):
    """A line of the command line was carried out; the stop follows on its own."""

    line: str
    result: CommandResult
