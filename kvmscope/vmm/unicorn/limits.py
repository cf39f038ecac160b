"""What the embedded engine does not do exactly, as data: the documentation quotes this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["LIMITS", "Limit"]


@dataclass(frozen=True, slots=True)
class Limit:
    """One departure from the manuals.

    ``stops`` says that the engine refuses at run time (`StopReason.UNSUPPORTED`) instead of going on wrongly; where it
    is False, a guest that depends on ``what`` sees ``instead``.
    """

    area: str
    what: str
    instead: str
    stops: bool = False


LIMITS: Final[tuple[Limit, ...]] = ()
"""In order of area."""
