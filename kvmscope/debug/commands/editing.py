"""Commands that set breakpoints, registers and memory, and those that the front end carries out."""

from __future__ import annotations

import re

from kvmscope.debug.commands.arguments import evaluate_int, location, numbers, parse_expression, split_condition
from kvmscope.debug.commands.model import Action, ActionKind, Command, CommandContext, CommandResult
from kvmscope.debug.commands.vcpus import scheduler_locking
from kvmscope.errors import UsageError
from kvmscope.expr import nearest
from kvmscope.x86.registers import KNOWN_NAMES, register_width

__all__ = ["EDITING"]

_MEMORY_TARGET = re.compile(r"^\{(u8|u16|u32|u64|char|short|int|long)\}\s*(.+)$|^(u8|u16|u32|u64)\s*\((.+)\)$")
_SIZES = {"u8": 1, "char": 1, "u16": 2, "short": 2, "u32": 4, "int": 4, "u64": 8, "long": 8}
_OTHERS = 63
"""Breakpoints set beside the first one for a line that was inlined in many places."""


def _set_breakpoint(argument: str, context: CommandContext, *, once: bool) -> CommandResult:
    where, condition = split_condition(argument)
    found = location(where, context)
    expression = parse_expression(condition) if condition else None
    point = context.debugger.breakpoints.add(
        found.address, found.words, condition=expression, once=once, line=found.line
    )
    kind = "Temporary breakpoint" if once else "Breakpoint"
    tail = f" if {condition}" if condition else ""
    lines = [f"{kind} {point.number} at {context.guest().place(found.address)}{tail}"]
    for address in found.others[:_OTHERS]:
        more = context.debugger.breakpoints.add(address, found.words, condition=expression, once=once)
        lines.append(f"{kind} {more.number} at {context.guest().place(address)}{tail}")
    if len(found.others) > _OTHERS:
        lines.append(f"and {len(found.others) - _OTHERS} more places, where none was set")
    return CommandResult(tuple(lines), changed=True)


