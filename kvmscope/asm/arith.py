"""Expressions of the built-in assembler: parsed once, evaluated when addresses are known.

GNU as and C disagree about precedence: `1 << 2 + 1` is 5 to GNU as and 8 to C, `1 | 2 + 3` is 6 and 5.
Where they agree the expression is taken; where they do not, it is refused and GNU as, if installed, decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kvmscope.asm.limits import MAX_DEPTH
from kvmscope.asm.refusal import Mistake, Refusal

__all__ = ["Binary", "Expression", "Name", "Number", "Resolver", "Unary", "Value", "evaluate", "names_in", "parse"]

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<local>\d+[bf](?![\w.]))|(?P<number>\d\w*)|(?P<char>'(?:\\.|[^\\])'?)|(?P<name>[A-Za-z_.$][\w.$]*)"
    r"|(?P<op><<|>>|==|!=|<>|<=|>=|&&|\|\||[-+*/%|&^~!<>()]))"
)
_ESCAPES: Final = {"n": 10, "t": 9, "r": 13, "b": 8, "f": 12, "\\": 92, "'": 39, '"': 34}
_CLASS: Final = {
    **dict.fromkeys(("*", "/", "%"), "product"), **dict.fromkeys(("+", "-"), "sum"),
    **dict.fromkeys(("<<", ">>"), "shift"), "|": "or", "&": "and", "^": "xor",
    **dict.fromkeys(("==", "!=", "<>", "<", ">", "<=", ">="), "compare"), "&&": "both", "||": "either",
}  # fmt: skip
_TOGETHER: Final = (
    (frozenset({"product", "sum"}), ("product", "sum")),
    (frozenset({"shift", "or"}), ("shift", "or")),
    (frozenset({"shift", "and"}), ("shift", "and")),
    (frozenset({"shift", "xor"}), ("shift", "xor")),
)
"""Classes of operators that may stand side by side, and the order in which they bind."""
_LONGEST: Final = 200
"""Operators of one level: evaluation is recursive."""
_WORD: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Number:
    """A literal."""

    value: int


@dataclass(frozen=True, slots=True)
class Name:
    """A symbol, a local label (``1b``) or ``.``."""

    name: str


@dataclass(frozen=True, slots=True)
class Unary:
    """``-``, ``~`` or ``!`` of an operand."""

    operator: str
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two operands."""

    operator: str
    left: Expression
    right: Expression


Expression = Number | Name | Unary | Binary


@dataclass(frozen=True, slots=True)
class Value:
    """A number; ``weight`` is 1 for an address, 0 for a constant; ``fixed`` when no label had a part in it."""

    number: int
    weight: int = 0
    fixed: bool = True


Resolver = Callable[[str], Value]


def parse(text: str) -> Expression:
    """The expression that ``text`` is, from end to end."""
    tokens = _tokens(text)
    if not tokens:
        raise Mistake("an expression is missing here", text)
    tree, at = _chain(tokens, 0, 0, text)
    if at != len(tokens):
        raise Mistake(f"'{tokens[at][1]}' is not expected after an expression", tokens[at][1])
    return tree


def _tokens(text: str) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise Mistake(f"'{text[at:].strip()[:20]}' cannot stand in an expression", text[at:].strip()[:20])
        out.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    return out


def _chain(tokens: list[tuple[str, str]], at: int, depth: int, text: str) -> tuple[Expression, int]:
    """Operands and operators of one level."""
    if depth > MAX_DEPTH:
        raise Mistake("the parentheses are nested too deeply", text[:20])
    operand, at = _operand(tokens, at, depth, text)
    operands: list[Expression] = [operand]
    operators: list[str] = []
    while at < len(tokens) and tokens[at][0] == "op" and tokens[at][1] in _CLASS:
        if len(operators) >= _LONGEST:
            raise Refusal(f"an expression with more than {_LONGEST} operators", text.strip()[:20])
        operators.append(tokens[at][1])
        operand, at = _operand(tokens, at + 1, depth, text)
        operands.append(operand)
    return _bind(operands, operators, text), at


def _bind(operands: list[Expression], operators: list[str], text: str) -> Expression:
    classes = {_CLASS[operator] for operator in operators}
    order = next((order for allowed, order in _TOGETHER if classes <= allowed), tuple(classes))
    if len(classes) > 1 and not any(classes <= allowed for allowed, _ in _TOGETHER):
        message = "GNU as and C disagree about the precedence of these operators"
        raise Refusal(message, text.strip(), "put parentheses around the part that comes first")
    if "compare" in classes and len(operators) > 1:
        raise Refusal("comparisons in a row need parentheses", text.strip())
    for kind in order:
        kept_operands, kept_operators = [operands[0]], []
        for operator, operand in zip(operators, operands[1:], strict=True):
            if _CLASS[operator] == kind:
                kept_operands[-1] = Binary(operator, kept_operands[-1], operand)
            else:
                kept_operators.append(operator)
                kept_operands.append(operand)
        operands, operators = kept_operands, kept_operators
    return operands[0]


