"""The device panel."""

from __future__ import annotations

from kvmscope.ui.line_panel import Row
from kvmscope.ui.panels.fold import FoldPanel
from kvmscope.ui.render.devices import device_rows
from kvmscope.ui.render.event_index import EventIndex
from kvmscope.ui.view import View
from kvmscope.vmm.snapshot import DeviceView

__all__ = ["DevicesPanel"]


class DevicesPanel(FoldPanel):
    """Registers of the devices, and every access to a port or device memory."""

    KIND = "devices"
    TITLE = "Devices"
    HELP = (
        "The registers of the devices, and every access to a port or device memory.\n"
        "The newest access comes first; ▸ marks what the last command did. Enter on an access goes to its moment."
    )

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self._index = EventIndex()
        self._shown: tuple[DeviceView, ...] = ()
        self._before: tuple[DeviceView, ...] = ()

    def show(self, view: View) -> None:
        if view.snapshot.devices is not self._shown and view.snapshot is not (
            self.view.snapshot if self.view else None
        ):
            self._before, self._shown = self._shown, view.snapshot.devices
        # Hidden or not: see `EventIndex`.
        self._index.update(view.snapshot)
        super().show(view)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        self._index.update(view.snapshot)
        return device_rows(view, self._index, width, self.folded, self._before)
