"""Actions for a machine with several vCPUs: which is looked at, which get turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmscope.ui.run_actions import RunActions

if TYPE_CHECKING:
    from kvmscope.vmm.snapshot import Snapshot

__all__ = ["VcpuActions"]


class VcpuActions(RunActions):
    """Next, previous, this one; freezing the others."""

    def action_next_vcpu(self) -> None:
        """Look at the next vCPU."""
        self._select_by(1)

    def action_previous_vcpu(self) -> None:
        """Look at the vCPU before."""
        self._select_by(-1)

    def action_vcpu(self, number: int) -> None:
        """Look at a vCPU."""
        if self._several() is not None:
            self.hush()
            self.controller.select_vcpu(number)

    def action_lock_vcpu(self) -> None:
        """Freeze every other vCPU, or let all go on when some are frozen."""
        snapshot = self._several()
        if snapshot is None:
            return
        if any(vcpu.frozen for vcpu in snapshot.vcpus):
            if self.controller.freeze(frozenset()):
                self.say("Every vCPU gets its turn again", "bar_strong")
        elif self.controller.freeze(frozenset(vcpu.index for vcpu in snapshot.vcpus) - {snapshot.vcpu}):
            self.say(f"Only vCPU {snapshot.vcpu} gets turns, the others are frozen", "bar_strong")

    def _select_by(self, step: int) -> None:
        snapshot = self._several()
        if snapshot is not None:
            self.action_vcpu((snapshot.vcpu + step) % len(snapshot.vcpus))

    def _several(self) -> Snapshot | None:
        """The stop that is shown, where the machine has several vCPUs and can be asked; else that is said."""
        snapshot = self.view.snapshot if self.view is not None and self.controller.ready else None
        if snapshot is None or not snapshot.vcpus:
            self.say("This machine has one vCPU: smp = 2 in the header gives it two")
            return None
        return snapshot
