"""Export to pytest: one readable module with the source inside and an assert for each expectation."""

from __future__ import annotations

import textwrap
from pathlib import Path

from kvmscope.export.model import Export, ExportedFile, c_name
from kvmscope.expr import names
from kvmscope.reproducer import Expectation, Reproducer

__all__ = ["Pytest"]

_TEMPLATE = '''"""{title}{link}

Exported from {origin} by kvmscope.
"""

import pytest

from kvmscope.reproducer import Verdict, parse, run

SOURCE = {source}


@pytest.fixture(scope="module")
def result():
    """The program's run on the embedded engine."""
    result = run(parse(SOURCE, "{origin}"))
    if result.verdict is Verdict.SKIP:
        pytest.skip(result.summary)
    report = "\\n".join(result.report("{origin}"))
    assert result.snapshot is not None, report
    return result


def holds(result, text):
    """Whether an expectation of the program was met, and its values where it was not."""
    for expectation in result.expectations:
        if expectation.text == text:
            return expectation.ok, f"{{text}}: {{expectation.message}}"
    return False, f"{{text}}: no such expectation"

'''


class Pytest:
    """Target ``pytest``."""

    name = "pytest"
    summary = "a pytest module that runs the program on the embedded engine"

    def export(self, reproducer: Reproducer, name: str) -> Export:
        """The module."""
        origin = Path(reproducer.filename).name.replace("\\", "_").replace('"', "_")
        title = _docstring(reproducer.title or f"The reproducer {reproducer.name}.")
        text = _TEMPLATE.format(
            title=title,
            link=f"\n\n{_docstring(reproducer.link)}" if reproducer.link else "",
            origin=origin,
            source=_literal(reproducer.source),
        )
        text += "\n".join(_tests(reproducer))
        return Export((ExportedFile(f"test_{name}.py", text),))

    def is_tree(self, tree: Path) -> str:
        """Any directory takes a pytest module."""
        return "" if tree.is_dir() else f"{tree} is no directory"


def _docstring(text: str) -> str:
    return textwrap.fill(text.replace("\\", "\\\\").replace('"""', "'''"), 110).rstrip('"')


def _literal(source: str) -> str:
    """A raw string where the source allows it, else one with escapes."""
    if '"""' not in source and not source.endswith(('"', "\\")) and all(c.isprintable() or c in "\n\t" for c in source):
        prefix = "r" if "\\" in source else ""
        # A newline behind the quotes would move every line by one: the header's places stay true without it.
        return f'{prefix}"""{source}"""'
    return repr(source)


def _tests(reproducer: Reproducer) -> list[str]:
    if not reproducer.expectations:
        return [
            _mark(reproducer)
            + "\ndef test_ends_well(result):\n"
            + "    assert result.verdict is Verdict.PASS, result.summary\n"
        ]
    seen: dict[str, int] = {}
    return [_test(reproducer, expectation, seen) for expectation in reproducer.expectations]


def _mark(reproducer: Reproducer) -> str:
    reason = reproducer.xfail or reproducer.kfail
    if not reason:
        return ""
    return f"\n@pytest.mark.xfail(reason={reason!r}, strict=False)"


def _test(reproducer: Reproducer, expectation: Expectation, seen: dict[str, int]) -> str:
    stem = c_name("_".join(names(expectation.expression))) if names(expectation.expression) else "expectation"
    stem = stem[:60]
    seen[stem] = seen.get(stem, 0) + 1
    name = f"test_{stem}" + (f"_{seen[stem]}" if seen[stem] > 1 else "")
    return (
        f"{_mark(reproducer)}\ndef {name}(result):\n"
        f"    ok, values = holds(result, {expectation.text!r})\n"
        f"    assert ok, values\n"
    )
