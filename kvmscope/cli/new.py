"""``kvmscope new TEMPLATE [-o FILE]``: a new reproducer from a template."""

from __future__ import annotations

import sys
from pathlib import Path

from kvmscope.cli.options import Parser
from kvmscope.errors import UsageError

__all__ = ["main"]


def _parser() -> Parser:
    parser = Parser(
        prog="kvmscope new",
        description="Write a new reproducer from a template. Nothing is ever overwritten.",
        allow_abbrev=False,
    )
    parser.add_argument("template", metavar="TEMPLATE", nargs="?", help="a template; without one they are listed")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to (default: TEMPLATE.asm; - is stdout)")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(argv)
    from kvmscope.reproducer.starting_points import template, templates

    if options.template is None:
        width = max(len(one.name) for one in templates())
        print("\n".join(f"{one.name:<{width}}  {one.title}" for one in templates()))
        return 0
    chosen = template(options.template)
    output = options.output or f"{chosen.name}.asm"
    if output == "-":
        sys.stdout.write(chosen.text)
        return 0
    try:
        with Path(output).open("x", encoding="utf-8") as file:
            file.write(chosen.text)
    except FileExistsError:
        raise UsageError(f"{output} exists already", hint="name another file with -o") from None
    except OSError as error:
        raise UsageError(f"{output}: {error.strerror or error}") from None
    print(f"wrote {output}; kvmscope {output} opens it, kvmscope run {output} runs it", file=sys.stderr)
    return 0
