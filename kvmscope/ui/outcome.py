"""What the expectations in the header say of a guest that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmscope.reproducer.document import Reproducer
    from kvmscope.reproducer.verdict import Result
    from kvmscope.ui.view import View

__all__ = ["outcome"]


def outcome(reproducer: Reproducer | None, view: View) -> Result | None:
    """The verdict, the same that ``kvmscope run`` would print; None while the guest can still go on."""
    stop = view.snapshot.stop
    if reproducer is None or not (stop.reason.final or stop.reason == "budget"):
        return None
    from kvmscope.reproducer.runner import judged

    return judged(reproducer, view.snapshot, stop, view.image.symbols, stop.code)
