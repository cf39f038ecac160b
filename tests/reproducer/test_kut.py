import pytest

from kvmscope.reproducer.kut import Kind, Word, count, process_status, report_lines, summary, word_of

OUTPUT = b"""enabling apic\r
PASS: first\r
FAIL: a: second\r
INFO: PASS: no check\r
SKIP: third\r
XFAIL: expected\r
PASSED
SUMMARY: 3 tests, 1 unexpected failures, 1 skipped\r
"""


def test_lines_that_report():
    lines = report_lines(OUTPUT)
    # run_tests.sh looks at four letters only.
    assert [(line.kind, line.text, line.number) for line in lines] == [
        (Kind.PASS, "first", 1), (Kind.FAIL, "a: second", 2), (Kind.SKIP, "third", 4), (Kind.PASS, "", 6),
    ]  # fmt: skip
    assert OUTPUT[lines[1].begin : lines[1].end] == b"FAIL: a: second\r\n"
    assert str(count(lines)) == "2/1/1"


def test_an_unfinished_line_counts():
    (line,) = report_lines(b"FAIL: x")
    assert (line.text, line.end) == ("x", 7)
    assert report_lines(b"") == ()


def test_bytes_that_are_no_text():
    assert report_lines(b"PASS: \xff\n")[0].text == "\\xff"


def test_summary_is_looked_for_in_the_last_five_lines():
    assert summary(OUTPUT) == "(3 tests, 1 unexpected failures, 1 skipped)"
    assert summary(b"SUMMARY: 1 tests\n" + b"x\n" * 4) == "(1 tests)"
    assert summary(b"SUMMARY: 1 tests\n" + b"x\n" * 5) == ""
    assert summary(b"no SUMMARY: 1 tests\n") == ""


@pytest.mark.parametrize(
    ("code", "status", "word", "reason"),
    [
        (0, 0, Word.PASS, ""),
        (1, 3, Word.FAIL, ""),
        (38, 77, Word.SKIP, ""),
        (63, 127, Word.FAIL, "aborted"),
        (64, 129, Word.FAIL, "terminated on SIGHUP"),
        (0x80, 0, Word.PASS, ""),
    ],
)
def test_exit_codes(code, status, word, reason):
    assert process_status(code) == status
    assert word_of(status) == (word, reason)


def test_timeout():
    assert word_of(124, "90s") == (Word.FAIL, "timeout; duration=90s")
    assert word_of(137)[1] == "terminated on SIGKILL"
    assert word_of(255)[1] == "terminated on SIG127"
