"""The thread that owns a machine, so that a front end never waits for a guest.

Commands are queued and run one after the other; the listener hears of each from the session's thread.  Nothing here
knows a front end: a Textual app passes a listener that posts messages.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kvmscope.errors import EngineError, KvmscopeError
from kvmscope.vmm.engine import Stop
from kvmscope.vmm.machine import Machine
from kvmscope.vmm.snapshot import Delta, Snapshot

__all__ = [
    "Command",
    "Context",
    "Edit",
    "Failed",
    "Freeze",
    "Goto",
    "Message",
    "Progress",
    "Reset",
    "Run",
    "Select",
    "Session",
    "Started",
    "Step",
    "Stopped",
]

_PROGRESS_INTERVAL: Final = 0.05
"""Seconds between two `Progress` messages at least."""


class Context:
    """What a command gets to work with."""

    def __init__(self, machine: Machine, cancel: threading.Event, progress: Callable[[int], None]) -> None:
        self.machine = machine
        self.cancel = cancel
        """Set when the user wants the command to end at once."""
        self.progress = progress
        """To be called with the tick now and then."""


Command = Callable[[Context], Stop | None]
"""Something to do with the machine, on its thread; what it returns is not needed beyond the machine's own `stop`."""


@dataclass(frozen=True, slots=True)
class Step:
    """``count`` single instructions."""

    count: int = 1

    def __call__(self, context: Context) -> Stop:
        stop = context.machine.stop
        for _ in range(self.count):
            if context.cancel.is_set():
                break
            before = context.machine.tick
            stop = context.machine.step()
            if context.machine.tick == before:
                break
        return stop


@dataclass(frozen=True, slots=True)
class Run:
    """Run freely, or for ``ticks`` ticks."""

    ticks: int | None = None

    def __call__(self, context: Context) -> Stop:
        return context.machine.run(self.ticks, cancel=context.cancel, progress=context.progress)


@dataclass(frozen=True, slots=True)
class Goto:
    """Travel to a tick that history knows; ``relative`` ticks count from here."""

    tick: int
    relative: bool = False

    def __call__(self, context: Context) -> Stop:
        machine = context.machine
        tick = machine.tick + self.tick if self.relative else self.tick
        if self.relative:
            tick = max(0, min(tick, machine.last_tick))
        return machine.goto(tick, cancel=context.cancel)


@dataclass(frozen=True, slots=True)
class Reset:
    """Boot again."""

    def __call__(self, context: Context) -> Stop:
        context.machine.reset()
        return context.machine.stop


@dataclass(frozen=True, slots=True)
class Edit:
    """Change a register (``name`` and ``value``) or RAM (``address`` and ``data``)."""

    name: str = ""
    value: int = 0
    address: int = 0
    data: bytes = b""

    def __call__(self, context: Context) -> Stop:
        if self.name:
            context.machine.write_register(self.name, self.value)
        else:
            context.machine.write_memory(self.address, self.data)
        return context.machine.stop


@dataclass(frozen=True, slots=True)
class Select:
    """Look at another vCPU."""

    vcpu: int

    def __call__(self, context: Context) -> Stop:
        context.machine.select(self.vcpu)
        return context.machine.stop


@dataclass(frozen=True, slots=True)
class Freeze:
    """These vCPUs, and no others, get no turn."""

    vcpus: frozenset[int]

    def __call__(self, context: Context) -> Stop:
        context.machine.freeze(self.vcpus)
        return context.machine.stop


@dataclass(frozen=True, slots=True)
class Started:
    """The machine stands at boot."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Stopped:
    """A command is done: where the machine stands, and what differs from where it stood."""

    snapshot: Snapshot
    delta: Delta
    command: Command


@dataclass(frozen=True, slots=True)
class Progress:
    """A command is still running."""

    tick: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A command (None: booting) could not be done; ``snapshot`` is where the machine stands, if it exists."""

    error: KvmscopeError
    command: Command | None = None
    snapshot: Snapshot | None = None


Message = Started | Stopped | Progress | Failed


class Session:
    """One machine on one thread.  ``listener`` is called on that thread and must not block."""

    def __init__(self, factory: Callable[[], Machine], listener: Callable[[Message], None]) -> None:
        self._factory = factory
        self._listener = listener
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._cancel = threading.Event()
        self._lock = threading.Lock()
        self._pending = 0
        self._machine: Machine | None = None
        self._last_progress = 0.0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="kvmscope-vcpu", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """A command is running or waiting."""
        return self._pending > 0

    def submit(self, command: Command) -> None:
        """Queue a command.  Raises EngineError after `close`."""
        with self._lock:
            if self._closing:
                raise EngineError("The session is closed")
            self._pending += 1
            self._commands.put(command)

    def stop(self) -> None:
        """End the running command at once, and drop the ones that wait."""
        with self._lock:
            while True:
                try:
                    waiting = self._commands.get_nowait()
                except queue.Empty:
                    break
                if waiting is None:
                    self._commands.put(None)
                    break
                self._pending -= 1
            if self._pending:
                self._cancel.set()
                if self._machine is not None:
                    self._machine.wake()

    def close(self) -> None:
        """End everything and release the machine; returns when the thread has ended."""
        with self._lock:
            closing, self._closing = self._closing, True
        if not closing:
            self.stop()
            self._commands.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # on the session's thread

    def _work(self) -> None:
        self._boot()
        machine = self._machine
        try:
            while (command := self._commands.get()) is not None:
                if machine is None:
                    message: Message = Failed(EngineError("There is no machine", "booting it failed"), command)
                else:
                    message = self._carry_out(machine, command)
                with self._lock:
                    self._pending -= 1
                    self._cancel.clear()
                self._listener(message)
        finally:
            if machine is not None:
                with self._lock:
                    self._machine = None
                machine.close()

    def _boot(self) -> None:
        try:
            machine = self._factory()
            machine.mark()
        except KvmscopeError as error:
            self._listener(Failed(error))
        except Exception as error:
            self._listener(Failed(_wrapped(error)))
        else:
            self._machine = machine
            self._listener(Started(machine.snapshot()))

    def _carry_out(self, machine: Machine, command: Command) -> Message:
        try:
            mark = machine.mark()
            command(Context(machine, self._cancel, self._progress))
            if machine.marks != mark.number:
                # The command booted anew: there is nothing in common to compare with.
                machine.mark()
                return Stopped(machine.snapshot(), Delta(ticks=-mark.tick), command)
            return Stopped(machine.snapshot(), machine.delta_since(mark), command)
        except KvmscopeError as error:
            return Failed(error, command, machine.snapshot())
        except Exception as error:
            # A defect of ours must not end the thread: the front end would wait for ever.
            return Failed(_wrapped(error), command, machine.snapshot())

    def _progress(self, tick: int) -> None:
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_INTERVAL:
            self._last_progress = now
            self._listener(Progress(tick))


def _wrapped(error: Exception) -> KvmscopeError:
    wrapped = EngineError(
        f"Internal error: {type(error).__name__}", str(error), "this is a defect of kvmscope: please report it"
    )
    wrapped.__cause__ = error
    return wrapped
