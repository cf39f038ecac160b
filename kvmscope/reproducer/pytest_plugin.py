"""The pytest plugin: reproducers as test items.

It is loaded in every pytest of the environment, so it imports nothing of ours before there is a file to run, and takes no file
that nobody asked for: only those named on the command line, below a directory of the ini option ``kvmscope_paths``, or anywhere
when ``--kvmscope`` is given; and of these only files with a kvmscope header.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kvmscope.reproducer.verdict import Result

__all__ = ["ReproducerFile", "ReproducerItem", "pytest_addoption", "pytest_collect_file"]

_SUFFIXES = (".asm", ".s", ".S")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--kvmscope``, ``--kvmscope-engine`` and ``kvmscope_paths``."""
    group = parser.getgroup("kvmscope", "kvmscope reproducers")
    group.addoption("--kvmscope", action="store_true", help="collect every .asm/.s/.S file with a kvmscope header")
    group.addoption("--kvmscope-engine", default="unicorn", metavar="ENGINE", help="engine to run them on")
    parser.addini("kvmscope_paths", "directories whose reproducers are collected", type="paths", default=[])


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A collector for a reproducer that was asked for; None for everything else."""
    if file_path.suffix not in _SUFFIXES or not _is_wanted(file_path, parent):
        return None
    from kvmscope.reproducer.discovery import has_header

    if not has_header(file_path):
        return None
    collector: pytest.Collector = ReproducerFile.from_parent(parent, path=file_path)
    return collector


def _is_wanted(path: Path, parent: pytest.Collector) -> bool:
    if parent.config.getoption("--kvmscope") or parent.session.isinitpath(path):
        return True
    return any(path.is_relative_to(directory) for directory in parent.config.getini("kvmscope_paths"))


class ReproducerFile(pytest.File):
    """One file: one item."""

    def collect(self) -> Iterator[pytest.Item]:
        yield ReproducerItem.from_parent(self, name="reproducer")


class _NotPassed(Exception):
    """Carries the result of a reproducer that did not pass."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.summary)
        self.result = result


class ReproducerItem(pytest.Item):
    """Runs one reproducer; its failure is told in the words of ``kvmscope run``, without a traceback."""

    def runtest(self) -> None:
        from kvmscope.reproducer.document import load
        from kvmscope.reproducer.runner import run
        from kvmscope.reproducer.verdict import Verdict

        result = run(load(self.path), engine=self.config.getoption("--kvmscope-engine"))
        if result.serial:
            self.add_report_section("call", "serial", result.serial_text)
        if result.verdict is Verdict.SKIP:
            pytest.skip(result.summary)
        if result.verdict in (Verdict.XFAIL, Verdict.KFAIL):
            pytest.xfail(result.summary)
        if result.verdict is not Verdict.PASS:
            raise _NotPassed(result)

    def repr_failure(  # type: ignore[override]
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> object:
        """The report of a failed run, or the message of a wrong header."""
        from kvmscope.errors import KvmscopeError

        error = excinfo.value
        if isinstance(error, _NotPassed):
            return "\n".join(error.result.report(str(self.path)))
        if isinstance(error, KvmscopeError):
            return str(error)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where and what, for pytest's reports."""
        return self.path, 0, f"reproducer {self.path.name}"
