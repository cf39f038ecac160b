"""``kvmscope [FILE]``: the terminal UI."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvmscope.errors import UsageError

if TYPE_CHECKING:
    from kvmscope.ui.document import Document

__all__ = ["main"]

_USAGE = """usage: kvmscope [FILE]
       kvmscope COMMAND ...

Opens FILE (a source: .asm, .s, .S) in the terminal UI; without FILE, the first lesson.
Opens the suite browser on a directory that is a built kvm-unit-tests tree.
Commands: {commands}.  kvmscope COMMAND --help says more."""


_NO_TEST = "; No test is open: T goes to the suite browser.\n"


def main(argv: Sequence[str]) -> int:
    """Open the UI and return its exit status.  Raises UsageError for what cannot be opened."""
    if any(argument in ("-h", "--help") for argument in argv):
        from kvmscope.cli.main import COMMANDS

        print(_USAGE.format(commands=", ".join(COMMANDS)))
        return 0
    if "--version" in argv:
        from kvmscope import __version__

        print(f"kvmscope {__version__}")
        return 0
    if len(argv) > 1 or (argv and argv[0].startswith("-")):
        raise UsageError(f"Cannot take {' '.join(argv)!r}", hint="kvmscope [FILE], or kvmscope --help")
    # Textual draws on stderr.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError(
            "The terminal UI needs a terminal",
            hint="kvmscope run FILE runs without one; kvmscope --help lists commands",
        )
    return _open(Path(argv[0]) if argv else None)


def _open(path: Path | None) -> int:
    # Textual reads this when it is imported.  100 ms, its default, make Escape feel stuck.
    os.environ.setdefault("ESCDELAY", "25")
    # Nothing made while starting is garbage; looking for some costs 10 % of the time to the first paint.
    gc.disable()
    from kvmscope.ui.app import KvmscopeApp
    from kvmscope.ui.document import Document

    tree = None
    if path is None:
        document = _first_document()
    elif path.is_dir():
        from kvmscope.suite.tree import open_tree

        tree = open_tree(path)
        document = Document.blank(_NO_TEST)
    elif path.exists():
        document = Document.load(path)
    elif path.parent.is_dir():
        document = Document(path, "", "")
    else:
        raise UsageError(f"There is no directory {path.parent}")
    app = KvmscopeApp(document, tree=tree)
    app.run()
    if app.failure:
        print(app.failure, file=sys.stderr)
    return app.return_code or 0


def _first_document() -> Document:
    from kvmscope.reproducer.shipped import first_lesson
    from kvmscope.ui.document import Document

    lesson = first_lesson()
    if lesson is not None:
        return Document.load(lesson)
    from kvmscope.reproducer import templates

    return Document.blank(templates()[0].text)
