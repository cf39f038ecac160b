"""Devices: a section each, of their registers decoded, then the log of port and device-memory accesses, newest first.

A PC has some twenty devices and a guest uses three of them.  So devices that nobody has touched since boot share one
line, and of the others those registers are shown that are no longer as at boot; each device can be opened further.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from kvmscope.ui.line_panel import Key, Kind, Row, Span
from kvmscope.ui.render.event_index import EventIndex
from kvmscope.ui.render.event_text import EventKind
from kvmscope.ui.render.reader import symbols_of
from kvmscope.ui.render.text import CHANGED, MARK, UNCHANGED, fold_header, message, row, width_of
from kvmscope.ui.render.timeline import event_row
from kvmscope.ui.view import View
from kvmscope.vmm.events import MmioEvent, PortEvent
from kvmscope.vmm.snapshot import DeviceField, DeviceView

__all__ = ["LOG", "QUIET", "REST", "DeviceLook", "Section", "device_rows", "sections"]

LOG: Final = "log"
"""Name of the part that holds the accesses."""
QUIET: Final = "quiet"
"""Name of the part that holds the devices that nobody has touched."""
REST: Final = "/rest"
"""Behind a device's name: the part that holds its registers that are as at boot."""
_LAPIC: Final = "lapic"
_KEPT: Final = 200
"""Accesses shown; the timeline has them all."""


@dataclass(frozen=True, slots=True)
class DeviceLook:
    """What the user has chosen to see, and what there is to compare with."""

    before: Sequence[DeviceView] = ()
    """The devices at the previous stop."""
    boot: Sequence[DeviceView] = ()
    """The devices before the first instruction; empty: not known, so every register is shown."""
    choices: Mapping[str, bool] = field(default_factory=dict)
    """Part -> open; a part that is not here is as it is by default."""
    every: bool = False
    """Show every register and every device."""
    wanted: str = ""
    """Show only devices and registers with this in their name."""

    def opened(self, part: str, otherwise: bool) -> bool:
        """Whether a part is open."""
        return self.choices.get(part, otherwise)


class Section(NamedTuple):
    """One device and how it is shown."""

    device: DeviceView
    quiet: bool
    """Nobody has touched it since boot."""
    opened: bool
    whole: bool
    """Every register is shown, not only those unlike at boot."""
    choice: bool
    """A row lets the user choose which."""


def sections(view: View, index: EventIndex, look: DeviceLook) -> list[Section]:
    """The devices in the order in which they are shown: the local APIC of the vCPU that is looked at, those touched, the rest."""
    snapshot = view.snapshot
    mine = f"{_LAPIC} {snapshot.vcpu}"
    boot = {device.name: device for device in look.boot}
    found: list[Section] = []
    for device in snapshot.devices:
        quiet = index.first_access(device.name) >= index.here and not _lives(device, boot.get(device.name))
        other = device.name.startswith(_LAPIC) and device.name != mine
        opened = look.opened(device.name, look.every or not (quiet or other))
        whole = look.opened(device.name + REST, look.every or quiet or not look.boot)
        choice = bool(look.boot) and not (quiet or look.every)
        found.append(Section(device, quiet, opened, whole, choice))

    def place(section: Section) -> int:
        name = section.device.name
        return 3 * section.quiet + (0 if name == mine else 2 if name.startswith(_LAPIC) else 1)

    return sorted(found, key=place)


def _lives(device: DeviceView, boot: DeviceView | None) -> bool:
    """A local APIC is touched by others too: by their interrupts, and through its MSRs."""
    return device.name.startswith(_LAPIC) and boot is not None and _values(device) != _values(boot)


def _values(device: DeviceView) -> list[tuple[str, str]]:
    return [(field.name, field.value) for field in device.fields]


def device_rows(view: View, index: EventIndex, width: int, look: DeviceLook) -> list[Row]:
    """All rows of the panel."""
    found = sections(view, index, look)
    old = {device.name: device for device in look.before}
    boot = {device.name: device for device in look.boot}
    if look.wanted:
        rows = [line for section in found for line in _matching(section.device, look.wanted, old, width)]
        return [
            *(rows or [message(width, f"no device or register named {look.wanted!r}")]),
            *_log(view, index, width, look),
        ]
    rows = []
    quiet = [section.device for section in found if section.quiet]
    grouped = len(quiet) > 1 and not look.every
    shut = grouped and not look.opened(QUIET, False)
    for section in found:
        if section.quiet and grouped and section.device is quiet[0]:
            rows.append(_quiet_header(quiet, width, folded=shut))
        if not (section.quiet and shut):
            name = section.device.name
            rows += _section(_ById(section), _ById(old.get(name)), _ById(boot.get(name)), width)
    return [*rows, *_log(view, index, width, look)]


def _quiet_header(devices: Sequence[DeviceView], width: int, *, folded: bool) -> Row:
    """``+ untouched (3) pit rtc hpet``; no mark of a change, since some count the time by themselves."""
    names = " ".join(device.name.replace(" ", "") for device in devices)
    return fold_header(width, QUIET, f"untouched ({len(devices)})", folded=folded, note=(Span(names, "comment"),))


