"""``kvmscope doctor``: what was found on this machine, and what it gives."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from kvmscope.cli.findings import Finding, State, all_findings
from kvmscope.cli.options import Parser

__all__ = ["main"]

_GLYPHS = {State.FOUND: "\N{CHECK MARK}", State.ABSENT: "\N{EN DASH}", State.WRONG: "\N{BALLOT X}"}
_PLAIN_GLYPHS = {State.FOUND: "+", State.ABSENT: "-", State.WRONG: "!"}


def _parser() -> Parser:
    parser = Parser(
        prog="kvmscope doctor",
        description="Say what was found on this machine and what it gives. Nothing is changed and nothing run on /dev/kvm.",
        epilog="exit status: 0, or 1 when something that kvmscope needs is missing",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(argv)
    findings = all_findings()
    bad = [finding for finding in findings if finding.required and finding.state is not State.FOUND]
    if options.json:
        print(json.dumps({"ok": not bad, "findings": [asdict(finding) for finding in findings]}))
        return int(bool(bad))
    for finding in findings:
        print("\n".join(_lines(finding)))
    if bad:
        print(f"needed and not usable: {', '.join(finding.name for finding in bad)}")
    return int(bool(bad))


def _lines(finding: Finding) -> list[str]:
    glyph = (_GLYPHS if _can_print("\N{CHECK MARK}\N{BALLOT X}") else _PLAIN_GLYPHS)[finding.state]
    out = [f"{glyph} {finding.name:<12} {finding.found}"]
    if finding.gives:
        out.append(f"  {'':<12} {finding.gives}")
    if finding.hint:
        out.append(f"  {'':<12} hint: {finding.hint}")
    return out


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
