"""Shell words without a shell.

run_tests.sh puts ``smp``, ``test_args`` and ``qemu_params`` of an entry into a command line and evaluates it with bash.
Here the quoting of POSIX (Shell Command Language, section 2.2) is done by hand, and what a shell would *execute* or look
up is refused; the one exception is the `date` that upstream's configuration has, which becomes a fixed number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["DATE", "ShellError", "Words", "split_words"]

DATE: Final = 1_735_689_600
"""What ``date +%s`` gives: the moment at which our machines are switched on (2025-01-01 UTC), in every run."""

_DATE_COMMAND: Final = re.compile(r"\s*date\s+\+%s\s*")
_OPERATORS: Final = frozenset(";&|<>()")
_BLANKS: Final = frozenset(" \t\n")


class ShellError(ValueError):
    """Only a shell could say what this means."""


@dataclass(frozen=True, slots=True)
class Words:
    """A command line in words; ``dated`` when `DATE` stands in it for the output of ``date``."""

    words: tuple[str, ...]
    dated: bool = False


class _Splitter:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.words: list[str] = []
        self.word: list[str] | None = None
        self.dated = False

    def split(self) -> Words:
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "#" and self.word is None:
                self._comment()
            elif char in _BLANKS:
                self._end_word()
                self.at += 1
            elif char == "'":
                self._put(self._until("'", "'"))
            elif char == '"':
                self._double_quoted()
            else:
                self._bare(char)
        self._end_word()
        return Words(tuple(self.words), self.dated)

    def _put(self, text: str) -> None:
        self.word = [*(self.word or ()), text]

    def _end_word(self) -> None:
        if self.word is not None:
            self.words.append("".join(self.word))
            self.word = None

    def _comment(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def _until(self, quote: str, shown: str) -> str:
        """The text from behind the character at hand up to ``quote``, which is passed."""
        end = self.text.find(quote, self.at + 1)
        if end < 0:
            raise ShellError(f"a {shown} is not closed")
        inside = self.text[self.at + 1 : end]
        self.at = end + 1
        return inside

    def _bare(self, char: str) -> None:
        if char in _OPERATORS:
            raise ShellError(f"{char!r} outside quotes is a shell operator, and no shell is run")
        if char == "\\":
            escaped = self.text[self.at + 1 : self.at + 2]
            # A backslash before a line's end joins the lines, inside a word or between two.
            if escaped != "\n":
                self._put(escaped)
            self.at += 2
        else:
            self._expansion(char)

    def _double_quoted(self) -> None:
        self._put("")
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in tuple('$`"\\\n'):
                escaped = self.text[self.at + 1]
                self._put("" if escaped == "\n" else escaped)
                self.at += 2
            else:
                self._expansion(char)
        raise ShellError("a double quote is not closed")

    def _expansion(self, char: str) -> None:
        """One character that is itself, or the one command that is known; quoted or not."""
        if char == "`":
            self._command(self._until("`", "backquote"))
        elif char == "$" and self.text.startswith("$(", self.at):
            self.at += 1
            self._command(self._until(")", "'$('"))
        elif char == "$":
            raise ShellError("'$' would be expanded by a shell, and none is run")
        else:
            self._put(char)
            self.at += 1

    def _command(self, command: str) -> None:
        if _DATE_COMMAND.fullmatch(command) is None:
            raise ShellError(f"the command {command!r} would be run by a shell, and none is")
        self.dated = True
        self._put(str(DATE))


def split_words(text: str) -> Words:
    """The words of ``text``.  Raises ShellError for what only a shell could answer."""
    return _Splitter(text).split()
