"""Devices: their registers decoded, then the log of port and device-memory accesses, newest first."""

from __future__ import annotations

from collections.abc import Sequence

from kvmscope.ui.line_panel import Row, Span
from kvmscope.ui.render.event_index import EventIndex
from kvmscope.ui.render.event_text import EventKind
from kvmscope.ui.render.reader import symbols_of
from kvmscope.ui.render.text import CHANGED, MARK, UNCHANGED, fold_header, message, row, width_of
from kvmscope.ui.render.timeline import event_row
from kvmscope.ui.view import View
from kvmscope.vmm.snapshot import DeviceView

__all__ = ["LOG", "device_rows"]

LOG = "log"
"""Name of the part that holds the accesses."""
_KEPT = 200
"""Accesses shown; the timeline has them all."""


def device_rows(
    view: View, index: EventIndex, width: int, folded: frozenset[str], before: Sequence[DeviceView] = ()
) -> list[Row]:
    """All rows of the panel; ``before`` are the devices as they were at the previous stop."""
    rows: list[Row] = []
    old = {(device.name, field.name): field.value for device in before for field in device.fields}
    for device in view.snapshot.devices:
        body = _fields(device, old, width)
        changed = any(old.get((device.name, f.name), f.value) != f.value for f in device.fields)
        note = (Span(device.where, "comment"),) if device.where else ()
        shut = device.name in folded
        rows.append(fold_header(width, device.name, device.name, folded=shut, changed=changed, note=note))
        if not shut:
            rows += body
    positions = index.positions(frozenset({EventKind.IO}))
    present = [position for position in positions[-_KEPT * 4 :] if position < index.here][-_KEPT:]
    title = f"accesses ({len(positions)})"
    rows.append(fold_header(width, LOG, title, folded=LOG in folded))
    if LOG in folded:
        return rows
    if not present:
        rows.append(message(width, "none yet"))
    symbols = symbols_of(view.image)
    digits = max(4, len(str(view.snapshot.last_tick)))
    rips = max((len(f"{index.events[position].rip:x}") for position in present), default=1)
    fresh = {id(event) for event in view.delta.events}
    for position in reversed(present):
        event = index.events[position]
        rows.append(event_row(event, symbols, width, (digits, rips), MARK if id(event) in fresh else " ", False))
    return rows


def _fields(device: DeviceView, old: dict[tuple[str, str], str], width: int) -> list[Row]:
    longest = max((len(field.name) for field in device.fields), default=0)
    rows: list[Row] = []
    for field in device.fields:
        was = old.get((device.name, field.name), field.value)
        changed = was != field.value
        spans = [
            CHANGED if changed else UNCHANGED,
            Span(f"{field.name:<{longest}} ", "name"),
            Span(field.value, "changed" if changed else "value"),
        ]
        room = width - width_of(spans)
        if field.meaning and room > 6:
            spans.append(Span(f"  {field.meaning}", "dim"))
        rows.append(row(width, spans))
    return rows
