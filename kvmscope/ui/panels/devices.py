"""The device panel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message

from kvmscope.ui.line_panel import Row
from kvmscope.ui.panels.fold import FoldPanel
from kvmscope.ui.render.devices import LOG, QUIET, REST, DeviceLook, device_rows, sections
from kvmscope.ui.render.event_index import EventIndex
from kvmscope.ui.view import View
from kvmscope.vmm.snapshot import DeviceView

__all__ = ["DevicesPanel", "FilterAsked"]


@dataclass
class FilterAsked(Message):
    """The user wants to choose by a word what a panel shows."""

    panel: DevicesPanel
    word: str
    """What is chosen now."""


class DevicesPanel(FoldPanel):
    """Registers of the devices, and every access to a port or device memory."""

    KIND = "devices"
    TITLE = "Devices"
    HELP = (
        "The registers of the devices that the guest uses, and every access to a port or device memory, newest first.\n"
        "Of a device those registers are shown that are not as at boot; ▸ marks what the last command changed.\n"
        "Enter opens and closes a device, a shows every register of every device, - and + close and open all.\n"
        "/ shows what has a word in its name. Enter on an access goes to its moment."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "every", "Everything", show=False, id="devices.every", tooltip="Every register, or those in use"),
        Binding(
            "slash", "filter", "Filter", show=False, id="devices.filter", tooltip="Only what has a word in its name"
        ),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self._index = EventIndex()
        self._shown: tuple[DeviceView, ...] = ()
        self._before: tuple[DeviceView, ...] = ()
        self._boot: tuple[DeviceView, ...] = ()
        self._choices: dict[str, bool] = {}
        self._every = False
        self._wanted = ""

    def show(self, view: View) -> None:
        if view.snapshot is not (self.view.snapshot if self.view else None):
            self._before, self._shown = self._shown, view.snapshot.devices
            if view.snapshot.tick == 0:
                self._boot = view.snapshot.devices
        # Hidden or not: see `EventIndex`.
        self._index.update(view.snapshot)
        super().show(view)

    @property
    def look(self) -> DeviceLook:
        """What the user has chosen to see."""
        return DeviceLook(self._before, self._boot, self._choices, self._every, self._wanted)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        self._index.update(view.snapshot)
        return device_rows(view, self._index, width, self.look)

    def subtitle(self, view: View) -> str:
        if self._wanted:
            return f"/{self._wanted}"
        return "every register" if self._every else ""

    def fold(self, name: str) -> None:
        """Close an open part, open a closed one."""
        self._choices[name] = not self._is_open(name)
        self.redraw()

    def _is_open(self, name: str) -> bool:
        if name in (LOG, QUIET):
            return self.look.opened(name, name == LOG)
        found = sections(self.view, self._index, self.look) if self.view is not None else []
        device, is_rest = name.removesuffix(REST), name.endswith(REST)
        section = next((item for item in found if item.device.name == device), None)
        return section is not None and (section.whole if is_rest else section.opened)

    def action_fold_all(self, close: bool) -> None:
        """Close or open every device."""
        devices = self.view.snapshot.devices if self.view is not None else ()
        self._choices = dict.fromkeys((*(device.name for device in devices), QUIET), not close)
        self.redraw()

    def action_every(self) -> None:
        """Every register of every device, or those that are in use."""
        self._every = not self._every
        self._choices = {}
        self.redraw()

    def action_filter(self) -> None:
        """Ask for a word."""
        self.post_message(FilterAsked(self, self._wanted))

    def filter_by(self, word: str) -> None:
        """Show only what has ``word`` in its name; empty: everything again."""
        self._wanted = word.strip()
        self.top = 0
        self.redraw()
