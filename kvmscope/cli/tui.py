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
    from kvmscope.reproducer.document import Reproducer
    from kvmscope.ui.document import Document

__all__ = ["main"]

_USAGE = """usage: kvmscope [FILE]
       kvmscope IMAGE [ARGS...] [options of kvmscope run]
       kvmscope COMMAND ...

Opens FILE (a source: .asm, .s, .S) in the terminal UI; without FILE, the first lesson.
Opens IMAGE (.flat, .elf, raw bytes) in it, with the guest's arguments.
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
    if argv and argv[0].startswith("-"):
        raise UsageError(f"Cannot take {' '.join(argv)!r}", hint="kvmscope [FILE], or kvmscope --help")
    image = _image(argv) if len(argv) > 1 else None
    # Textual draws on stderr.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError(
            "The terminal UI needs a terminal",
            hint="kvmscope run FILE runs without one; kvmscope --help lists commands",
        )
    return _open(Path(argv[0]) if argv else None, image)


def _image(argv: Sequence[str]) -> Reproducer:
    """An image with what the command line says of its machine.  Raises UsageError for a source, which takes nothing more."""
    from kvmscope.cli.image_options import add_machine_options, image_options, overrides
    from kvmscope.cli.options import Parser, existing_file
    from kvmscope.reproducer.images import is_image, open_image

    parser = Parser(prog="kvmscope", allow_abbrev=False)
    parser.add_argument("file")
    add_machine_options(parser)
    options = parser.parse_intermixed_args(list(argv))
    path = existing_file(options.file)
    asked = image_options(options)
    if not (is_image(path) or asked.rom or asked.mode is not None):
        raise UsageError(f"Cannot take {' '.join(argv)!r}", hint="kvmscope [FILE], or kvmscope --help")
    return overrides(options).apply(open_image(path, asked))


def _open(path: Path | None, image: Reproducer | None = None) -> int:
    # Textual reads this when it is imported.  100 ms, its default, make Escape feel stuck.
    os.environ.setdefault("ESCDELAY", "25")
    # Nothing made while starting is garbage; looking for some costs 10 % of the time to the first paint.
    gc.disable()
    from kvmscope.ui.app import KvmscopeApp
    from kvmscope.ui.document import Document

    tree = None
    if path is None:
        document = _first_document()
    elif image is not None:
        document = Document.of_image(path, image)
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
