"""``kvmscope run FILE [ARGS...]``: one reproducer, headless."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

from kvmscope.cli.image_options import add_machine_options, image_options, overrides
from kvmscope.cli.options import Parser, existing_file
from kvmscope.errors import KvmscopeError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from kvmscope.reproducer.document import Reproducer
    from kvmscope.reproducer.verdict import Result

__all__ = ["harmless", "main"]


def _parser() -> Parser:
    parser = Parser(
        prog="kvmscope run",
        description="Run a reproducer or an image. Serial output goes to stdout, one verdict line to stderr.",
        epilog="exit status: 0 pass, 1 fail, 2 usage or assembly error, 77 skip, 124 out of budget",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="a source (.asm, .s, .S), or an image: .flat, .elf, raw bytes")
    add_machine_options(parser)
    parser.add_argument("--engine", default="unicorn", help="unicorn (built in) or kvm")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--cross-check", action="store_true", help="assemble with every assembler and show differences")
    parser.add_argument("-v", "--verbose", action="store_true", help="explain how the run ended")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_intermixed_args(argv)
    try:
        result = _run(options)
    except KvmscopeError as error:
        if options.json:
            from kvmscope.reproducer.verdict import Result, Verdict

            # Who asked for a document gets one, whatever is wrong with the file.
            _print_document(Result(Verdict.ERROR, options.engine, error.title))
        raise
    if options.json:
        _print_document(result)
    _tell(result, options.file, verbose=options.verbose)
    return result.exit_status


def _run(options: Namespace) -> Result:
    path = existing_file(options.file)
    from kvmscope.reproducer.runner import check_engine, run

    check_engine(options.engine)
    machine = overrides(options)
    output = None if options.json else _Output()
    result = run(
        _load(path, options),
        engine=options.engine,
        overrides=machine,
        on_output=output,
        cross_check=options.cross_check,
        explain=options.verbose,
    )
    if output is not None:
        output.end_line()
    return result


def _load(path: Path, options: Namespace) -> Reproducer:
    """A source, or an image that the options say how to start."""
    from kvmscope.reproducer.images import is_image, open_image

    asked = image_options(options)
    if is_image(path) or asked.rom or asked.mode is not None:
        return open_image(path, asked)
    if asked.given:
        raise UsageError(
            f"{path} is a source: its header says how it starts", hint="--env, --address, --entry are for images"
        )
    from kvmscope.reproducer.document import load

    return load(path)


def _print_document(result: Result) -> None:
    import json

    from kvmscope.reproducer.reports import result_document

    print(json.dumps(result_document(result)))


_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]|\xc2\Z")
"""What a terminal would obey: C0 without tab, line feed and carriage return, DEL, and C1 in UTF-8 (or a part of it)."""


def harmless(output: bytes) -> bytes:
    """``output`` with control characters spelled as ``\\xNN``."""
    return _CONTROLS.sub(lambda found: b"".join(b"\\x%02x" % byte for byte in found[0]), output)


class _Output:
    """Serial output to stdout as it comes."""

    def __init__(self) -> None:
        self._last = b""

    def __call__(self, output: bytes) -> None:
        # A hostile guest must not drive the user's terminal; a file or a pipe gets every byte as it is.
        sys.stdout.buffer.write(harmless(output) if sys.stdout.isatty() else output)
        sys.stdout.buffer.flush()
        self._last = output[-1:] or self._last

    def end_line(self) -> None:
        """On a terminal, what follows on stderr begins on a line of its own."""
        if self._last not in (b"", b"\n") and sys.stdout.isatty():
            print(flush=True)


def _tell(result: Result, filename: str, *, verbose: bool) -> None:
    """Details first, the one verdict line last."""
    sys.stdout.flush()
    for line in result.details(filename, explain=verbose):
        print(line, file=sys.stderr)
    instructions = f" ({result.instructions} instructions)" if result.stop else ""
    print(f"{result.verdict.value.upper()} {filename}: {result.summary}{instructions}", file=sys.stderr)
