from __future__ import annotations

import pytest

from kvmscope.ui.line_panel import plain
from kvmscope.ui.render.explanation import explanation_rows
from kvmscope.vmm.engine import Stop, StopReason
from tests.ui.render.fake import Guest, Words

WORDS = Words(
    "#PF(0x2) at 0x401000: write to 0x7000",
    ("PTE at 0x3038 = 0x25: R/W = 0, CR0.WP = 1", "  a link of the chain that is longer than the panel is wide"),
    ("SDM vol. 3A section 4.6.1",),
)


def text(guest, width):
    return [line.rstrip() for line in plain(explanation_rows(guest.view(), width))]


def test_wrapped_with_its_indentation():
    guest = Guest(explanation=WORDS, stop=Stop(StopReason.EXCEPTION))
    assert text(guest, 44) == [
        "✗ #PF(0x2) at 0x401000: write to 0x7000",
        "  PTE at 0x3038 = 0x25: R/W = 0, CR0.WP = 1",
        "    a link of the chain that is longer than",
        "      the panel is wide",
        "  SDM vol. 3A section 4.6.1",
    ]


def test_no_word_is_lost():
    for width in range(20, 100):
        shown = " ".join(text(Guest(explanation=WORDS), width)).split()
        expected = " ".join((WORDS.title, *WORDS.lines, *WORDS.references)).split()
        assert "".join(shown) == "".join(expected)


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        (Stop(StopReason.STEP), " Stepped."),
        (Stop(StopReason.DEBUG_EXIT, code=0x2A), " The guest ended itself with 0x2a."),
        (Stop(StopReason.BUDGET, detail="10 instructions"), " Out of budget."),
    ],
)
def test_without_an_explanation_the_stop_is_told(stop, words):
    lines = text(Guest(stop=stop), 60)
    assert lines[0] == words
    assert lines[1:] == ([f" {stop.detail}"] if stop.detail else [])


def test_every_reason_has_words():
    for reason in StopReason:
        assert text(Guest(stop=Stop(reason)), 60)[0].strip()
