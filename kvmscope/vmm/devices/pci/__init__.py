"""PCI: configuration mechanism #1, a root bus, the chipset's own functions and two test devices."""

from __future__ import annotations

from kvmscope.vmm.devices.pci.edu import Edu
from kvmscope.vmm.devices.pci.function import Bar, Identity, PciFunction
from kvmscope.vmm.devices.pci.i440fx import I440Fx, Piix3, Piix4Pm
from kvmscope.vmm.devices.pci.q35 import Ich9Lpc, Mch
from kvmscope.vmm.devices.pci.root import PciRoot, devfn
from kvmscope.vmm.devices.pci.testdev import PciTestDevice
from kvmscope.vmm.devices.pci.upstream import Upstream

__all__ = [
    "Bar",
    "Edu",
    "I440Fx",
    "Ich9Lpc",
    "Identity",
    "Mch",
    "PciFunction",
    "PciRoot",
    "PciTestDevice",
    "Piix3",
    "Piix4Pm",
    "Upstream",
    "devfn",
]
