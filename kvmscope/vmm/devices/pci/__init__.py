"""PCI: configuration mechanism #1, a root bus and the chipset's own functions.

Devices to plug in, `edu` and `testdev`, are imported by who plugs them in.
"""

from __future__ import annotations

from kvmscope.vmm.devices.pci.function import Bar, Identity, PciFunction
from kvmscope.vmm.devices.pci.platform import ChipsetName, make_root
from kvmscope.vmm.devices.pci.root import PciRoot, devfn
from kvmscope.vmm.devices.pci.upstream import Upstream

__all__ = [
    "Bar",
    "ChipsetName",
    "Identity",
    "PciFunction",
    "PciRoot",
    "Upstream",
    "devfn",
    "make_root",
]
