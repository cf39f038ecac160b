from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from kvmscope.errors import UsageError
from kvmscope.reproducer.reports import junit_xml, tap_line, write_junit
from kvmscope.reproducer.suite import Outcome
from kvmscope.reproducer.verdict import Verdict

OUTCOMES = [
    Outcome(
        "dir/a.asm",
        Verdict.PASS,
        "1 expectation met",
        expectations=1,
        instructions=7,
        seconds=0.25,
        serial="hi\x00\x1b[1m<&>",
    ),
    Outcome("b.s", Verdict.FAIL, "1 of 2", ("b.s:3: expected rax == '<5>'", "    rax is 0x7"), 2),
    Outcome("c.s", Verdict.ERROR, "does not assemble", ("c.s:1:1: error: x",)),
    Outcome("d#.s", Verdict.SKIP, "requires kvm"),
    Outcome("e.s", Verdict.XFAIL, "known"),
    Outcome("f.s", Verdict.KFAIL, "bug"),
]


def test_tap() -> None:
    assert [tap_line(number, outcome) for number, outcome in enumerate(OUTCOMES, 1)] == [
        "ok 1 - dir/a.asm",
        "not ok 2 - b.s\n# 1 of 2\n# b.s:3: expected rax == '<5>'\n#     rax is 0x7",
        "not ok 3 - c.s\n# does not assemble\n# c.s:1:1: error: x",
        "ok 4 - d\\#.s # SKIP requires kvm",
        "not ok 5 - e.s # TODO known",
        "not ok 6 - f.s # TODO bug",
    ]


def test_junit_is_xml_whatever_a_guest_printed() -> None:
    suite = ET.fromstring(junit_xml(OUTCOMES, 1.5))[0]
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "6",
        "failures": "1",
        "errors": "1",
        "skipped": "3",
        "time": "1.500",
    }
    first, second = suite[0], suite[1]
    assert (first.get("classname"), first.get("name"), first.get("time")) == ("dir", "a", "0.250")
    assert first.findtext("system-out") == "hi\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[1m<&>"
    assert second.findtext("failure") == "b.s:3: expected rax == '<5>'\n    rax is 0x7"
    assert [case[0].tag for case in suite[2:]] == ["error", "skipped", "skipped", "skipped"]  # type: ignore[index]


def test_the_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.xml"
    write_junit(path, OUTCOMES, 1.0)
    assert ET.parse(path).getroot().tag == "testsuites"
    with pytest.raises(UsageError):
        write_junit(tmp_path / "absent" / "out.xml", OUTCOMES, 1.0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.xml"]


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (OUTCOMES[0], "PASS dir/a.asm (1 expectation, 7 instructions)"),
        (OUTCOMES[1], "FAIL b.s (1 of 2)"),
        (OUTCOMES[3], "SKIP d#.s (requires kvm)"),
    ],
)
def test_lines_are_those_of_run_tests(outcome: Outcome, line: str) -> None:
    assert outcome.line == line
