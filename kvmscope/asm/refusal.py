"""Why the built-in assembler gives no bytes: the source is wrong, or it is not sure."""

from __future__ import annotations

__all__ = ["Mistake", "Refusal", "TooMuch", "Trouble"]


class Trouble(Exception):
    """No bytes for a statement; ``token`` is the text to mark."""

    def __init__(self, message: str, token: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.token = token
        self.hint = hint


class Mistake(Trouble):
    """The source is wrong in every assembler."""


class Refusal(Trouble):
    """The built-in assembler does not know this form, or cannot prove its bytes: another assembler must serve."""


class TooMuch(Mistake):
    """The source would give more than any program may have: no other assembler need try."""
