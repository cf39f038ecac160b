"""From a line that reports a failure to the call that reported it: run to the line, then back through history.

kvm-unit-tests report a check by ``report()`` and its kin (lib/report.c), which print the line while they run.  So the call
is the last entry to one of these functions before the line's first byte was written.  All of it is replay of one history:
nothing is guessed, and the machine stands there with everything before it still to be looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from kvmscope.asm.image import Image
from kvmscope.errors import EngineError
from kvmscope.vmm.engine import Stop, StopReason
from kvmscope.x86.state import CpuState, Seg

__all__ = ["REPORTERS", "Arrived", "ReplayedMachine", "report_addresses", "to_report"]

REPORTERS: Final = ("report", "report_pass", "report_fail", "report_xfail", "report_kfail", "report_skip")
"""Functions of the guests' library that print a line of their own."""

_FIRST_WINDOW: Final = 4_096
_GROWTH: Final = 8
_LONGEST: Final = 15
"""Bytes of an instruction."""


class ReplayedMachine(Protocol):
    """What of `kvmscope.vmm.machine.Machine` this needs."""

    @property
    def tick(self) -> int: ...
    @property
    def image(self) -> Image: ...
    @property
    def cpu(self) -> CpuState: ...
    @property
    def serial(self) -> bytes: ...
    @property
    def stop(self) -> Stop: ...
    def run(
        self,
        ticks: int | None = None,
        *,
        cancel: threading.Event | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Stop: ...
    def goto(self, tick: int, *, cancel: threading.Event | None = None) -> Stop: ...
    def set_breakpoints(self, linear: Iterable[int]) -> None: ...
    def read_linear(self, linear: int, size: int) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Arrived:
    """Where the search ended."""

    tick: int
    what: str
    """``call of report``, or what was found in its place."""
    exact: bool
    """At the reporting call itself."""


def report_addresses(image: Image) -> dict[int, str]:
    """Entry points of the reporting functions that the image has, by address."""
    return {image.symbols[name]: name for name in reversed(REPORTERS) if name in image.symbols}


def to_report(
    machine: ReplayedMachine,
    begin: int,
    end: int,
    *,
    cancel: threading.Event | None = None,
    progress: Callable[[int], None] | None = None,
) -> Arrived | None:
    """Put ``machine`` at the call that printed the bytes ``begin`` to ``end`` of its serial output; None when cancelled.

    Its breakpoints are cleared.  Raises EngineError when the machine ends before it has printed them.
    """
    machine.set_breakpoints(())
    if not _run_to_output(machine, end, cancel, progress):
        return None
    written = _tick_of_byte(machine, begin, cancel)
    if written is None:
        return None
    names = report_addresses(machine.image)
    entry = _last_entry(machine, set(names), written, cancel) if names else None
    if cancel is not None and cancel.is_set():
        return None
    if entry is None:
        machine.goto(written - 1)
        return Arrived(written - 1, "the first byte of the line is about to be written", False)
    machine.goto(entry)
    name = names[machine.cpu.pc]
    back = _return_addresses(machine)
    if entry:
        machine.goto(entry - 1)
        if any(0 < address - machine.cpu.rip <= _LONGEST for address in back):
            return Arrived(entry - 1, f"call of {name}", True)
        # Entered by a jump: the function before made the call its last act.
        machine.goto(entry)
    return Arrived(entry, f"entry of {name}", True)


def _run_to_output(
    machine: ReplayedMachine, end: int, cancel: threading.Event | None, progress: Callable[[int], None] | None
) -> bool:
    """Run until ``end`` bytes of output are there; False when cancelled."""
    enough = threading.Event()

    def look(tick: int) -> None:
        if progress is not None:
            progress(tick)
        if len(machine.serial) >= end or (cancel is not None and cancel.is_set()):
            enough.set()

    while len(machine.serial) < end:
        stop = machine.run(cancel=enough, progress=look)
        if cancel is not None and cancel.is_set():
            return False
        if len(machine.serial) < end and (stop.reason.final or stop.reason is StopReason.BUDGET):
            raise EngineError(
                "The machine ended before it had printed that line",
                f"{len(machine.serial)} of {end} bytes of output; it stopped by {stop.reason.value} {stop.detail}".rstrip(),
                "was the image built anew since it was run?",
            )
    return True


def _tick_of_byte(machine: ReplayedMachine, position: int, cancel: threading.Event | None) -> int | None:
    """The first tick at which byte ``position`` of the output has been written; None when cancelled."""
    low, high = 0, machine.tick
    while high - low > 1:
        if cancel is not None and cancel.is_set():
            return None
        middle = (low + high) // 2
        machine.goto(middle)
        if len(machine.serial) > position:
            high = middle
        else:
            low = middle
    return high


def _last_entry(
    machine: ReplayedMachine, addresses: set[int], before: int, cancel: threading.Event | None
) -> int | None:
    """The last tick before ``before`` at which one of ``addresses`` was about to execute; None when there is none."""
    end, window = before, _FIRST_WINDOW
    while end > 0:
        start = max(0, end - window)
        last = _last_hit(machine, addresses, start, end, cancel)
        if last is not None or (cancel is not None and cancel.is_set()):
            return last
        end, window = start, window * _GROWTH
    return None


def _last_hit(
    machine: ReplayedMachine, addresses: set[int], start: int, end: int, cancel: threading.Event | None
) -> int | None:
    machine.goto(start)
    last = start if machine.cpu.pc in addresses else None
    machine.set_breakpoints(addresses)
    try:
        while machine.tick < end:
            stop = machine.run(end - machine.tick, cancel=cancel)
            if stop.reason is not StopReason.BREAKPOINT or machine.tick >= end:
                break
            last = machine.tick
    finally:
        machine.set_breakpoints(())
    return last


def _return_addresses(machine: ReplayedMachine) -> list[int]:
    """What a near call may have pushed, at the entry of a function: of each size that it can have here."""
    cpu = machine.cpu
    base = 0 if cpu.mode == 64 else cpu.segments[Seg.SS].base
    pointer = cpu.gpr[4] if cpu.mode == 64 or cpu.segments[Seg.SS].db else cpu.gpr[4] & 0xFFFF
    sizes = (8,) if cpu.mode == 64 else (4, 2)
    found = (machine.read_linear(base + pointer, size) for size in sizes)
    return [int.from_bytes(data, "little") for data in found if data is not None]
