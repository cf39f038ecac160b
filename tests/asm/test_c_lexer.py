from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscope.asm.c_lexer import c_spans
from kvmscope.asm.image import Syntax
from kvmscope.asm.lexer import State


def pieces(line: str, *, inside: bool = False) -> tuple[list[tuple[str, str]], bool]:
    found, state = c_spans(line, Syntax.ATT, State(in_comment=inside))
    return [(line[span.start : span.end], str(span.kind)) for span in found], state.in_comment


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("static u64 x = 0x1fUL; // 7", [("static", "mnemonic"), ("u64", "register"), ("=", "operator"),
                                         ("0x1fUL", "number"), ("// 7", "comment")]),
        ('puts("a\\"b");', [('"a\\"b"', "string")]),
        ("#define X 1", [("#define", "directive"), ("1", "number")]),
        ("out: return;", [("out", "label"), (":", "operator"), ("return", "mnemonic")]),
        ("a /* b */ c", [("/* b */", "comment")]),
    ],
)  # fmt: skip
def test_pieces(line: str, expected: list[tuple[str, str]]) -> None:
    assert pieces(line) == (expected, False)


def test_comments_go_over_lines() -> None:
    assert pieces("x; /* one") == ([("/* one", "comment")], True)
    assert pieces("two", inside=True) == ([("two", "comment")], True)
    assert pieces("three */ int y;", inside=True) == ([("three */", "comment"), ("int", "register")], False)


@given(st.text(max_size=60), st.booleans())
def test_pieces_are_in_order_whatever_the_line(line: str, inside: bool) -> None:
    found, _ = c_spans(line, Syntax.ATT, State(in_comment=inside))
    edges = [edge for span in found for edge in (span.start, span.end)]
    assert edges == sorted(edges)
    assert all(0 <= edge <= len(line) for edge in edges)
