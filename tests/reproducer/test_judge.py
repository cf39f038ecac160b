from __future__ import annotations

import pytest

from kvmscope.expr import MappingScope, parse
from kvmscope.reproducer.document import Expectation
from kvmscope.reproducer.judge import judge, unknown_names

SCOPE = MappingScope(
    {
        "rax": 7,
        "rip": 0x400010,
        "label": 0x400004,
        "exception": "#PF",
        "zf": 1,
        "serial": "x" * 300,
        "debug_exit": -1,
        "ticks": 1000,
    },
    {"u64": lambda address: address + 1, "count": lambda what: 12},
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rax == 5", "rax is 7"),
        ("rip == label", "rip is 0x400010, label is 0x400004"),
        ("exception == '#GP' and rax == 7", "exception is '#PF', rax is 7"),
        ("zf == 0 or debug_exit == 0", "zf is 1, debug_exit is -1"),
        ("u64(rip) == 0", "rip is 0x400010, u64(rip) is 0x400011"),
        ("count('#PF') == 2 and ticks < 5", "ticks is 1000, count('#PF') is 12"),
        ("serial == ''", f"serial is ...'{'x' * 200}' (300 characters)"),
        ("0", ""),
    ],
)
def test_what_is_not_met_shows_the_actual_values(text: str, message: str) -> None:
    (result,) = judge([Expectation(parse(text), text, 3)], SCOPE)
    assert (result.ok, result.message, result.line, result.text) == (False, message, 3, text)


def test_what_is_met_says_nothing() -> None:
    (result,) = judge([Expectation(parse("rax == 7"), "rax == 7", 1)], SCOPE)
    assert (result.ok, result.value, result.message) == (True, True, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [("rax == 'a'", "cannot compare"), ("exception", "not a condition"), ("rax / 0", "division by zero")],
)
def test_what_cannot_be_evaluated_is_not_met(text: str, words: str) -> None:
    (result,) = judge([Expectation(parse(text), text, 1)], SCOPE)
    assert (result.ok, result.value) == (False, None)
    assert words in result.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rax == 7 or rxa == 1", "unknown name 'rxa': did you mean 'rax'?"),
        ("0 and strat == 1", "unknown name 'strat': did you mean 'start'?"),
        ("RAX == start and CR0.WP == 1 and IA32_EFER == 1", ""),
    ],
)
def test_unknown_names_are_found_in_every_branch(text: str, words: str) -> None:
    assert unknown_names(Expectation(parse(text), text, 1), {"start": 1}) == words
