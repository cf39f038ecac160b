"""`UnicornEngine`: the Engine contract on Unicorn.

Time is exact because only one thing ends a run: the probe at an instruction start (see `probe`).  ``emu_stop`` from
hooks or threads and ``timeout=`` leave Unicorn in mid-instruction and are not used.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.clock import TSC_RATIO
from kvmscope.vmm.engine import QUANTUM, Activity, Capability, Stop, StopReason
from kvmscope.vmm.unicorn import capture, layout
from kvmscope.vmm.unicorn.cpu import Cpu
from kvmscope.vmm.unicorn.env import EIP, HF, HFLAGS, IS_INT, M64, OLD_EXCEPTION, Env
from kvmscope.vmm.unicorn.events import EventHooks
from kvmscope.vmm.unicorn.layout import ENV
from kvmscope.vmm.unicorn.memory import PHYSICAL_BITS, Memory
from kvmscope.vmm.unicorn.model import Model
from kvmscope.vmm.unicorn.native import (
    IN,
    OUT,
    UC_ERR_FETCH_PROT,
    UC_ERR_FETCH_UNMAPPED,
    UC_ERR_OK,
    UC_ERR_WRITE_PROT,
    HookKind,
    Native,
)
from kvmscope.vmm.unicorn.probe import COUNTER, LAST, LIMIT, PREVIOUS, Probe
from kvmscope.vmm.unicorn.signals import drop_startup, take_signals, wait_for_window
from kvmscope.vmm.unicorn.stores import Stores
from kvmscope.vmm.unicorn.traps import Traps
from kvmscope.vmm.unicorn.vcpus import Vcpus
from kvmscope.x86.profiles import INTEL
from kvmscope.x86.state import CpuState, Seg

if TYPE_CHECKING:
    from kvmscope.vmm.engine import EngineHost
    from kvmscope.x86.profiles import Profile

__all__ = ["UnicornEngine"]

_SCRATCH: Final = 1 << PHYSICAL_BITS + 1
"""Physical address of the engine's own page, out of reach of the guest: it holds the fake VMCB and MSR bitmap."""
_READ: Final = 1
_EXECUTE: Final = 4
_SCRATCH_SIZE: Final = 0x4000
_MSR_BITMAP: Final = 0x1000
_START_CODE: Final = 0x3000

TLB_GRID: Final = 1 << 16
"""Ticks between flushes of the software TLB.  A stale entry is hidden state: flushing at the same ticks in every run
makes a guest that misses an INVLPG replay alike."""

_IDLE_LIMIT: Final = 10_000
"""Deadlines that may pass without waking anybody before the machine counts as halted for good."""


