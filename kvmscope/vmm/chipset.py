"""The chipset: which devices a machine has and how their lines are wired, as on a PC with one I/O APIC."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.clock import Clock
from kvmscope.vmm.config import MachineConfig
from kvmscope.vmm.devices.acpi_pm import AcpiPm
from kvmscope.vmm.devices.bus import Bus
from kvmscope.vmm.devices.debug_exit import DebugExit
from kvmscope.vmm.devices.debugcon import DebugConsole
from kvmscope.vmm.devices.device import Device, GuestRam
from kvmscope.vmm.devices.fw_cfg import FwCfg
from kvmscope.vmm.devices.hpet import Hpet
from kvmscope.vmm.devices.i8042 import KeyboardController
from kvmscope.vmm.devices.interrupts import ApicBus, Line, Signals
from kvmscope.vmm.devices.ioapic import IoApic
from kvmscope.vmm.devices.lapic import LocalApic
from kvmscope.vmm.devices.lapic.registers import Reg
from kvmscope.vmm.devices.pci import ChipsetName, PciFunction, Upstream, make_root
from kvmscope.vmm.devices.pic import Pic
from kvmscope.vmm.devices.pit import Pit
from kvmscope.vmm.devices.post_code import PostCode
from kvmscope.vmm.devices.reset import ResetControl, ResetKind
from kvmscope.vmm.devices.rtc import Rtc
from kvmscope.vmm.devices.testdev import TestDevice
from kvmscope.vmm.devices.uart import Uart16550
from kvmscope.x86.profiles import resolve

if TYPE_CHECKING:
    from kvmscope.vmm.devices.iommu import Iommu

__all__ = ["Chipset"]

_TIMER_GSI: Final = 2
"""I/O APIC input of ISA IRQ 0 (the MADT says so to the guest)."""
_SCI: Final = 9

_VIRTUAL_WIRE: Final = 0x700
"""LVT LINT0: ExtINT, not masked (MP specification 1.4, section 3.6.2.2)."""
_LINT1_NMI: Final = 0x400


class Chipset:
    """Bus, devices, interrupt controllers and the processors' pins."""

    def __init__(
        self,
        clock: Clock,
        ram: GuestRam,
        config: MachineConfig,
        *,
        kick: Callable[[int], None],
        serial: Callable[[int], None],
        debugcon: Callable[[int], None],
        debug_exit: Callable[[int], None],
        reset: Callable[[str], None],
        suspend: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        profile = resolve(config.cpu)
        vcpus = config.smp
        self._reset = reset
        self.signals = tuple(Signals(_kicker(kick, vcpu)) for vcpu in range(vcpus))
        self.messages = ApicBus()
        self.pic = Pic(self._pic_output)
        self.ioapic = IoApic(self.messages)
        self.messages.listeners.append(self.ioapic)
        self.apics = tuple(
            LocalApic(
                vcpu,
                clock,
                self.messages,
                self.signals[vcpu],
                x2apic=profile.has("x2apic"),
                tsc_deadline=profile.has("tsc_deadline_timer"),
                bootstrap=vcpu == 0,
                maxphyaddr=profile.maxphyaddr,
                external=self.pic.acknowledge if vcpu == 0 else None,
            )
            for vcpu in range(vcpus)
        )
        self.messages.receivers.extend(self.apics)
        self.virtual_wire()
        self.exit = DebugExit(debug_exit)
        self.acpi = AcpiPm(
            clock,
            self._irq(_SCI),
            suspend=lambda _state: suspend(),
            power_off=lambda: reset("the guest switched the machine off (ACPI S5)"),
            wake=wake,
            remap=self._remap,
        )
        iommu = self._iommu(ram, profile.maxphyaddr) if "intel-iommu" in config.devices else None
        upstream = Upstream(ram, self.messages, iommu)
        # The HPET's messages go where a function's go; they bear no source-id.
        hpet = Hpet(clock, self._interrupt, lambda address, data: upstream.interrupt(None, address, data))
        # Legacy replacement takes interrupts 0 and 8 from the PIT and the RTC.
        self.pit = Pit(clock, hpet.legacy_input(0))
        self.pit.heard = lambda: not hpet.legacy and self._heard(0)
        hpet.heard = self._heard
        hpet.sources = (self.pit,)
        self.pic.sources = self.ioapic.sources = (self.pit, hpet)
        # The order decides who gets a port that two claim: the debug console has 0xe9, the reset register 0xcf9.
        devices: list[Device] = [
            Uart16550(serial),
            DebugConsole(debugcon),
            self.exit,
            TestDevice(self.set_gsi),
            self.pic,
            self.pit,
            self.ioapic,
            hpet,
            Rtc(clock, hpet.legacy_input(8), self.acpi.rtc_alarm, below_4g=config.memory),
            FwCfg(ram, config.memory, vcpus),
            self.acpi,
            ResetControl(self._asked),
            KeyboardController(self._asked, self._irq(1), self._irq(12)),
            PostCode(),
            *self._pci(clock, upstream, "pc" if iommu is None else "q35", config.devices),
        ]
        if iommu is not None:
            devices.append(iommu)
        self.bus = Bus(devices)

    # What few guests ask for is imported when one does.

    def _iommu(self, ram: GuestRam, address_bits: int) -> Iommu:
        from kvmscope.vmm.devices.iommu import Iommu

        iommu = Iommu(ram, self.messages, address_bits)
        self.ioapic.remap = iommu.redirection
        return iommu

    def _pci(self, clock: Clock, upstream: Upstream, chipset: ChipsetName, names: tuple[str, ...]) -> list[Device]:
        """The root and its functions."""
        plugged: list[PciFunction] = []
        if "edu" in names:
            from kvmscope.vmm.devices.pci.edu import Edu

            plugged.append(Edu(clock))
        if "pci-testdev" in names:
            from kvmscope.vmm.devices.pci.testdev import PciTestDevice

            plugged.append(PciTestDevice())
        root = make_root(
            chipset,
            self.acpi,
            upstream,
            self._interrupt,
            self._remap,
            plugged,
        )
        return [root, *root.functions.values()]

    def _remap(self) -> None:
        self.bus.remap()

    def virtual_wire(self) -> None:
        """After a reset, as under KVM: the 8259s reach the first processor without further ado."""
        self.apics[0].values[Reg.LVT_LINT0] = _VIRTUAL_WIRE

    def firmware(self) -> None:
        """Bring the devices to where a PC's firmware leaves them when it hands over to a boot loader."""
        self.pit.set_bios_state()
        self.pic.set_bios_state()
        first = self.apics[0]
        first.write(Reg.SVR, 4, 0x1FF)
        first.write(Reg.LVT_LINT0, 4, _VIRTUAL_WIRE)
        first.write(Reg.LVT_LINT1, 4, _LINT1_NMI)

    # lines

    def _pic_output(self, level: bool) -> None:
        self.apics[0].set_lint(0, level)

    def _irq(self, irq: int) -> Line:
        return lambda level: self.set_irq(irq, level)

    def set_irq(self, irq: int, level: bool) -> None:
        """An ISA interrupt line, 0 to 15: both controllers see it."""
        self.pic.set_irq(irq, level)
        self.ioapic.set_irq(_TIMER_GSI if irq == 0 else irq, level)

    def set_gsi(self, gsi: int, level: bool) -> None:
        """An input of the I/O APIC, 0 to 23; below 16 it is an ISA line."""
        if gsi < 16:
            self.pic.set_irq(gsi, level)
        self.ioapic.set_irq(gsi, level)

    def _interrupt(self, number: int, level: bool) -> None:
        """A global interrupt number: ISA lines below 16, pins of the I/O APIC above."""
        if number < 16:
            self.set_irq(number, level)
        else:
            self.ioapic.set_irq(number, level)

    def _heard(self, number: int) -> bool:
        """Interrupt ``number`` is open at one controller at least."""
        if number < 16 and not self.pic.masked(number):
            return True
        return not self.ioapic.masked(_TIMER_GSI if number == 0 else number)

    def _asked(self, kind: ResetKind) -> None:
        self._reset(f"the guest asked for a reset of the {'processors' if kind == 'init' else 'machine'}")


def _kicker(kick: Callable[[int], None], vcpu: int) -> Callable[[], None]:
    return lambda: kick(vcpu)
