"""How an instruction that Python executes ends: completed, with an exception, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.engine import Stop, StopReason
from kvmscope.vmm.unicorn.controls import DebugFault
from kvmscope.vmm.unicorn.delivery import DB, PF, deliver
from kvmscope.vmm.unicorn.env import HF, HFLAGS
from kvmscope.vmm.unicorn.faults import Fault, Unsupported

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["BS", "complete", "guarded", "raise_fault", "settle"]

BS: Final = 1 << 14
BD: Final = 1 << 13


def complete(cpu: Cpu, trap: bool) -> None:
    """The instruction has completed: the interrupt shadow ends, and TF (``trap``) raises #DB."""
    cpu.env.d[HFLAGS] &= ~HF.INHIBIT
    if trap:
        deliver(cpu, DB, dr6=BS | cpu.debug.take(), trap=True)


def raise_fault(cpu: Cpu, fault: Fault) -> None:
    """Deliver ``fault`` at the current instruction."""
    deliver(cpu, fault.vector, fault.error_code, fault.address if fault.vector == PF else None)


def settle(cpu: Cpu, raised: Exception) -> None:
    """What an instruction has raised: deliver it, or end the run where it was refused."""
    try:
        if isinstance(raised, Fault):
            raise_fault(cpu, raised)
        elif isinstance(raised, DebugFault):
            deliver(cpu, DB, dr6=BD)
        else:
            raise raised
    except Unsupported as reason:
        cpu.stop(Stop(StopReason.UNSUPPORTED, cpu.clock, str(reason)))


def guarded(cpu: Cpu, action: Callable[[], None]) -> bool:
    """Run ``action``; True if it ended in an exception (delivered by now) or was refused (the run ends)."""
    try:
        action()
    except (Fault, DebugFault, Unsupported) as raised:
        settle(cpu, raised)
        return True
    return False
