"""What the command language is made of: commands, their context, and their results as data.

`execute` (in the package) gives lines of text, the stop of a command that moved the machine, and what the front end has to do
(`Action`).  Words may be shortened as long as they stay unique; gdb's own short forms always win.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from kvmscope.debug.debugger import Debugger
from kvmscope.debug.explain.model import Guest
from kvmscope.debug.machine import DebuggedMachine
from kvmscope.debug.run_scope import RunScope
from kvmscope.errors import UsageError
from kvmscope.expr import nearest
from kvmscope.vmm.engine import Stop

__all__ = ["Action", "ActionKind", "Command", "CommandContext", "CommandResult", "EditableMachine", "find_command"]


class ActionKind(StrEnum):
    """What only a front end can do."""

    OPEN = "open"
    SAVE = "save"
    QUIT = "quit"
    RUN = "run"
    """Assemble again and start from the beginning."""
    SHOW = "show"
    """Bring a panel to the front; ``argument`` names it, or is an address for the memory panel."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing for the front end to do, as data."""

    kind: ActionKind
    argument: str = ""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command gave.  ``stop`` is set by commands that moved the machine."""

    lines: tuple[str, ...] = ()
    action: Action | None = None
    stop: Stop | None = None
    changed: bool = False
    """Registers, memory or breakpoints were changed: views have to be drawn anew."""


class EditableMachine(DebuggedMachine, Protocol):
    """A machine whose state can be edited and reset, and whose vCPUs can be chosen and held."""

    def write_register(self, name: str, value: int) -> object: ...
    def write_memory(self, physical: int, data: bytes) -> object: ...
    def reset(self) -> object: ...
    def freeze(self, vcpus: Iterable[int]) -> object: ...


@dataclass
class CommandContext:
    """What commands work on; one for the life of a machine (``display`` expressions live here)."""

    machine: EditableMachine
    debugger: Debugger
    cancel: threading.Event | None = None
    displays: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Number -> (format letter, expression)."""
    next_display: int = 1
    last_examine: tuple[int, str, int] = (1, "x", 4)
    next_examine: int | None = None

    def guest(self) -> Guest:
        """The present state with its memory."""
        return Guest.of(self.machine.snapshot(), self.machine.image)

    def scope(self) -> RunScope:
        """The names of an expression, now."""
        return RunScope(self.machine.snapshot(), self.machine.image.symbols, self.machine.debug_exit)


Handler = Callable[[str, str, CommandContext], CommandResult]
"""(argument, format letters behind a slash, context)."""


@dataclass(frozen=True, slots=True)
class Command:
    """One word of the language."""

    name: str
    aliases: tuple[str, ...]
    usage: str
    help: str
    handler: Handler
    complete: str = ""
    """What its argument is: ``location``, ``expression``, ``register``, ``info``, ``breakpoint``, ``vcpu``, ``set``, ``command``."""


def find_command(word: str, commands: Iterable[Command]) -> Command:
    """The command that ``word`` names: exactly, by alias, or by a unique prefix.

    Raises UsageError with the candidates or the nearest word.
    """
    known = list(commands)
    for command in known:
        if word == command.name or word in command.aliases:
            return command
    matches = [command for command in known if command.name.startswith(word)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(command.name for command in matches)
        raise UsageError(f"Ambiguous command {word!r}", hint=f"one of: {names}")
    words = [name for command in known for name in (command.name, *command.aliases)]
    close = nearest(word, words)
    raise UsageError(f"Unknown command {word!r}", hint=f"did you mean {close!r}?" if close else "help lists them")
