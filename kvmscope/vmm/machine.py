"""The machine: processors, RAM, a board and a history, moved by commands.

Time is the engine's count of instruction starts (a tick).  Every `SYNC_TICKS` ticks, and after many events, the machine
*synchronizes*: the engine drops what it keeps beside the architecture (its software TLB), exactly as a restore does,
and history may take a checkpoint.  The points are a function of the guest's history alone, so runs that are sliced,
stepped, paused or replayed differently are the same run.  Wall time only ever decides where a command returns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from kvmscope.asm.image import Image
from kvmscope.errors import EngineError, UsageError
from kvmscope.vmm.board import Board
from kvmscope.vmm.boot import Boot, prepare
from kvmscope.vmm.boot.memory import nearest
from kvmscope.vmm.config import MachineConfig
from kvmscope.vmm.engine import Activity, Engine, Stop, StopReason
from kvmscope.vmm.engines import make_engine
from kvmscope.vmm.history import Checkpoint, History
from kvmscope.vmm.ram import PAGE, Ram
from kvmscope.vmm.record import EventView
from kvmscope.vmm.snapshot import Delta, Snapshot, VcpuView, diff_states
from kvmscope.x86.paging import translate
from kvmscope.x86.profiles import resolve
from kvmscope.x86.registers import KNOWN_NAMES, write_register
from kvmscope.x86.reset import reset_state
from kvmscope.x86.state import CpuState

__all__ = ["HISTORY_LIMIT", "SYNC_TICKS", "Machine", "Mark"]

SYNC_TICKS: Final = 100_000
HISTORY_LIMIT: Final = 256 << 20
"""Bytes that a machine's history may hold."""
_SLICE_SECONDS: Final = 0.010
_MIN_SLICE: Final = 50
_MAX_SLICE: Final = 25_000
_STUCK: Final = 1_000
"""Empty runs in a row after which a replay is given up."""


_SHOWS: Final = frozenset(
    {StopReason.BREAKPOINT, StopReason.WATCHPOINT, StopReason.EXCEPTION, StopReason.TRIPLE_FAULT}
    | {StopReason.UNSUPPORTED, StopReason.DEBUG_EXIT}
)
"""Stops at which the vCPU that caused them is looked at."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where `Machine.delta_since` counts from."""

    number: int
    tick: int
    cpus: tuple[CpuState, ...]
    positions: tuple[int, int, int]


