"""The board: what the processor is soldered to.  Bus and devices, output, the event log; the engine's host.

Everything here is part of the guest's history, so all of it can be saved and put back.
"""

from __future__ import annotations

import mmap
from typing import Final

from kvmscope.vmm.boot.layout import STUB, stub_address
from kvmscope.vmm.config import Budget
from kvmscope.vmm.devices import Bus, DebugConsole, DebugExit, DeviceState, PicMask, TestDevice, Uart16550
from kvmscope.vmm.engine import Engine, Stop, StopReason
from kvmscope.vmm.events import Event, ExceptionEvent, MmioEvent, PortEvent
from kvmscope.vmm.record import EventLog, Output

__all__ = ["SYNC_EVENTS", "Board"]

SYNC_EVENTS: Final = 512
"""Events after which the machine synchronizes early: each costs host time, which a replay pays again."""
_EXCEPTION_WEIGHT: Final = 16
"""Delivering an exception takes the time of this many other events."""


class Board:
    """Implements `EngineHost`.  Give it the engine before the first instruction."""

    engine: Engine

    def __init__(self, ram: mmap.mmap, budget: Budget, vcpu: int = 0) -> None:
        self._ram = ram
        self._budget = budget
        self._vcpu = vcpu
        self.events = EventLog(budget.events)
        self.serial = Output()
        self.debugcon = Output()
        self._exit = DebugExit(self._debug_exit)
        # The order decides who gets a port that two claim: the debug console has 0xe9.
        self.bus = Bus(
            (
                Uart16550(lambda byte: self._put(self.serial, byte)),
                DebugConsole(lambda byte: self._put(self.debugcon, byte)),
                self._exit,
                TestDevice(),
                PicMask(),
            )
        )
        self._request: Stop | None = None
        self._since_sync = 0

    # EngineHost

    def port_read(self, port: int, size: int, rip: int) -> int:
        """IN: the bus answers, the log notes it."""
        value, device = self.bus.port_read(port, size)
        self.record(PortEvent(self.engine.clock, rip, self._vcpu, port, size, value, False, device))
        return value

    def port_write(self, port: int, size: int, value: int, rip: int) -> None:
        """OUT: the log notes it, the bus takes it."""
        value &= (1 << 8 * size) - 1
        device = self.bus.port_device(port)
        self.record(PortEvent(self.engine.clock, rip, self._vcpu, port, size, value, True, device))
        self.bus.port_write(port, size, value)

    def mmio_read(self, address: int, size: int, rip: int) -> int:
        """Load from what is not RAM."""
        value, device = self.bus.memory_read(address, size)
        self.record(MmioEvent(self.engine.clock, rip, self._vcpu, address, size, value, False, device))
        return value

    def mmio_write(self, address: int, size: int, value: int, rip: int) -> None:
        """Store to what is not RAM."""
        value &= (1 << 8 * size) - 1
        device = self.bus.memory_write(address, size, value)
        self.record(MmioEvent(self.engine.clock, rip, self._vcpu, address, size, value, True, device))

    def record(self, event: Event) -> None:
        """Note an event; many of them end the slice early."""
        self.events.append(event)
        before = self._since_sync
        self._since_sync += _EXCEPTION_WEIGHT if isinstance(event, ExceptionEvent) else 1
        if before < SYNC_EVENTS <= self._since_sync:
            self.engine.request_stop(Stop(StopReason.SLICE, self.engine.clock))

    def has_own_handler(self, vector: int, handler: int) -> bool:
        """False when ``handler`` (linear) is boot's stub of ``vector``, still as boot wrote it."""
        stub = stub_address(vector)
        return handler != stub or self._ram[stub : stub + len(STUB)] != STUB

    # what devices ask for

    def _debug_exit(self, value: int) -> None:
        self._ask(Stop(StopReason.DEBUG_EXIT, self.engine.clock, f"wrote {value:#x} to port 0xf4", code=value))

    def _put(self, channel: Output, byte: int) -> None:
        if self.serial.position + self.debugcon.position >= self._budget.output:
            self._ask(
                Stop(
                    StopReason.BUDGET, self.engine.clock, f"output: more than {self._budget.output} bytes were written"
                )
            )
        else:
            channel.put(byte)

    def _ask(self, stop: Stop) -> None:
        # The first reason stands: one access may write several bytes.
        if self._request is None:
            self._request = stop
        self.engine.request_stop(stop)

    # what the machine asks for

    def take_request(self) -> Stop | None:
        """The stop that a device asked for since the last call."""
        request, self._request = self._request, None
        return request

    @property
    def sync_due(self) -> bool:
        """Enough events since the last synchronization."""
        return self._since_sync >= SYNC_EVENTS

    def synced(self) -> None:
        """Count events from here."""
        self._since_sync = 0

    @property
    def debug_exit(self) -> int | None:
        """The value written to the debug-exit port."""
        return self._exit.value

    @property
    def positions(self) -> tuple[int, int, int]:
        """Where the logs stand."""
        return self.events.position, self.serial.position, self.debugcon.position

    def save(self) -> tuple[DeviceState, ...]:
        """State of the devices."""
        return self.bus.save()

    def restore(self, devices: tuple[DeviceState, ...], positions: tuple[int, ...]) -> None:
        """Put the devices back, and the logs to where they stood."""
        self.bus.restore(devices)
        self.events.position, self.serial.position, self.debugcon.position = positions
        self._request = None
        self._since_sync = 0

    def cut(self) -> None:
        """Forget the logs' future."""
        self.events.cut()
        self.serial.cut()
        self.debugcon.cut()
