"""The descriptor-table panel."""

from __future__ import annotations

from typing import ClassVar

from kvmscope.ui.line_panel import Row
from kvmscope.ui.panels.fold import FoldPanel
from kvmscope.ui.render.tables import PARTS, descriptor_rows
from kvmscope.ui.view import View

__all__ = ["DescriptorsPanel"]


class DescriptorsPanel(FoldPanel):
    """GDT, IDT or IVT, TSS and LDT as they stand in memory."""

    KIND = "descriptors"
    TITLE = "Descriptors"
    HELP = (
        "GDT, IDT or IVT, TSS and LDT, decoded from memory as it stands.\n"
        "◂ names the segment registers that hold a selector, ✗ says why a descriptor cannot be used.\n"
        "Gates to the boot stubs, where the machine stops, share a row.\n"
        "Enter shows a descriptor's bytes, or opens and closes a table; - and + close and open all."
    )
    PARTS: ClassVar[tuple[str, ...]] = PARTS

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        return descriptor_rows(view, width, self.folded)
