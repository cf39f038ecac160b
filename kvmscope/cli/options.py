"""What the commands' parsers share: errors in our words, sizes, engines, near misses of file names."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import Final, NoReturn

from kvmscope.errors import UsageError
from kvmscope.expr.nearest import nearest

__all__ = [
    "SOURCE_SUFFIXES",
    "Parser",
    "address",
    "existing_file",
    "existing_source",
    "memory",
    "positive",
    "processors",
    "seconds",
    "variable",
]

SOURCE_SUFFIXES: Final = (".asm", ".s", ".S")
MAX_SMP: Final = 16
_VARIABLE: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError, with the nearest option for one that does not exist."""

    def error(self, message: str) -> NoReturn:
        hint = f"{self.prog} --help"
        prefix = "unrecognized arguments: "
        required = "the following arguments are required: "
        if message.startswith(prefix):
            wrong = message.removeprefix(prefix).split()[0].split("=")[0]
            close = nearest(wrong, [option for action in self._actions for option in action.option_strings])
            hint = f"did you mean {close}?" if close else hint
            message = f"unknown option or argument {wrong!r}"
        elif message.startswith(required):
            # parse_intermixed_args asks for the positionals that may be left out, too.
            optional = {action.metavar for action in self._actions if action.nargs == "*"}
            names = message.removeprefix(required).split(", ")
            message = required + ", ".join(name for name in names if name not in optional)
        raise UsageError(message, hint=hint)


def positive(text: str) -> int:
    """An argparse type: an integer above 0, in any radix."""
    try:
        value = int(text, 0)
    except ValueError:
        value = 0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def seconds(text: str) -> float:
    """An argparse type: a time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def processors(text: str) -> int:
    """An argparse type: a number of processors."""
    value = positive(text)
    if value > MAX_SMP:
        raise argparse.ArgumentTypeError(f"{text!r} is more than the {MAX_SMP} processors a machine can have")
    return value


def address(text: str) -> int:
    """An argparse type: an address below 4 GiB, in any radix."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address below 4 GiB")
    return value


def variable(text: str) -> tuple[str, str]:
    """An argparse type: ``NAME=VALUE`` of an environment."""
    name, separator, value = text.partition("=")
    if not separator or not _VARIABLE.fullmatch(name) or "\n" in value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, on one line")
    return name, value


def memory(text: str) -> int:
    """An argparse type: ``64M``, with the header's bounds."""
    from kvmscope.reproducer.fields import memory_size
    from kvmscope.vmm.boot.prepare import MAX_MEMORY, MIN_MEMORY

    value = memory_size(text)
    if value is None or not MIN_MEMORY <= value <= MAX_MEMORY or value % 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size of 1M to {MAX_MEMORY >> 20}M in whole pages of 4K")
    return value


def existing_file(name: str) -> Path:
    """The path of a source or image that is there.

    Raises UsageError for a missing file (with the nearest name) or a directory.
    """
    if not name:
        raise UsageError("the name of the file is empty")
    path = Path(name)
    if not path.exists():
        from kvmscope.reproducer.discovery import near_path

        raise UsageError(f"{name}: no such file", hint=near_path(path))
    if path.is_dir():
        raise UsageError(f"{name} is a directory", hint=f"kvmscope test {name} runs every reproducer in it")
    return path


def existing_source(name: str) -> Path:
    """The path of a source that is there.  Raises UsageError as `existing_file`, and for an image."""
    from kvmscope.reproducer.images import is_image

    path = existing_file(name)
    if is_image(path):
        raise UsageError(
            f"{name} is an image, and a source is wanted", hint=f"sources end in {', '.join(SOURCE_SUFFIXES)}"
        )
    return path
