"""How a guest starts: memory contents and processor state from a `MachineConfig` and an `Image`."""

from __future__ import annotations

from kvmscope.vmm.boot.layout import stub_address
from kvmscope.vmm.boot.model import Boot
from kvmscope.vmm.boot.prepare import MAX_MEMORY, MIN_MEMORY, prepare

__all__ = ["MAX_MEMORY", "MIN_MEMORY", "Boot", "prepare", "stub_address"]
