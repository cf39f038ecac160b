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
from dataclasses import replace
from typing import Final

from kvmscope.asm.image import Image
from kvmscope.errors import EngineError, UsageError
from kvmscope.vmm.board import Board
from kvmscope.vmm.boot import Boot, prepare
from kvmscope.vmm.boot.memory import nearest
from kvmscope.vmm.config import MachineConfig
from kvmscope.vmm.engine import Activity, Stop, StopReason
from kvmscope.vmm.engines import make_engine
from kvmscope.vmm.history import Checkpoint, History
from kvmscope.vmm.ram import Ram
from kvmscope.vmm.standing import Standing
from kvmscope.x86.profiles import resolve
from kvmscope.x86.registers import KNOWN_NAMES, write_register
from kvmscope.x86.reset import reset_state

__all__ = ["HISTORY_LIMIT", "SYNC_TICKS", "Machine"]

SYNC_TICKS: Final = 100_000
HISTORY_LIMIT: Final = 256 << 20
"""Bytes that a machine's history may hold."""
_SLICE_SECONDS: Final = 0.010
_MIN_SLICE: Final = 50
_MAX_SLICE: Final = SYNC_TICKS
_STUCK: Final = 1_000
"""Empty runs in a row after which a replay is given up."""


_SHOWS: Final = frozenset(
    {StopReason.BREAKPOINT, StopReason.WATCHPOINT, StopReason.EXCEPTION, StopReason.TRIPLE_FAULT}
    | {StopReason.UNSUPPORTED, StopReason.DEBUG_EXIT}
)
"""Stops at which the vCPU that caused them is looked at."""


class Machine(Standing):
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
        self._engine = make_engine(
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
        self._end = -1
        """Tick at which the guest has ended, if it has."""
        self._state = None
        self._stop = Stop(StopReason.READY)
        self._closed = False

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
        elif self._stop.reason.final:
            self._end = clock
        elif clock >= self._next_sync or self._board.sync_due:
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
            if tick == self._end and not self._stop.reason.final:
                # The end came without an instruction: time had passed, and woke nobody.
                self._settle(self._engine.run(1), tick)
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
        self._end = -1
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
