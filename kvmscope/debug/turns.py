"""Several vCPUs by turns: which ticks are one vCPU's own, looking back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.engine import Activity

if TYPE_CHECKING:
    from kvmscope.debug.machine import DebuggedMachine
    from kvmscope.vmm.snapshot import VcpuView

__all__ = ["last_turn"]

_FIRST_WINDOW: Final = 64
_GROWTH: Final = 8


def last_turn(machine: DebuggedMachine, end: int) -> int | None:
    """The last tick before ``end`` whose instruction is the selected vCPU's; None when it has executed none.

    The machine stands somewhere else afterwards; breakpoints are not set.
    """
    vcpu = machine.vcpu
    machine.set_breakpoints(())
    now = _view(machine)
    window = _FIRST_WINDOW
    while end > 0:
        start = max(0, end - window)
        machine.goto(start)
        then = _view(machine)
        # One that waits all the while needs no search: history may be long.
        if not (_waits(now) and _waits(then) and now.cpu == then.cpu):
            last: int | None = None
            while machine.tick < end:
                tick = machine.tick
                if machine.turn == vcpu:
                    last = tick
                machine.run(1)
                if machine.tick == tick:
                    break
            machine.select(vcpu)
            if last is not None:
                return last
        now, end, window = then, start, window * _GROWTH
    return None


def _view(machine: DebuggedMachine) -> VcpuView:
    return machine.snapshot().vcpus[machine.vcpu]


def _waits(vcpu: VcpuView) -> bool:
    return vcpu.frozen or vcpu.activity is not Activity.ACTIVE
