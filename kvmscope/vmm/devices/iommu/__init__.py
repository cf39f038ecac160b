"""Intel VT-d: DMA remapping and interrupt remapping (Intel Virtualization Technology for Directed I/O, revision 3.3)."""

from __future__ import annotations

from kvmscope.vmm.devices.iommu.faults import Reason, RemapFault
from kvmscope.vmm.devices.iommu.unit import IOMMU_BASE, Iommu

__all__ = ["IOMMU_BASE", "Iommu", "Reason", "RemapFault"]
