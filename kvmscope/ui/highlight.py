"""Spans of colour for source lines: the lexer is loaded after the first paint and asked line by line.

A line's spans depend on the text and on the lexer's state at its start (block comments, the header), so states are kept for
each line and dropped from the first changed line on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from kvmscope.asm.image import Syntax
    from kvmscope.asm.lexer import Span, State

__all__ = ["Highlighter", "StyledSpan", "load_lexer"]


class StyledSpan(NamedTuple):
    """Columns [start, end) in a style of `kvmscope.ui.theme`."""

    start: int
    end: int
    style: str


Lexer: TypeAlias = "Callable[[str, Syntax, State | None], tuple[list[Span], State]]"

_STYLES: Final = {
    "mnemonic": "mnemonic",
    "register": "reg",
    "number": "num",
    "string": "string",
    "comment": "comment",
    "directive": "directive",
    "label": "label",
    "operator": "operator",
    "header": "header",
}


def load_lexer() -> Lexer:
    """Import the lexer; takes a while the first time."""
    from kvmscope.asm.lexer import spans

    return spans


class Highlighter:
    """Highlighting of one document."""

    def __init__(self) -> None:
        self.lexer: Lexer | None = None
        """None until it is loaded: text stays plain."""
        self.syntax: Syntax | None = None
        """None until the header has been read."""
        self._states: list[State | None] = [None]
        self._spans: list[tuple[StyledSpan, ...]] = []

    def invalidate(self, line: int = 0) -> None:
        """The text from ``line`` (from 0) on may have changed."""
        del self._spans[line:]
        del self._states[line + 1 :]

    def spans(self, line: int, text_of: Callable[[int], str]) -> tuple[StyledSpan, ...]:
        """The spans of ``line`` (from 0)."""
        if self.lexer is None or self.syntax is None:
            return ()
        while len(self._spans) <= line:
            at = len(self._spans)
            found, state = self.lexer(text_of(at), self.syntax, self._states[at])
            self._spans.append(
                tuple(
                    StyledSpan(item.start, item.end, _STYLES[item.kind]) for item in found if str(item.kind) in _STYLES
                )
            )
            self._states.append(state)
        return self._spans[line]
