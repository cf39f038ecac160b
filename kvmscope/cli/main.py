"""Dispatch of ``kvmscope COMMAND``: parses nothing itself but the command's name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, TextIO

from kvmscope.errors import KvmscopeError, UsageError

__all__ = ["COMMANDS", "run_command_line"]

COMMANDS: Final = {
    "run": "run one reproducer or image headless and say its verdict",
    "test": "run reproducers as a test suite",
    "suite": "run a built kvm-unit-tests tree as its run_tests.sh does",
    "asm": "assemble: bytes, listing, symbols, errors",
    "export": "write a reproducer as a kvm-unit-tests test or a pytest case",
    "doctor": "say what was found on this machine and what it gives",
    "new": "write a new reproducer from a template",
}
"""Each is a module ``kvmscope.cli.NAME`` with ``main(argv) -> int``; imported only when asked for."""


def run_command_line(argv: Sequence[str]) -> int:
    """Run one command line and return the exit status; errors become three lines on stderr, never a traceback."""
    _open_closed_streams()
    try:
        status = _dispatch(list(argv))
        sys.stdout.flush()
    except KvmscopeError as error:
        print(f"kvmscope: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`kvmscope asm x | head`): not an error of ours. What is still buffered
        # must go somewhere, or the interpreter complains at its end.
        _drop(sys.stdout)
        return 141
    except OSError as error:
        # What touches a file names it in an error of its own; what is left is a stream that takes no more (a full disk).
        _drop(sys.stdout)
        try:
            print(f"kvmscope: {error.strerror or error}", file=sys.stderr)
        except OSError:
            _drop(sys.stderr)
        return 2
    return status


def _open_closed_streams() -> None:
    """Give /dev/null to the standard streams that were closed (``kvmscope run x >&-``): Python has None for them."""
    for name, flags, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode))


def _drop(stream: TextIO) -> None:
    """Send what ``stream`` still holds to /dev/null."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _dispatch(argv: list[str]) -> int:
    first = argv[0] if argv else ""
    if first in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if first in ("-V", "--version"):
        from kvmscope import __version__

        print(f"kvmscope {__version__}")
        return 0
    if first in COMMANDS:
        return int(import_module(f"kvmscope.cli.{first}").main(argv[1:]))
    if first and not first.startswith("-"):
        _check_file(first)
    return int(import_module("kvmscope.cli.tui").main(argv))


def _check_file(name: str) -> None:
    """A word that is neither a file nor looks like one is a mistyped command."""
    if os.path.exists(name) or os.sep in name or "." in name:
        return
    from kvmscope.expr.nearest import nearest

    close = nearest(name, COMMANDS)
    hint = f"did you mean 'kvmscope {close}'?" if close else "kvmscope --help lists the commands"
    raise UsageError(f"{name!r} is neither a command nor a file", hint=hint)


def _usage() -> str:
    lines = [
        "usage: kvmscope [FILE]              open the terminal IDE on a source",
        "       kvmscope IMAGE [ARGS...]     on an image: .flat, .elf; takes run's options too",
        "       kvmscope TREE                the suite browser, on a built kvm-unit-tests tree",
        "       kvmscope COMMAND [...]",
        "",
        "commands:",
    ]
    lines += [f"  {name:<8} {meaning}" for name, meaning in COMMANDS.items()]
    return "\n".join([*lines, "", "kvmscope COMMAND --help tells more; kvmscope --version the version."])
