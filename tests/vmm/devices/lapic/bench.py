"""Processors that consist of a local APIC only, and a clock cranked by hand."""

from __future__ import annotations

from kvmscope.vmm.clock import Clock
from kvmscope.vmm.devices.interrupts import ApicBus, Signals
from kvmscope.vmm.devices.lapic import LocalApic
from kvmscope.vmm.devices.lapic.registers import Reg

EN, EXTD, BSP = 1 << 11, 1 << 10, 1 << 8
MASKED = 1 << 16
PERIODIC, TSC_DEADLINE = 1 << 17, 2 << 17
ASSERT, LEVEL, LOGICAL = 1 << 14, 1 << 15, 1 << 11
SELF, ALL, OTHERS = 1 << 18, 2 << 18, 3 << 18
LOWEST, SMI, NMI, INIT, SIPI, EXTINT = 1 << 8, 2 << 8, 4 << 8, 5 << 8, 6 << 8, 7 << 8


class Pic:
    """What answers the interrupt-acknowledge cycle."""

    def __init__(self) -> None:
        self.vector = 0x08
        self.cycles = 0

    def acknowledge(self) -> int:
        self.cycles += 1
        return self.vector


class Bench:
    """``count`` APICs, reset and (unless said otherwise) enabled by software as a kernel does first of all."""

    def __init__(self, count: int = 1, *, x2apic: bool = True, tsc_deadline: bool = True, enable: bool = True) -> None:
        self.ticks = 0
        self.kicks = [0] * count
        self.ended: list[int] = []
        self.clock = Clock(lambda: self.ticks)
        self.bus = ApicBus()
        self.bus.listeners.append(self)
        self.pic = Pic()
        self.apics = [
            LocalApic(
                index,
                self.clock,
                self.bus,
                Signals(lambda index=index: self._kick(index)),
                x2apic=x2apic,
                tsc_deadline=tsc_deadline,
                bootstrap=index == 0,
                maxphyaddr=40,
                external=self.pic.acknowledge if index == 0 else None,
            )
            for index in range(count)
        ]
        self.bus.receivers.extend(self.apics)
        if enable:
            for apic in self.apics:
                apic.write(Reg.SVR, 4, 0x1FF)

    def _kick(self, index: int) -> None:
        self.kicks[index] += 1

    def end_of_interrupt(self, vector: int) -> None:
        self.ended.append(vector)

    def advance(self, ticks: int) -> int:
        """Let time pass; returns how often the clock called its timers."""
        target, calls = self.ticks + ticks, 0
        while self.clock.deadline is not None and self.clock.deadline <= target:
            self.ticks = max(self.ticks, self.clock.deadline)
            self.clock.run_due()
            calls += 1
        self.ticks = target
        return calls


def reg(apic: LocalApic, offset: int) -> int:
    return apic.read(offset, 4)


def put(apic: LocalApic, offset: int, value: int) -> None:
    apic.write(offset, 4, value)


def msr_of(offset: int) -> int:
    return 0x800 + (offset >> 4)


def to_x2apic(apic: LocalApic) -> None:
    assert apic.write_msr(0x1B, apic.apic_base | EN | EXTD)


def icr(apic: LocalApic, value: int, destination: int = 0) -> None:
    """Send an IPI the way of the APIC's mode."""
    if apic.x2apic_mode:
        assert apic.write_msr(0x830, destination << 32 | value)
    else:
        put(apic, Reg.ICR_HIGH, destination << 24)
        put(apic, Reg.ICR, value)


def vectors(bits: int) -> list[int]:
    return [vector for vector in range(256) if bits >> vector & 1]


def take(apic: LocalApic) -> list[int]:
    """Take and end all interrupts that are ready, as a processor with IF = 1 would."""
    taken = []
    while apic.signals.interrupt:
        vector = apic.acknowledge()
        assert vector is not None
        taken.append(vector)
        if apic.x2apic_mode:
            apic.write_msr(msr_of(Reg.EOI), 0)
        else:
            put(apic, Reg.EOI, 0)
    return taken
