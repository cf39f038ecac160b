"""Several processors on one Unicorn: their states are swapped in place, and each has its turn.

A turn ends after a quantum of ticks, at HLT and PAUSE, and when another vCPU gets a signal; the next turn is that of the
next one in order that can run.  All of this follows from the guest's history, so runs repeat exactly.  Instructions are
never torn: what one vCPU does is atomic to the others (SDM vol. 3A section 9.1 asks for less).
"""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.engine import Activity
from kvmscope.vmm.unicorn.capture import decode_vcpu, pack_vcpu, restore_vcpu, split_vcpus
from kvmscope.vmm.unicorn.cpu import Own
from kvmscope.vmm.unicorn.env import EFLAGS, FLAG, RAW_SIZE

if TYPE_CHECKING:
    from kvmscope.vmm.engine import EngineHost
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.x86.state import CpuState

__all__ = ["Vcpus"]

_HEAD: Final = struct.Struct("<HHQQ")
"""Number of vCPUs, the one whose turn it is, tick at which its turn ends, mask of the frozen ones."""


class Vcpus:
    """Who runs, who waits: `Cpu` holds the one that runs, the others are parked here."""

    def __init__(self, cpu: Cpu, host: EngineHost, count: int, quantum: int) -> None:
        self._cpu = cpu
        self._host = host
        self.count = count
        self._quantum = quantum
        self.frozen = 0
        """Mask of vCPUs that get no turn."""
        self.turn_ends = quantum
        """Tick at which the turn of the one that runs is over."""
        self._buffers = [(ctypes.c_char * RAW_SIZE)() for _ in range(count)]
        self._addresses = [ctypes.addressof(buffer) for buffer in self._buffers]
        self._words = [memoryview(buffer).cast("B").cast("Q") for buffer in self._buffers]
        self._own = [Own() for _ in range(count)]
        self._pins = [host.signals(vcpu) for vcpu in range(count)]
        for address in self._addresses:
            cpu.env.copy_out(address)

    # turns

    def end_turn(self) -> None:
        """The one that runs lets the next one run."""
        if self.count > 1:
            self.turn_ends = self._cpu.clock
            self._cpu.break_slice()

    def yield_turn(self) -> None:
        """The one that runs has nothing better to do: the next one runs, or time passes if there is none that can."""
        current = self._cpu.vcpu
        for vcpu, own in enumerate(self._own):
            # Quickly: guests spin a lot, most others wait without a signal.
            if vcpu == current or (own.activity is not Activity.ACTIVE and not self._pins[vcpu].any):
                continue
            if self.ready(vcpu):
                self.end_turn()
                return
        self._host.spin()

    def schedule(self) -> bool:
        """Give the turn to whoever it belongs to; False when nobody can run."""
        cpu = self._cpu
        current = cpu.vcpu
        if cpu.debug.hits:
            # A #DB that MOV SS has put off: nobody else gets between.
            return True
        if (self.count == 1 or cpu.base < self.turn_ends) and self.ready(current):
            return True
        for i in range(1, self.count + 1):
            candidate = (current + i) % self.count
            if self.ready(candidate):
                self.select(candidate)
                self.turn_ends = cpu.base + self._quantum
                return True
        return False

    def ready(self, vcpu: int) -> bool:
        """Whether it can execute an instruction or take a signal now."""
        if self.frozen >> vcpu & 1:
            return False
        activity = self.activity(vcpu)
        if activity is Activity.ACTIVE:
            return True
        cpu, signals = self._cpu, self._pins[vcpu]
        if signals.reset:
            return True
        if activity is Activity.WAIT_FOR_SIPI:
            return signals.startup is not None
        current = vcpu == cpu.vcpu
        if signals.init or (signals.nmi and not (cpu if current else self._own[vcpu]).nmi_blocked):
            return True
        return signals.interrupt and self._interruptible(vcpu)

    def wakeable(self) -> bool:
        """Whether a timer could wake anybody: one that is halted with RFLAGS.IF set, or all after power was cut (S3).

        (A timer wired to NMI could too; nobody halts for good to wait for that.)
        """
        halted = [v for v in range(self.count) if self.activity(v) is Activity.HALTED and not self.frozen >> v & 1]
        return any(self._interruptible(v) for v in halted) if halted else not self.frozen

    def _interruptible(self, vcpu: int) -> bool:
        flags = self._cpu.env.q if vcpu == self._cpu.vcpu else self._words[vcpu]
        return bool(flags[EFLAGS] & FLAG.IF)

    def activity(self, vcpu: int) -> Activity:
        """What a vCPU does."""
        return self._cpu.activity if vcpu == self._cpu.vcpu else self._own[vcpu].activity

    def tsc_offset(self, vcpu: int) -> int:
        """What WRMSR has added to a vCPU's TSC."""
        return self._cpu.tsc_offset if vcpu == self._cpu.vcpu else self._own[vcpu].tsc_offset

    def select(self, vcpu: int) -> None:
        """Let `Cpu` hold this one; only between two slices."""
        cpu = self._cpu
        old = cpu.vcpu
        if vcpu == old:
            return
        env = cpu.env
        # Parked flags are not lazy: nobody can compute them later.
        env.set_flags(env.flags())
        cpu.park(self._own[old])
        env.copy_out(self._addresses[old])
        env.copy_in(self._addresses[vcpu])
        cpu.vcpu = vcpu
        cpu.unpark(self._own[vcpu])
        if (self._own[old].dr[7] | cpu.dr[7]) & 0xFF:
            cpu.debug_changed = True
        env.flush_tlb()

    # states

    def state(self, vcpu: int) -> CpuState:
        """Registers of any vCPU."""
        return self._cpu.state() if vcpu == self._cpu.vcpu else decode_vcpu(self._pack(vcpu))

    def _pack(self, vcpu: int) -> bytes:
        cpu, own = self._cpu, self._own[vcpu]
        cr8 = self._host.get_cr8(vcpu)
        if vcpu == cpu.vcpu:
            cpu.park(own)
            return pack_vcpu(own, cpu.flags(), cr8, cpu.env.raw())
        flags = self._words[vcpu][EFLAGS] | (FLAG.RF if own.resuming else 0)
        return pack_vcpu(own, flags, cr8, bytes(self._buffers[vcpu]))

    def capture(self) -> bytes:
        """The state of all of them."""
        head = _HEAD.pack(self.count, self._cpu.vcpu, self.turn_ends, self.frozen)
        return b"".join((head, *(self._pack(i) for i in range(self.count))))

    def restore(self, raw: bytes) -> None:
        """Put back a `capture` (the clock is the caller's).  Raises ValueError for what is none of this engine."""
        cpu = self._cpu
        count, current, turn_ends, frozen = _HEAD.unpack_from(raw)
        if count != self.count:
            raise ValueError("not a capture of this engine")
        for i, part in enumerate(split_vcpus(raw, _HEAD.size, count)):
            env = restore_vcpu(part, self._own[i])
            if i == current:
                cpu.env.set_raw(env)
            else:
                ctypes.memmove(self._addresses[i], env, RAW_SIZE)
        cpu.vcpu, self.turn_ends, self.frozen = current, turn_ends, frozen
        cpu.unpark(self._own[current])

    @staticmethod
    def decode(raw: bytes, vcpu: int | None = None) -> CpuState:
        """One vCPU of a `capture` (None: the one whose turn it was) as registers."""
        count, current, _, _ = _HEAD.unpack_from(raw)
        return decode_vcpu(split_vcpus(raw, _HEAD.size, count)[current if vcpu is None else vcpu])
