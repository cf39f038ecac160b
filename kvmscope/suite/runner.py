"""One entry in our machine: its image booted, run to its end or its time-out, and judged by run_tests.sh's rules."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kvmscope.errors import KvmscopeError
from kvmscope.reproducer.kut import TIMED_OUT, Kind, ReportLine, Word, process_status, report_lines, summary, word_of
from kvmscope.suite.config import Entry

if TYPE_CHECKING:
    from kvmscope.asm.image import Image
    from kvmscope.reproducer.document import Reproducer
    from kvmscope.suite.qemu_params import MachineParams
    from kvmscope.vmm.config import MachineConfig
    from kvmscope.vmm.engine import Stop
    from kvmscope.vmm.machine import Machine

__all__ = ["MAX_SMP", "NO_LIMIT", "Job", "Outcome", "entry_machine", "entry_program", "run_entry", "skipped"]

MAX_SMP: Final = 16
"""Processors of a machine of ours at most (`kvmscope.vmm.config.MAX_VCPUS`, which would load the machine)."""
NO_LIMIT: Final = 1 << 62
"""Instructions; a wall-clock limit ends the run long before."""
_OUTPUT: Final = 16 << 20
"""Bytes of serial output kept of one entry."""
_HISTORY: Final = 0
"""Bytes: nobody goes back in a run of the suite, so no checkpoint is kept."""
_EVENTS: Final = 200_000
"""Event records kept where somebody looks at them."""
_FOREVER: Final = 1e9
"""Seconds, for ``timeout = 0``."""
_EMIT: Final = 0.1
"""Seconds between two looks at the output."""


@dataclass(frozen=True, slots=True)
class Job:
    """An entry to run, and how."""

    entry: Entry
    image: Path
    seconds: float
    """Wall-clock limit; 0: none."""
    instructions: int = NO_LIMIT
    cpu: str = ""
    """Changes of the processor's features, after the entry's own: ``-pku,-la57``."""

    @property
    def wall(self) -> float:
        """Seconds, whatever `seconds` is."""
        return self.seconds or _FOREVER


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an entry: plain values, cheap to send between processes."""

    name: str
    word: Word
    reason: str = ""
    """Why, where the guest's own summary does not say it."""
    status: int | None = None
    """Exit status as run_tests.sh would see it; None when nothing ran to an end."""
    stop: str = ""
    """How the machine stopped."""
    output: bytes = b""
    instructions: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What the entry asks for and does not get."""
    details: tuple[str, ...] = ()
    """About a bad end, for a person."""
    lines: tuple[ReportLine, ...] = field(default=(), repr=False)

    @property
    def summary(self) -> str:
        """What stands behind the name: the reason in parentheses, or the guest's summary."""
        return f"({self.reason})" if self.reason else summary(self.output)

    @property
    def line(self) -> str:
        """As run_tests.sh prints it: ``PASS smap (18 tests)``."""
        return f"{self.word.value} {self.name} {self.summary}".rstrip()

    @property
    def failures(self) -> tuple[ReportLine, ...]:
        """The lines that report a failure."""
        return tuple(line for line in self.lines if line.kind is Kind.FAIL)


def skipped(entry: Entry, reason: str) -> Outcome:
    """The row of an entry that is not run."""
    return Outcome(entry.name, Word.SKIP, reason)


def run_entry(job: Job, emit: Callable[[bytes], None] | None = None) -> Outcome:
    """Run one entry; ``emit`` gets its serial output as it comes.

    What is wrong with the entry is an ERROR row, and so is a defect of ours: the others still have their turn.
    """
    from kvmscope.reproducer.runner import run_to_the_end

    started = time.monotonic()
    try:
        machine, notes = entry_machine(job)
    except KvmscopeError as error:
        details = tuple(filter(None, (*error.detail.splitlines(), f"hint: {error.hint}" if error.hint else "")))
        return Outcome(job.entry.name, Word.ERROR, error.title, details=details)
    except Exception as error:
        return _defect(job.entry.name, error)
    try:
        stop = run_to_the_end(machine, emit, every=_EMIT)
        return _judged(job, machine, stop, notes, time.monotonic() - started)
    except Exception as error:
        return _defect(job.entry.name, error)
    finally:
        machine.close()


def _defect(name: str, error: Exception) -> Outcome:
    import traceback

    details = ("this is a defect of kvmscope: please report it with the image", *traceback.format_exc().splitlines())
    return Outcome(name, Word.ERROR, f"internal error: {type(error).__name__}: {error}", details=details)


def entry_machine(job: Job, *, history: int = _HISTORY) -> tuple[Machine, tuple[str, ...]]:
    """A machine booted as the entry wants it, and notes on what it does not get.

    Raises KvmscopeError for what cannot be loaded or booted.
    """
    from kvmscope.vmm.machine import Machine

    image, config, notes = _configured(job)
    return Machine(config, image, history_limit=history), notes


