"""What a new reproducer begins as: the files in templates/, each a test that passes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Final

from kvmscope.errors import UsageError
from kvmscope.expr.nearest import nearest

__all__ = ["Template", "template", "templates"]

_ORDER: Final = (
    "long64",
    "prot32",
    "prot32-paging",
    "real16",
    "exception",
    "page-fault",
    "ring3",
    "io",
    "msr",
)


@dataclass(frozen=True, slots=True)
class Template:
    """A template: the name one types, the title one reads, the text one gets."""

    name: str
    title: str
    text: str


@lru_cache
def templates() -> tuple[Template, ...]:
    """All templates, the plainest first."""
    from kvmscope.reproducer.document import parse

    out = []
    for name in _ORDER:
        text = files("kvmscope.reproducer").joinpath("templates", f"{name}.asm").read_text(encoding="utf-8")
        out.append(Template(name, parse(text, f"{name}.asm").title, text))
    return tuple(out)


def template(name: str) -> Template:
    """The template called ``name``.  Raises UsageError, with the nearest name, when there is none."""
    for candidate in templates():
        if candidate.name == name:
            return candidate
    close = nearest(name, _ORDER)
    hint = f"did you mean {close!r}?" if close else f"known: {', '.join(_ORDER)}"
    raise UsageError(f"unknown template {name!r}", hint=hint)
