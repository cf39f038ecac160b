"""Macros, repetitions and conditions of the built-in assembler.

A subset of what GNU as does, and exactly that: where GNU as has a rule that is easy to get wrong (arguments with
blanks, quoted arguments, `.altmacro`), the form is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from kvmscope.asm.gas_source import split_arguments, split_labels
from kvmscope.asm.limits import MAX_DEPTH, MAX_ITEMS
from kvmscope.asm.refusal import Mistake, Refusal, TooMuch
from kvmscope.asm.source import Statement

__all__ = ["Expander", "Symbols"]

_PARAMETER: Final = re.compile(r"([A-Za-z_]\w*)(?::(req|vararg)|=([^\s,\"]*))?\Z")
_USE: Final = re.compile(r"\\(?:(@)|(\(\))|([A-Za-z_]\w*))")
_OPEN_IF: Final = frozenset(
    {".if", ".ifdef", ".ifndef", ".ifnotdef", ".ifb", ".ifnb", ".ifc", ".ifnc", ".ifeq", ".ifne", ".ifgt", ".ifge",
     ".iflt", ".ifle", ".ifeqs", ".ifnes"}
)  # fmt: skip
_REPEATS: Final = (".rept", ".irp", ".irpc")
_REFUSED: Final = (".altmacro", ".noaltmacro", ".exitm", ".purgem", ".rep", ".irep", ".irepc", ".nop", ".nops")
_COMPARISONS: Final[dict[str, Callable[[int], bool]]] = {
    ".if": lambda value: value != 0, ".ifne": lambda value: value != 0, ".ifeq": lambda value: value == 0,
    ".ifgt": lambda value: value > 0, ".ifge": lambda value: value >= 0, ".iflt": lambda value: value < 0,
    ".ifle": lambda value: value <= 0,
}  # fmt: skip


class Symbols(Protocol):
    """What conditions and counts ask for, as known at this point of the source."""

    def constant(self, text: str) -> int:
        """The value of a constant expression; raises Trouble for anything else."""

    def defined(self, name: str) -> bool:
        """True when ``name`` has been defined above."""


@dataclass(frozen=True, slots=True)
class _Macro:
    parameters: tuple[tuple[str, str, str], ...]
    """(name, "req", "vararg" or "", default)."""
    body: tuple[Statement, ...]


@dataclass(slots=True)
class _Condition:
    """One open ``.if``: is this branch taken, and has one been taken."""

    statement: Statement
    active: bool
    done: bool


class Expander:
    """Yields the statements to assemble, one after another, so that each is known before the next is asked for."""

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self._macros: dict[str, _Macro] = {}
        self._count = 0
        self._calls = 0
        self.current: Statement | None = None
        """The statement of the source that is being read, for the place of an error."""

    def run(self, statements: Sequence[Statement], depth: int = 0) -> Iterator[Statement]:
        """Expand ``statements``; raises Trouble with ``current`` at its place."""
        if depth > MAX_DEPTH:
            raise Refusal(f"macros are nested deeper than {MAX_DEPTH}", "", "a macro that calls itself must end")
        conditions: list[_Condition] = []
        at = 0
        while at < len(statements):
            statement = statements[at]
            self.current = statement
            labels, rest = split_labels(statement.text)
            word = _word(rest)
            arguments = rest[len(word) :].strip()
            at += 1
            if word in _OPEN_IF or word in (".else", ".elseif", ".endif"):
                if labels:
                    raise Refusal("a label before a condition", labels.strip())
                self._condition(statement, word, arguments, conditions)
                continue
            if not all(condition.active for condition in conditions):
                continue
            if word in _REFUSED:
                raise Refusal(f"'{word}' is not known to the built-in assembler", word)
            if word == ".macro" or word in _REPEATS:
                end = _matching(statements, at, word)
                body = tuple(statements[at:end])
                at = end + 1
                if labels:
                    yield self._counted(replace(statement, text=labels.strip()))
                if word == ".macro":
                    self._define(arguments, body)
                else:
                    yield from self._repeat(word, arguments, body, depth)
                continue
            if word in (".endm", ".endr"):
                raise Mistake(f"'{word}' without a beginning", word)
            macro = self._macros.get(word)
            if macro is None:
                yield self._counted(statement)
                continue
            if labels:
                yield self._counted(replace(statement, text=labels.strip()))
            yield from self.run(self._call(word, macro, arguments, statement), depth + 1)
        if conditions:
            self.current = conditions[-1].statement
            raise Mistake("'.if' without '.endif'", ".if")

    def _counted(self, statement: Statement) -> Statement:
        self._count += 1
        if self._count > MAX_ITEMS:
            raise TooMuch(f"more than {MAX_ITEMS} statements after macros and repetitions are expanded")
        return statement

    def _condition(self, statement: Statement, word: str, arguments: str, conditions: list[_Condition]) -> None:
        if word in _OPEN_IF:
            if not all(condition.active for condition in conditions):
                conditions.append(_Condition(statement, False, True))
            else:
                truth = self._truth(word, arguments)
                conditions.append(_Condition(statement, truth, truth))
            return
        if not conditions:
            raise Mistake(f"'{word}' without '.if'", word)
        if word == ".endif":
            conditions.pop()
            return
        top = conditions[-1]
        if top.done:
            top.active = False
        else:
            top.active = top.done = word == ".else" or self._truth(".if", arguments)

    def _truth(self, word: str, arguments: str) -> bool:
        if word in _COMPARISONS:
            value = self._symbols.constant(arguments)
            return _COMPARISONS[word](value)
        if word in (".ifdef", ".ifndef"):
            if not re.fullmatch(r"[A-Za-z_.$][\w.$]*", arguments):
                raise Refusal(f"'{word}' wants one name", arguments)
            return self._symbols.defined(arguments) == (word == ".ifdef")
        if word in (".ifb", ".ifnb"):
            return (arguments == "") == (word == ".ifb")
        if word in (".ifc", ".ifnc"):
            parts = split_arguments(arguments)
            if len(parts) != 2 or any(re.search(r"[\s'\"]", part) for part in parts):
                raise Refusal(f"'{word}' with these operands is not known to the built-in assembler", arguments)
            return (parts[0] == parts[1]) == (word == ".ifc")
        raise Refusal(f"'{word}' is not known to the built-in assembler", word)

    def _define(self, arguments: str, body: tuple[Statement, ...]) -> None:
        name, *rest = re.split(r"[\s,]+", arguments)
        if not re.fullmatch(r"[A-Za-z_.$][\w.$]*", name):
            raise Mistake("a macro needs a name", arguments)
        if name.lower() in self._macros:
            raise Mistake(f"macro '{name}' is defined twice", name)
        parameters = []
        for text in filter(None, rest):
            match = _PARAMETER.match(text)
            if match is None:
                raise Refusal(f"the macro parameter {text} is not known to the built-in assembler", text)
            parameters.append((match.group(1), match.group(2) or "", match.group(3) or ""))
        if any(kind == "vararg" for _, kind, _ in parameters[:-1]):
            raise Mistake("only the last parameter can be :vararg", arguments)
        self._macros[name.lower()] = _Macro(tuple(parameters), body)

    def _call(self, name: str, macro: _Macro, arguments: str, place: Statement) -> list[Statement]:
        parts = split_arguments(arguments) if arguments else []
        if macro.parameters and macro.parameters[-1][1] == "vararg" and len(parts) > len(macro.parameters):
            fixed = len(macro.parameters) - 1
            parts[fixed:] = [",".join(parts[fixed:])]
        if len(parts) > len(macro.parameters):
            raise Mistake(f"macro '{name}' takes {len(macro.parameters)} arguments, not {len(parts)}", name)
        values: dict[str, str] = {}
        for i, (parameter, kind, default) in enumerate(macro.parameters):
            value = parts[i] if i < len(parts) else ""
            _plain(value)
            if not value and kind == "req":
                raise Mistake(f"macro '{name}' needs its argument '{parameter}'", name)
            values[parameter] = value or default
        self._calls += 1
        return [replace(place, text=self._substitute(inner.text, values)) for inner in macro.body]

    def _repeat(self, word: str, arguments: str, body: tuple[Statement, ...], depth: int) -> Iterator[Statement]:
        if word == ".irpc":
            raise Refusal("'.irpc' is not known to the built-in assembler", word)
        if word == ".rept":
            count = self._symbols.constant(arguments)
            if count < 0:
                raise Refusal("'.rept' with a negative count", arguments)
            if count * max(len(body), 1) > MAX_ITEMS:
                raise TooMuch(f"'.rept {arguments}' gives more than {MAX_ITEMS} statements", arguments)
            for _ in range(count):
                yield from self.run(body, depth + 1)
            return
        name, *values = split_arguments(arguments)
        if not values and len(name.split()) > 1:
            name, values = name.split()[0], name.split()[1:]
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise Refusal("'.irp' wants a name and values with commas between them", arguments)
        for value in values or [""]:
            _plain(value)
            expanded = [replace(inner, text=self._substitute(inner.text, {name: value})) for inner in body]
            yield from self.run(expanded, depth + 1)

    def _substitute(self, text: str, values: dict[str, str]) -> str:
        def use(match: re.Match[str]) -> str:
            if match.group(1):
                return str(self._calls - 1)
            if match.group(2):
                return ""
            return values.get(match.group(3), match.group())

        out = _USE.sub(use, text).strip()
        if len(out) > 4096:
            raise Refusal("a macro makes a line of more than 4096 characters")
        return out


def _plain(value: str) -> None:
    """Refuse an argument that GNU as would split or unquote."""
    if re.search(r"[\s\"'<>\\]", value) or re.match(r"\w+=", value):
        raise Refusal("a macro argument with blanks, quotes or '='", value, "write the argument without blanks")


def _word(text: str) -> str:
    match = re.match(r"[A-Za-z_.$][\w.$]*", text)
    return match.group().lower() if match else ""


def _matching(statements: Sequence[Statement], at: int, opener: str) -> int:
    """Index of the end that belongs to the macro or repetition whose body begins at ``at``."""
    openers = (".macro",) if opener == ".macro" else _REPEATS
    closer = ".endm" if opener == ".macro" else ".endr"
    depth = 0
    for index in range(at, len(statements)):
        word = _word(split_labels(statements[index].text)[1])
        if word in openers:
            depth += 1
        elif word == closer:
            if depth == 0:
                return index
            depth -= 1
    raise Mistake(f"'{opener}' without '{closer}'", opener)
