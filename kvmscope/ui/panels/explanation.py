"""The explanation panel."""

from __future__ import annotations

from kvmscope.ui.line_panel import LinePanel, Row
from kvmscope.ui.render.explanation import explanation_rows
from kvmscope.ui.view import View

__all__ = ["ExplanationPanel"]


class ExplanationPanel(LinePanel):
    """Why the machine stopped, from the guest's own state."""

    KIND = "explanation"
    TITLE = "Explanation"
    HELP = (
        "Why the machine stopped, from the guest's own state.\n"
        "The fault with the entry, descriptor or bit that caused it, each link of a double or triple fault, and where the\n"
        "manuals say so."
    )

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        return explanation_rows(view, width)

    def subtitle(self, view: View) -> str:
        return view.snapshot.stop.reason.value
