"""``kvmscope suite TREE [NAME...]``: the entries of a built kvm-unit-tests tree, as its run_tests.sh runs them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from kvmscope.cli.options import Parser, positive, seconds
from kvmscope.errors import SuiteError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from kvmscope.suite.runner import Outcome
    from kvmscope.suite.selection import Selected
    from kvmscope.suite.tree import Tree

__all__ = ["main"]

_COLOURS: Final = {"PASS": "32", "FAIL": "31", "SKIP": "33", "ERROR": "31"}


def _parser() -> Parser:
    from kvmscope.suite.config import TIMEOUT_SCALE

    parser = Parser(
        prog="kvmscope suite",
        description="Run the entries of a built kvm-unit-tests tree's x86/unittests.cfg in kvmscope's own machine.",
        epilog="exit status: 0 no failure, 1 a failure or an entry that could not be run, 2 usage error",
        allow_abbrev=False,
    )
    parser.add_argument("tree", metavar="TREE", type=Path, help="the tree: the directory of x86/unittests.cfg")
    parser.add_argument("names", metavar="NAME", nargs="*", help="entries to run, * and ? allowed (default: all)")
    parser.add_argument("-j", "--jobs", type=positive, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("-g", "--group", default="", metavar="GROUP", help="only entries of this group")
    parser.add_argument("-a", "--all", action="store_true", help="entries marked nodefault too")
    parser.add_argument("-s", "--skip", action="append", default=[], metavar="NAME", help="leave entries out")
    parser.add_argument("-l", "--list", action="store_true", help="list the entries and run nothing")
    parser.add_argument("-v", "--verbose", action="store_true", help="serial output as it comes, and notes")
    parser.add_argument("-t", "--tap", action="store_true", help="TAP 13 on stdout: one line a check of the guests")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--junit-xml", type=Path, metavar="F", help="write a JUnit report")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="write each entry's serial output to DIR/NAME.log")
    parser.add_argument(
        "--timeout-scale",
        type=seconds,
        default=TIMEOUT_SCALE,
        metavar="X",
        help=f"times each entry's time-out (default: {TIMEOUT_SCALE:g})",
    )
    parser.add_argument(
        "--cpu", type=_features, metavar="CHANGES", help="change every entry's processor: --cpu=-pku,-la57"
    )
    parser.add_argument("--max-instructions", type=positive, metavar="N", help="budget of instructions of each entry")
    return parser


def _features(text: str) -> str:
    """An argparse type: changes of features, as they follow a profile's name."""
    from argparse import ArgumentTypeError

    from kvmscope.x86.profiles import resolve

    try:
        resolve(f"intel,{text}")
    except UsageError as error:
        raise ArgumentTypeError(": ".join(part for part in (error.title, error.detail, error.hint) if part)) from None
    return text


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_intermixed_args(argv)
    if options.tap and options.json:
        raise UsageError("--tap and --json both want stdout", hint="give one of them")
    from kvmscope.suite.runner import MAX_SMP
    from kvmscope.suite.selection import Selection, select
    from kvmscope.suite.tree import open_tree

    tree = open_tree(options.tree)
    for warning in tree.config.warnings:
        print(warning, file=sys.stderr)
    selection = Selection(tuple(options.names), tuple(options.skip), options.group, options.all)
    chosen = select(tree, selection, max_smp=MAX_SMP)
    if options.list:
        # As run_tests.sh -l: the names of what is selected, run or not.
        print("\n".join(selected.entry.name for selected in chosen))
        return 0
    if options.logs is not None:
        _make_directory(options.logs)
    started = time.monotonic()
    outcomes = _run(tree, chosen, options)
    took = time.monotonic() - started
    _tell_end(tree, outcomes, took, options)
    return int(any(outcome.word.bad for outcome in outcomes))


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None


def _run(tree: Tree, chosen: list[Selected], options: Namespace) -> list[Outcome]:
    from kvmscope.suite.runner import NO_LIMIT
    from kvmscope.suite.running import run_selected

    quiet = options.tap or options.json
    rows = run_selected(
        tree,
        chosen,
        processes=options.jobs,
        scale=options.timeout_scale,
        instructions=options.max_instructions or NO_LIMIT,
        cpu=options.cpu or "",
        emit=_write if options.verbose and not quiet else None,
    )
    outcomes = []
    number = 0
    if options.tap:
        print("TAP version 13", flush=True)
    for outcome in rows:
        outcomes.append(outcome)
        if options.logs is not None:
            _log(options.logs, outcome)
        if options.tap:
            number = _tap(outcome, number)
        elif not options.json:
            _row(outcome, verbose=options.verbose)
    if options.tap:
        print(f"1..{number}", flush=True)
    return outcomes


def _write(_name: str, output: bytes) -> None:
    from kvmscope.cli.run import harmless

    sys.stdout.flush()
    sys.stdout.buffer.write(harmless(output) if sys.stdout.isatty() else output)
    sys.stdout.buffer.flush()


def _shown(text: str, stream: TextIO) -> str:
    """What a guest may have written, harmless where a terminal would obey it."""
    if not stream.isatty():
        return text
    from kvmscope.cli.run import harmless

    return harmless(text.encode("utf-8", "backslashreplace")).decode("utf-8", "backslashreplace")


def _log(directory: Path, outcome: Outcome) -> None:
    if outcome.stop or outcome.output:
        # A name is whatever stands between two brackets.
        path = directory / f"{outcome.name.replace('/', '_')}.log"
        try:
            path.write_bytes(outcome.output)
        except OSError as error:
            raise SuiteError(f"{path}: {error.strerror or error}") from None


def _tap(outcome: Outcome, number: int) -> int:
    from kvmscope.suite.reports import tap_lines

    for line in tap_lines(outcome):
        number += 1
        print(_shown(line.replace("TEST_NUMBER", str(number), 1), sys.stdout), flush=True)
    return number


def _row(outcome: Outcome, *, verbose: bool) -> None:
    word, line = outcome.word.value, _shown(outcome.line, sys.stdout)
    if verbose and outcome.output and not outcome.output.endswith(b"\n"):
        print()
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        line = f"\x1b[{_COLOURS[word]}m{word}\x1b[0m{line.removeprefix(word)}"
    print(line, flush=True)
    if verbose or outcome.word.bad:
        for text in (*(f"FAIL: {item.text}" for item in outcome.failures if not verbose), *outcome.details):
            print(f"    {_shown(text, sys.stderr)}", file=sys.stderr)
        for note in outcome.notes:
            print(f"    note: {_shown(note, sys.stderr)}", file=sys.stderr)


def _tell_end(tree: Tree, outcomes: list[Outcome], took: float, options: Namespace) -> None:
    from kvmscope.suite import reports

    if options.junit_xml is not None:
        reports.write_junit(options.junit_xml, outcomes, took)
    if options.json:
        import json

        print(json.dumps(reports.document(str(tree.root), outcomes, took)))
    noted = sum(bool(outcome.notes) and not outcome.word.bad for outcome in outcomes)
    text = reports.totals(outcomes, took)
    if noted and not options.verbose:
        text += f"; {noted} did not get all they ask for (-v tells)"
    print(text, file=sys.stderr if options.tap or options.json else sys.stdout)
