from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscope.errors import ExpressionError
from kvmscope.expr import Binary, Call, Name, Node, Number, Text, Tuple, Unary, calls, names, parse
from kvmscope.expr.ast import PRECEDENCE
from kvmscope.expr.functions import FUNCTIONS
from kvmscope.expr.parser import MAX_NESTING, MAX_NODES

GROUPING = [
    ("rflags & 1 == 0", "(rflags & 1) == 0"),
    ("a | b ^ c & d", "a | (b ^ (c & d))"),
    ("a or b and c", "a or (b and c)"),
    ("not a == b", "not (a == b)"),
    ("!a and b", "(not a) and b"),
    ("a - b - c", "(a - b) - c"),
    ("a << 1 + 2", "a << (1 + 2)"),
    ("-a * b", "(-a) * b"),
    ("~a & b", "(~a) & b"),
    ("a || b && !c", "a or (b and (not c))"),
    ("a not in ('x', 'y')", "not (a in ('x', 'y'))"),
    ("'x' in (serial)", "'x' in serial"),
    ("a in (1,)", "a in (1,)"),
    ("a in (1, 2,)", "a in (1, 2)"),
    ("a in (b) | c", "a in (b | c)"),
    ("u64(rsp + 8) == 1", "(u64(rsp + 8)) == 1"),
]

WRONG = [
    ("", 0, "empty"),
    ("   ", 0, "empty"),
    ("rax = 4", 4, "=="),
    ("rax == ", 6, "too early"),
    ("1 < rax < 3", 8, "chain"),
    ("(1", 0, "not closed"),
    ("foo(1)", 0, "unknown function"),
    ("u9(1)", 0, "did you mean 'u8'"),
    ("u8(1, 2)", 0, "one argument"),
    ("u8()", 0, "one argument"),
    ("'abc", 0, "not closed"),
    ("'a\\q'", 2, "escape"),
    ("'\\xg0'", 1, "hexadecimal digits"),
    ("010", 0, "octal"),
    ("12h", 0, "0x12"),
    ("0x", 0, "not a number"),
    ("1__2", 0, "not a number"),
    ("rax rbx", 4, "operator is missing"),
    ("[rax]", 0, "u64"),
    ("$5 == rax", 0, "without $"),
    ("%rax", 0, "unexpected '%'"),
    ("rax ==\n  == 5", 2, "unexpected '=='"),
    ("(1, 2)", 2, "only after 'in'"),
    ("1 + not a", 4, "parentheses"),
    ("exception == #PF", 13, "'#PF'"),
    ("0x" + "f" * 65, 0, "wider"),
]


@pytest.mark.parametrize(("short", "full"), GROUPING)
def test_grouping(short: str, full: str) -> None:
    assert parse(short) == parse(full)


@pytest.mark.parametrize(("text", "column", "word"), WRONG)
def test_errors_point_at_the_column(text: str, column: int, word: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert word in str(caught.value)
    assert caught.value.detail.split("\n")[1].index("^") == column


@pytest.mark.parametrize(
    ("text", "value"),
    [("0x1F", 31), ("0b101", 5), ("0o17", 15), ("1_000", 1000), ("0", 0), ("0xffff_ffff", 0xFFFFFFFF)],
)
def test_numbers(text: str, value: int) -> None:
    assert parse(text).root == Number(value)
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'a\\n'", "a\n"),
        ("'a\n'", "a\n"),
        ('"it\'s"', "it's"),
        ("'\\x41\\\\'", "A\\"),
        ("''", ""),
        ("'\\0'", "\0"),
        ("'é'", "é"),
    ],
)
def test_texts(text: str, value: str) -> None:
    assert parse(text).root == Text(value)


def test_names_and_calls_in_order_once() -> None:
    expression = parse(
        "rax == u8(label + cs.base) and not (rax in (cr0.wp, .L1)) or count('#PF') > u8(label + cs.base)"
    )
    assert names(expression) == ("rax", "label", "cs.base", "cr0.wp", ".L1")
    assert [call.function for call in calls(expression)] == ["u8", "count"]


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + "1" + ")" * 10_000,
        "(" * (MAX_NESTING + 1) + "1" + ")" * (MAX_NESTING + 1),
        "-" * 2000 + "1",
        "not " * 1000 + "1",
        "+".join(["1"] * (MAX_NODES + 1)),
        "u8(" * 500 + "1" + ")" * 500,
        "1 in (" * 500 + "1" + ")" * 500,
        "a" * 5000,
    ],
)
def test_size_and_nesting_are_bounded(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text)


def test_nested_membership_is_linear() -> None:
    text = "x in (" * (MAX_NESTING - 1) + "1" + ")" * (MAX_NESTING - 1)
    assert names(parse(text)) == ("x",)


_NAMES = st.from_regex(r"[a-z_.][a-z0-9_.]{0,6}", fullmatch=True).filter(
    lambda name: name not in ("and", "or", "not", "in")
)
_LEAVES: st.SearchStrategy[Node] = st.one_of(
    st.builds(Number, st.integers(0, (1 << 128) - 1)),
    st.builds(Text, st.text(max_size=6)),
    st.builds(Name, _NAMES),
)
_BINARY = sorted(set(PRECEDENCE) - {"in"})


def _grow(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.one_of(
        st.builds(Unary, st.sampled_from(["not", "-", "~"]), children),
        st.builds(Binary, st.sampled_from(_BINARY), children, children),
        st.builds(Binary, st.just("in"), children, children),
        st.builds(
            lambda left, items: Binary("in", left, Tuple(tuple(items))),
            children,
            st.lists(children, min_size=1, max_size=3),
        ),
        st.builds(lambda name, argument: Call(name, (argument,)), st.sampled_from(sorted(FUNCTIONS)), children),
    )


TREES = st.recursive(_LEAVES, _grow, max_leaves=20)


@given(TREES)
@settings(max_examples=300)
def test_printing_and_parsing_round_trip(tree: Node) -> None:
    assert parse(str(tree)).root == tree


@given(st.one_of(st.text(max_size=60), st.text(alphabet="ab01x'\"()+-~!<>=&|, .\\\nnotin", max_size=60)))
@settings(max_examples=500)
def test_any_text_parses_or_is_an_expression_error(text: str) -> None:
    try:
        tree = parse(text)
    except ExpressionError:
        return
    assert parse(str(tree)) == tree