class Machine:
    """See the module.  Not thread-safe, but for `wake`: a `Session` owns one on a thread of its own."""

    def __init__(
        self, config: MachineConfig, image: Image, *, engine: str = "unicorn", history_limit: int = HISTORY_LIMIT
    ) -> None:
        """Boot.  With ``history_limit`` 0 no checkpoints are kept: a run costs less, and going back replays from boot.

        Raises ReproducerError or GuestImageError for what cannot be booted, EngineError without the engine.
        """
        self.config = config
        self.image = image
        self.engine_name = engine
        self._history_limit = history_limit
        self._boot = prepare(config, image)
        self._breakpoints: frozenset[int] = frozenset()
        self._marks = 0
        self._slice = 1_000
        self._start(self._boot)

    def _start(self, boot: Boot) -> None:
        self.memory = Ram(self.config.memory, boot.pages)
        config = self.config
        self._board = Board(self.memory, config, boot)
        self.memory.peek = self._board.bus.peek
        self._engine: Engine = make_engine(
            self.engine_name, self.memory.buffer, self._board, config.cpu, config.smp, config.quantum, boot.rom
        )
        self._board.attach(self._engine)
        self._vcpu = 0
        for vcpu in range(1, config.smp):
            self._engine.set_state(reset_state(resolve(config.cpu).version), vcpu)
            self._engine.set_activity(vcpu, Activity.WAIT_FOR_SIPI)
        self._engine.set_state(boot.state)
        self._engine.set_breakpoints(self._breakpoints)
        self._history = History(self.memory.buffer, boot.pages, self._checkpoint(), self._history_limit)
        self._next_sync = SYNC_TICKS
        self._last_tick = 0
        self._state: CpuState | None = None
        self._stop = Stop(StopReason.READY)
        self._closed = False

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

    # forward

    def step(self) -> Stop:
        """One instruction (one iteration of a repeated one) of the vCPU that is looked at."""
        refused = self._refused()
        if refused is not None:
            return refused
        before = self.tick
        self._settle(self._engine.step(self._vcpu), before)
        if self.tick == before and self._stop.reason in (StopReason.PAUSED, StopReason.SLICE):
            # Somebody woke a command that was already over, or an interrupt made a synchronization due.
            self._settle(self._engine.step(self._vcpu), before)
        if self._stop.reason is StopReason.BREAKPOINT:
            # Another vCPU's, in its turn: the own first instruction is passed over.
            self.select(self._engine.vcpu)
        elif not self._stop.reason.final and self._stop.reason is not StopReason.BUDGET:
            self._stop = Stop(StopReason.STEP, self.tick)
        return self._stop

    def run(
        self,
        ticks: int | None = None,
        *,
        cancel: threading.Event | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Stop:
        """Run until the guest ends, a breakpoint, the budget, ``ticks`` ticks, or ``cancel``.

        ``progress`` is called with the tick after each slice of about 10 ms.
        """
        refused = self._refused()
        if refused is not None:
            return refused
        budget = self.config.budget
        target = budget.instructions if ticks is None else min(budget.instructions, self.tick + ticks)
        deadline = time.monotonic() + budget.seconds
        while not self._advance(target):
            if progress is not None:
                progress(self.tick)
            if cancel is not None and cancel.is_set():
                return self._stopped(StopReason.PAUSED)
            if time.monotonic() > deadline:
                return self._stopped(StopReason.BUDGET, f"wall time: the command ran {budget.seconds:g} s")
        if self._stop.reason is StopReason.SLICE and self.tick >= budget.instructions:
            self._refused()
        return self._stop

    def _refused(self) -> Stop | None:
        """The reason not to execute a single instruction, if there is one."""
        if self._closed:
            raise EngineError("The machine is closed")
        if self._stop.reason.final:
            return self._stop
        if self.tick >= self.config.budget.instructions:
            return self._stopped(StopReason.BUDGET, f"instructions: {self.config.budget.instructions} were executed")
        return None

    def _stopped(self, reason: StopReason, detail: str = "") -> Stop:
        self._stop = Stop(reason, self.tick, detail)
        return self._stop

    def _advance(self, target: int) -> bool:
        """Run one slice towards ``target``; True when the command is over, `_stop` saying why."""
        clock = self.tick
        limit = min(target, self._next_sync, clock + self._slice)
        edit = self._history.next_edit(clock) if clock < self._last_tick else None
        if edit is not None:
            limit = min(limit, edit)
        began = time.monotonic()
        if limit <= clock:
            self._stop = Stop(StopReason.SLICE, clock)
            return True
        self._settle(self._engine.run(limit - clock), clock)
        done = self.tick - clock
        elapsed = time.monotonic() - began
        if done >= _MIN_SLICE:
            wanted = int(done * _SLICE_SECONDS / max(elapsed, 1e-6))
            self._slice = max(_MIN_SLICE, min(_MAX_SLICE, wanted, 8 * self._slice))
        if self._stop.reason is StopReason.PAUSED:
            # Woken: whoever drives the command looks at its cancel event.
            self._stop = Stop(StopReason.SLICE, self.tick)
        if self._stop.reason is not StopReason.SLICE:
            if self._stop.reason in _SHOWS:
                self.select(self._engine.vcpu)
            return True
        # The engine looks for breakpoints before each instruction that it starts, so not at the slice's very end.
        if self._breakpoints and done:
            pc = self._engine.get_state().pc
            if pc in self._breakpoints:
                self._stop = Stop(StopReason.BREAKPOINT, self.tick, breakpoint=pc)
                self.select(self._engine.vcpu)
                return True
        return self.tick >= target

    def _settle(self, stop: Stop, began: int) -> None:
        """Take up the engine's report: note the stop, synchronize where it is due, apply an edit of history.

        The engine was started at tick ``began``: an edit of that tick has been made already.
        """
        self._state = None
        clock = self.tick
        request = self._board.take_request()
        self._stop = replace(request or stop, tick=clock)
        replayed = clock <= self._last_tick
        self._last_tick = max(self._last_tick, clock)
        if replayed and clock > began and self._history.find(clock).tick == clock and self._history.find(clock).edit:
            self._restore(self._history.find(clock))
            self._stop = Stop(StopReason.SLICE, clock)
        elif not self._stop.reason.final and (clock >= self._next_sync or self._board.sync_due):
            self._synchronize(replayed)

    def _synchronize(self, replayed: bool) -> None:
        clock = self.tick
        if replayed:
            known = self._history.passed(clock)
            if known is not None and (known.positions, known.devices) != (self._board.positions, self._board.save()):
                raise EngineError(
                    "A replay did not take the way of the first run",
                    f"at tick {clock}: events and output stood at {known.positions}, now at {self._board.positions}",
                    "this is a defect of kvmscope: please report it with the reproducer",
                )
        elif self._history_limit and self._history.find(clock).tick < clock:
            self._history.add(self._checkpoint())
        self._board.synced()
        self._next_sync = clock + SYNC_TICKS
        self._engine.restore(self._engine.capture(), clock, ())

    # through history

    def _checkpoint(self, *, edit: bool = False) -> Checkpoint:
        return Checkpoint(self.tick, self._engine.capture(), self._board.save(), self._board.positions, edit=edit)

    def _restore(self, checkpoint: Checkpoint) -> None:
        changed = self._history.restore(checkpoint)
        self._engine.restore(checkpoint.cpu, checkpoint.tick, changed)
        self._board.restore(checkpoint.devices, checkpoint.positions)
        self._next_sync = checkpoint.tick + SYNC_TICKS
        self._state = None
        self._stop = Stop(StopReason.PAUSED if checkpoint.tick else StopReason.READY, checkpoint.tick)

    def goto(self, tick: int, *, cancel: threading.Event | None = None) -> Stop:
        """Be exactly as at ``tick``, which history must know.  Raises UsageError when it does not.

        Breakpoints do not stop the way there; ``cancel`` does, and leaves the machine where it then is.
        """
        if not 0 <= tick <= self._last_tick:
            raise UsageError(
                f"History does not know tick {tick}", f"it holds 0 to {self._last_tick}", "run forward to get there"
            )
        if tick == self.tick:
            return self._stop
        checkpoint = self._history.find(tick)
        if not checkpoint.tick <= self.tick < tick:
            self._restore(checkpoint)
        breakpoints = self._breakpoints
        self.set_breakpoints(())
        try:
            empty = 0
            while self.tick < tick:
                if cancel is not None and cancel.is_set():
                    return self._stopped(StopReason.PAUSED)
                before = self.tick
                self._advance(tick)
                empty = empty + 1 if self.tick == before else 0
                if empty == _STUCK or (self._stop.reason.final and self.tick < tick):
                    raise EngineError(
                        "A replay stopped before its tick", f"at {self.tick} of {tick}: {self._stop.reason}"
                    )
        finally:
            self.set_breakpoints(breakpoints)
        if not self._stop.reason.final:
            self._stopped(StopReason.PAUSED if tick else StopReason.READY)
        return self._stop

    # edits: events of history

    def write_register(self, name: str, value: int) -> None:
        """Change a register, nothing checked by mode.  In the past, this cuts the future.

        Raises UsageError for an unknown name or a value that does not fit.
        """
        try:
            state = write_register(self.cpu, name.lower(), value)
        except KeyError:
            raise UsageError(f"Unknown register {name!r}", hint=nearest(name, sorted(KNOWN_NAMES))) from None
        except ValueError as error:
            raise UsageError(f"The value of {name} does not fit", str(error)) from error
        self._edit(lambda: self._engine.set_state(state, self._vcpu))

    def write_memory(self, physical: int, data: bytes) -> None:
        """Change RAM.  In the past, this cuts the future.  Raises UsageError where there is no RAM."""
        if not 0 <= physical <= self.memory.size - len(data):
            raise UsageError(
                "There is no RAM to write to",
                f"{physical:#x}-{physical + len(data) - 1:#x}; RAM is 0x0-{self.memory.size - 1:#x}",
            )

        def write() -> None:
            self.memory.buffer[physical : physical + len(data)] = data
            self._engine.memory_written(physical, len(data))

        if data:
            self._edit(write)

    def freeze(self, vcpus: Iterable[int]) -> None:
        """These vCPUs get no turn from here on.  In the past, this cuts the future.  Raises UsageError if none were left."""
        frozen = frozenset(vcpus)
        for vcpu in frozen:
            self._check_vcpu(vcpu)
        if len(frozen) == self.config.smp:
            raise UsageError("All vCPUs would be frozen", hint="leave one")

        self._edit(lambda: self._engine.freeze(frozen))

    def _edit(self, change: Callable[[], None]) -> None:
        tick = self.tick
        change()
        self._state = None
        self._history.cut(tick)
        self._board.cut()
        self._last_tick = tick
        self._board.synced()
        self._next_sync = tick + SYNC_TICKS
        self._history.add(self._checkpoint(edit=True))
        self._engine.restore(self._engine.capture(), tick, ())
        self._stop = Stop(StopReason.READY, tick, "edited")

    # for a debugger

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """Stop before the instructions at these linear addresses."""
        self._breakpoints = frozenset(linear)
        self._engine.set_breakpoints(self._breakpoints)

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

    def wake(self) -> None:
        """Let the running command look at its cancel event now; may be called from another thread."""
        self._engine.request_stop(Stop(StopReason.PAUSED))

    # life

    def reset(self) -> None:
        """Boot again; history and output begin anew, breakpoints stay."""
        self._release()
        self._marks += 1
        self._start(self._boot)

    def close(self) -> None:
        """Release engine and memory; the last snapshot's memory reads as absent from here on."""
        if not self._closed:
            self._release()

    def _release(self) -> None:
        self._closed = True
        self._history.close()
        self._engine.close()
        self.memory.close()
