"""Dispatch of ``kvmscope COMMAND``: parses nothing itself but the command's name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from kvmscope.errors import KvmscopeError

__all__ = ["COMMANDS", "run_command_line"]

COMMANDS: Final = ("run", "test", "asm", "export", "doctor", "new")
"""Each is a module ``kvmscope.cli.NAME`` with ``main(argv) -> int``; imported only when asked for."""


def run_command_line(argv: Sequence[str]) -> int:
    """Run one command line and return the exit status; errors become three lines on stderr, never a traceback."""
    name, rest = ("tui", argv)
    if argv and argv[0] in COMMANDS:
        name, rest = argv[0], argv[1:]
    try:
        status = import_module(f"kvmscope.cli.{name}").main(list(rest))
    except KvmscopeError as error:
        print(f"kvmscope: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`kvmscope asm x | head`): not an error of ours.
        sys.stderr.close()
        return 141
    return int(status)