class _ById:
    """Something frozen as a key of a cache: devices are views that stay the same object while nothing changes."""

    __slots__ = ("it",)

    def __init__(self, it: Section | DeviceView | None) -> None:
        self.it = it

    def _parts(self) -> tuple[object, ...]:
        it = self.it
        return (id(it.device), *it[1:]) if isinstance(it, Section) else (id(it),)

    def __hash__(self) -> int:
        return hash(self._parts())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self._parts() == other._parts()


@lru_cache(maxsize=128)
def _section(boxed: _ById, before: _ById, at_boot: _ById, width: int) -> tuple[Row, ...]:
    section = boxed.it
    old, boot = before.it, at_boot.it
    assert isinstance(section, Section)
    assert not isinstance(old, Section)
    assert not isinstance(boot, Section)
    device = section.device
    note = (Span(device.where, "comment"),) if device.where else ()
    changed = _changed(device, old)
    rows = [fold_header(width, device.name, device.name, folded=not section.opened, changed=changed, note=note)]
    if section.opened:
        rows += _registers(device, old, boot, width, section)
    return tuple(rows)


def _registers(
    device: DeviceView, old: DeviceView | None, boot: DeviceView | None, width: int, section: Section
) -> Iterator[Row]:
    first = {field.name: field.value for field in boot.fields} if boot is not None else {}
    unlike = [field for field in device.fields if first.get(field.name) != field.value]
    shown = device.fields if section.whole else unlike
    yield from _field_rows(device, shown, old, width)
    same = len(device.fields) - len(unlike)
    if not section.choice or not same:
        return
    words = f"{same} more as at boot" if unlike else f"{same} as at boot"
    if section.whole:
        words = "only what is not as at boot"
    sign = "−" if section.whole else "+"
    key = Key(Kind.FOLD, device.name + REST)
    yield row(width, (Span("  "), Span(f"{sign} ", "accent"), Span(words, "comment")), key=key)


def _field_rows(device: DeviceView, fields: Sequence[DeviceField], old: DeviceView | None, width: int) -> Iterator[Row]:
    longest = max((len(field.name) for field in fields), default=0)
    values = min(18, max((len(field.value) for field in fields), default=0))
    was = {field.name: field.value for field in old.fields} if old is not None else {}
    for item in fields:
        changed = old is not None and was.get(item.name) != item.value
        spans = [
            CHANGED if changed else UNCHANGED,
            Span(f"{item.name:<{longest}} ", "name"),
            Span(item.value, "changed" if changed else "value"),
        ]
        gap = " " * (values - len(item.value) + 2)
        if item.meaning and width - width_of(spans) - len(gap) > 4:
            spans += [Span(gap), Span(item.meaning, "dim")]
        yield row(width, spans)


def _changed(device: DeviceView, old: DeviceView | None) -> bool:
    return old is not None and old is not device and _values(device) != _values(old)


def _matching(device: DeviceView, wanted: str, old: Mapping[str, DeviceView], width: int) -> list[Row]:
    """A device whose name matches, whole; of another one the registers that do."""
    word = wanted.lower()
    was = old.get(device.name)
    fields = device.fields
    if word not in device.name.lower():
        fields = tuple(field for field in fields if word in field.name.lower())
        if not fields:
            return []
    note = (Span(device.where, "comment"),) if device.where else ()
    head = fold_header(width, device.name, device.name, folded=False, changed=_changed(device, was), note=note)
    return [Row(head.spans), *_field_rows(device, fields, was, width)]


def _log(view: View, index: EventIndex, width: int, look: DeviceLook) -> list[Row]:
    positions = index.positions(frozenset({EventKind.IO}))
    present: list[int] = []
    for position in reversed(positions[-_KEPT * 4 :]):
        event = index.events[position]
        if position < index.here and _of_interest(event, look.wanted):
            present.append(position)
        if len(present) == _KEPT:
            break
    opened = look.opened(LOG, True)
    rows = [fold_header(width, LOG, f"accesses ({len(positions)})", folded=not opened)]
    if not opened:
        return rows
    if not present:
        rows.append(message(width, "none yet"))
    symbols = symbols_of(view.image)
    digits = max(4, len(str(view.snapshot.last_tick)))
    rips = max((len(f"{index.events[position].rip:x}") for position in present), default=1)
    fresh = {id(event) for event in view.delta.events}
    vcpus = len(view.snapshot.vcpus)
    for position in present:
        event = index.events[position]
        point = MARK if id(event) in fresh else " "
        rows.append(event_row(event, symbols, width, (digits, rips), point, False, vcpus=vcpus))
    return rows


def _of_interest(event: object, wanted: str) -> bool:
    return not wanted or (isinstance(event, (PortEvent, MmioEvent)) and wanted.lower() in event.device.lower())
