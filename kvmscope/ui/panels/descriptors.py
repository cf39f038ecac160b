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
        "The tables that GDTR, IDTR, TR and LDTR name, decoded from memory as it stands. ◂ names the segment registers that "
        "hold a selector, ✗ says why a descriptor cannot be used, ▸ marks what the last command changed. Gates to the boot "
        "stubs, where the machine stops, share a row. Enter shows a descriptor's bytes, or opens and closes a table."
    )
    PARTS: ClassVar[tuple[str, ...]] = PARTS

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        return descriptor_rows(view, width, self.folded)
