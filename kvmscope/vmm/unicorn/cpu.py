"""The processor: Unicorn's registers, what Unicorn does not keep, guest memory, and who is told what happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.clock import TSC_RATIO
from kvmscope.vmm.engine import Activity, Stop
from kvmscope.vmm.events import ControlRegisterEvent, ModeEvent
from kvmscope.vmm.unicorn import x87
from kvmscope.vmm.unicorn.breakpoints import DebugRegisters
from kvmscope.vmm.unicorn.checks import segments_to_check
from kvmscope.vmm.unicorn.env import CR, EFLAGS, EIP, FLAG, HF, HFLAGS, M64, Env, decode
from kvmscope.vmm.unicorn.probe import COUNTER, LIMIT, NOWHERE
from kvmscope.vmm.unicorn.routes import Routes
from kvmscope.x86.state import CpuState

if TYPE_CHECKING:
    from kvmscope.vmm.engine import EngineHost
    from kvmscope.vmm.unicorn.memory import Memory
    from kvmscope.vmm.unicorn.model import Model
    from kvmscope.vmm.unicorn.native import Native
    from kvmscope.vmm.unicorn.probe import Probe

__all__ = ["Captured", "Cpu", "Own"]

_IA32_PKRS: Final = 0x6E1
_PKS: Final = 1 << 24
DR6_INIT: Final = 0xFFFF0FF0
DR7_INIT: Final = 0x400

Captured = tuple[bytes, int, tuple[int, ...], int, bool, int, Mapping[int, int]]
"""The arguments of `kvmscope.vmm.unicorn.env.decode`: a state kept cheaply, decoded when somebody looks."""


@dataclass(slots=True)
class Own:
    """What Python keeps of a vCPU while it is parked; the attributes of `Cpu` of the same names while it runs."""

    dr: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0, 0, DR6_INIT, DR7_INIT])
    tsc_offset: int = 0
    msrs: dict[int, int] = field(default_factory=dict)
    msrs_shared: bool = False
    activity: Activity = Activity.ACTIVE
    shadow_kind: int = 0
    cr2: int = 0
    previous: int = NOWHERE
    nmi_blocked: bool = False
    resuming: bool = False


class Cpu:
    """The logical processor that runs.

    Registers that Unicorn keeps wrongly or not at all live here: DR0-7 (Unicorn's own are inert), the MSRs without an
    effect on execution, and EFER as the guest sees it.  CR8 is the local APIC's.
    """

    def __init__(
        self, native: Native, env: Env, memory: Memory, host: EngineHost, model: Model, probe: Probe, vcpu: int = 0
    ) -> None:
        self.native = native
        self.env = env
        self.memory = memory
        self.host = host
        self.model = model
        self.probe = probe
        self.vcpu = vcpu
        self.base = 0
        """Ticks before the slice that runs."""
        self.dr = [0, 0, 0, 0, 0, 0, DR6_INIT, DR7_INIT]
        self.tsc_offset = 0
        self.msrs: dict[int, int] = {}
        self._msrs_shared = False
        self.activity = Activity.ACTIVE
        self.shadow_kind = 0
        self.cr2 = 0
        """CR2 as the guest sees it; Unicorn writes its own also for faults that are not the guest's."""
        self.previous = NOWHERE
        """Linear address of the last instruction that executed before this slice."""
        self.nmi_blocked = False
        """An NMI was delivered and IRET has not been executed since."""
        self.turn_over: Callable[[], None] = lambda: None
        """To be called when the vCPU has nothing better to do (PAUSE)."""
        self.pending: Stop | None = None
        self.policy = (0, False, False)
        """The `memory_policy` that translated code follows."""
        self._rf_clock = -1
        """Clock at which RF was set: it is gone as soon as the next instruction completes."""
        self.debug_changed = True
        """DR0-3, DR7 or CR4.DE changed: breakpoints must be armed anew."""
        self.debug = DebugRegisters(self)
        self.routes = Routes(self)
        memory.supervisor_keys = lambda: self.msrs.get(_IA32_PKRS, 0)

    @property
    def clock(self) -> int:
        """Instruction starts since boot."""
        return self.base + self.probe.fields[COUNTER]

    @property
    def tsc(self) -> int:
        """The time-stamp counter: four counts a nanosecond of guest time, plus what WRMSR added."""
        return self.host.now() * TSC_RATIO + self.tsc_offset & M64

    @tsc.setter
    def tsc(self, value: int) -> None:
        self.tsc_offset = value - self.host.now() * TSC_RATIO
        self.host.tsc_written(self.vcpu)

    @property
    def cr8(self) -> int:
        """CR8, which is the local APIC's task priority."""
        return self.host.get_cr8(self.vcpu)

    @property
    def rip(self) -> int:
        """Offset of the current instruction."""
        return self.env.q[EIP]

    def stop(self, stop: Stop) -> None:
        """End the run at the next instruction boundary; the first request wins."""
        if self.pending is None:
            self.pending = stop
        self.break_slice()

    def break_slice(self) -> None:
        """Come back to Python before the next instruction; the run goes on after that."""
        fields = self.probe.fields
        if fields[LIMIT] > fields[COUNTER]:
            fields[LIMIT] = fields[COUNTER]

    def count_start(self) -> None:
        """Count an instruction start that Unicorn's hooks did not see (its fetch faulted)."""
        self.probe.fields[COUNTER] += 1

    # what the guest sees

    @property
    def shadow(self) -> int:
        """Interrupt shadow: 0 none, 1 by STI, 2 by MOV SS."""
        return (self.shadow_kind or 1) if self.env.d[HFLAGS] & HF.INHIBIT else 0

    def set_msr(self, index: int, value: int) -> None:
        """Write an MSR that is kept here (captured states share the mapping until it changes)."""
        if self._msrs_shared:
            self.msrs = dict(self.msrs)
            self._msrs_shared = False
        self.msrs[index] = value

    def replace_msrs(self, msrs: Mapping[int, int]) -> None:
        """Take over a whole mapping."""
        self.msrs = dict(msrs)
        self._msrs_shared = False

    def park(self, own: Own) -> None:
        """Put what Python keeps into ``own``."""
        own.dr, own.tsc_offset, own.msrs, own.msrs_shared = self.dr, self.tsc_offset, self.msrs, self._msrs_shared
        own.activity, own.shadow_kind, own.cr2 = self.activity, self.shadow_kind, self.cr2
        own.previous, own.nmi_blocked, own.resuming = self.previous, self.nmi_blocked, self._rf_clock == self.clock

    def unpark(self, own: Own) -> None:
        """Take it from there; only between two slices."""
        self.dr, self.tsc_offset, self.msrs, self._msrs_shared = own.dr, own.tsc_offset, own.msrs, own.msrs_shared
        self.activity, self.shadow_kind, self.cr2 = own.activity, own.shadow_kind, own.cr2
        self.previous, self.nmi_blocked = own.previous, own.nmi_blocked
        self.note_rf(own.resuming)

    def capture(self, started: int = 0) -> Captured:
        """The state now, undecoded; ``started`` as for `flags`."""
        self._msrs_shared = True
        env = self.env
        return (
            env.raw(),
            self.flags(started),
            tuple(self.dr),
            self.cr8,
            self.activity is Activity.HALTED,
            self.shadow,
            self.msrs,
        )

    def state(self) -> CpuState:
        """The state now."""
        return decode(*self.capture())

    # events

    def note_register(self, name: str, old: int, new: int) -> None:
        """Record a write to a control or debug register."""
        self.host.record(ControlRegisterEvent(self.clock, self.rip, self.vcpu, name, old, new))

    def note_mode(self, before: tuple[int, int], rip: int) -> None:
        """Record a change of (code size, CPL), if there was one since ``before``; ``rip`` did it."""
        now = self.mode
        if self.memory_policy != self.policy:
            self.break_slice()
        if now == before:
            return
        if now[0] != before[0]:
            self.host.record(ModeEvent(self.clock, rip, self.vcpu, f"{before[0]} -> {now[0]}"))
        if now[1] != before[1]:
            self.host.record(ModeEvent(self.clock, rip, self.vcpu, f"CPL {before[1]} -> {now[1]}"))

    @property
    def mode(self) -> tuple[int, int]:
        """Code size in bits and CPL."""
        h = self.env.d[HFLAGS]
        return 64 if h & HF.CS64 else 32 if h & HF.CS32 else 16, h & 3

    @property
    def trap_flag(self) -> bool:
        """RFLAGS.TF."""
        return bool(self.env.q[EFLAGS] & FLAG.TF)

    def flags(self, started: int = 0) -> int:
        """RFLAGS with RF; ``started`` is 1 while an instruction that was counted has not completed."""
        value = self.env.flags()
        return value | FLAG.RF if self._rf_clock == self.clock - started else value

    def load_flags(self, value: int) -> None:
        """Write RFLAGS as IRET does; RF lasts for one instruction.

        Unicorn clears RF only at the end of some blocks, so it never learns of it.
        """
        self.env.set_flags(value & ~FLAG.RF)
        self._rf_clock = self.clock if value & FLAG.RF else -1

    @property
    def memory_policy(self) -> tuple[int, bool, bool]:
        """Segments whose accesses need checks (`checks.segments_to_check`), CR0.AM, unmasked x87 exceptions."""
        env = self.env
        plain = env.d[HFLAGS] & HF.CS64 and not env.q[CR + 4] & _PKS
        return 0 if plain else segments_to_check(self), bool(env.q[CR] & 1 << 18), x87.unmasked(self)

    @property
    def ports_allowed(self) -> bool:
        """IN and OUT need no look at the TSS: real mode, or CPL <= IOPL outside of virtual-8086 mode."""
        flags = self.env.q[EFLAGS]
        if not self.env.q[CR] & 1:
            return True
        return not flags & FLAG.VM and self.env.cpl <= flags >> 12 & 3

    def note_rf(self, value: bool) -> None:
        """RF as it is now, between two instructions."""
        self._rf_clock = self.clock if value else -1

    @property
    def resuming(self) -> bool:
        """RF is set for the instruction that has just started."""
        return self._rf_clock == self.clock - 1
