"""The UI's part that runs on the session's thread, with the machine in hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from kvmscope.errors import UsageError

if TYPE_CHECKING:
    from kvmscope.asm.image import Image
    from kvmscope.debug.commands import CommandContext
    from kvmscope.debug.debugger import Debugger
    from kvmscope.vmm.engine import Stop
    from kvmscope.vmm.events import Event, ExceptionEvent
    from kvmscope.vmm.machine import Machine
    from kvmscope.vmm.snapshot import Snapshot
    from kvmscope.x86.state import CpuState

__all__ = [
    "ReportingMachine",
    "delete_breakpoints",
    "displays_of",
    "to_explain",
    "toggle_address_breakpoint",
    "toggle_line_breakpoint",
]

_LOOKED_AT: Final = 500
"""Events looked through for the last exception: a guest may do port I/O for hours."""


class ReportingMachine:
    """A machine that reports the progress of runs, whoever starts them."""

    def __init__(self, machine: Machine, progress: Callable[[int], None]) -> None:
        self._machine = machine
        self._progress = progress

    @property
    def machine(self) -> Machine:
        """The machine behind."""
        return self._machine

    @property
    def progress(self) -> Callable[[int], None]:
        """To be called with the tick now and then."""
        return self._progress

    @property
    def tick(self) -> int:
        return self._machine.tick

    @property
    def last_tick(self) -> int:
        return self._machine.last_tick

    @property
    def image(self) -> Image:
        return self._machine.image

    @property
    def debug_exit(self) -> int | None:
        return self._machine.debug_exit

    @property
    def stop(self) -> Stop:
        return self._machine.stop

    @property
    def vcpu(self) -> int:
        return self._machine.vcpu

    @property
    def vcpus(self) -> int:
        return self._machine.vcpus

    @property
    def turn(self) -> int:
        return self._machine.turn

    def step(self) -> Stop:
        return self._machine.step()

    def run(self, ticks: int | None = None, *, cancel: threading.Event | None = None) -> Stop:
        return self._machine.run(ticks, cancel=cancel, progress=self._progress)

    def goto(self, tick: int) -> Stop:
        return self._machine.goto(tick)

    @property
    def cpu(self) -> CpuState:
        return self._machine.cpu

    @property
    def events(self) -> Sequence[Event]:
        return self._machine.events

    def snapshot(self) -> Snapshot:
        return self._machine.snapshot()

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        self._machine.set_breakpoints(linear)

    def write_register(self, name: str, value: int) -> None:
        self._machine.write_register(name, value)

    def write_memory(self, physical: int, data: bytes) -> None:
        self._machine.write_memory(physical, data)

    def reset(self) -> None:
        self._machine.reset()

    def select(self, vcpu: int) -> None:
        self._machine.select(vcpu)

    def freeze(self, vcpus: Iterable[int]) -> None:
        self._machine.freeze(vcpus)


def to_explain(snapshot: Snapshot) -> Stop | ExceptionEvent | None:
    """What a user wants to understand here: why the guest ended, or else the last exception raised."""
    from kvmscope.vmm.events import ExceptionEvent

    stop = snapshot.stop
    if stop.reason.final or stop.reason == "budget":
        return stop
    near = islice(reversed(snapshot.events), _LOOKED_AT)
    return next((event for event in near if isinstance(event, ExceptionEvent)), None)


def displays_of(context: CommandContext | None) -> tuple[str, ...]:
    """The user's watched expressions with their values now."""
    if context is None or not context.displays:
        return ()
    from kvmscope.debug.commands import display_lines

    return tuple(display_lines(context))


def toggle_line_breakpoint(debugger: Debugger, line: int) -> None:
    """Set or clear a breakpoint on the code of a source line.  Raises UsageError where there is none."""
    image = debugger.machine.image
    address = image.address_of_line(line)
    if address is None:
        raise UsageError(f"There is no code at or below line {line}", hint="a breakpoint needs an instruction")
    at = image.line_at(address)
    debugger.breakpoints.toggle(address, f"line {at}", at)


def toggle_address_breakpoint(debugger: Debugger, address: int) -> None:
    """Set or clear a breakpoint at a linear address."""
    debugger.breakpoints.toggle(address, f"*{address:#x}", debugger.machine.image.line_at(address))


def delete_breakpoints(debugger: Debugger, numbers: list[int]) -> None:
    """Delete breakpoints by number."""
    for number in numbers:
        debugger.breakpoints.delete(number)
