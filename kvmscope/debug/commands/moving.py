"""Commands that move the machine, forward and back."""

from __future__ import annotations

from collections.abc import Callable

from kvmscope.debug.commands.arguments import evaluate_int, location
from kvmscope.debug.commands.model import Action, ActionKind, Command, CommandContext, CommandResult, Handler
from kvmscope.debug.explain import explain
from kvmscope.debug.lines import back_line, step_line
from kvmscope.errors import UsageError
from kvmscope.vmm.engine import Stop, StopReason

__all__ = ["MOVING"]

_WENT = (StopReason.STEP, StopReason.PAUSED)
"""Reasons of a move that got where it wanted to: going to a tick leaves the machine paused."""
_QUIET = (StopReason.STEP, StopReason.SLICE, StopReason.READY)


def _moved(context: CommandContext, stop: Stop) -> CommandResult:
    guest = context.guest()
    lines: list[str] = []
    if stop.reason not in _QUIET:
        lines.append(explain(stop, context.machine.snapshot(), context.machine.image).title)
    lines.append(f"tick {context.machine.tick}: {guest.place()}")
    return CommandResult(tuple(lines), stop=stop, changed=True)


def _count(argument: str, context: CommandContext) -> int:
    count = evaluate_int(argument, context) if argument.strip() else 1
    if not 0 < count <= 1 << 40:
        raise UsageError(f"A count is 1 or more, not {count}")
    return count


def _step(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return _moved(context, context.debugger.step(_count(argument, context), cancel=context.cancel))


def _next(argument: str, letters: str, context: CommandContext) -> CommandResult:
    stop = Stop(StopReason.STEP)
    for _ in range(_count(argument, context)):
        stop = context.debugger.over(cancel=context.cancel)
        if stop.reason is not StopReason.STEP:
            break
    return _moved(context, stop)


def _finish(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return _moved(context, context.debugger.out(cancel=context.cancel))


def _continue(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return _moved(context, context.debugger.cont(cancel=context.cancel))


def _until(argument: str, letters: str, context: CommandContext) -> CommandResult:
    if not argument.strip():
        return _next("", "", context)
    return _moved(context, context.debugger.until(location(argument, context).address, cancel=context.cancel))


def _reverse_step(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return _moved(context, context.debugger.back(_count(argument, context)))


def _reverse_next(argument: str, letters: str, context: CommandContext) -> CommandResult:
    stop = Stop(StopReason.STEP)
    for _ in range(_count(argument, context)):
        stop = context.debugger.back_over(cancel=context.cancel)
        if stop.reason is StopReason.PAUSED or context.machine.tick == 0:
            break
    return _moved(context, stop)


def _reverse_continue(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return _moved(context, context.debugger.back_cont(cancel=context.cancel))


def _reverse_finish(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return _moved(context, context.debugger.back_out(cancel=context.cancel))


def _reverse_until(argument: str, letters: str, context: CommandContext) -> CommandResult:
    where = location(argument, context)
    return _moved(context, context.debugger.back_until(where.address, cancel=context.cancel))


def _goto(argument: str, letters: str, context: CommandContext) -> CommandResult:
    words = argument.split(None, 1)
    if words and words[0] == "tick":
        argument = words[1] if len(words) > 1 else ""
    tick = evaluate_int(argument, context)
    if not 0 <= tick < 1 << 62:
        raise UsageError(f"{argument.strip()} is no tick")
    return _moved(context, context.machine.goto(tick))


def _jump(argument: str, letters: str, context: CommandContext) -> CommandResult:
    if argument.split(None, 1)[:1] == ["tick"]:
        return _goto(argument, letters, context)
    where = location(argument, context)
    cpu = context.machine.snapshot().cpu
    offset = where.address if cpu.mode == 64 else where.address - cpu.segments[1].base & 0xFFFFFFFF
    context.machine.write_register("rip", offset)
    return CommandResult((f"RIP = {offset:#x}: {context.guest().place()}",), changed=True)


def _run(argument: str, letters: str, context: CommandContext) -> CommandResult:
    return CommandResult(action=Action(ActionKind.RUN, argument.strip()))


def _reset(argument: str, letters: str, context: CommandContext) -> CommandResult:
    context.machine.reset()
    return CommandResult((f"restarted: {context.guest().place()}",), stop=Stop(StopReason.READY), changed=True)


def _by_line(walk: Callable[..., Stop], into: bool, otherwise: Handler) -> Handler:
    """A walk by source lines; ``otherwise`` by instructions, where lines are unknown."""

    def handler(argument: str, letters: str, context: CommandContext) -> CommandResult:
        if context.machine.image.places is None:
            return otherwise(argument, letters, context)
        stop = Stop(StopReason.STEP)
        for _ in range(_count(argument, context)):
            stop = walk(context.debugger, into=into, cancel=context.cancel)
            if stop.reason not in _WENT or (context.cancel is not None and context.cancel.is_set()):
                break
        return _moved(context, stop)

    return handler


MOVING = (
    Command("step", ("s",), "step [N]", "To the next source line, into calls; an instruction where lines are unknown",
            _by_line(step_line, True, _step), "expression"),
    Command("next", ("n",), "next [N]", "To the next source line, over calls; an instruction where lines are unknown",
            _by_line(step_line, False, _next), "expression"),
    Command("stepi", ("si",), "stepi [N]", "Execute N instructions", _step, "expression"),
    Command("nexti", ("ni",), "nexti [N]", "Like stepi, over calls, INT and REP", _next, "expression"),
    Command("finish", ("fin", "out"), "finish", "Run until the function or handler returns", _finish),
    Command("continue", ("c", "cont"), "continue", "Run to a breakpoint or the end", _continue),
    Command("until", ("u", "advance"), "until LOC", "Run until LOC is about to execute", _until, "location"),
    Command("reverse-stepi", ("rsi", "back"), "reverse-stepi [N]", "N instructions back",
            _reverse_step, "expression"),
    Command("reverse-nexti", ("rni",), "reverse-nexti [N]", "Back, over calls, INT and REP",
            _reverse_next, "expression"),
    Command("reverse-step", ("rs",), "reverse-step [N]", "Back to the beginning of a source line",
            _by_line(back_line, True, _reverse_step), "expression"),
    Command("reverse-next", ("rn",), "reverse-next [N]", "Back by source lines, over calls",
            _by_line(back_line, False, _reverse_next), "expression"),
    Command("reverse-continue", ("rc",), "reverse-continue", "Back to the last breakpoint, or the start",
            _reverse_continue),
    Command("reverse-finish", ("rf",), "reverse-finish", "Back to the call that led here", _reverse_finish),
    Command("reverse-until", ("ru",), "reverse-until LOC", "Back to the last time LOC was about to execute",
            _reverse_until, "location"),
    Command("goto", (), "goto [tick] N", "To tick N, back or forward, exactly", _goto, "expression"),
    Command("jump", ("j",), "jump LOC | jump tick N", "Set RIP to LOC, or go to a tick", _jump, "location"),
    Command("run", ("r",), "run [ARGS]", "Assemble again and run from the beginning", _run),
    Command("restart", ("reset", "starti", "start"), "restart", "Back to the beginning, edits forgotten", _reset),
)  # fmt: skip
"""The table of these commands."""
