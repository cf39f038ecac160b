"""The board: what the processor is soldered to.  Bus and devices, output, the event log; the engine's host.

Everything here is part of the guest's history, so all of it can be saved and put back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmscope.vmm.boot.layout import STUB, stub_address
from kvmscope.vmm.boot.model import Boot
from kvmscope.vmm.chipset import Chipset
from kvmscope.vmm.clock import Clock
from kvmscope.vmm.config import MachineConfig
from kvmscope.vmm.devices.device import DeviceState, DeviceView
from kvmscope.vmm.devices.interrupts import Message, Signals
from kvmscope.vmm.devices.rom import Rom
from kvmscope.vmm.engine import EXIT_TIME, Engine, Stop, StopReason
from kvmscope.vmm.events import Event, ExceptionEvent, MmioEvent, PortEvent
from kvmscope.vmm.ram import Dma, Ram
from kvmscope.vmm.record import EventLog, Output

__all__ = ["SYNC_EVENTS", "Board"]

SYNC_EVENTS: Final = 512
"""Events after which the machine synchronizes early: each costs host time, which a replay pays again."""
_EXCEPTION_WEIGHT: Final = 8
"""Delivering an exception takes the time of this many other events."""
_NO_EXIT: Final = frozenset({0x80, 0xB0})
"""Local APIC registers that processors virtualize: TPR and EOI."""
_CURRENT_COUNT: Final = 0x390
"""Local APIC register whose reads exit even where others are virtualized (SDM vol. 3C section 30.4.2); guests poll it."""


class Board:
    """Implements `EngineHost`.  Give it the engine before the first instruction."""

    def __init__(self, memory: Ram, config: MachineConfig, boot: Boot) -> None:
        self._ram = memory.buffer
        self._budget = config.budget
        self._own_stubs = config.own_stubs
        self._facs = boot.facs
        self.events = EventLog(self._budget.events)
        self.serial = Output()
        self.debugcon = Output()
        self._engine: Engine | None = None
        self.clock = Clock(lambda: 0, self._nearer)
        self.chipset = Chipset(
            self.clock,
            Dma(memory, self._dma_written),
            config,
            kick=self._kick,
            serial=lambda byte: self._put(self.serial, byte),
            debugcon=lambda byte: self._put(self.debugcon, byte),
            debug_exit=self._debug_exit,
            reset=self._reset,
            suspend=self._suspend,
            wake=self._wake,
        )
        self.bus = self.chipset.bus
        if boot.rom is not None:
            self.bus.add(Rom(*boot.rom))
        self._apics = self.chipset.apics
        for apic in self._apics:
            apic.tsc = self._tsc_of(apic.index)
        if boot.firmware:
            self.chipset.firmware()
        self.between = False
        self._request: Stop | None = None
        self._since_sync = 0
        self._due = False

    @property
    def engine(self) -> Engine:
        """What executes; there is none while devices are being made."""
        assert self._engine is not None
        return self._engine

    def attach(self, engine: Engine) -> None:
        """Give the board its engine, once."""
        self._engine = engine
        self.clock.count_by(lambda: engine.clock)

    def _nearer(self) -> None:
        deadline = self.clock.deadline
        if self._engine is not None and deadline is not None:
            self._engine.due_at(deadline - self.clock.skipped)

    def _tsc_of(self, vcpu: int) -> Callable[[], int]:
        return lambda: self.engine.tsc(vcpu)

    def _kick(self, vcpu: int) -> None:
        if self._engine is not None:
            self._engine.look_again(vcpu)

    def _dma_written(self, physical: int, size: int) -> None:
        self.engine.memory_written(physical, size)

    # EngineHost: the bus

    def port_read(self, port: int, size: int, rip: int) -> int:
        """IN: the bus answers, the log notes it."""
        value, device = self.bus.port_read(port, size)
        engine = self.engine
        self.record(PortEvent(engine.clock, rip, engine.vcpu, port, size, value, False, device))
        self.clock.spend(EXIT_TIME)
        return value

    def port_write(self, port: int, size: int, value: int, rip: int) -> None:
        """OUT: the log notes it, the bus takes it."""
        value &= (1 << 8 * size) - 1
        device = self.bus.port_device(port)
        engine = self.engine
        self.record(PortEvent(engine.clock, rip, engine.vcpu, port, size, value, True, device))
        self.bus.port_write(port, size, value)
        self.clock.spend(EXIT_TIME)

    def mmio_read(self, address: int, size: int, rip: int) -> int:
        """Load from what is not RAM: the vCPU's own local APIC, or the bus."""
        engine = self.engine
        apic = self._apics[engine.vcpu]
        if address >> 12 == apic.base >> 12 and apic.mmio_enabled:
            value, device = apic.read(address & 0xFFF, size), apic.name
            if address & 0xFFF == _CURRENT_COUNT:
                self.clock.spend(EXIT_TIME)
        else:
            value, device = self.bus.memory_read(address, size)
            self.clock.spend(EXIT_TIME)
        self.record(MmioEvent(engine.clock, rip, engine.vcpu, address, size, value, False, device))
        return value

    def mmio_write(self, address: int, size: int, value: int, rip: int) -> None:
        """Store to what is not RAM."""
        value &= (1 << 8 * size) - 1
        engine = self.engine
        apic = self._apics[engine.vcpu]
        own = address >> 12 == apic.base >> 12 and apic.mmio_enabled
        device = apic.name if own else self.bus.memory_device(address)
        self.record(MmioEvent(engine.clock, rip, engine.vcpu, address, size, value, True, device))
        if own:
            apic.write(address & 0xFFF, size, value)
            if address & 0xFFF not in _NO_EXIT:
                self.clock.spend(EXIT_TIME)
        else:
            self.bus.memory_write(address, size, value)
            self.clock.spend(EXIT_TIME)

    # EngineHost: time

    def now(self) -> int:
        """Guest time."""
        return self.clock.now

    def next_deadline(self) -> int | None:
        """The engine's clock at the next deadline."""
        deadline = self.clock.deadline
        return None if deadline is None else deadline - self.clock.skipped

    def run_timers(self) -> None:
        """Expire what is due."""
        self.clock.run_due()

    def skip_idle(self) -> bool:
        """Let time pass to the next deadline."""
        return self.clock.skip()

    def spend(self, nanoseconds: int) -> None:
        """Time passes inside an instruction."""
        self.clock.spend(nanoseconds)

    def spin(self) -> None:
        """Time passes, but not beyond the next deadline."""
        clock = self.clock
        deadline = clock.deadline
        clock.spend(EXIT_TIME if deadline is None else max(0, min(EXIT_TIME, deadline - clock.now)))

    # EngineHost: interrupts and the local APIC

    def signals(self, vcpu: int) -> Signals:
        """A vCPU's pins."""
        return self.chipset.signals[vcpu]

    def acknowledge(self, vcpu: int) -> int | None:
        """The vCPU takes its interrupt."""
        return self._apics[vcpu].acknowledge()

    def initialized(self, vcpu: int, *, power: bool = False) -> None:
        """INIT or a reset reaches the local APIC."""
        if power:
            self._apics[vcpu].reset()
            if vcpu == 0:
                self.chipset.virtual_wire()
        else:
            self._apics[vcpu].init_reset()

    def read_msr(self, vcpu: int, index: int) -> int | None:
        """MSRs of the local APIC."""
        value = self._apics[vcpu].read_msr(index)
        if index == 0x800 + (_CURRENT_COUNT >> 4):
            self.clock.spend(EXIT_TIME)
        return value

    def write_msr(self, vcpu: int, index: int, value: int) -> bool:
        """MSRs of the local APIC."""
        mine = self._apics[vcpu].write_msr(index, value)
        if mine and (index & 0xFF) << 4 not in _NO_EXIT:
            self.clock.spend(EXIT_TIME)
        return mine

    def get_cr8(self, vcpu: int) -> int:
        """The task priority class."""
        return self._apics[vcpu].get_cr8()

    def set_cr8(self, vcpu: int, value: int) -> None:
        """Change the task priority class."""
        self._apics[vcpu].set_cr8(value)

    def tsc_written(self, vcpu: int) -> None:
        """A TSC deadline moves."""
        self._apics[vcpu].tsc_changed()

    def apic_enabled(self, vcpu: int) -> bool:
        """IA32_APIC_BASE.EN."""
        return self._apics[vcpu].enabled

    def send_ipi(self, message: Message) -> bool:
        """A message that no local APIC's ICR sends."""
        return self.chipset.messages.send(message)

    # EngineHost: what happened

    def record(self, event: Event) -> None:
        """Note an event; many of them end the slice early."""
        self.events.append(event)
        self._since_sync += _EXCEPTION_WEIGHT if isinstance(event, ExceptionEvent) else 1
        if self._since_sync >= SYNC_EVENTS and not self.between and not self._due:
            self._due = True
            self.engine.request_stop(Stop(StopReason.SLICE, self.engine.clock))

    def has_own_handler(self, vector: int, handler: int) -> bool:
        """False when ``handler`` (linear) is boot's stub of ``vector``, still as boot wrote it."""
        if not self._own_stubs:
            return True
        stub = stub_address(vector)
        return handler != stub or self._ram[stub : stub + len(STUB)] != STUB

    # what devices ask for

    def _suspend(self) -> None:
        """S3: every processor loses its state."""
        for signals in self.chipset.signals:
            signals.reset = True
            signals.kick()

    def _wake(self) -> None:
        """Firmware brings the first processor to the waking vector that the guest has left in the FACS."""
        from kvmscope.vmm.boot.acpi import waking_vector

        facs = self._facs
        vector = None if facs is None else waking_vector(self._ram[facs : facs + 64])
        if vector is None:
            self._reset("the guest woke from S3 without a waking vector: firmware would boot anew")
        else:
            self.chipset.signals[0].startup = vector
            self.chipset.signals[0].kick()

    def _reset(self, how: str) -> None:
        self._ask(Stop(StopReason.RESET, self.engine.clock, how))

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
        return self._due

    def synced(self) -> None:
        """Count events from here."""
        self._since_sync = 0
        self._due = False

    @property
    def debug_exit(self) -> int | None:
        """The value written to the debug-exit port."""
        return self.chipset.exit.value

    @property
    def positions(self) -> tuple[int, int, int]:
        """Where the logs stand."""
        return self.events.position, self.serial.position, self.debugcon.position

    def save(self) -> tuple[DeviceState, ...]:
        """State of the devices, the local APICs, the pins and the clock."""
        pins = tuple(_packed(signals) for signals in self.chipset.signals)
        apics = tuple(apic.save() for apic in self._apics)
        return (*self.bus.save(), *apics, *pins, (self.clock.skipped,))

    def restore(self, devices: tuple[DeviceState, ...], positions: tuple[int, ...]) -> None:
        """Put the devices back, and the logs to where they stood."""
        count = len(self._apics)
        (skipped,) = devices[-1]
        assert isinstance(skipped, int)
        self.clock.skipped = skipped
        self.bus.restore(devices[: -1 - 2 * count])
        for apic, state in zip(self._apics, devices[-1 - 2 * count : -1 - count], strict=True):
            apic.restore(state)
        for signals, state in zip(self.chipset.signals, devices[-1 - count : -1], strict=True):
            _unpack(signals, state)
        self.events.position, self.serial.position, self.debugcon.position = positions
        self._request = None
        self._since_sync = 0
        self._due = False

    def views(self) -> tuple[DeviceView, ...]:
        """Every device and local APIC, decoded."""
        return (*self.bus.views(self.clock.now), *(apic.view() for apic in self._apics))

    def cut(self) -> None:
        """Forget the logs' future."""
        self.events.cut()
        self.serial.cut()
        self.debugcon.cut()


def _packed(signals: Signals) -> DeviceState:
    cs, ip = signals.startup or (-1, -1)
    return int(signals.interrupt), int(signals.nmi), int(signals.init), int(signals.reset), cs, ip


def _unpack(signals: Signals, state: DeviceState) -> None:
    interrupt, nmi, init, reset, cs, ip = (part for part in state if isinstance(part, int))
    signals.interrupt, signals.nmi, signals.init, signals.reset = bool(interrupt), bool(nmi), bool(init), bool(reset)
    signals.startup = None if cs < 0 else (cs, ip)
