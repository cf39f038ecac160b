"""The ``:`` command line: gdb's words, without any front end.

>>> execute("p/x $rax", context).lines        # doctest: +SKIP
('$rax = 0x1234',)
"""

from __future__ import annotations

import re
from typing import Final

from kvmscope.debug.commands.devices import device_names
from kvmscope.debug.commands.editing import EDITING
from kvmscope.debug.commands.looking import INFO, LOOKING, display_lines, help_lines
from kvmscope.debug.commands.model import Action, ActionKind, Command, CommandContext, CommandResult, find_command
from kvmscope.debug.commands.moving import MOVING
from kvmscope.debug.commands.vcpus import VCPUS, vcpu_names
from kvmscope.errors import UsageError
from kvmscope.x86.registers import KNOWN_NAMES

__all__ = [
    "COMMANDS",
    "Action",
    "ActionKind",
    "Command",
    "CommandContext",
    "CommandResult",
    "complete",
    "display_lines",
    "execute",
    "parse_line",
]

_WORD = re.compile(r"\s*([A-Za-z][\w-]*)(?:/(\S*))?\s*(.*)", re.DOTALL)
_PREFIX = re.compile(r"\s*([A-Za-z][\w-]*)(?:/\S*)?\s+(.*)", re.DOTALL)
_LAST_WORD = re.compile(r"[\w.$]*$")
_LOCKING: Final = "scheduler-locking"
_INFO_NAMES: Final = {"devices": device_names, "vcpus": vcpu_names, "threads": vcpu_names}
"""What follows a topic of ``info`` that has names of its own."""


def _help(argument: str, letters: str, context: CommandContext) -> CommandResult:
    if not argument.strip():
        return CommandResult(tuple(help_lines(COMMANDS)))
    found = find_command(argument.strip(), COMMANDS)
    return CommandResult(tuple(help_lines([found])))


COMMANDS: Final = (
    *MOVING,
    *EDITING,
    *LOOKING,
    *VCPUS,
    Command("help", ("h",), "help [COMMAND]", "The commands", _help, "command"),
)
"""Every command."""


def parse_line(line: str) -> tuple[Command, str, str]:
    """(command, argument, format letters).  Raises UsageError for a word that is no command."""
    match = _WORD.fullmatch(line.strip().removeprefix(":"))
    if match is None:
        raise UsageError(f"{line.strip()!r} is no command", hint="help lists them")
    word, letters, argument = match.groups()
    return find_command(word, COMMANDS), argument, letters or ""


def execute(line: str, context: CommandContext) -> CommandResult:
    """Carry out one line; an empty one does nothing.  Raises UsageError and nothing else of its own."""
    if not line.strip():
        return CommandResult()
    command, argument, letters = parse_line(line)
    return command.handler(argument, letters, context)


def complete(line: str, context: CommandContext | None = None) -> list[str]:
    """Whole lines that ``line`` may become, best first: commands, then arguments by kind."""
    match = _PREFIX.fullmatch(line)
    if match is None:
        word = line.strip()
        names = [c.name for c in COMMANDS if c.name.startswith(word)]
        aliases = [a for c in COMMANDS for a in c.aliases if a.startswith(word) and len(a) > 2]
        return list(dict.fromkeys((*names, *aliases)))
    try:
        command = find_command(match.group(1), COMMANDS)
    except UsageError:
        return []
    argument = match.group(2)
    if command.complete == "info" and " " not in argument:
        return [f"{match.group(1)} {topic}" for topic in INFO if topic.startswith(argument)]
    head, _, rest = argument.lstrip().partition(" ")
    if command.complete == "info" and head in _INFO_NAMES and context is not None:
        start = len(line) - len(rest)
        return [line[:start] + name for name in _INFO_NAMES[head](context) if name.startswith(rest)]
    if command.name == "set" and len(head) > 1 and _LOCKING.startswith(head):
        return [f"set {_LOCKING} {word}" for word in ("on", "off") if word.startswith(rest)]
    last = _LAST_WORD.search(line)
    start = last.start() if last else len(line)
    return [line[:start] + word for word in _words(command, line[start:], context)]


def _words(command: Command, part: str, context: CommandContext | None) -> list[str]:
    labels = sorted(context.machine.image.symbols) if context is not None else []
    if command.complete == "command":
        known = [c.name for c in COMMANDS]
    elif command.complete == "location":
        known = labels
    elif command.complete == "breakpoint":
        known = [str(b.number) for b in context.debugger.breakpoints] if context is not None else []
    elif command.complete == "vcpu":
        known = [*(vcpu_names(context) if context is not None else []), "others"]
    elif command.complete in ("expression", "register", "info"):
        registers = sorted(KNOWN_NAMES)
        if part.startswith("$"):
            return [f"${name}" for name in registers if name.startswith(part[1:])]
        known = [*labels, *registers]
    else:
        return []
    return [word for word in known if word.startswith(part)]
