"""The local APIC of one processor (SDM vol. 3A chapter 11), as its registers, pins and messages see it.

What the manual leaves open is decided as KVM does where a guest can tell: ExtINT goes before the APIC's own interrupts,
NMI, INIT and SMI may be sent with every shorthand, lowest-priority IPIs are supported, what is in the IRR when software
disables the APIC is still delivered.  There is no system-management mode: SMIs arrive and do nothing.
"""

from __future__ import annotations

from kvmscope.vmm.devices.device import DeviceView
from kvmscope.vmm.devices.interrupts import DeliveryMode, Message
from kvmscope.vmm.devices.lapic import msr
from kvmscope.vmm.devices.lapic.core import ApicCore, is_level
from kvmscope.vmm.devices.lapic.ipi import (
    BROADCAST,
    Shorthand,
    icr_message,
    matches_x2apic,
    matches_xapic,
    x2apic_logical_id,
)
from kvmscope.vmm.devices.lapic.registers import (
    DIVISORS,
    LVT_MASKED,
    LVT_REMOTE_IRR,
    LVTS,
    REGISTERS,
    SVR_ENABLED,
    VERSION,
    ApicError,
    Reg,
)
from kvmscope.vmm.devices.lapic.timer import TimerMode
from kvmscope.vmm.devices.lapic.view import describe

__all__ = ["LocalApic"]


