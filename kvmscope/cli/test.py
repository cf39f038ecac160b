"""``kvmscope test [PATH...]``: reproducers as a test suite."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from kvmscope.cli.options import Parser, positive
from kvmscope.errors import UsageError
from kvmscope.reproducer.suite import Job, Outcome, run_suite
from kvmscope.reproducer.verdict import Verdict

__all__ = ["main"]

_WORDS: Final = {
    Verdict.PASS: "passed",
    Verdict.FAIL: "failed",
    Verdict.ERROR: "not run",
    Verdict.SKIP: "skipped",
    Verdict.XFAIL: "failed as expected",
    Verdict.KFAIL: "failed for a known bug",
}
_COLOURS: Final = {Verdict.PASS: "32", Verdict.FAIL: "31", Verdict.ERROR: "31"}


def _parser() -> Parser:
    parser = Parser(
        prog="kvmscope test",
        description="Run every reproducer (.asm, .s or .S with a kvmscope header) in files and directories.",
        epilog="exit status: 0 no failure, 1 a failure, 2 usage error or a file that could not be run",
        allow_abbrev=False,
    )
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, help="files and directories (default: .)")
    parser.add_argument("-j", "--jobs", type=positive, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("-k", metavar="TEXT", dest="substring", default="", help="only files whose name contains TEXT")
    parser.add_argument("--list", action="store_true", help="list the files and run nothing")
    parser.add_argument("--engine", default="unicorn", help="unicorn (built in) or kvm")
    parser.add_argument("--cross-check", action="store_true", help="assemble with every assembler")
    parser.add_argument("--junit-xml", type=Path, metavar="F", help="write a JUnit report")
    parser.add_argument("--tap", action="store_true", help="TAP 13 on stdout")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_intermixed_args(argv)
    from kvmscope.reproducer.discovery import discover

    paths = options.paths or [Path()]
    files = [path for path in discover(paths) if options.substring in str(path)]
    if not files:
        where = ", ".join(map(str, paths))
        hint = "a reproducer is an .asm, .s or .S file with a line '# /// kvmscope'"
        raise UsageError(
            f"no reproducer in {where}" + (f" matches {options.substring!r}" * bool(options.substring)), hint=hint
        )
    if options.list:
        print("\n".join(map(str, files)))
        return 0
    from kvmscope.reproducer.runner import check_engine

    check_engine(options.engine)
    started = time.monotonic()
    jobs = [Job(path, options.engine, options.cross_check) for path in files]
    if options.tap:
        print(f"TAP version 13\n1..{len(jobs)}")
    outcomes = []
    for number, outcome in enumerate(run_suite(jobs, options.jobs), 1):
        outcomes.append(outcome)
        _show(number, outcome, tap=options.tap)
    took = time.monotonic() - started
    if options.junit_xml is not None:
        from kvmscope.reproducer.reports import write_junit

        write_junit(options.junit_xml, outcomes, took)
    print(_totals(outcomes, took), file=sys.stderr if options.tap else sys.stdout)
    return _status(outcomes)


def _show(number: int, outcome: Outcome, *, tap: bool) -> None:
    if tap:
        from kvmscope.reproducer.reports import tap_line

        print(tap_line(number, outcome), flush=True)
        return
    print(_coloured(outcome), flush=True)
    if outcome.verdict in (Verdict.FAIL, Verdict.ERROR):
        for line in outcome.details:
            print(f"    {line}", file=sys.stderr)


def _coloured(outcome: Outcome) -> str:
    word = outcome.verdict.value.upper()
    colour = _COLOURS.get(outcome.verdict, "33")
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return outcome.line
    return f"\x1b[{colour}m{word}\x1b[0m{outcome.line.removeprefix(word)}"


def _totals(outcomes: list[Outcome], took: float) -> str:
    count = Counter(outcome.verdict for outcome in outcomes)
    parts = [f"{count[verdict]} {word}" for verdict, word in _WORDS.items() if count[verdict]]
    return f"{', '.join(parts)} in {took:.2f} s"


def _status(outcomes: list[Outcome]) -> int:
    if any(outcome.verdict is Verdict.ERROR and not outcome.out_of_budget for outcome in outcomes):
        return 2
    return int(any(outcome.verdict in (Verdict.FAIL, Verdict.ERROR) for outcome in outcomes))
