"""Results as documents: JSON for one run, TAP and JUnit XML for many."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from kvmscope.errors import UsageError
from kvmscope.reproducer.kut import count
from kvmscope.reproducer.suite import Outcome
from kvmscope.reproducer.verdict import Result, Verdict

__all__ = ["junit_xml", "result_document", "tap_line", "write_junit"]

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def result_document(result: Result) -> dict[str, object]:
    """The document of ``kvmscope run --json``; its keys are a contract (docs/command-line.md)."""
    return {
        "verdict": result.verdict.value,
        "engine": result.engine,
        "instructions": result.instructions,
        "stop": _stop(result),
        "exit_status": result.exit_status,
        "registers": dict(result.registers),
        "serial": result.serial_text,
        "exceptions": _exceptions(result),
        "vmexits": [],
        "expectations": [
            {"text": item.text, "line": item.line, "ok": item.ok, "value": item.value, "message": item.message}
            for item in result.expectations
        ],
        "report": _report(result),
    }


def _report(result: Result) -> dict[str, object] | None:
    guest = result.guest
    if guest is None:
        return None
    counts = count(guest.lines)
    return {
        "status": guest.status,
        "passed": counts.passed,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "lines": [{"kind": line.kind.value, "text": line.text} for line in guest.lines],
    }


def _stop(result: Result) -> dict[str, object] | None:
    stop, snapshot = result.stop, result.snapshot
    if stop is None or snapshot is None:
        return None
    return {
        "reason": stop.reason.value,
        "vcpu": snapshot.vcpu,
        "rip": snapshot.cpu.rip,
        "tick": stop.tick,
        "detail": stop.detail,
        "debug_exit": result.debug_exit,
    }


def _exceptions(result: Result) -> list[dict[str, object]]:
    from kvmscope.vmm.events import ExceptionEvent
    from kvmscope.x86.exceptions import mnemonic

    return [
        {
            "vector": event.vector,
            "name": mnemonic(event.vector),
            "error_code": event.error_code,
            "rip": event.rip,
            "cr2": event.cr2,
            "vcpu": event.vcpu,
        }
        for event in result.events
        if isinstance(event, ExceptionEvent)
    ]


def tap_line(number: int, outcome: Outcome) -> str:
    """One line of TAP 13, with the details of a failure as comments."""
    # A '#' would begin a directive; a line break would end the line.
    name = outcome.name.replace("#", "\\#").replace("\n", " ")
    reason = outcome.summary.replace("\n", " ")
    if outcome.verdict is Verdict.SKIP:
        return f"ok {number} - {name} # SKIP {reason}"
    if outcome.verdict in (Verdict.XFAIL, Verdict.KFAIL):
        return f"not ok {number} - {name} # TODO {reason}"
    if outcome.verdict is Verdict.PASS:
        return f"ok {number} - {name}"
    return "\n".join([f"not ok {number} - {name}", f"# {reason}", *(f"# {line}" for line in outcome.details)])


def junit_xml(outcomes: Sequence[Outcome], seconds: float) -> str:
    """A JUnit document of one suite."""
    count = {verdict: sum(outcome.verdict is verdict for outcome in outcomes) for verdict in Verdict}
    skipped = count[Verdict.SKIP] + count[Verdict.XFAIL] + count[Verdict.KFAIL]
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f'<testsuites><testsuite name="kvmscope" tests="{len(outcomes)}" failures="{count[Verdict.FAIL]}" '
        f'errors="{count[Verdict.ERROR]}" skipped="{skipped}" time="{seconds:.3f}">',
        *(_case(outcome) for outcome in outcomes),
        "</testsuite></testsuites>",
    ]
    return "\n".join(lines) + "\n"


def _case(outcome: Outcome) -> str:
    path = Path(outcome.name)
    group = ".".join(path.parent.parts) or "kvmscope"
    out = [
        f"<testcase classname={_attribute(group)} name={_attribute(path.stem)} time={_attribute(f'{outcome.seconds:.3f}')}>"
    ]
    tag = {Verdict.FAIL: "failure", Verdict.ERROR: "error", Verdict.PASS: ""}.get(outcome.verdict, "skipped")
    if tag == "skipped":
        word = "" if outcome.verdict is Verdict.SKIP else f"{outcome.verdict.value}: "
        out.append(f"<skipped message={_attribute(word + outcome.summary)}/>")
    elif tag:
        out.append(f"<{tag} message={_attribute(outcome.summary)}>{_text(chr(10).join(outcome.details))}</{tag}>")
    if outcome.serial:
        out.append(f"<system-out>{_text(outcome.serial)}</system-out>")
    return "".join([*out, "</testcase>"])


def _clean(text: str) -> str:
    # A guest may print anything; XML may not hold everything.
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _text(text: str) -> str:
    return escape(_clean(text))


def _attribute(text: str) -> str:
    return quoteattr(_clean(text))


def write_junit(path: Path, outcomes: Sequence[Outcome], seconds: float) -> None:
    """Write the document, whole or not at all.  Raises UsageError when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(junit_xml(outcomes, seconds), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
