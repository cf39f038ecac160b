import datetime
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscope.suite.words import DATE, ShellError, split_words
from kvmscope.vmm.devices.rtc import START
from kvmscope.vmm.unicorn.paravirt import BOOT_TIME


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("-cpu max", ("-cpu", "max")),
        ("'a b' c", ("a b", "c")),
        ("\"a b\"c'd e'", ("a bcd e",)),
        ('""', ("",)),
        (r"a\ b", ("a b",)),
        (r'"a\"b\\c\d"', (r'a"b\c\d',)),
        ("ept_access* x?", ("ept_access*", "x?")),
        ("a # b", ("a",)),
        ("a#b", ("a#b",)),
        ("a \\\nb", ("a", "b")),
        ("'`;$'", ("`;$",)),
        (r"\$HOME \`", ("$HOME", "`")),
    ],
)
def test_words_are_those_of_a_shell(text, words):
    assert split_words(text).words == words


@pytest.mark.parametrize("text", ["`date +%s`", '"x `date +%s`"', "$(date +%s)", '"$(date +%s)"', "` date  +%s `"])
def test_date_is_a_fixed_number(text):
    found = split_words(text)
    assert found.dated
    assert str(DATE) in found.words[0]


def test_other_dates_are_not_replaced():
    assert not split_words("'`date +%s`'").dated


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("`rm -rf /`", "rm -rf /"),
        ("$(reboot)", "reboot"),
        ("$MAX_SMP", r"'\$'"),
        ('"$HOME"', r"'\$'"),
        ("$((1+1))", "would be run"),
        ("a; b", "';'"),
        ("a && b", "'&'"),
        ("a | b", "'|'"),
        ("a > /etc/passwd", "'>'"),
        ("'a", "not closed"),
        ('"a', "not closed"),
        ("`date", "not closed"),
    ],
)
def test_what_only_a_shell_could_answer_is_refused(text, what):
    with pytest.raises(ShellError, match=what):
        split_words(text)


@given(st.text(alphabet=st.characters(exclude_characters="$`\\\0", exclude_categories=["Cs"]), max_size=40))
def test_what_is_taken_is_what_shlex_takes(text):
    try:
        ours = split_words(text).words
    except ShellError:
        return
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\n", True, ""
    if "#" not in text:
        assert list(ours) == list(lexer)


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)))
def test_quoted_words_come_back(words):
    assert split_words(" ".join(shlex.quote(word) for word in words)).words == tuple(words)


@given(st.text(max_size=60))
def test_any_text_gives_words_or_an_error(text):
    try:
        split_words(text)
    except ShellError:
        pass


def test_the_date_is_that_of_the_machine_s_clocks():
    midnight = datetime.datetime.combine(START, datetime.time(), datetime.UTC)
    assert midnight.timestamp() == DATE == BOOT_TIME
