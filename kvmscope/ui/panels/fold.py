"""A panel with parts that open and close."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.geometry import Region

from kvmscope.ui.line_panel import Key, Kind, LinePanel

__all__ = ["FoldPanel"]


class FoldPanel(LinePanel):
    """Keeps which parts are closed; Enter on a part's head, ``-`` and ``+`` change it."""

    FOLDED: ClassVar[frozenset[str]] = frozenset()
    """Parts that are closed at first."""
    PARTS: ClassVar[tuple[str, ...]] = ()
    """All parts, for closing and opening them at once; empty where they are not known beforehand."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("minus", "fold_all(True)", "Close all", show=False, id="fold.close", tooltip="Close all parts"),
        Binding("plus", "fold_all(False)", "Open all", show=False, id="fold.open", tooltip="Open all parts"),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self.folded = self.FOLDED

    def fold(self, name: str) -> None:
        """Close an open part, open a closed one."""
        self.folded = self.folded ^ {name}
        self.redraw()

    def action_fold_all(self, close: bool) -> None:
        """Close or open every part."""
        self.folded = frozenset(self.PARTS) if close else frozenset()
        self.redraw()

    def activate(self, key: Key, region: Region) -> None:
        if key.kind is Kind.FOLD:
            self.fold(str(key.value))
        else:
            super().activate(key, region)
