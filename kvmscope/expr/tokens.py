"""Text to tokens, each with its column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kvmscope.expr.errors import error_at

__all__ = ["MAX_BITS", "MAX_TEXT", "Token", "tokenize"]

MAX_TEXT: Final = 4096
"""Longest expression, in characters."""
MAX_BITS: Final = 256
"""Widest value of a literal or a result, in bits; the widest register is 128."""


@dataclass(frozen=True, slots=True)
class Token:
    """``kind`` is ``number``, ``text``, ``name``, ``end`` or the operator itself; ``value`` what it stands for."""

    kind: str
    value: int | str
    spelling: str
    column: int


_TOKEN: Final = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<number>[0-9][0-9A-Za-z_]*)
  | (?P<name>[A-Za-z_.][A-Za-z0-9_.$@]*)
  | (?P<quote>['"])
  | (?P<operator>\|\||&&|==|!=|<=|>=|<<|>>|[-+*/%&|^~!<>(),])
    """,
    re.VERBOSE,
)
_WORDS: Final = {"and": "and", "or": "or", "not": "not", "in": "in"}
_SYMBOLS: Final = {"&&": "and", "||": "or"}
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\", "'": "'", '"': '"'}
_HINTS: Final = {
    "=": "a comparison is written ==",
    "[": "memory is read with u8(address) .. u64(address)",
    "{": "a set of values is written (a, b)",
    "%": "register names stand alone: rax, not %rax",
    "$": "a number or label stands alone, without $",
    "#": "an exception's mnemonic is a text: '#PF'",
}


def tokenize(text: str) -> list[Token]:
    """Tokens of ``text``, the last of kind ``end``.

    Raises ExpressionError at a character that begins no token, a number that is none, an unterminated text.
    """
    if len(text) > MAX_TEXT:
        raise error_at(f"expression of {len(text)} characters: at most {MAX_TEXT} are taken", text[:80], 0)
    out: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise error_at(f"unexpected character {text[at]!r}", text, at, hint=_HINTS.get(text[at], ""))
        spelling = match.group()
        kind = match.lastgroup
        if kind == "number":
            out.append(Token("number", _number(spelling, text, at), spelling, at))
        elif kind == "name":
            out.append(Token(_WORDS.get(spelling, "name"), spelling, spelling, at))
        elif kind == "quote":
            value, end = _text(text, at)
            out.append(Token("text", value, text[at:end], at))
            at = end
            continue
        elif kind == "operator":
            out.append(Token(_SYMBOLS.get(spelling, spelling), spelling, spelling, at))
        at = match.end()
    out.append(Token("end", "", "", len(text.rstrip())))
    return out


def _number(spelling: str, text: str, at: int) -> int:
    hint = "numbers are written 0x1f, 0b101, 0o17 or 31"
    if re.fullmatch(r"[0-9][0-9a-fA-F_]*[hH]", spelling):
        hint = f"hexadecimal is written 0x{spelling[:-1]}"
    elif re.fullmatch(r"0[0-9_]+", spelling):
        # 010 is eight to C and GNU as, ten to a reader in a hurry: neither is guessed.
        raise error_at(f"{spelling} could be octal or decimal", text, at, len(spelling), "write 0o10 or 10")
    try:
        value = int(spelling, 0)
    except ValueError:
        raise error_at(f"{spelling[:40]} is not a number", text, at, len(spelling), hint) from None
    if value.bit_length() > MAX_BITS:
        raise error_at(f"the number is wider than {MAX_BITS} bits", text, at, len(spelling))
    return value


def _text(text: str, start: int) -> tuple[str, int]:
    # A newline may stand in a text as it is: "serial == 'done\\n'" in a TOML string has one.
    quote = text[start]
    out: list[str] = []
    at = start + 1
    while at < len(text):
        char = text[at]
        if char == quote:
            return "".join(out), at + 1
        if char != "\\":
            out.append(char)
            at += 1
            continue
        code = text[at + 1 : at + 2]
        if code == "x":
            digits = text[at + 2 : at + 4]
            if not re.fullmatch(r"[0-9a-fA-F]{2}", digits):
                raise error_at("\\x is followed by two hexadecimal digits", text, at, 2)
            out.append(chr(int(digits, 16)))
            at += 4
        elif code in _ESCAPES:
            out.append(_ESCAPES[code])
            at += 2
        else:
            raise error_at(f"unknown escape \\{code}", text, at, 2, "known: \\n \\r \\t \\0 \\\\ \\' \\\" \\xNN")
    raise error_at("the text is not closed", text, start, len(text) - start, f"add a {quote}")
