"""What a vCPU does about its pins between two instructions: INIT, start-up, NMI, interrupts (SDM vol. 3A table 7-2).

An interrupt that must wait for RFLAGS.IF costs the guest nothing: Unicorn looks by itself whenever the flag may have
changed, and reports an SVM exit at the boundary where the interrupt can be taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.engine import Activity, Stop, StopReason
from kvmscope.vmm.unicorn.breakpoints import is_repeating_from
from kvmscope.vmm.unicorn.capture import load_state
from kvmscope.vmm.unicorn.completion import guarded
from kvmscope.vmm.unicorn.delivery import NMI, deliver
from kvmscope.vmm.unicorn.env import EFLAGS, FLAG
from kvmscope.x86.reset import init_state, reset_state, startup_state

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["drop_startup", "take_signals", "wait_for_window"]

_HARD: Final = 2
"""CPU_INTERRUPT_HARD of Unicorn's ``interrupt_request``."""
_NESTING: Final = 256
"""Events that one instruction boundary may deliver: more come only from a line that nothing ends."""


def take_signals(cpu: Cpu) -> bool:
    """Act on what waits for the vCPU; True if one more instruction decides (an interrupt shadow holds something off).

    Only between two slices.
    """
    signals = cpu.host.signals(cpu.vcpu)
    env = cpu.env
    env.interrupt_request.value = 0
    if signals.reset:
        signals.reset = signals.init = False
        load_state(cpu, reset_state(cpu.model.profile.version))
        cpu.host.initialized(cpu.vcpu, power=True)
        cpu.activity = Activity.WAIT_FOR_SIPI
    elif signals.init:
        signals.init = False
        _init(cpu)
    if cpu.activity is Activity.WAIT_FOR_SIPI:
        if signals.startup is not None:
            cs, ip = signals.startup
            signals.startup = None
            load_state(cpu, startup_state(cpu.state(), cs, ip))
            cpu.activity = Activity.ACTIVE
        return False
    for _ in range(_NESTING):
        # What is delivered may leave the next thing deliverable (an NMI through a trap gate).
        if cpu.pending is not None and cpu.pending.reason.final:
            return False
        if signals.nmi and not cpu.nmi_blocked:
            if cpu.shadow:
                return True
            signals.nmi = False
            cpu.nmi_blocked = True
            _deliver(cpu, NMI)
            continue
        if not signals.interrupt:
            return False
        if not env.q[EFLAGS] & FLAG.IF:
            env.interrupt_request.value = _HARD
            return False
        if cpu.shadow:
            return True
        vector = cpu.host.acknowledge(cpu.vcpu)
        if vector is not None:
            _deliver(cpu, vector)
    cpu.stop(Stop(StopReason.UNSUPPORTED, cpu.clock, f"{_NESTING} interrupts in a row without an instruction between"))
    return False


def drop_startup(cpu: Cpu, vcpu: int, activity: Activity) -> None:
    """From a callback: a start-up IPI counts only where it finds a processor that waits for it, or is about to."""
    signals = cpu.host.signals(vcpu)
    if activity is not Activity.WAIT_FOR_SIPI and not signals.init and not signals.reset:
        signals.startup = None


def wait_for_window(cpu: Cpu) -> bool:
    """From a callback: if all that waits is an interrupt that RFLAGS.IF holds off, have Unicorn look for the window."""
    signals = cpu.host.signals(cpu.vcpu)
    if signals.nmi or signals.init or signals.reset or not signals.interrupt or cpu.env.q[EFLAGS] & FLAG.IF:
        return False
    cpu.env.interrupt_request.value = _HARD
    return True


def _deliver(cpu: Cpu, vector: int) -> None:
    resume = is_repeating_from(cpu, cpu.env.linear_ip, cpu.previous)
    guarded(cpu, lambda: deliver(cpu, vector, external=True, trap=True, resume=resume))


def _init(cpu: Cpu) -> None:
    """INIT (SDM vol. 3A table 10-1): the application processors wait for a start-up IPI, the first starts over.

    An NMI that was pending is gone; one that comes while the processor waits is held until it has started.
    """
    cpu.host.signals(cpu.vcpu).nmi = False
    load_state(cpu, init_state(cpu.state(), cpu.model.profile.version))
    cpu.host.initialized(cpu.vcpu)
    if cpu.vcpu:
        cpu.activity = Activity.WAIT_FOR_SIPI
    else:
        cpu.stop(Stop(StopReason.RESET, cpu.clock, "INIT at the bootstrap processor: the machine would start over"))
