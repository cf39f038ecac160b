"""The local APIC from its sources to the processor: pins, local vector table, errors, IRR, ISR, priorities, EOI.

SDM vol. 3A sections 11.4 to 11.5 and 11.8.  How software and messages reach it is `apic`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmscope.vmm.clock import TSC_RATIO, Clock
from kvmscope.vmm.devices.device import DeviceState
from kvmscope.vmm.devices.interrupts import ApicBus, DeliveryMode, Signals
from kvmscope.vmm.devices.lapic.msr import BSP, EN, EXTD
from kvmscope.vmm.devices.lapic.registers import (
    LVT_LEVEL,
    LVT_MASKED,
    LVT_REMOTE_IRR,
    REGISTERS,
    STORED,
    SVR_ENABLED,
    ApicError,
    Reg,
)
from kvmscope.vmm.devices.lapic.timer import ApicTimer

__all__ = ["ApicCore", "is_level"]

_DEFAULT_BASE: Final = 0xFEE00000
_PAGE_MASK: Final = ~0xFFF
_PINS: Final = (Reg.LVT_LINT0, Reg.LVT_LINT1)


def is_level(entry: int) -> bool:
    """True when an entry for LINT0 is fixed and level triggered."""
    return bool(entry & LVT_LEVEL) and entry >> 8 & 7 == DeliveryMode.FIXED


def _highest(vectors: int) -> int:
    """Highest vector of a set held as bits; -1 of the empty one."""
    return vectors.bit_length() - 1


class ApicCore:
    """State, and everything between a source of interrupts and INTR; `LocalApic` says what the arguments are."""

    def __init__(
        self,
        index: int,
        clock: Clock,
        bus: ApicBus,
        signals: Signals,
        *,
        x2apic: bool,
        tsc_deadline: bool,
        bootstrap: bool,
        maxphyaddr: int,
        external: Callable[[], int] | None,
    ) -> None:
        self.name = f"lapic {index}"
        self.index = index
        self.signals = signals
        self.has_x2apic = x2apic
        self.has_tsc_deadline = tsc_deadline
        self.maxphyaddr = maxphyaddr
        self.tsc: Callable[[], int] = lambda: clock.now * TSC_RATIO
        self._bus = bus
        self._bootstrap = bootstrap
        self._external = external
        self.timer = ApicTimer(
            clock,
            expired=self._timer_expired,
            wake=self._refresh,
            matters=self._timer_matters,
            tsc=lambda: self.tsc(),
        )
        self.apic_base = 0
        self.values: dict[int, int] = {}
        """Contents of the registers in `STORED`, by offset."""
        # 256 bits each, bit n is vector n.
        self.isr = self.tmr = self.irr = 0
        self.errors = 0
        """Errors since the last write of the ESR."""
        self.pins = [False, False]
        """Levels at LINT0 and LINT1."""
        self.extint = False
        """An ExtINT message waits for its acknowledge cycle."""
        self.reset()

    # mode

    @property
    def enabled(self) -> bool:
        """IA32_APIC_BASE.EN; clear, the processor has no APIC (and CPUID must not show one)."""
        return bool(self.apic_base & EN)

    @property
    def x2apic_mode(self) -> bool:
        """IA32_APIC_BASE.EXTD: the registers are MSRs."""
        return bool(self.apic_base & EXTD)

    @property
    def mmio_enabled(self) -> bool:
        """XAPIC mode: the registers are memory at `base`."""
        return self.apic_base & (EN | EXTD) == EN

    @property
    def base(self) -> int:
        """Physical address of the register page."""
        return self.apic_base & _PAGE_MASK

    @property
    def software_enabled(self) -> bool:
        """Bit 8 of the SVR."""
        return bool(self.values[Reg.SVR] & SVR_ENABLED)

    def reset(self) -> None:
        """Power-up and reset (section 11.4.7.1): xAPIC mode, software disabled, nothing waits at the processor."""
        self.apic_base = _DEFAULT_BASE | EN | (BSP if self._bootstrap else 0)
        self.signals.nmi = self.signals.init = False
        self.signals.startup = None
        self._initialize()
        self._update()

    def init_reset(self) -> None:
        """INIT (sections 11.4.7.3 and 11.12.5.1): as reset, but ID and mode stay."""
        xapic_id = self.values[Reg.ID]
        self._initialize()
        self.values[Reg.ID] = xapic_id
        self._update()

    def set_apic_base(self, value: int) -> None:
        """Take a legal value of IA32_APIC_BASE.

        Disabling loses all state (section 11.4.3) but the TPR, which is also CR8 and works without an APIC; the xAPIC
        ID is the initial one again.
        """
        disabling = self.enabled and not value & EN
        self.apic_base = value
        if disabling:
            tpr = self.values[Reg.TPR]
            self._initialize()
            self.values[Reg.TPR] = tpr

    def _initialize(self) -> None:
        self.values = {offset: REGISTERS[offset].reset for offset in STORED}
        self.values[Reg.ID] = (self.index & 0xFF) << 24
        self.isr = self.tmr = self.irr = self.errors = 0
        self.extint = False
        self.timer.reset()

    # interrupts of this APIC's own: local vector table and errors

    def set_lint(self, pin: int, level: bool) -> None:
        """Level at LINT0 (pin 0) or LINT1 (pin 1), asserted or not: polarity is the board's, the LVT's bit 13 is kept
        and does nothing (as in KVM and QEMU).

        While the APIC is disabled they are INTR and NMI (section 11.4.3).  Level triggering exists for LINT0 in fixed
        mode; LINT1 and the other modes take rising edges, ExtINT follows the level.
        """
        rising = level and not self.pins[pin]
        self.timer.settle()
        self.pins[pin] = level
        if rising and not self.enabled:
            if pin == 1:
                self._signal_nmi()
        elif rising and not (pin == 0 and is_level(self.values[Reg.LVT_LINT0])):
            self._local_interrupt(_PINS[pin])
        self._poll_level_pin()
        self._update()

    def _local_interrupt(self, lvt: int) -> None:
        """An edge of a local source, which its entry may mask."""
        entry = self.values[lvt]
        if entry & LVT_MASKED:
            return
        match entry >> 8 & 7:
            case DeliveryMode.FIXED:
                self._request(entry & 0xFF, level=False)
            case DeliveryMode.NMI:
                self._signal_nmi()
            case DeliveryMode.INIT:
                self._signal_init()

    def _poll_level_pin(self) -> None:
        """Take LINT0 while it is asserted, level triggered, and its last interrupt has ended."""
        entry = self.values[Reg.LVT_LINT0]
        waits = self.pins[0] and is_level(entry) and not entry & (LVT_MASKED | LVT_REMOTE_IRR)
        # An illegal vector is not accepted, so there is no interrupt that could end.
        if waits and self._request(entry & 0xFF, level=True):
            self.values[Reg.LVT_LINT0] |= LVT_REMOTE_IRR

    def _timer_expired(self) -> None:
        self._local_interrupt(Reg.LVT_TIMER)

    def _timer_matters(self) -> bool:
        """False when an expiry would change nothing: masked, pending already, or its error noted already."""
        entry = self.values[Reg.LVT_TIMER]
        vector = entry & 0xFF
        if entry & LVT_MASKED:
            return False
        if vector < 16:
            return not self.errors & ApicError.RECEIVE_ILLEGAL_VECTOR
        return not (self.irr & ~self.tmr) >> vector & 1

    def _error(self, error: ApicError) -> None:
        """Note an error; the first one since the ESR was written raises the error interrupt."""
        first = not self.errors
        self.errors |= error
        if first:
            self._local_interrupt(Reg.LVT_ERROR)

    def _signal_nmi(self) -> None:
        self.signals.nmi = True
        self.signals.kick()

    def _signal_init(self) -> None:
        # An INIT undoes a SIPI that came before it.
        self.signals.startup = None
        self.signals.init = True
        self.signals.kick()

    # the interrupt on its way to the processor

    @property
    def priority(self) -> int:
        """PPR: the task priority, or the class in service if that is higher (section 11.8.3.1)."""
        # The sub-class is the TPR's where the classes are equal, so the greater number is the right one.
        return max(self.values[Reg.TPR], _highest(self.isr) & 0xF0 if self.isr else 0)

    def _request(self, vector: int, level: bool) -> bool:
        """Accept a fixed interrupt into the IRR; False for an illegal vector."""
        if vector < 16:
            self._error(ApicError.RECEIVE_ILLEGAL_VECTOR)
            return False
        bit = 1 << vector
        self.irr |= bit
        self.tmr = self.tmr | bit if level else self.tmr & ~bit
        return True

    def _external_ready(self) -> bool:
        if self._external is None:
            return False
        if self.extint:
            return True
        if not self.pins[0]:
            return False
        entry = self.values[Reg.LVT_LINT0]
        return not self.enabled or (not entry & LVT_MASKED and entry >> 8 & 7 == DeliveryMode.EXTINT)

    def _deliverable(self) -> int | None:
        """The vector that the processor would get from the IRR now."""
        if not self.irr:
            return None
        vector = _highest(self.irr)
        return vector if vector >> 4 > self.priority >> 4 else None

    def acknowledge(self) -> int | None:
        """The processor takes the interrupt: its vector.

        The spurious vector if priority has dropped what was signalled; None when the APIC is disabled and nothing waits.
        """
        self.timer.settle()
        if self._external is not None and self._external_ready():
            self.extint = False
            vector: int | None = self._external()
        elif (vector := self._deliverable()) is not None:
            self.irr &= ~(1 << vector)
            self.isr |= 1 << vector
        elif self.software_enabled:
            vector = self.values[Reg.SVR] & 0xFF
        self._update()
        return vector

    def _end_of_interrupt(self) -> None:
        vector = _highest(self.isr)
        if vector < 0:
            return
        self.isr &= ~(1 << vector)
        if self.tmr >> vector & 1:
            entry = self.values[Reg.LVT_LINT0]
            if entry & LVT_REMOTE_IRR and entry & 0xFF == vector:
                self.values[Reg.LVT_LINT0] &= ~LVT_REMOTE_IRR
                self._poll_level_pin()
            self._bus.end_of_interrupt(vector)

    def _refresh(self) -> None:
        self.timer.settle()
        self._update()

    def _update(self) -> None:
        """After any change: INTR as it must be now, and the timer's next deadline."""
        ready = self._external_ready() or self._deliverable() is not None
        if ready != self.signals.interrupt:
            self.signals.interrupt = ready
            if ready:
                self.signals.kick()
        self.timer.schedule()

    # history

    def save(self) -> DeviceState:
        """Everything but what waits at the processor's pins, which is `Signals`'."""
        return (
            self.apic_base,
            self.isr,
            self.tmr,
            self.irr,
            self.errors,
            *(int(level) for level in self.pins),
            int(self.extint),
            *(self.values[offset] for offset in STORED),
            *self.timer.save(),
        )

    def restore(self, state: DeviceState) -> None:
        """Be again what `save` saw; INTR follows."""
        numbers = [number for number in state if isinstance(number, int)]
        self.apic_base, self.isr, self.tmr, self.irr, self.errors, lint0, lint1, extint = numbers[:8]
        self.pins, self.extint = [bool(lint0), bool(lint1)], bool(extint)
        end = 8 + len(STORED)
        self.values = dict(zip(STORED, numbers[8:end], strict=True))
        self.timer.restore(tuple(numbers[end:]))
        self.signals.interrupt = self._external_ready() or self._deliverable() is not None
