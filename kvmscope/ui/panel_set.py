"""All panels, made together: imported after the first paint, since what they draw with takes a while to load."""

from __future__ import annotations

from kvmscope.ui.console import ConsolePanel
from kvmscope.ui.line_panel import LinePanel
from kvmscope.ui.panels import (
    DescriptorsPanel,
    DevicesPanel,
    DisassemblyPanel,
    ExplanationPanel,
    MemoryPanel,
    PagingPanel,
    RegistersPanel,
    SerialPanel,
    TimelinePanel,
)

__all__ = ["make_panels"]


def make_panels() -> list[LinePanel]:
    """One of each; for the UI's thread."""
    return [
        RegistersPanel(),
        ExplanationPanel(),
        DisassemblyPanel(),
        PagingPanel(),
        MemoryPanel(),
        TimelinePanel(),
        SerialPanel(),
        DescriptorsPanel(),
        DevicesPanel(),
        ConsolePanel(),
    ]
