"""The register panel."""

from __future__ import annotations

from typing import ClassVar

from kvmscope.ui.line_panel import Row
from kvmscope.ui.panels.fold import FoldPanel
from kvmscope.ui.render.registers import DEFAULT_FOLDED, GROUPS, register_rows
from kvmscope.ui.view import View

__all__ = ["RegistersPanel"]


class RegistersPanel(FoldPanel):
    """General, flag, segment, control, debug and vector registers, MSRs."""

    KIND = "registers"
    TITLE = "Registers"
    HELP = (
        "Every register of the processor, by name and bit.\n"
        "Digits that the last command changed are underlined and their row begins with ▸; flags are upper case when set.\n"
        "Enter edits the value under the cursor, or opens and closes a group; - and + close and open all groups.\n"
        "m shows the memory that a register points to, t explains its bits."
    )
    FOLDED: ClassVar[frozenset[str]] = DEFAULT_FOLDED
    PARTS: ClassVar[tuple[str, ...]] = GROUPS

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        return register_rows(view, width, self.folded)

    def subtitle(self, view: View) -> str:
        cpu = view.snapshot.cpu
        which = f"vCPU {view.snapshot.vcpu} · " if view.snapshot.vcpus else ""
        return f"{which}{cpu.mode}-bit CPL {cpu.cpl}"
