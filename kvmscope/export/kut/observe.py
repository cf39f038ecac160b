"""What the reproducer does here: the state it starts from, the events of its run, how it ends.

An exporter needs to know which OUT is the debug exit, which faults are raised and which selectors are used; the program
text alone does not say.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvmscope.asm.image import Image, Severity
from kvmscope.errors import ExportError
from kvmscope.reproducer import Overrides, Reproducer, run
from kvmscope.reproducer.assembling import assemble_reproducer
from kvmscope.vmm.engine import Stop, StopReason
from kvmscope.vmm.events import Event, ExceptionEvent
from kvmscope.vmm.machine import Machine
from kvmscope.x86.profiles import PROFILES, resolve
from kvmscope.x86.state import CpuState

__all__ = ["Observed", "observe", "vendor_decides"]

_SLICE = 1_000_000


@dataclass(frozen=True, slots=True)
class Observed:
    """One run on the embedded engine."""

    image: Image
    initial: CpuState
    final: CpuState
    stop: Stop
    events: tuple[Event, ...]

    @property
    def exceptions(self) -> list[ExceptionEvent]:
        """Exceptions and interrupts, in order."""
        return [event for event in self.events if isinstance(event, ExceptionEvent)]


def observe(reproducer: Reproducer) -> Observed:
    """Assemble and run.  Raises ExportError when it does not assemble or boot."""
    assembly = assemble_reproducer(reproducer, cross_check=False)
    if assembly.image is None:
        errors = [d for d in assembly.diagnostics if d.severity is Severity.ERROR]
        detail = "\n".join(f"{reproducer.filename}:{d.line}:{d.column}: {d.message}" for d in errors[:10])
        raise ExportError(f"{reproducer.filename} does not assemble", detail)
    machine = Machine(reproducer.config, assembly.image)
    try:
        initial = machine.snapshot().cpu
        stop = machine.run(_SLICE)
        while stop.reason is StopReason.SLICE:
            stop = machine.run(_SLICE)
        snapshot = machine.snapshot()
        return Observed(assembly.image, initial, snapshot.cpu, stop, tuple(snapshot.events))
    finally:
        machine.close()


def vendor_decides(reproducer: Reproducer) -> bool:
    """True when the header names a CPU and the expectations do not hold on the other vendor's."""
    if "cpu" not in reproducer.lines:
        return False
    own = run(reproducer).verdict
    return any(
        run(reproducer, overrides=Overrides(cpu=name)).verdict is not own
        for name, profile in PROFILES.items()
        if profile.vendor is not resolve(reproducer.config.cpu).vendor
    )