def _break(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return _set_breakpoint(argument, context, once=False)


def _tbreak(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return _set_breakpoint(argument, context, once=True)


def _delete(argument: str, letters: str, context: CommandContext) -> CommandResult:
    words = argument.split()
    if words and words[0] == "display":
        return _undisplay(" ".join(words[1:]), letters, context)
    points = context.debugger.breakpoints
    if not words:
        return CommandResult((f"{points.clear()} breakpoints deleted",), changed=True)
    for number in numbers(argument):
        points.delete(number)
    return CommandResult(changed=True)


def _switch(argument: str, context: CommandContext, on: bool) -> CommandResult:
    points = context.debugger.breakpoints
    chosen = numbers(argument) if argument.strip() else [b.number for b in points]
    for number in chosen:
        points.enable(number, on)
    return CommandResult(changed=True)


def _enable(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return _switch(argument, context, True)


def _disable(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return _switch(argument, context, False)


def _condition(argument: str, letters: str, context: CommandContext) -> CommandResult:
    number, _, text = argument.strip().partition(" ")
    chosen = numbers(number)
    if len(chosen) != 1:
        raise UsageError("condition needs a breakpoint number", hint="condition N [EXPR]")
    text = text.strip()
    context.debugger.breakpoints.condition(chosen[0], parse_expression(text) if text else None)
    return CommandResult((f"Breakpoint {chosen[0]} is now {'conditional' if text else 'unconditional'}",), changed=True)


def _watch(argument: str, letters: str, context: CommandContext) -> CommandResult:
    raise UsageError(
        "Watchpoints are not supported yet",
        hint="a condition does for registers: break LOC if EXPR; a guest may use DR0-DR3 itself",
    )


def _set(argument: str, letters: str, context: CommandContext) -> CommandResult:
    if argument.startswith("scheduler-locking"):
        return scheduler_locking(argument.removeprefix("scheduler-locking"), context)
    if argument.startswith("var "):
        argument = argument[4:]
    target, equals, text = argument.partition("=")
    target = target.strip()
    if not equals or not target or text.startswith("="):
        raise UsageError("set needs TARGET = EXPR", argument, "set $rax = 1, set {u32}0x7000 = 1")
    memory = _MEMORY_TARGET.match(target)
    value = evaluate_int(text, context)
    if memory:
        size = _SIZES[memory.group(1) or memory.group(3)]
        return _set_memory(evaluate_int(memory.group(2) or memory.group(4), context), size, value, context)
    name = target.lstrip("$").lower()
    if name not in KNOWN_NAMES:
        close = nearest(name, KNOWN_NAMES)
        raise UsageError(
            f"{target!r} is no register", hint=f"did you mean ${close}?" if close else "set {u32}ADDR = ..."
        )
    width = register_width(name)
    # An expression's negative value is the 64-bit two's complement: it fits where its sign bits say so.
    if width < 64 and value >> 64 == 0 and value >> width - 1 == (1 << 65 - width) - 1:
        value &= (1 << width) - 1
    if value >> width:
        raise UsageError(f"{name} has {width} bits; {value:#x} does not fit")
    context.machine.write_register(name, value)
    return CommandResult((f"{name} = {value:#x}",), changed=True)


def _set_memory(address: int, size: int, value: int, context: CommandContext) -> CommandResult:
    bits = size * 8
    if value >> bits and value >> bits - 1 != (1 << 65 - bits) - 1:
        raise UsageError(f"{value:#x} does not fit {size} byte{'s' * (size > 1)}")
    data = (value & (1 << bits) - 1).to_bytes(size, "little")
    guest = context.guest()
    pieces: list[tuple[int, bytes]] = []
    position = 0
    while position < size:
        chunk = min(size - position, 4096 - (address + position & 0xFFF))
        physical = guest.translate(address + position)
        if physical is None or guest.memory.read(physical, chunk) is None:
            raise UsageError(f"{address + position:#x} is not mapped to RAM")
        pieces.append((physical, data[position : position + chunk]))
        position += chunk
    for physical, piece in pieces:
        context.machine.write_memory(physical, piece)
    return CommandResult((f"{address:#x} = {data.hex(' ')}",), changed=True)


def _undisplay(argument: str, letters: str, context: CommandContext) -> CommandResult:
    chosen = numbers(argument) if argument.strip() else list(context.displays)
    for number in chosen:
        if number not in context.displays:
            raise UsageError(f"No display number {number}")
        del context.displays[number]
    return CommandResult(changed=True)


def _open(argument: str, letters: str, context: CommandContext) -> CommandResult:
    if not argument.strip():
        raise UsageError("load needs a file name", hint="load FILE")
    return CommandResult(action=Action(ActionKind.OPEN, argument.strip()))


def _save(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return CommandResult(action=Action(ActionKind.SAVE, argument.strip()))


def _quit(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return CommandResult(action=Action(ActionKind.QUIT))


def _show(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return CommandResult(action=Action(ActionKind.SHOW, argument.strip()))


EDITING = (
    Command("break", ("b", "br"), "break [LOC] [if EXPR]", "Stop before LOC executes", _break, "location"),
    Command("tbreak", ("tb",), "tbreak [LOC] [if EXPR]", "The same, once", _tbreak, "location"),
    Command("delete", ("d", "del"), "delete [N...]", "Delete breakpoints, all without a number", _delete, "breakpoint"),
    Command("enable", ("en",), "enable [N...]", "Switch breakpoints on", _enable, "breakpoint"),
    Command("disable", ("dis",), "disable [N...]", "Switch breakpoints off", _disable, "breakpoint"),
    Command("condition", (), "condition N [EXPR]", "Give a breakpoint a condition", _condition, "breakpoint"),
    Command("watch", ("rwatch", "awatch"), "watch EXPR", "Not supported yet", _watch, "expression"),
    Command(
        "set",
        (),
        "set $REG = EXPR | set {u32}ADDR = EXPR | set scheduler-locking on|off",
        "Change a register or memory; on: only the selected vCPU gets turns",
        _set,
        "register",
    ),
    Command("undisplay", (), "undisplay [N...]", "Take displays away", _undisplay),
    Command("load", ("file", "open", "edit", "e"), "load FILE", "Open a file", _open, "file"),
    Command("save", ("w", "write"), "save [FILE]", "Save the file", _save, "file"),
    Command("quit", ("q", "exit"), "quit", "Leave", _quit),
    Command("view", (), "view PANEL | view ADDRESS", "Bring a panel to the front", _show, "view"),
)
"""The table of these commands."""