class LocalApic(ApicCore):
    """The local APIC of vCPU ``index``, which is its initial APIC ID too.  Who makes it puts it among the bus's receivers.

    ``external`` is an interrupt-acknowledge cycle of the 8259s and gives their vector; None where they are not wired.
    ``tsc`` is the processor's time-stamp counter: the board replaces the default, which follows guest time, and calls
    `tsc_changed` when software writes the counter.
    """

    # memory

    def read(self, offset: int, size: int) -> int:
        """Load from the register page.

        As in KVM, 1, 2 or 4 bytes within the first four of each sixteen read that part of the register; all other loads
        read 0 (section 11.4.1: only aligned 32-bit accesses are defined).  Without xAPIC mode: all ones.
        """
        if not self.mmio_enabled:
            return (1 << 8 * size) - 1
        within = offset & 0xF
        if size not in (1, 2, 4) or within + size > 4:
            return 0
        if self.timer.settle():
            self._update()
        register = REGISTERS.get(offset & ~0xF)
        if register is None or not register.xapic:
            self._error(ApicError.ILLEGAL_REGISTER)
            self._update()
            return 0
        # Of what can only be written, a load gives 0.
        value = self.load(register.offset)
        return value >> 8 * within & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Store into the register page; as in KVM, all but aligned 32-bit stores are dropped."""
        if not self.mmio_enabled or size != 4 or offset & 0xF:
            return
        self.timer.settle()
        register = REGISTERS.get(offset)
        if register is None or not register.xapic:
            self._error(ApicError.ILLEGAL_REGISTER)
        elif "w" in register.xapic:
            self.store(offset, value & msr.writable_bits(self, register))
        self._update()

    # model-specific registers

    def read_msr(self, index: int) -> int | None:
        """RDMSR; None: not an MSR of this device.  Raises `MsrFault`."""
        if self.timer.settle():
            self._update()
        return msr.read(self, index)

    def write_msr(self, index: int, value: int) -> bool:
        """WRMSR; False: not an MSR of this device.  Raises `MsrFault`."""
        self.timer.settle()
        try:
            return msr.write(self, index, value)
        finally:
            self._update()

    def tsc_changed(self) -> None:
        """The processor's TSC jumped: the deadline is another time now."""
        self._refresh()

    def get_cr8(self) -> int:
        """CR8: the task-priority class."""
        return self.values[Reg.TPR] >> 4

    def set_cr8(self, value: int) -> None:
        """Write of CR8; the sub-class becomes 0."""
        self.timer.settle()
        self.values[Reg.TPR] = (value & 0xF) << 4
        self._update()

    # registers, whichever way they are reached

    def load(self, offset: int) -> int:
        """Value of a register, without side effects; `ApicTimer.settle` has been called."""
        match offset:
            case Reg.CURRENT_COUNT:
                return self.timer.current
            case Reg.ID | Reg.LDR if self.x2apic_mode:
                return self.index if offset == Reg.ID else x2apic_logical_id(self.index)
            case _ if offset in self.values:
                return self.values[offset]
            case Reg.VERSION:
                return VERSION
            case Reg.PPR:
                return self.priority
            case Reg.INITIAL_COUNT:
                return self.timer.initial
        for first, vectors in ((Reg.ISR, self.isr), (Reg.TMR, self.tmr), (Reg.IRR, self.irr)):
            if first <= offset < first + 0x80:
                return vectors >> 2 * (offset - first) & 0xFFFFFFFF
        return 0

    def store(self, offset: int, value: int) -> None:
        """Write ``value``, of which only writable bits are set, to a register."""
        values = self.values
        match offset:
            case Reg.EOI:
                self._end_of_interrupt()
            case Reg.DFR:
                values[Reg.DFR] = value | 0x0FFFFFFF
            case Reg.SVR:
                values[Reg.SVR] = value
                if not value & SVR_ENABLED:
                    for lvt in LVTS:
                        values[lvt] |= LVT_MASKED
            case Reg.ESR:
                # Shows what has come since the last write, and arms the error interrupt again (section 11.5.3).
                values[Reg.ESR], self.errors = self.errors, 0
            case Reg.ICR:
                values[Reg.ICR] = value
                self._send_ipi(value)
            case Reg.SELF_IPI:
                self._send_ipi(Shorthand.SELF << 18 | value)
            case Reg.INITIAL_COUNT:
                self.timer.start(value)
            case Reg.DIVIDE:
                values[Reg.DIVIDE] = value
                self.timer.set_divisor(DIVISORS[value])
            case _ if offset in LVTS:
                self._store_lvt(offset, value)
            case _:
                values[offset] = value

    def _store_lvt(self, offset: int, value: int) -> None:
        if not self.software_enabled:
            value |= LVT_MASKED
        if offset == Reg.LVT_TIMER:
            self.timer.set_mode(TimerMode(value >> 17 & 3))
        elif offset == Reg.LVT_LINT0 and is_level(value):
            value |= self.values[offset] & LVT_REMOTE_IRR
        self.values[offset] = value
        self._poll_level_pin()

    # messages

    def accepts(self, message: Message) -> bool:
        """True when ``message`` is addressed to this APIC and the APIC is there; fixed ones also need it enabled."""
        if not self.enabled:
            return False
        if message.mode in (DeliveryMode.FIXED, DeliveryMode.LOWEST) and not self.software_enabled:
            return False
        if self.x2apic_mode:
            return matches_x2apic(message, self.index)
        values = self.values
        return matches_xapic(message, values[Reg.ID] >> 24, self.index, values[Reg.LDR], values[Reg.DFR])

    def receive(self, message: Message) -> None:
        """Take the interrupt."""
        self.timer.settle()
        match message.mode:
            case DeliveryMode.FIXED | DeliveryMode.LOWEST:
                if self.software_enabled:
                    self._request(message.vector, message.level)
            case DeliveryMode.NMI:
                self._signal_nmi()
            case DeliveryMode.INIT:
                if message.assert_:
                    self._signal_init()
            case DeliveryMode.SIPI:
                self.signals.startup = (message.vector << 8, 0)
                self.signals.kick()
            case DeliveryMode.EXTINT:
                self.extint = self._external is not None
        self._update()

    def _send_ipi(self, low: int) -> None:
        destination = self.values[Reg.ICR_HIGH] if self.x2apic_mode else self.values[Reg.ICR_HIGH] >> 24
        message = icr_message(low, destination, self.x2apic_mode)
        if message is None:
            return
        if message.mode in (DeliveryMode.FIXED, DeliveryMode.LOWEST) and message.vector < 16:
            # It is sent all the same: those who get it note their own error.
            self._error(ApicError.SEND_ILLEGAL_VECTOR)
        shorthand = low >> 18 & 3
        if shorthand == Shorthand.NONE:
            self._bus.send(message)
        elif shorthand == Shorthand.SELF:
            self.receive(message)
        else:
            everybody = Message(0, message.mode, BROADCAST, wide=True)
            targets = [
                apic
                for apic in self._bus.receivers
                if apic.accepts(everybody) and (apic is not self or shorthand == Shorthand.ALL)
            ]
            if message.mode == DeliveryMode.LOWEST and targets:
                targets = [min(targets, key=lambda apic: apic.priority)]
            for apic in targets:
                apic.receive(message)

    # panel

    def view(self) -> DeviceView:
        """The registers, decoded."""
        return describe(self)
