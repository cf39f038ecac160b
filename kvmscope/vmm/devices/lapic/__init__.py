"""The local APIC (SDM vol. 3A chapter 11)."""

from kvmscope.vmm.devices.lapic.apic import LocalApic

__all__ = ["LocalApic"]
