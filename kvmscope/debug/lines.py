"""Stepping by source line where the image has a line table; forward and, exactly, backwards.

A line is entered where a statement of it begins: an instruction in the middle of a line, reached by a return into it,
is no place to stop (as in gdb).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from kvmscope.debug.frames import CALLS, stack_pointer
from kvmscope.errors import UsageError
from kvmscope.vmm.engine import Stop, StopReason

if TYPE_CHECKING:
    from kvmscope.asm.source_lines import SourceLines, SourcePlace
    from kvmscope.debug.debugger import Debugger

__all__ = ["back_line", "step_line"]

_CANCEL_EVERY: Final = 256
_FIRST_WINDOW: Final = 512
_GROWTH: Final = 8


def _places(debugger: Debugger) -> SourceLines:
    places = debugger.machine.image.places
    if places is None:
        raise UsageError("The program has no line table", hint="build it with -g; stepi and nexti go by instructions")
    return places


def step_line(debugger: Debugger, *, into: bool, cancel: threading.Event | None = None) -> Stop:
    """Run until another line begins; with ``into`` one of a called function or of a handler counts.

    Functions without lines are run to their return.  From a place without a line, to the next one that has one.
    Raises UsageError for a program without a line table.
    """
    places = _places(debugger)
    machine = debugger.machine
    start = places.at(machine.cpu.pc)
    steps = 0
    while True:
        steps += 1
        if steps % _CANCEL_EVERY == 0 and cancel is not None and cancel.is_set():
            return debugger.paused()
        found = debugger.decoded()
        called = found is not None and found.mnemonic in CALLS
        if (called and not into) or (found is not None and found.rep):
            stop, delivered = debugger.over(cancel=cancel), False
        else:
            stop, delivered = debugger.traced_step()
        if stop.reason is not StopReason.STEP:
            return stop
        hit = debugger.hit_here(stop)
        if hit is not None:
            return hit
        here = places.at(machine.cpu.pc)
        if (delivered and not into) or (here is None and start is not None and (called or delivered)):
            # A handler, or a function that was built without -g.
            stop = debugger.out(cancel=cancel)
            if stop.reason is not StopReason.STEP:
                return stop
            here = places.at(machine.cpu.pc)
        if here is None or not places.begins_line(machine.cpu.pc):
            continue
        # The same line in a deeper frame (recursion) is another visit of it.
        if here != start or (into and (called or delivered)):
            return stop


def back_line(debugger: Debugger, *, into: bool, cancel: threading.Event | None = None) -> Stop:
    """Back to the beginning of the present line or, from there, of the one before; without ``into`` not into callees.

    To the start when there is none.  Raises UsageError for a program without a line table.
    """
    places = _places(debugger)
    machine = debugger.machine
    here = machine.tick
    depth = None if into else stack_pointer(machine.cpu)
    end, window = here, _FIRST_WINDOW
    while end > 0:
        start = max(0, end - window)
        found = _last_beginning(debugger, places, start, end, depth, cancel)
        if cancel is not None and cancel.is_set():
            machine.goto(here)
            return debugger.paused()
        if found is not None:
            return machine.goto(found)
        end, window = start, window * _GROWTH
    return machine.goto(0)


def _last_beginning(
    debugger: Debugger,
    places: SourceLines,
    start: int,
    end: int,
    depth: int | None,
    cancel: threading.Event | None,
) -> int | None:
    """The last tick in [start, end) at which a line began, in a frame at or above ``depth``."""
    machine = debugger.machine
    # One instruction earlier: whether a line begins depends on what came before.
    machine.goto(max(0, start - 1))
    before: SourcePlace | None = places.at(machine.cpu.pc) if start else None
    if start:
        machine.step()
    last: int | None = None
    while machine.tick < end:
        tick = machine.tick
        if tick % _CANCEL_EVERY == 0 and cancel is not None and cancel.is_set():
            return None
        cpu = machine.cpu
        place = places.at(cpu.pc)
        if (
            place is not None
            and place != before
            and places.begins_line(cpu.pc)
            and (depth is None or stack_pointer(cpu) >= depth)
        ):
            last = tick
        before = place
        if machine.step().reason is not StopReason.STEP:
            break
    return last
