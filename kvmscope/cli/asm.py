"""``kvmscope asm FILE|-``: bytes, listing, symbols; every error with line and column."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kvmscope.asm import BACKENDS, Assembly, Diagnostic, Image, Severity, Syntax, assemble
from kvmscope.cli.options import Parser
from kvmscope.errors import KvmscopeError, ReproducerError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["main"]

_HEADER: Final = re.compile(r"^\s*(?:#|;|//)\s*///\s*kvmscope\s*$", re.MULTILINE)
_LARGE_GAP: Final = 1 << 20
"""Bytes between two sections from which on ``bytes`` is no longer filled up with zeros."""
_DATA_SHOWN: Final = 8
"""Bytes on one row of the listing."""


def _parser() -> Parser:
    parser = Parser(
        prog="kvmscope asm",
        description="Assemble a source and show its bytes, listing and symbols.",
        epilog="Without an option the file's kvmscope header decides, then: mode 64, syntax intel, origin 0. "
        "exit status: 0 assembled, 2 errors",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="a source, or - for standard input")
    parser.add_argument("--mode", choices=("16", "32", "64"), help="code size at the beginning")
    parser.add_argument("--syntax", choices=tuple(Syntax), help="intel or att")
    parser.add_argument("--origin", metavar="N", help="address of the first byte (0x7c00, 4096)")
    parser.add_argument("--backend", choices=BACKENDS, help="which assembler (auto: the built-in one, checked by as)")
    parser.add_argument("--no-cross-check", action="store_true", help="do not let GNU as confirm the bytes")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns 0 when there are bytes, 2 when there are errors."""
    options = _parser().parse_args(argv)
    try:
        text = _read(options.file)
        bits, syntax, origin, backend = _settings(options, text)
    except (ReproducerError, UsageError) as error:
        if not options.json:
            raise
        print(json.dumps(_document(Assembly(None, (_diagnostic(error),), options.backend or "auto"))))
        return 2
    result = assemble(
        text, bits=bits, syntax=syntax, origin=origin, backend=backend, cross_check=not options.no_cross_check
    )
    if options.json:
        print(json.dumps(_document(result)))
    else:
        _complain(result, text, options.file)
        if result.image is not None:
            print(_listing(result, result.image, text), end="")
    return 0 if result.ok else 2


def _read(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        title = f"byte {data[error.start]:#04x} is not UTF-8"
        raise UsageError(title, f"{name}:{line}", "a source is a text file") from None


def _settings(options: Namespace, text: str) -> tuple[int, Syntax, int, str]:
    """(bits, syntax, origin, backend): the options, then the header, then the defaults."""
    name = "<stdin>" if options.file == "-" else options.file
    bits, origin, backend = 64, 0, "auto"
    syntax = Syntax.ATT if Path(name).suffix.lower() == ".s" else Syntax.INTEL
    if _HEADER.search(text):
        from kvmscope.reproducer.document import parse

        reproducer = parse(text, name)
        bits, syntax, origin, backend = reproducer.bits, reproducer.syntax, reproducer.origin, reproducer.backend
    if options.origin is not None:
        try:
            origin = int(options.origin, 0)
        except ValueError:
            origin = -1
        if not 0 <= origin < 1 << 64:
            raise UsageError(f"--origin: {options.origin!r} is not an address")
    return (
        int(options.mode or bits),
        Syntax(options.syntax) if options.syntax else syntax,
        origin,
        options.backend or backend,
    )


def _diagnostic(error: KvmscopeError) -> Diagnostic:
    """What is wrong with the header or the file, in the form of an assembler's error."""
    place = re.match(r".*?:(\d+)", error.detail)
    return Diagnostic(int(place.group(1)) if place else 1, 1, Severity.ERROR, error.title, error.hint)


def _document(result: Assembly) -> dict[str, object]:
    """The JSON contract: bytes as hex, numbers as integers."""
    image = result.image
    check = result.cross_check
    return {
        "ok": result.ok,
        "backend": result.backend,
        "checked_by": result.checked_by,
        "bytes": _flat(image).hex() if image else "",
        "sections": [
            {"name": section.name, "address": section.address, "bytes": section.data.hex()}
            for section in (image.sections if image else ())
        ],
        "lines": [
            {"line": entry.line, "address": entry.address, "bytes": entry.data.hex()}
            for entry in (image.lines if image else ())
        ],
        "symbols": dict(sorted({**image.symbols, **image.constants}.items())) if image else {},
        "diagnostics": [
            {
                "line": found.line,
                "column": found.column,
                "length": found.length,
                "severity": str(found.severity),
                "message": found.message,
                "hint": found.hint,
                "token": found.token,
            }
            for found in result.diagnostics
        ],
        "cross_check": check
        and {
            "line": check.line,
            "address": check.address,
            "ours": check.ours.hex(),
            "theirs": check.theirs.hex(),
            "other": check.other,
        },
    }


def _flat(image: Image) -> bytes:
    """All sections in the order of their addresses; small gaps are zeros, large ones are left out."""
    out = bytearray()
    end: int | None = None
    for section in image.sections:
        if end is not None and section.address - end <= _LARGE_GAP:
            out += bytes(section.address - end)
        out += section.data
        end = section.end
    return bytes(out)


def _complain(result: Assembly, text: str, name: str) -> None:
    """Every diagnostic with its line and a marker below it, on stderr."""
    lines = text.split("\n")
    for found in result.diagnostics:
        print(f"{name}:{found.line}:{found.column}: {found.severity}: {found.message}", file=sys.stderr)
        if found.line <= len(lines) and lines[found.line - 1].strip():
            line = lines[found.line - 1].rstrip("\r")
            # Tabs before the marker are kept, so that it stands below its token at every tab width.
            indent = "".join("\t" if character == "\t" else " " for character in line[: found.column - 1])
            print(f"    {line}\n    {indent}{'^' * max(found.length, 1)}", file=sys.stderr)
        if found.hint:
            print(f"    hint: {found.hint}", file=sys.stderr)


def _listing(result: Assembly, image: Image, text: str) -> str:
    """Address, bytes, line number and source of every line with bytes, then the symbols."""
    lines = text.split("\n")
    out = []
    width = 16 if any(section.end > 1 << 32 for section in image.sections) else 8
    for entry in image.lines:
        source = lines[entry.line - 1].rstrip() if entry.line <= len(lines) else ""
        for at in range(0, len(entry.data), _DATA_SHOWN):
            chunk = entry.data[at : at + _DATA_SHOWN].hex(" ")
            tail = f"  {entry.line:>5}  {source}" if at == 0 else ""
            out.append(f"{entry.address + at:0{width}x}  {chunk:<{3 * _DATA_SHOWN - 1}}{tail}".rstrip())
            if at >= 15 * _DATA_SHOWN and len(entry.data) > 16 * _DATA_SHOWN:
                out.append(f"{'':{width}}  ... {len(entry.data) - at - _DATA_SHOWN} more bytes")
                break
    names = sorted((value, name) for name, value in image.symbols.items())
    constants = sorted((name, value) for name, value in image.constants.items())
    if names or constants:
        out.append("")
        out += [f"{value:0{width}x}  {name}" for value, name in names]
        out += [f"{name} = {value:#x}" for name, value in constants]
    total = sum(len(section.data) for section in image.sections)
    checked = f", confirmed by {result.checked_by}" if result.checked_by else ""
    out += ["", f"{total} bytes by {result.backend}{checked}"]
    return "\n".join(out) + "\n"
