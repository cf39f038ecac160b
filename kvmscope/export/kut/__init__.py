"""Export to a kvm-unit-tests test: x86/NAME.c, its Makefile line and its unittests.cfg entry."""

from __future__ import annotations

from pathlib import Path

from kvmscope.export.kut.observe import observe
from kvmscope.export.kut.source import test_source
from kvmscope.export.kut.tree import cfg_edit, makefile_edit, why_no_tree
from kvmscope.export.model import Export, ExportedFile
from kvmscope.reproducer import Reproducer, Verdict, run

__all__ = ["KvmUnitTests"]


class KvmUnitTests:
    """Target ``kvm-unit-tests``."""

    name = "kvm-unit-tests"
    summary = "a test for kvm-unit-tests: x86/NAME.c with Makefile and unittests.cfg entries"

    def export(self, reproducer: Reproducer, name: str) -> Export:
        """The test.  Raises ExportError for what it cannot say."""
        text, notes = test_source(reproducer, observe(reproducer))
        accel = "kvm" if "kvm" in reproducer.requires else ""
        edits = (makefile_edit(name), cfg_edit(name, accel=accel))
        return Export((ExportedFile(f"x86/{name}.c", text),), edits, (*notes, *_notes(reproducer)))

    def is_tree(self, tree: Path) -> str:
        """Why ``tree`` is no kvm-unit-tests tree; empty when it is one."""
        return why_no_tree(tree)


def _notes(reproducer: Reproducer) -> tuple[str, ...]:
    """What the reproducer's own run says, where it is no pass: the test asserts the same and may fail the same way."""
    result = run(reproducer)
    if result.verdict in (Verdict.PASS, Verdict.XFAIL, Verdict.KFAIL):
        return ()
    return (f"on the embedded engine this is {result.verdict.value.upper()}: {result.summary}",)
