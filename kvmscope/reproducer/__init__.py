"""The document: source and header, expectations, verdict, runner, discovery, reports.

Names are imported on first use: the pytest plugin of this package is loaded in everybody's pytest and must cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvmscope.reproducer.discovery import discover, has_header
    from kvmscope.reproducer.document import Expectation, Reproducer, load, parse
    from kvmscope.reproducer.edit import update_header
    from kvmscope.reproducer.runner import Overrides, run
    from kvmscope.reproducer.starting_points import Template, templates
    from kvmscope.reproducer.verdict import ExpectationResult, Result, Verdict

__all__ = [
    "Expectation",
    "ExpectationResult",
    "Overrides",
    "Reproducer",
    "Result",
    "Template",
    "Verdict",
    "discover",
    "has_header",
    "load",
    "parse",
    "run",
    "templates",
    "update_header",
]

_HOMES: Final = {
    "Expectation": "document",
    "ExpectationResult": "verdict",
    "Overrides": "runner",
    "Reproducer": "document",
    "Result": "verdict",
    "Template": "starting_points",
    "Verdict": "verdict",
    "discover": "discovery",
    "has_header": "discovery",
    "load": "document",
    "parse": "document",
    "run": "runner",
    "templates": "starting_points",
    "update_header": "edit",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
