"""The root buses of QEMU's two PC machines, ready-made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from kvmscope.vmm.devices.acpi_pm import AcpiPm
from kvmscope.vmm.devices.pci.function import PciFunction
from kvmscope.vmm.devices.pci.i440fx import I440Fx, Piix3, Piix4Pm
from kvmscope.vmm.devices.pci.root import PciRoot, devfn
from kvmscope.vmm.devices.pci.upstream import Upstream

__all__ = ["FIRST_SLOT", "ChipsetName", "make_root"]

ChipsetName = Literal["pc", "q35"]
FIRST_SLOT: Final = 4
"""Where QEMU puts the first device of the command line, behind its VGA and network adapters."""


def make_root(
    chipset: ChipsetName,
    pm: AcpiPm,
    upstream: Upstream,
    irq: Callable[[int, bool], None],
    remap: Callable[[], None],
    devices: Sequence[PciFunction] = (),
) -> PciRoot:
    """The chipset's functions and ``devices`` in slots from 4 on; put the root and its functions on the bus."""
    functions: dict[int, PciFunction] = {devfn(FIRST_SLOT + i): device for i, device in enumerate(devices)}
    if chipset == "q35":
        from kvmscope.vmm.devices.pci.q35 import Ich9Lpc, Mch

        functions |= {devfn(0): Mch(), devfn(31): Ich9Lpc(pm)}
    else:
        functions |= {devfn(0): I440Fx(), devfn(1): Piix3(), devfn(1, 3): Piix4Pm(pm)}
    return PciRoot(functions, upstream, irq, remap)
