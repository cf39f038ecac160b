"""Commands that show: print, x, display, info, telescope, explain, walk, help."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from kvmscope.debug.commands.arguments import evaluate_int, evaluate_text, location
from kvmscope.debug.commands.devices import info_devices
from kvmscope.debug.commands.model import Command, CommandContext, CommandResult
from kvmscope.debug.commands.vcpus import info_vcpus
from kvmscope.debug.examine import examine, format_value, parse_format, telescope
from kvmscope.debug.explain import explain
from kvmscope.debug.explain.delivery import gate_entry
from kvmscope.debug.explain.names import event_title
from kvmscope.debug.explain.pagefault import walk_for, walk_lines
from kvmscope.debug.explain.selectors import describe, entry_of
from kvmscope.errors import UsageError
from kvmscope.expr import nearest
from kvmscope.vmm.events import ExceptionEvent
from kvmscope.x86.exceptions import mnemonic
from kvmscope.x86.registers import BIT_TABLES, KNOWN_NAMES, decode, flag_string, read_register, register_width
from kvmscope.x86.state import GPR_NAMES, SEGMENT_NAMES, Seg
from kvmscope.x86.tss import decode_tss

__all__ = ["INFO", "LOOKING", "display_lines"]

_PRINT_LETTERS = "xduotac"
_MAX_LINES = 4096


def _number_text(value: int, letter: str, size: int, context: CommandContext) -> str:
    if letter:
        return format_value(value & (1 << size * 8) - 1, letter, size, context.guest())
    return str(value) if 0 <= value < 10 else f"{value:#x} ({value})"


def _value_text(expression: str, letter: str, context: CommandContext) -> str:
    value = evaluate_text(expression, context)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        name = expression.strip().lstrip("$").lower()
        size = (register_width(name) + 7) // 8 if name in KNOWN_NAMES else 8 if value < 1 << 64 else 16
        return _number_text(value, letter, size, context)
    return repr(value)


def _print(argument: str, letters: str, context: CommandContext) -> CommandResult:
    letter = letters[-1:] if letters else ""
    if letter and letter not in _PRINT_LETTERS:
        raise UsageError(f"Unknown format /{letters}", hint=f"one of: {' '.join(_PRINT_LETTERS)}")
    return CommandResult((f"{argument.strip()} = {_value_text(argument, letter, context)}",))


def _examine(argument: str, letters: str, context: CommandContext) -> CommandResult:
    count, letter, size = parse_format(letters, (1, *context.last_examine[1:]))
    if argument.strip():
        address = evaluate_int(argument, context) & (1 << 64) - 1
    elif context.next_examine is not None:
        address = context.next_examine
    else:
        raise UsageError("x needs an address", hint="x/16xb $rsp")
    context.last_examine = (count, letter, size)
    context.next_examine = address + count * size
    return CommandResult(tuple(examine(context.guest(), address, count, letter, size)))


def _display(argument: str, letters: str, context: CommandContext) -> CommandResult:
    if argument.strip():
        _value_text(argument, letters[-1:], context)
        context.displays[context.next_display] = (letters[-1:], argument.strip())
        context.next_display += 1
    return CommandResult(tuple(display_lines(context)), changed=True)


def display_lines(context: CommandContext) -> list[str]:
    """One line a display expression, as it stands now; what cannot be evaluated says so."""
    lines = []
    for number, (letter, expression) in context.displays.items():
        try:
            text = _value_text(expression, letter, context)
        except UsageError as error:
            text = f"({error.title})"
        lines.append(f"{number}: {expression} = {text}")
    return lines


def _telescope(argument: str, letters: str, context: CommandContext) -> CommandResult:
    guest = context.guest()
    words = argument.rsplit(None, 1) if argument.strip() else []
    count = 8
    if len(words) == 2 and words[1].isdecimal():
        count, argument = int(words[1][:6]), words[0]
    address = evaluate_int(argument, context) if argument.strip() else guest.gpr("rsp") + guest.segment_base(Seg.SS)
    if not 0 < count <= 256:
        raise UsageError("telescope shows 1 to 256 slots")
    return CommandResult(tuple(telescope(guest, address, count)))


def _explain(argument: str, letters: str, context: CommandContext) -> CommandResult:
    machine = context.machine
    snapshot = machine.snapshot()
    if argument.strip() == "last":
        last = next((e for e in reversed(snapshot.events) if isinstance(e, ExceptionEvent)), None)
        if last is None:
            raise UsageError("No exception has been raised")
        # The memory that explains it is that of its tick: go there, and come back.
        here = machine.tick
        machine.goto(last.tick - 1)
        try:
            then = replace(machine.snapshot(), events=snapshot.events)
            found = explain(last, then, machine.image)
        finally:
            machine.goto(here)
    elif argument.strip():
        raise UsageError("explain takes nothing, or last")
    else:
        found = explain(snapshot.stop, snapshot, machine.image)
    return CommandResult((found.title, *found.lines, *(f"see {r}" for r in found.references)))


def _walk(argument: str, letters: str, context: CommandContext) -> CommandResult:
    kind, _, rest = argument.strip().partition(" ")
    kinds = {"read": 0, "write": 2, "fetch": 16}
    code = kinds.get(kind)
    address = evaluate_int(rest if code is not None else argument, context)
    guest = context.guest()
    code = (code or 0) | (4 if guest.cpu.cpl == 3 else 0)
    result = walk_for(guest, address & (1 << 64) - 1, code, implicit=False)
    return CommandResult((*walk_lines(result), result.reason or f"{address:#x} -> {result.physical:#x}"))


# info


def _info_registers(argument: str, context: CommandContext) -> list[str]:
    cpu = context.machine.snapshot().cpu
    names = [word.lstrip("$").lower() for word in argument.split()]
    if names:
        lines = []
        for name in names:
            if name not in KNOWN_NAMES:
                close = nearest(name, KNOWN_NAMES)
                raise UsageError(f"{name!r} is no register", hint=f"did you mean {close!r}?" if close else "")
            value = read_register(cpu, name)
            bits = " ".join(
                bit.name if bit.width == 1 else f"{bit.name}={number:#x}"
                for bit, number in decode(BIT_TABLES[name], value)
                if number
            ) if name in BIT_TABLES else ""  # fmt: skip
            lines.append(f"{name:<8} {value:#x}  {bits}".rstrip())
        return lines
    width = 16 if cpu.mode == 64 else 8
    lines = [
        f"{name:<8} {read_register(cpu, name):#0{width + 2}x}" for name in (*GPR_NAMES[: 16 if width == 16 else 8],)
    ]
    lines.append(f"{'rip':<8} {cpu.rip:#0{width + 2}x}  {context.guest().place()}")
    lines.append(f"{'rflags':<8} {cpu.rflags:#x}  {flag_string(cpu.rflags)}")
    for number, name in enumerate(SEGMENT_NAMES):
        segment = cpu.segments[number]
        lines.append(
            f"{name:<8} {segment.selector:#06x}  base {segment.base:#x} limit {segment.limit:#x} "
            f"type {segment.type:#x} S={segment.s} DPL={segment.dpl} P={segment.present}"
        )
    lines.append(f"{'gdtr':<8} base {cpu.gdtr.base:#x} limit {cpu.gdtr.limit:#x}")
    lines.append(f"{'idtr':<8} base {cpu.idtr.base:#x} limit {cpu.idtr.limit:#x}")
    lines.extend(_info_registers("cr0 cr2 cr3 cr4 cr8 efer dr6 dr7", context))
    return lines


def _info_breakpoints(argument: str, context: CommandContext) -> list[str]:
    points = list(context.debugger.breakpoints)
    if not points:
        return ["No breakpoints."]
    guest = context.guest()
    lines = ["Num  On  Hits  Where"]
    for point in points:
        tail = f"  if {point.condition}" if point.condition is not None else ""
        once = "  (once)" if point.once else ""
        on = "y" if point.enabled else "n"
        lines.append(
            f"{point.number:<4} {on:<3} {point.hits:<5} {point.where}: {guest.place(point.address)}{tail}{once}"
        )
    return lines


def _info_line(argument: str, context: CommandContext) -> list[str]:
    found = location(argument, context)
    image = context.machine.image
    place = image.place_at(found.address)
    if place is not None and image.places is not None:
        lines = (image.places.text(place.file) or "").splitlines()
        text = lines[place.line - 1].strip() if place.line <= len(lines) else ""
        return [f"{place.file}:{place.line} at {context.guest().place(found.address)}: {text}"]
    if found.line is None:
        return [f"{found.address:#x} belongs to no line of the source"]
    source = context.machine.image.source.splitlines()
    text = source[found.line - 1].strip() if found.line <= len(source) else ""
    return [f"line {found.line} at {context.guest().place(found.address)}: {text}"]


def _info_symbols(argument: str, context: CommandContext) -> list[str]:
    symbols = context.machine.image.symbols
    wanted = argument.strip()
    return [
        f"{address:#x}  {name}"
        for name, address in sorted(symbols.items(), key=lambda item: (item[1], item[0]))
        if wanted in name
    ] or ["No symbols."]


def _info_idt(argument: str, context: CommandContext) -> list[str]:
    guest = context.guest()
    idtr = guest.cpu.idtr
    if not guest.protected:
        vectors = [evaluate_int(argument, context)] if argument.strip() else list(range(32))
        out = []
        for vector in vectors:
            raw = guest.word(idtr.base + 4 * vector, 4)
            out.append(
                f"{vector:#04x} {mnemonic(vector)}: " + ("?" if raw is None else f"{raw >> 16:04x}:{raw & 0xFFFF:04x}")
            )
        return out
    size = 16 if guest.long_mode else 8
    count = min((idtr.limit + 1) // size, 256)
    vectors = [evaluate_int(argument, context)] if argument.strip() else list(range(min(count, 32)))
    lines = [f"IDTR base {idtr.base:#x} limit {idtr.limit:#x}: {count} gates"]
    lines.extend(f"{mnemonic(v):<9} {describe(gate_entry(guest, v))}" for v in vectors)
    if not argument.strip() and count > 32:
        lines.append("info idt N shows vector N")
    return lines


def _info_gdt(argument: str, context: CommandContext) -> list[str]:
    guest = context.guest()
    gdtr = guest.cpu.gdtr
    if argument.strip():
        return [describe(entry_of(guest, evaluate_int(argument, context) & 0xFFFF))]
    lines = [f"GDTR base {gdtr.base:#x} limit {gdtr.limit:#x}"]
    selector = 0
    while selector + 7 <= gdtr.limit and len(lines) < _MAX_LINES:
        entry = entry_of(guest, selector)
        if entry.found is None or entry.found.raw:
            lines.append(describe(entry))
        selector += entry.descriptor.size
    return lines


def _info_tss(argument: str, context: CommandContext) -> list[str]:
    guest = context.guest()
    task = guest.cpu.segments[Seg.TR]
    bits = 64 if guest.long_mode else 32 if task.type & 8 else 16
    lines = [f"TR {task.selector:#x}: base {task.base:#x} limit {task.limit:#x}, {bits}-bit"]
    data = guest.read(task.base, min(task.limit + 1, 104))
    if data is None:
        return [*lines, "its memory is not mapped"]
    lines.extend(f"{name:<8} {value:#x}" for name, value in decode_tss(data, bits).items())
    return lines


def _info_display(argument: str, context: CommandContext) -> list[str]:
    return display_lines(context) or ["No display expressions."]


def _info_events(argument: str, context: CommandContext) -> list[str]:
    snapshot = context.machine.snapshot()
    events = snapshot.events
    out = []
    for event in list(events)[-32:]:
        name = event_title(event) if isinstance(event, ExceptionEvent) else type(event).__name__.removesuffix("Event")
        which = f"vCPU {event.vcpu}  " if snapshot.vcpus else ""
        out.append(f"tick {event.tick}  {which}{event.rip:#x}  {name}")
    return out or ["No events."]


INFO: dict[str, tuple[str, Callable[[str, CommandContext], list[str]]]] = {
    "registers": ("[NAME...]", _info_registers),
    "breakpoints": ("", _info_breakpoints),
    "line": ("[LOC]", _info_line),
    "symbols": ("[PART]", _info_symbols),
    "idt": ("[VECTOR]", _info_idt),
    "gdt": ("[SELECTOR]", _info_gdt),
    "tss": ("", _info_tss),
    "display": ("", _info_display),
    "events": ("", _info_events),
    "devices": ("[NAME]", info_devices),
    "vcpus": ("[N...]", info_vcpus),
}
"""Topic -> (arguments, what shows it)."""
_INFO_ALIASES = {
    "r": "registers",
    "reg": "registers",
    "b": "breakpoints",
    "functions": "symbols",
    "all-registers": "registers",
    "threads": "vcpus",
    "thread": "vcpus",
    "d": "display",
}


def _info(argument: str, letters: str, context: CommandContext) -> CommandResult:
    word, _, rest = argument.strip().partition(" ")
    if not word:
        return CommandResult(tuple(f"info {name} {usage}".rstrip() for name, (usage, _) in INFO.items()))
    word = _INFO_ALIASES.get(word, word)
    matches = [word] if word in INFO else [name for name in INFO if name.startswith(word)]
    if len(matches) != 1:
        close = nearest(word, INFO)
        hint = f"did you mean {close!r}?" if close and not matches else f"one of: {', '.join(matches or INFO)}"
        raise UsageError(f"{'Ambiguous' if matches else 'Unknown'} topic {word!r} of info", hint=hint)
    return CommandResult(tuple(INFO[matches[0]][1](rest, context)))


LOOKING = (
    Command("print", ("p", "inspect", "output"), "print[/F] EXPR", "The value of an expression; F: x d u o t a c", _print,
            "expression"),
    Command("x", (), "x/NFU ADDR", "Memory: N units, format x d u o t a c s i, unit b h w g", _examine, "expression"),
    Command("display", (), "display[/F] EXPR", "Show an expression at every stop", _display, "expression"),
    Command("telescope", ("tele",), "telescope [ADDR] [N]", "Follow pointers, from the stack by default", _telescope,
            "expression"),
    Command("explain", ("why",), "explain [last]", "Why the machine stopped, or the last exception", _explain),
    Command("walk", (), "walk [read|write|fetch] ADDR", "The page walk of an access", _walk, "expression"),
    Command("info", ("i",), "info TOPIC", "registers breakpoints line symbols idt gdt tss display events devices vcpus", _info,
            "info"),
)  # fmt: skip
"""The table of these commands."""


def help_lines(commands: Iterable[Command]) -> list[str]:
    """One line a command."""
    return [f"{c.usage:<40} {c.help}" + (f"  ({', '.join(c.aliases)})" if c.aliases else "") for c in commands]
