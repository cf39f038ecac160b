"""Messages of the language: what is wrong, with a caret under the place."""

from __future__ import annotations

from kvmscope.errors import ExpressionError

__all__ = ["error_at"]


def error_at(title: str, text: str, column: int, width: int = 1, hint: str = "") -> ExpressionError:
    """An error whose detail is the line of ``text`` and a caret under ``column`` (from 0).

    >>> print(error_at("unknown name 'rxa'", "rxa == 5", 0, 3, "did you mean 'rax'?"))
    unknown name 'rxa'
    rxa == 5
    ^~~
    hint: did you mean 'rax'?
    """
    column = max(0, min(column, len(text)))
    start = text.rfind("\n", 0, column) + 1
    end = text.find("\n", column)
    line = text[start : end if end >= 0 else len(text)]
    shown = "".join(char if char.isprintable() else " " for char in line)
    before = column - start
    # A caret far to the right would wrap on a terminal and point nowhere: show the part around it.
    if before > 100:
        cut = before - 60
        shown, before = "..." + shown[cut:], before - cut + 3
    shown = shown if len(shown) <= 160 else shown[:157] + "..."
    width = max(1, min(width, len(shown) - before))
    return ExpressionError(title, f"{shown}\n{' ' * before}^{'~' * (width - 1)}", hint)
