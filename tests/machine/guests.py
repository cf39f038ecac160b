"""Tiny guests as data: what the header says, a few instructions, what must hold at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from _pytest.mark.structures import ParameterSet

from kvmscope.reproducer import Verdict, parse, run

__all__ = ["Guest", "check", "g", "names"]


@dataclass(frozen=True, slots=True)
class Guest:
    """One guest: TOML of the header, source, expectations."""

    header: str
    code: str
    expect: tuple[str, ...]


def g(header: str, code: str, *expect: str) -> Guest:
    """A guest; ``header`` is TOML, instructions may be separated by ``;``."""
    return Guest(header, code, expect)


def source(guest: Guest) -> str:
    """The reproducer's text."""
    lines = [f"expect = [{', '.join(chr(34) + e + chr(34) for e in guest.expect)}]"]
    lines += guest.header.strip().splitlines()
    lines.insert(0, "max_instructions = 5000")
    head = "\n".join(f"# {line.strip()}" for line in ["/// kvmscope", *lines, "///"])
    return head + "\n" + "\n".join(part.strip() for part in guest.code.replace(";", "\n").splitlines()) + "\n"


def check(guest: Guest) -> None:
    """Assemble, run, and fail with everything that is known when an expectation is not met."""
    result = run(parse(source(guest), filename="guest.asm"), explain=True)
    values = [f"{e.text}: {e}" for e in result.failed]
    assert result.verdict is Verdict.PASS, "\n".join(
        map(str, [result.summary, *values, *result.notes, *result.diagnostics, result.explanation])
    )


def names(guests: Mapping[str, Guest], departures: Mapping[str, str]) -> list[str | ParameterSet]:
    """The parameters of a test: every name; those that end in a key of ``departures`` fail, for the reason given."""
    out: list[str | ParameterSet] = []
    for name in guests:
        reason = next((why for end, why in departures.items() if name.endswith(end)), "")
        out.append(pytest.param(name, marks=pytest.mark.xfail(reason=reason, strict=True)) if reason else name)
    return out