class UnicornEngine:
    """The processors; see `kvmscope.vmm.engine.Engine`.

    ``ram`` is guest memory from physical address 0, owned by the caller and shared with Unicorn; every other physical
    address is device space and goes to ``host``; but the bytes of ``rom`` can be executed at its address.
    """

    name = "unicorn"

    def __init__(
        self,
        ram: mmap.mmap,
        host: EngineHost,
        profile: Profile = INTEL,
        *,
        vcpus: int = 1,
        quantum: int = QUANTUM,
        rom: tuple[int, bytes] | None = None,
        python_probe: bool = False,
    ) -> None:
        layout.check_version()
        from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
        from unicorn.x86_const import UC_CPU_X86_ICELAKE_SERVER, UC_X86_INS_IN, UC_X86_INS_OUT

        uc = Uc(UC_ARCH_X86, UC_MODE_64, UC_CPU_X86_ICELAKE_SERVER)
        layout.check(uc)
        self._native = native = Native(uc)
        self._host = host
        self._env = env = Env(native)
        self._memory = memory = Memory(ram, env, host)
        native.map_ram(0, memory.size, memory.address)
        self._scratch = mmap.mmap(-1, _SCRATCH_SIZE)
        self._scratch_anchor = ctypes.c_char.from_buffer(self._scratch)
        native.map_ram(_SCRATCH, _SCRATCH_SIZE, ctypes.addressof(self._scratch_anchor))
        self._rom: mmap.mmap | None = None
        self._map_devices(rom)
        uc.ctl_exits_enabled(True)
        model = Model(profile, vcpus)
        self._first_block(native)
        model.install(env)

        self._traps = Traps()
        self._probe = probe = Probe(native, self._traps.on_start, force_python=python_probe)
        self.cpu = cpu = Cpu(native, env, memory, host, model, probe)
        self._stores = Stores(probe, env, memory)
        memory.has_code = self._stores.has_code
        self._traps.attach(cpu)
        memory.code_written = self._invalidate
        self._events = EventHooks(cpu)
        self._events.install(native)
        native.hook(HookKind.INSN, IN, self._port_read, instruction=UC_X86_INS_IN, default=0)
        native.hook(HookKind.INSN, OUT, self._port_write, instruction=UC_X86_INS_OUT)
        self.vcpus = vcpus
        self._intercept()
        self._vcpus = Vcpus(cpu, host, vcpus, quantum)
        cpu.turn_over = self._vcpus.yield_turn
        self._closed = False

    def _map_devices(self, rom: tuple[int, bytes] | None) -> None:
        """Device space from the end of RAM on, around the ROM."""
        native, first = self._native, self._memory.size
        if rom is not None:
            address, data = rom
            self._rom = mmap.mmap(-1, len(data))
            self._rom[:] = data
            self._rom_anchor = ctypes.c_char.from_buffer(self._rom)
            native.map_device(first, address - first, *self._device(first))
            native.map_ram(address, len(data), ctypes.addressof(self._rom_anchor), rights=_READ | _EXECUTE)
            first = address + len(data)
        native.map_device(first, (1 << PHYSICAL_BITS) - first, *self._device(first))

    def _device(self, base: int) -> tuple[Callable[[int, int], int], Callable[[int, int, int], None]]:
        host, q = self._host, self._env.q
        return (
            lambda offset, size: host.mmio_read(base + offset, size, q[EIP]),
            lambda offset, size, value: host.mmio_write(base + offset, size, value, q[EIP]),
        )

    def _first_block(self, native: Native) -> None:
        """Run a block of our own to its end: Unicorn reports new blocks only after its first.

        The block must end in a jump; HLT leaves from its middle.
        """
        self._scratch[_START_CODE : _START_CODE + 3] = b"\xeb\x00\xf4"
        native.start(_SCRATCH + _START_CODE)
        self._env.halted.value = 0

    def _intercept(self) -> None:
        """Make sensitive instructions reach the interrupt hook as SVM exits (0x100 + code); no VMRUN is involved."""
        env = self._env
        self._scratch[_MSR_BITMAP : _MSR_BITMAP + 0x2000] = b"\xff" * 0x2000
        self._scratch[0x48:0x50] = (_SCRATCH + _MSR_BITMAP).to_bytes(8, "little")
        env.q[ENV["vm_vmcb"] // 8] = _SCRATCH
        env.q[ENV["intercept"] // 8] = sum(1 << code - 0x60 for code in self._events.intercepts if code >= 0x60)
        for name, base in (
            ("intercept_cr_read", 0x00),
            ("intercept_cr_write", 0x10),
            ("intercept_dr_read", 0x20),
            ("intercept_dr_write", 0x30),
        ):
            codes = [code - base for code in self._events.intercepts if base <= code < base + 16]
            env.w[ENV[name] // 2] = sum(1 << code for code in codes)
        env.d[HFLAGS] |= HF.GUEST

    # contract

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All of them."""
        return frozenset(Capability)

    @property
    def clock(self) -> int:
        """Instruction starts since boot."""
        return self.cpu.clock

    @property
    def vcpu(self) -> int:
        """The vCPU that runs, or that ran last."""
        return self.cpu.vcpu

    def get_state(self, vcpu: int | None = None) -> CpuState:
        """A vCPU's registers."""
        return self.cpu.state() if vcpu is None else self._vcpus.state(vcpu)

    def set_state(self, state: CpuState, vcpu: int | None = None) -> None:
        """Load all registers of a vCPU; the clock goes on."""
        current = self.cpu.vcpu
        self._vcpus.select(current if vcpu is None else vcpu)
        capture.load_state(self.cpu, state)
        self._vcpus.select(current)

    def activity(self, vcpu: int) -> Activity:
        """What a vCPU does."""
        return self._vcpus.activity(vcpu)

    def set_activity(self, vcpu: int, activity: Activity) -> None:
        """Make a vCPU wait, or go on."""
        current = self.cpu.vcpu
        self._vcpus.select(vcpu)
        self.cpu.activity = activity
        self._vcpus.select(current)

    def tsc(self, vcpu: int) -> int:
        """The time-stamp counter of a vCPU."""
        return self._host.now() * TSC_RATIO + self._vcpus.tsc_offset(vcpu) & M64

    def run(self, ticks: int) -> Stop:
        """Execute ``ticks`` instruction starts, or fewer with a reason."""
        return self._run(ticks, StopReason.SLICE)

    def step(self, vcpu: int | None = None) -> Stop:
        """Execute one instruction start (of ``vcpu``, while others have their turns)."""
        if vcpu is None or self.vcpus == 1:
            return self._run(1, StopReason.STEP)
        turns = 2 * self.vcpus
        while True:
            due = self._whose_turn()
            if due is None or due == vcpu or not turns:
                return self._run(1, StopReason.STEP)
            turns -= 1
            stop = self._run(max(1, self._vcpus.turn_ends - self.cpu.base), StopReason.STEP, alone=due)
            if stop.reason is not StopReason.STEP:
                return stop

    def _whose_turn(self) -> int | None:
        """Who executes the next instruction: time and turns are brought up to here."""
        self._timers()
        return self.cpu.vcpu if self._vcpus.schedule() else None

    @property
    def frozen(self) -> frozenset[int]:
        """Those that get no turn."""
        return frozenset(vcpu for vcpu in range(self.vcpus) if self._vcpus.frozen >> vcpu & 1)

    def freeze(self, vcpus: frozenset[int]) -> None:
        """These vCPUs get no turn until further notice."""
        self._vcpus.frozen = sum(1 << vcpu for vcpu in vcpus)

    def look_again(self, vcpu: int | None = None) -> None:
        """Signals or deadlines have changed."""
        cpu = self.cpu
        if vcpu is not None and self._host.signals(vcpu).startup is not None:
            drop_startup(cpu, vcpu, self._vcpus.activity(vcpu))
        if vcpu is not None and vcpu != cpu.vcpu:
            self._vcpus.end_turn()
        elif not wait_for_window(cpu):
            cpu.break_slice()

    def due_at(self, tick: int) -> None:
        """A timer is due at ``tick``, perhaps earlier than when the slice began."""
        fields = self._probe.fields
        wanted = max(tick - self.cpu.base, fields[COUNTER])
        if fields[LIMIT] > wanted:
            fields[LIMIT] = wanted

    def _run(self, ticks: int, done: StopReason, *, alone: int | None = None) -> Stop:
        """Run for ``ticks``; with ``alone`` only while it is that vCPU's turn."""
        cpu, vcpus = self.cpu, self._vcpus
        end = cpu.base + ticks
        self._traps.resume()
        while cpu.base < end and cpu.pending is None:
            deadline = self._timers()
            if not vcpus.schedule():
                if not self._idle():
                    cpu.pending = Stop(StopReason.HLT, cpu.base, self._waiting())
                continue
            if alone is not None and cpu.vcpu != alone:
                break
            held = self._signals()
            if cpu.activity is not Activity.ACTIVE or cpu.pending is not None:
                continue
            limit = min(end, (cpu.base // TLB_GRID + 1) * TLB_GRID)
            if deadline is not None and deadline < limit:
                limit = max(deadline, cpu.base + 1)
            if self.vcpus > 1 and vcpus.turn_ends < limit:
                limit = max(vcpus.turn_ends, cpu.base + 1)
            # A hit that MOV SS has put off is due after exactly one more instruction.
            self._slice(1 if held or cpu.debug.hits else limit - cpu.base)
            if cpu.debug.hits:
                self._events.data_breakpoint()
            if not cpu.base % TLB_GRID:
                self._env.flush_tlb()
        if cpu.pending is None or not cpu.pending.reason.final:
            self._boundary()
        stop, cpu.pending = cpu.pending, None
        if stop is None:
            return Stop(done, cpu.base)
        return replace(stop, tick=cpu.base)

    def _boundary(self) -> None:
        """What is due between two instructions happens at the end of a run, not at the beginning of the next.

        (All of it may be done twice at the same tick without harm.)
        """
        self._timers()
        if self._vcpus.schedule():
            self._signals()
        elif self._host.next_deadline() is None or not self._vcpus.wakeable():
            self.cpu.pending = Stop(StopReason.HLT, self.cpu.base, self._waiting())

    def _signals(self) -> bool:
        host = self._host
        host.between = True
        try:
            return take_signals(self.cpu)
        finally:
            host.between = False

    def _timers(self) -> int | None:
        """Expire what is due; the tick of the next deadline."""
        host = self._host
        deadline = host.next_deadline()
        if deadline is not None and deadline <= self.cpu.base:
            host.run_timers()
            deadline = host.next_deadline()
        return deadline

    def _idle(self) -> bool:
        """Everybody waits: let time pass until somebody is woken; False when that will not be."""
        if not self._vcpus.wakeable():
            return False
        for _ in range(_IDLE_LIMIT):
            if not self._host.skip_idle():
                return False
            if any(self._vcpus.ready(vcpu) for vcpu in range(self.vcpus)):
                return True
        return False

    def _waiting(self) -> str:
        """Why nobody can go on, where it is not plain."""
        if self._vcpus.activity(0) is Activity.WAIT_FOR_SIPI:
            return "suspended to memory (S3), and nothing is to come that would wake it"
        if self.vcpus == 1:
            return ""
        frozen = self.frozen
        names = [f"{i} {'frozen' if i in frozen else self._vcpus.activity(i)}" for i in range(self.vcpus)]
        return "every vCPU waits: " + ", ".join(names)

    def _slice(self, ticks: int) -> None:
        cpu, probe = self.cpu, self._probe
        fields = probe.fields
        self._traps.follow_policy()
        if cpu.debug_changed:
            self._traps.arm()
        probe.forget_last()
        fields[COUNTER] = 0
        fields[LIMIT] = ticks
        # A request from another thread may have come before the limit was set.
        if cpu.pending is not None:
            return
        status = self._native.start(self._env.q[EIP])
        counted = fields[COUNTER]
        previous = fields[LAST]
        if counted > fields[LIMIT]:
            previous = fields[PREVIOUS]
            # The last start was stopped before it executed.
            counted -= 1
            fields[COUNTER] = counted
            if cpu.policy[0] & 1 << Seg.CS:
                self._events.code_limit()
        if self._env.d[HFLAGS] & HF.INHIBIT:
            self._note_shadow(fields[PREVIOUS])
        if counted:
            self._traps.started()
            cpu.previous = previous
        cpu.base += counted
        fields[COUNTER] = 0
        if status != UC_ERR_OK:
            self._failed(status)

    def _note_shadow(self, address: int) -> None:
        """Tell STI's interrupt shadow from MOV SS's by the instruction that cast it."""
        code = self._memory.peek(address, 1)
        self.cpu.shadow_kind = 1 if code == b"\xfb" else 2

    def _failed(self, status: int) -> None:
        cpu = self.cpu
        where = self._env.linear_ip
        self._env.d[OLD_EXCEPTION] = 0xFFFFFFFF
        self._env.d[IS_INT] = 0
        if status in (UC_ERR_FETCH_PROT, UC_ERR_FETCH_UNMAPPED):
            detail = f"instruction fetch from device space at linear {where:#x}"
        elif status == UC_ERR_WRITE_PROT:
            detail = f"store to ROM at linear {where:#x}"
        else:
            detail = f"Unicorn cannot go on at linear {where:#x} (error {status})"
        if cpu.pending is None:
            cpu.pending = Stop(StopReason.UNSUPPORTED, cpu.base, detail)

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """Stop before the instructions at these linear addresses."""
        self._traps.set_breakpoints(linear)

    def request_stop(self, stop: Stop) -> None:
        """End the run at the next instruction boundary; from a callback or any thread."""
        self.cpu.stop(stop)

    def capture(self) -> bytes:
        """The whole state of all processors."""
        return self._vcpus.capture()

    def decode(self, raw: bytes) -> CpuState:
        """A `capture` as registers of the vCPU whose turn it was."""
        return self._vcpus.decode(raw)

    def restore(self, raw: bytes, clock: int, dirty_pages: Iterable[int]) -> None:
        """Put back a `capture`; ``dirty_pages`` are the page numbers whose RAM was just replaced."""
        stale = sorted(self._memory.code_pages.intersection(dirty_pages))
        for page in stale:
            self._invalidate(page << 12, 0x1000)
        cpu = self.cpu
        cpu.base = clock
        self._vcpus.restore(raw)
        self._env.halted.value = 0
        self._env.flush_tlb()
        cpu.pending = None
        cpu.debug_changed = True

    def memory_written(self, physical: int, size: int) -> None:
        """The VMM changed RAM."""
        pages = range(physical >> 12, (physical + size - 1 >> 12) + 1)
        if size and not self._memory.code_pages.isdisjoint(pages):
            self._invalidate(physical, size)

    def _invalidate(self, physical: int, size: int) -> None:
        """Drop translated code of RAM [physical, physical+size).

        Unicorn takes linear addresses only, so paging is off for the moment.
        """
        env = self._env
        saved = env.raw()
        env.disable_paging()
        env.flush_tlb()
        self._native.remove_blocks(physical, physical + size)
        env.set_raw(saved)
        env.flush_tlb()
        if size >= 0x1000 and not physical & 0xFFF:
            self._memory.code_pages.difference_update(range(physical >> 12, physical + size >> 12))
            self._stores.has_none(physical >> 12, physical + size >> 12)

    def close(self) -> None:
        """Free the engine; the RAM buffer can be closed afterwards."""
        if self._closed:
            return
        self._closed = True
        self._native.close()
        self._probe.close()
        self._stores.close()
        self._memory.close()
        del self._scratch_anchor
        self._scratch.close()
        if self._rom is not None:
            del self._rom_anchor
            self._rom.close()

    # the bus

    def _port_read(self, _uc: int, port: int, size: int, _data: int) -> int:
        self.cpu.debug.on_port(port, size)
        return self._host.port_read(port, size, self._env.q[EIP]) & (1 << 8 * size) - 1

    def _port_write(self, _uc: int, port: int, size: int, value: int, _data: int) -> None:
        self.cpu.debug.on_port(port, size)
        self._host.port_write(port, size, value & (1 << 8 * size) - 1, self._env.q[EIP])