def _operand(tokens: list[tuple[str, str]], at: int, depth: int, text: str) -> tuple[Expression, int]:
    if at >= len(tokens):
        raise Mistake("the expression ends too early", text.strip())
    if depth > MAX_DEPTH:
        raise Mistake("the expression is nested too deeply", text[:20])
    kind, word = tokens[at]
    if kind == "op":
        if word == "(":
            tree, at = _chain(tokens, at + 1, depth + 1, text)
            if at >= len(tokens) or tokens[at][1] != ")":
                raise Mistake("a closing parenthesis is missing", text.strip())
            return tree, at + 1
        if word in "-~!+":
            tree, at = _operand(tokens, at + 1, depth + 1, text)
            return (tree if word == "+" else Unary(word, tree)), at
        raise Mistake(f"'{word}' is not expected here", word)
    if kind == "number":
        return Number(_number(word)), at + 1
    if kind == "char":
        return Number(_character(word)), at + 1
    return Name(word), at + 1


def _number(word: str) -> int:
    try:
        if re.fullmatch(r"0[0-7]+", word):
            value = int(word, 8)
        elif re.fullmatch(r"[1-9]\d*|0|0[xX][0-9a-fA-F]+|0[bB][01]+", word):
            value = int(word, 0)
        else:
            raise ValueError(word)
    except ValueError:
        hint = "hexadecimal is 0x..., binary 0b..., octal 0..."
        raise Refusal(f"'{word}' is not a number here", word, hint) from None
    if value >> 64:
        raise Refusal(f"{word} has more than 64 bits", word)
    return value


def _character(word: str) -> int:
    body = word[1:-1] if len(word) > 2 and word.endswith("'") and word != "'\\'" else word[1:]
    if body[0] != "\\":
        if ord(body) > 127:
            raise Refusal(f"{word} is not an ASCII character", word)
        return ord(body)
    if body[1:] not in _ESCAPES:
        raise Refusal(f"the escape {body} is not known here", word)
    return _ESCAPES[body[1:]]


def names_in(tree: Expression) -> set[str]:
    """Every name in the expression."""
    if isinstance(tree, Name):
        return {tree.name}
    if isinstance(tree, Unary):
        return names_in(tree.operand)
    if isinstance(tree, Binary):
        return names_in(tree.left) | names_in(tree.right)
    return set()


def evaluate(tree: Expression, resolve: Resolver) -> Value:
    """The value of ``tree``; 64-bit, read as signed where the sign counts, as in GNU as."""
    if isinstance(tree, Number):
        return Value(tree.value)
    if isinstance(tree, Name):
        return resolve(tree.name)
    if isinstance(tree, Unary):
        value = evaluate(tree.operand, resolve)
        if value.weight:
            raise Refusal(f"'{tree.operator}' of an address has no value")
        number = {"-": -value.number, "~": ~value.number, "!": int(value.number == 0)}[tree.operator]
        return Value(number, 0, value.fixed)
    left, right = evaluate(tree.left, resolve), evaluate(tree.right, resolve)
    fixed = left.fixed and right.fixed
    if tree.operator == "+" and left.weight + right.weight <= 1:
        return Value(left.number + right.number, left.weight + right.weight, fixed)
    if tree.operator == "-" and left.weight >= right.weight:
        return Value(left.number - right.number, left.weight - right.weight, fixed)
    if left.weight or right.weight:
        raise Refusal(f"'{tree.operator}' of addresses has no value that a relocation can hold")
    return Value(_compute(tree.operator, _signed(left.number), _signed(right.number)), 0, fixed)


def _signed(number: int) -> int:
    number &= _WORD
    return number - (1 << 64) if number >> 63 else number


def _compute(operator: str, left: int, right: int) -> int:
    if operator in ("/", "%"):
        if right == 0:
            raise Mistake("division by zero", operator)
        quotient = abs(left) // abs(right) * (-1 if (left < 0) != (right < 0) else 1)
        return quotient if operator == "/" else left - quotient * right
    if operator in ("<<", ">>"):
        if not 0 <= right < 64:
            raise Refusal(f"a shift by {right} has no defined value", operator)
        return left << right if operator == "<<" else (left & _WORD) >> right
    if operator in ("&&", "||"):
        return int(bool(left) and bool(right)) if operator == "&&" else int(bool(left) or bool(right))
    truth = {
        "==": left == right, "!=": left != right, "<>": left != right, "<": left < right, ">": left > right,
        "<=": left <= right, ">=": left >= right,
    }.get(operator)  # fmt: skip
    if truth is not None:
        return -int(truth)
    return {"*": left * right, "|": left | right, "&": left & right, "^": left ^ right}[operator]
