"""The panels: what draws and remembers a position; what is drawn comes from `kvmscope.ui.render`."""

from __future__ import annotations

from kvmscope.ui.line_panel import LinePanel
from kvmscope.ui.panels.descriptors import DescriptorsPanel
from kvmscope.ui.panels.devices import DevicesPanel
from kvmscope.ui.panels.disassembly import DisassemblyPanel
from kvmscope.ui.panels.explanation import ExplanationPanel
from kvmscope.ui.panels.memory import MemoryPanel
from kvmscope.ui.panels.paging import PagingPanel
from kvmscope.ui.panels.registers import RegistersPanel
from kvmscope.ui.panels.serial import SerialPanel
from kvmscope.ui.panels.timeline import TimelinePanel

__all__ = [
    "DescriptorsPanel",
    "DevicesPanel",
    "DisassemblyPanel",
    "ExplanationPanel",
    "MemoryPanel",
    "PagingPanel",
    "RegistersPanel",
    "SerialPanel",
    "TimelinePanel",
    "make_panels",
]


def make_panels() -> list[LinePanel]:
    """One of each."""
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
    ]
