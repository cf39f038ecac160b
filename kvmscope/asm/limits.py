"""Bounds on what a source may cost.  A source is untrusted: it may never hang or fill up the host."""

from __future__ import annotations

from typing import Final

__all__ = [
    "MAX_DEPTH",
    "MAX_DIAGNOSTICS",
    "MAX_ITEMS",
    "MAX_OUTPUT",
    "MAX_SOURCE",
    "TOOL_FILE_SIZE",
    "TOOL_MEMORY",
    "TOOL_SECONDS",
]

MAX_SOURCE: Final = 4 << 20
"""Characters of one source."""

MAX_OUTPUT: Final = 16 << 20
"""Bytes of all sections together: the default RAM of a guest."""

MAX_ITEMS: Final = 200_000
"""Statements after the expansion of macros and repetitions (built-in assembler)."""

MAX_DEPTH: Final = 64
"""Nesting of macro calls and of parentheses."""

MAX_DIAGNOSTICS: Final = 200
"""Messages that are kept of one source."""

TOOL_SECONDS: Final = 5.0
"""Wall time after which an external assembler is ended; its CPU time is bounded by the same number."""

TOOL_MEMORY: Final = 1 << 30
"""Address space of an external assembler, in bytes."""

TOOL_FILE_SIZE: Final = 64 << 20
"""Largest file that an external assembler may write, in bytes: MAX_OUTPUT and its listing."""
