"""PCI: configuration mechanism #1, a root bus, the chipset's own functions and two test devices."""

from __future__ import annotations

from kvmscope.vmm.devices.pci.edu import Edu
from kvmscope.vmm.devices.pci.function import Bar, Identity, PciFunction
from kvmscope.vmm.devices.pci.platform import ChipsetName, make_root
from kvmscope.vmm.devices.pci.root import PciRoot, devfn
from kvmscope.vmm.devices.pci.testdev import PciTestDevice
from kvmscope.vmm.devices.pci.upstream import Upstream

__all__ = [
    "Bar",
    "ChipsetName",
    "Edu",
    "Identity",
    "PciFunction",
    "PciRoot",
    "PciTestDevice",
    "Upstream",
    "devfn",
    "make_root",
]
