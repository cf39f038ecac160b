from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscope.errors import ExpressionError
from kvmscope.expr import Expression, MappingScope, Node, Value, evaluate, parse, truth

from .test_parser import TREES

MAX = (1 << 64) - 1
SCOPE = MappingScope(
    {
        "rax": 0x1234,
        "rcx": MAX,
        "zero": 0,
        "exception": "#GP",
        "serial": "hello\n",
        "debug_exit": -1,
        "xmm0": 1 << 127,
        "raw": b"ab",
    },
    {"u8": lambda address: address & 0xFF, "count": lambda what: 2 if what == "#GP" else 0},
)

VALUES: list[tuple[str, Value]] = [
    ("rax & 0xff == 0x34", True),
    ("rcx == -1", True),
    ("debug_exit == -1", True),
    ("debug_exit < 0", False),
    ("~0 == rcx", True),
    ("zero - 1 == rcx", True),
    ("rcx + 1 == 0", False),
    ("rcx + 1", 1 << 64),
    ("-0", 0),
    ("xmm0 >> 127", 1),
    ("7 / 2 * 2 + 7 % 2", 7),
    ("1 << 4 | 1", 17),
    ("6 ^ 3", 5),
    ("exception in ('#PF', '#GP')", True),
    ("exception not in ('#PF', '#GP')", False),
    ("'ell' in serial", True),
    ("'x' not in serial", True),
    ("rax in (1, 0x1234)", True),
    ("zero or rax", True),
    ("zero and 1 / 0", False),
    ("rax or 1 / 0", True),
    ("not zero", True),
    ("!zero and !(rax == 1)", True),
    ("u8(rax)", 0x34),
    ("count('#GP') == 2", True),
    ("(rax == 1) == (zero == 1)", True),
    ("exception", "#GP"),
    ("raw == raw", True),
]

WRONG = [
    ("rxa == 4", 0, "did you mean 'rax'"),
    ("rax == 'a'", 4, "integer with a text"),
    ("exception != 13", 10, "a text with an integer"),
    ("(rax == 1) == 1", 11, "truth value"),
    ("!rax == 0", 5, "truth value"),
    ("exception and 1", 0, "conditions"),
    ("not serial", 4, "conditions"),
    ("-serial", 1, "integers"),
    ("1 + (rax == 2)", 9, "integers"),
    ("'a' < 'b'", 4, "orders integers"),
    ("rax / zero", 4, "division by zero"),
    ("rax % 0", 4, "division by zero"),
    ("1 << 128", 2, "shift"),
    ("1 >> rcx", 2, "shift"),
    ("~xmm0", 0, "64 bits"),
    ("rax in serial", 4, "text in a text"),
    ("rax in (1, 'a')", 4, "integer with a text"),
    ("u8('x')", 3, "u8 takes an integer"),
    ("u8(rax == 1)", 7, "u8 takes an integer"),
    ("u16(0)", 0, "not available"),
    ("xmm0 * xmm0 * xmm0", 12, "wider"),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_values(text: str, value: Value) -> None:
    result = evaluate(parse(text), SCOPE)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(("text", "column", "word"), WRONG)
def test_errors_point_at_the_column(text: str, column: int, word: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(parse(text), SCOPE)
    assert word in str(caught.value)
    assert caught.value.detail.split("\n")[1].index("^") == column


def test_a_scopes_own_error_gets_the_place() -> None:
    class Unmapped:
        def lookup(self, name: str) -> Value | None:
            return 0

        def call(self, name: str, arguments: tuple[Value, ...]) -> Value | None:
            raise ExpressionError("0x0 is not mapped")

        def names(self) -> Iterable[str]:
            return ()

    with pytest.raises(ExpressionError) as caught:
        evaluate(parse("rax == u64(rbx)"), Unmapped())
    assert str(caught.value) == "0x0 is not mapped\nrax == u64(rbx)\n       ^~~"


@pytest.mark.parametrize(("value", "met"), [(True, True), (False, False), (0, False), (5, True)])
def test_truth(value: Value, met: bool) -> None:
    assert truth(value) is met


@pytest.mark.parametrize("value", ["", "a", b""])
def test_a_text_is_no_truth(value: Value) -> None:
    with pytest.raises(ExpressionError):
        truth(value)


class _Anything:
    """Answers every name and call with a value that depends on it."""

    _VALUES: tuple[Value, ...] = (0, 1, -1, MAX, 1 << 127, "", "#PF", True, b"x")

    def lookup(self, name: str) -> Value | None:
        return self._VALUES[sum(name.encode()) % len(self._VALUES)]

    def call(self, name: str, arguments: tuple[Value, ...]) -> Value | None:
        return self._VALUES[len(name) % 5]

    def names(self) -> Iterable[str]:
        return ("rax",)


@given(TREES, st.booleans())
@settings(max_examples=500)
def test_evaluation_raises_expression_errors_only(tree: Node, known: bool) -> None:
    with suppress(ExpressionError):
        evaluate(Expression(tree), _Anything() if known else MappingScope({}))
