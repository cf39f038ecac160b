from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscope.ui.line_panel import Span
from kvmscope.ui.render.text import clip, hex_spans, pad, size_words, width_of, wrap_words


@pytest.mark.parametrize(
    ("value", "digits", "old", "expected"),
    [
        (0, 4, None, [("000", "zero"), ("0", "value")]),
        (0x2A, 4, None, [("00", "zero"), ("2a", "value")]),
        (0x2A, 4, 0x2A, [("00", "zero"), ("2a", "value")]),
        (0x2A, 4, 0x29, [("00", "zero"), ("2", "value"), ("a", "changed")]),
        (0x0A, 4, 0x100A, [("0", "changed"), ("00", "zero"), ("a", "value")]),
        (0x401000, 8, 0x400FF0, [("00", "zero"), ("40", "value"), ("100", "changed"), ("0", "value")]),
        (0x12345, 4, None, [("12345", "value")]),
    ],
)  # fmt: skip
def test_digits_are_marked_one_by_one(value, digits, old, expected):
    assert [(span.text, span.style) for span in hex_spans(value, digits, old)] == expected


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_marked_digits_are_exactly_those_that_differ(new, old):
    marks = "".join(span.style[0] * len(span.text) for span in hex_spans(new, 16, old))
    differ = [a != b for a, b in zip(f"{new:016x}", f"{old:016x}", strict=True)]
    assert [mark == "c" for mark in marks] == differ
    assert "".join(span.text for span in hex_spans(new, 16, old)) == f"{new:016x}"


@pytest.mark.parametrize(
    ("texts", "width", "expected"),
    [
        (["abc", "def"], 6, "abcdef"),
        (["abc", "def"], 5, "abcd…"),
        (["abc", "def"], 3, "ab…"),
        (["日本語", "x"], 4, "日…"),
        (["abc"], 0, ""),
        (["", "ab"], 2, "ab"),
    ],
)
def test_clip(texts, width, expected):
    cut = clip([Span(text) for text in texts], width)
    assert "".join(span.text for span in cut) == expected
    assert width_of(cut) <= width


@given(st.lists(st.text(max_size=6), max_size=5), st.integers(0, 20))
def test_clip_never_exceeds_its_width(texts, width):
    assert width_of(clip([Span(text) for text in texts], width)) <= width


@pytest.mark.parametrize(
    ("text", "width", "expected"), [("ab", 4, "ab  "), ("abcd", 4, "abcd"), ("abcde", 4, "abc…"), ("日本", 3, "日…")]
)
def test_pad(text, width, expected):
    assert pad(text, width) == expected


@pytest.mark.parametrize(
    ("size", "words"), [(4096, "4K"), (2 << 20, "2M"), (1 << 30, "1G"), (1, "1 byte"), (4097, "4097 bytes")]
)
def test_sizes_are_exact(size, words):
    assert size_words(size) == words


def test_wrapped_items_stay_whole():
    lines = wrap_words([(Span("aaa"),), (Span("bbb"),), (Span("ccc"),)], 4, 7)
    assert ["".join(span.text for span in line) for line in lines] == ["aaa", "bbb ccc"]