def entry_program(job: Job) -> tuple[Reproducer, tuple[str, ...]]:
    """The same machine for somebody who debugs it: an image and its configuration, and the notes.

    Raises KvmscopeError for what cannot be loaded.
    """
    from kvmscope.reproducer.images import image_reproducer

    image, config, notes = _configured(job)
    # A command may take its time: somebody watches it, who can stop it.
    budget = replace(config.budget, seconds=_FOREVER, events=_EVENTS)
    return image_reproducer(job.image, config.with_(budget=budget), image), notes


def _configured(job: Job) -> tuple[Image, MachineConfig, tuple[str, ...]]:
    from kvmscope.asm.loading import load_image
    from kvmscope.suite.qemu_params import machine_params
    from kvmscope.vmm.boot.prepare import MAX_MEMORY
    from kvmscope.vmm.config import DEVICES, Budget, MachineConfig, Mode

    loaded = load_image(job.image)
    params = machine_params(job.entry, maximum=MAX_MEMORY, accepts=_refusal, devices=DEVICES)
    config = MachineConfig(
        mode=Mode.MULTIBOOT,
        cpu=f"{params.cpu},{job.cpu}" if job.cpu else params.cpu,
        memory=params.memory,
        smp=params.smp,
        devices=params.devices,
        args=_arguments(params),
        budget=Budget(instructions=job.instructions, seconds=job.wall, output=_OUTPUT, events=10_000),
    )
    return loaded.image, config, (*job.entry.notes, *params.notes)


def _arguments(params: MachineParams) -> tuple[str, ...]:
    """The guest's arguments.  Its library splits its command line at blanks and knows no quotes."""
    return tuple((params.append or "").split())


def _refusal(cpu: str) -> str:
    """Why our machine cannot have this processor; empty when it can."""
    from kvmscope.x86.profiles import resolve

    try:
        resolve(cpu)
    except KvmscopeError as error:
        return error.title if error.title.startswith("Unknown") else error.detail or error.title
    return ""


def _judged(job: Job, machine: Machine, stop: Stop, notes: tuple[str, ...], seconds: float) -> Outcome:
    from kvmscope.vmm.engine import StopReason

    word, reason, status = _verdict(job, stop)
    output = machine.serial
    return Outcome(
        name=job.entry.name,
        word=word,
        reason=reason,
        status=status,
        stop=f"{stop.reason.value}{f': {stop.detail}' if stop.detail else ''}",
        output=output,
        instructions=machine.tick,
        seconds=seconds,
        notes=notes,
        details=_details(machine, stop) if word.bad and stop.reason is not StopReason.DEBUG_EXIT else (),
        lines=report_lines(output),
    )


def _verdict(job: Job, stop: Stop) -> tuple[Word, str, int | None]:
    from kvmscope.vmm.engine import StopReason

    if stop.reason is StopReason.DEBUG_EXIT:
        status = process_status(stop.code or 0)
        word, reason = word_of(status, job.entry.duration)
        return word, reason, status
    if stop.reason is StopReason.BUDGET:
        if stop.detail.startswith("wall"):
            return *word_of(TIMED_OUT, _duration(job)), TIMED_OUT
        return Word.FAIL, f"out of budget: {stop.detail}", TIMED_OUT
    if stop.reason is StopReason.ERROR:
        return Word.ERROR, f"the engine failed: {stop.detail}", None
    if stop.reason is StopReason.UNSUPPORTED:
        return Word.FAIL, f"the engine cannot do this exactly: {stop.detail}", 1
    # QEMU ends without the debug-exit device (a triple fault under --no-reboot), or would wait for its time-out (HLT).
    ends = {StopReason.HLT: "halted with nothing to wake it", StopReason.TRIPLE_FAULT: "triple fault"}
    other = f"{stop.reason.value}: {stop.detail}" if stop.detail else stop.reason.value
    return Word.FAIL, ends.get(stop.reason, other), 1


def _duration(job: Job) -> str:
    """The limit as the row tells it: as written, when it was not scaled."""
    return job.entry.duration if job.seconds == job.entry.timeout else f"{job.seconds:g}s"


def _details(machine: Machine, stop: Stop) -> tuple[str, ...]:
    """Where it stands and, for an end of the machine's own, why."""
    from kvmscope.vmm.engine import StopReason

    rip = machine.cpu.pc
    symbol = machine.image.symbol_at(rip)
    where = f" <{symbol[0]}+{symbol[1]:#x}>" if symbol else ""
    lines = [
        f"stopped at {rip:#x}{where} after {machine.tick} instructions: {stop.reason.value} {stop.detail}".rstrip()
    ]
    if stop.reason in (StopReason.TRIPLE_FAULT, StopReason.EXCEPTION):
        from kvmscope.debug.explain import explain

        told = explain(stop, machine.snapshot(), machine.image)
        if told is not None:
            lines += [told.title, *(f"    {line}" for line in told.lines)]
    return tuple(lines)
