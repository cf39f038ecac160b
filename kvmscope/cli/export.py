"""``kvmscope export``: a reproducer as a test of another suite."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from kvmscope.cli.options import Parser, existing_source
from kvmscope.errors import UsageError
from kvmscope.export import TARGETS, export, target
from kvmscope.export.model import c_name
from kvmscope.export.writing import place, shown, write_file
from kvmscope.reproducer import load

__all__ = ["main"]


def _parser() -> Parser:
    parser = Parser(
        prog="kvmscope export", description="Write a reproducer as a test of another suite.", allow_abbrev=False
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="the reproducer")
    parser.add_argument("--to", metavar="TARGET", help=f"one of: {', '.join(TARGETS)}")
    parser.add_argument("--tree", type=Path, metavar="DIR", help="put it into this tree, Makefile and cfg entries too")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="write the test to this file")
    parser.add_argument("--name", default="", help="name of the test (by default the file's)")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    parser.add_argument("--list", action="store_true", help="list the targets")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; 0 when the test was written."""
    options = _parser().parse_args(argv)
    if options.list:
        for name in TARGETS:
            print(f"{name:<16} {target(name).summary}")
        return 0
    if options.file is None or options.to is None:
        raise UsageError(
            "export needs a file and a target", hint="kvmscope export FILE --to pytest; --list lists targets"
        )
    if options.tree is not None and options.output is not None:
        raise UsageError("--tree and -o exclude each other")
    chosen = target(options.to)
    if options.tree is not None:
        wrong = chosen.is_tree(options.tree)
        if wrong:
            raise UsageError(f"{options.tree} is no tree for {chosen.name}", wrong)
    reproducer = load(existing_source(options.file))
    name = c_name(options.name or (options.output.stem.removeprefix("test_") if options.output else reproducer.name))
    result = export(reproducer, options.to, name=name)
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if options.tree is not None:
        for line in place(result, options.tree, force=options.force):
            print(line, file=sys.stderr)
    elif options.output is not None:
        write_file(options.output, result.files[0].text, force=options.force)
        for edit in result.edits:
            print(f"add to {edit.path}:\n{edit.shown}", file=sys.stderr)
    else:
        print(shown(result) if result.edits else result.files[0].text, end="")
    return 0
