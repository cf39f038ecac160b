"""What can be asked of a machine that stands still: registers, memory, events, what a command has changed."""

from __future__ import annotations

from dataclasses import dataclass

from kvmscope.asm.image import Image
from kvmscope.errors import UsageError
from kvmscope.vmm.board import Board
from kvmscope.vmm.config import MachineConfig
from kvmscope.vmm.engine import Engine, Stop
from kvmscope.vmm.history import History
from kvmscope.vmm.ram import PAGE, Ram
from kvmscope.vmm.record import EventView
from kvmscope.vmm.snapshot import Delta, Snapshot, VcpuView, diff_states
from kvmscope.x86.paging import translate
from kvmscope.x86.state import CpuState

__all__ = ["Mark", "Standing"]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where `Machine.delta_since` counts from."""

    number: int
    tick: int
    cpus: tuple[CpuState, ...]
    positions: tuple[int, int, int]


class Standing:
    """The half of a `kvmscope.vmm.machine.Machine` that moves nothing."""

    config: MachineConfig
    image: Image
    memory: Ram
    _board: Board
    _engine: Engine
    _history: History
    _history_limit: int
    _last_tick: int
    _marks: int
    _state: CpuState | None
    _stop: Stop
    _vcpu: int

    # where the machine stands

    @property
    def tick(self) -> int:
        """Instruction starts since boot."""
        return self._engine.clock

    @property
    def last_tick(self) -> int:
        """The furthest tick that history knows."""
        return self._last_tick

    @property
    def stop(self) -> Stop:
        """Why the machine is not running."""
        return self._stop

    @property
    def cpu(self) -> CpuState:
        """Registers of the vCPU that is looked at."""
        if self._state is None:
            self._state = self._engine.get_state(self._vcpu)
        return self._state

    @property
    def vcpu(self) -> int:
        """The vCPU that is looked at: `cpu` shows it, `step` steps it."""
        return self._vcpu

    def select(self, vcpu: int) -> None:
        """Look at another vCPU; nothing happens to the guest.  Raises UsageError for one that is not there."""
        self._check_vcpu(vcpu)
        self._vcpu = vcpu
        self._state = None

    @property
    def vcpus(self) -> int:
        """How many there are."""
        return self.config.smp

    @property
    def turn(self) -> int:
        """The vCPU whose the next instruction is."""
        return self._engine.vcpu

    @property
    def frozen(self) -> frozenset[int]:
        """The vCPUs that get no turn."""
        return self._engine.frozen

    def _check_vcpu(self, vcpu: int) -> None:
        if not 0 <= vcpu < self.config.smp:
            raise UsageError(
                f"There is no vCPU {vcpu}", f"the machine has {self.config.smp}: 0 to {self.config.smp - 1}"
            )

    def _cpus(self) -> tuple[CpuState, ...]:
        count = self.config.smp
        return (self.cpu,) if count == 1 else tuple(self._engine.get_state(i) for i in range(count))

    def _views(self) -> tuple[VcpuView, ...]:
        if self.config.smp == 1:
            return ()
        engine, frozen = self._engine, self._engine.frozen
        return tuple(
            VcpuView(i, cpu, engine.activity(i), i in frozen, i == engine.vcpu) for i, cpu in enumerate(self._cpus())
        )

    @property
    def events(self) -> EventView:
        """Events up to now, as many as the budget keeps."""
        return self._board.events.view()

    @property
    def timeline(self) -> EventView:
        """All events that history knows, those of the future included."""
        return self._board.events.known()

    @property
    def serial(self) -> bytes:
        """Serial output up to now."""
        return self._board.serial.text()

    @property
    def debugcon(self) -> bytes:
        """Debug console output up to now."""
        return self._board.debugcon.text()

    @property
    def debug_exit(self) -> int | None:
        """Value written to the debug-exit port, if it was."""
        return self._board.debug_exit

    @property
    def history_bytes(self) -> int:
        """Memory that history holds."""
        return self._history.bytes

    @property
    def history_limit(self) -> int:
        """Memory that history may hold; beyond it old checkpoints are thinned out."""
        return self._history_limit

    @property
    def checkpoints(self) -> int:
        """Checkpoints that history holds."""
        return self._history.count

    def snapshot(self) -> Snapshot:
        """The machine as a value.  Its memory stays live (see `GuestMemory`)."""
        cpu = self.cpu
        return Snapshot(
            tick=self.tick,
            cpu=cpu,
            memory=self.memory,
            stop=self._stop,
            events=self.events,
            serial=self.serial,
            debugcon=self.debugcon,
            devices=self._board.views(),
            msrs=cpu.msrs,
            last_tick=self._last_tick,
            vcpu=self._vcpu,
            vcpus=self._views(),
            time=self._board.now(),
            events_dropped=self._board.events.dropped,
            profile=self.config.cpu,
        )

    @property
    def marks(self) -> int:
        """Number of the newest mark."""
        return self._marks

    def mark(self) -> Mark:
        """Remember this moment for `delta_since`; an older mark is spent."""
        self._history.mark()
        self._marks += 1
        return Mark(self._marks, self.tick, self._cpus(), self._board.positions)

    def delta_since(self, mark: Mark) -> Delta:
        """What differs from the newest mark.  Raises ValueError for an older one, whose memory is no longer known."""
        if mark.number != self._marks:
            raise ValueError("only the newest mark can be compared with")
        memory, truncated = self._history.changes()
        events, serial, debugcon = mark.positions
        return Delta(
            registers=diff_states(mark.cpus[self._vcpu], self.cpu),
            memory=memory,
            memory_truncated=truncated,
            events=tuple(self._board.events.view(events)),
            serial=self.serial[serial:],
            debugcon=self.debugcon[debugcon:],
            ticks=self.tick - mark.tick,
        )

    # for a debugger

    def translate(self, linear: int) -> int | None:
        """Physical address that ``linear`` maps to, rights aside; None when it is not mapped."""
        cpu = self.cpu
        return translate(self.memory, cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer, linear)

    def read_linear(self, linear: int, size: int) -> bytes | None:
        """Bytes at a linear address; None if any of them is not mapped or not RAM.  Has no side effect."""
        out = bytearray()
        while size > 0:
            part = min(size, PAGE - linear % PAGE)
            physical = self.translate(linear)
            data = None if physical is None else self.memory.read(physical, part)
            if data is None:
                return None
            out += data
            linear, size = linear + part, size - part
        return bytes(out)
