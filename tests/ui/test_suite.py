"""The suite browser on guests of our own: running them, finding the failures, going into one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kvmscope.cli import tui
from kvmscope.errors import SuiteError
from kvmscope.reproducer.kut import Word
from kvmscope.suite.selection import Selection, select
from kvmscope.suite.tree import open_tree
from kvmscope.ui.app import KvmscopeApp
from kvmscope.ui.document import Document
from kvmscope.ui.suite.model import Filter, State, SuiteModel
from kvmscope.ui.suite.screen import SuiteScreen
from tests.suite.guests import build_tree
from tests.ui.support import Bench


@pytest.fixture(scope="module")
def tree_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tree(tmp_path_factory.mktemp("tree"))


class SuiteBench(Bench):
    @property
    def suite(self) -> SuiteScreen:
        assert self.app.suite is not None
        return self.app.suite

    def word(self, name: str) -> Word | None:
        return next(entry.word for entry in self.suite.model.entries if entry.name == name)

    async def over(self) -> None:
        states = (State.WAITING, State.RUNNING)
        await self.until(lambda: all(entry.state not in states for entry in self.suite.model.entries), "all run")


def drive(
    tree_path: Path, scenario: Callable[[SuiteBench], Awaitable[None]], size: tuple[int, int] = (120, 40)
) -> None:
    async def run() -> None:
        app = KvmscopeApp(Document.blank("; nothing\n"), tree=open_tree(tree_path))
        async with app.run_test(size=size) as pilot:
            bench = SuiteBench(app, pilot)
            await bench.until(lambda: app.suite is not None and app.screen is app.suite, "the browser")
            await bench.until(lambda: bool(bench.main.panels), "panels loaded")
            await scenario(bench)

    asyncio.run(run())


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_it_lists_the_configuration(tree_path: Path, size: tuple[int, int]) -> None:
    async def scenario(bench: SuiteBench) -> None:
        text = bench.screen_text()
        for name in ("good", "bad", "looping", "elsewhere"):
            assert name in text
        assert "i386 only" in text
        assert "good.flat" in text
        assert "6 to run" in text

    drive(tree_path, scenario, size)


def test_running_one_and_going_into_its_failure(tree_path: Path) -> None:
    async def scenario(bench: SuiteBench) -> None:
        await bench.press("j", "r")
        await bench.over()
        assert bench.word("bad") is Word.FAIL
        assert bench.word("good") is None
        text = bench.screen_text()
        assert "✗ FAIL" in text
        # Failures stand first, wherever they were printed.
        assert text.index("two: it is # broken") < text.index("✓ one")
        await bench.press("enter", "enter")
        await bench.until(lambda: bench.app.screen is bench.main, "the machine")
        await bench.until(lambda: bench.main.view is not None and bench.tick > 0, "a stop")
        await bench.idle()
        view = bench.main.view
        assert view is not None
        assert view.image.symbol_at(view.snapshot.cpu.pc) == ("failing", 5)
        assert view.snapshot.serial == b"enabling apic\nPASS: one\n"
        assert "call of report" in bench.main.status.plain
        # What led there is history, and what follows is the report.
        tick = bench.tick
        await bench.press("S")
        assert bench.tick == tick - 1
        await bench.press("s", "s")
        assert view.image.symbol_at(bench.main.view.snapshot.cpu.pc) == ("report", 0)
        await bench.press("T")
        assert bench.app.screen is bench.suite
        assert bench.word("bad") is Word.FAIL

    drive(tree_path, scenario)


def test_running_all_listed_and_filtering(tree_path: Path) -> None:
    async def scenario(bench: SuiteBench) -> None:
        await bench.press("slash")
        await bench.type("ing")
        await bench.press("enter")
        names = [bench.suite.model.entries[number].name for number in bench.suite.model.shown]
        assert names == ["skipping", "aborting", "looping", "faulting"]
        await bench.press("slash")
        bench.suite.line.value = "a"
        await bench.press("enter", "a")
        await bench.over()
        assert bench.word("bad") is Word.FAIL
        assert bench.word("faulting") is Word.FAIL
        assert bench.word("skipping") is None
        await bench.press("f")
        assert bench.suite.model.filter is Filter.BAD
        names = [bench.suite.model.entries[number].name for number in bench.suite.model.shown]
        assert names == ["bad", "aborting", "faulting"]
        await bench.press("j", "j")
        assert bench.suite.chosen is not None
        assert bench.suite.chosen.name == "faulting"
        assert "triple fault" in bench.screen_text()
        assert "hyperv-testdev" in bench.screen_text()

    drive(tree_path, scenario)


def test_stopping(tree_path: Path) -> None:
    async def scenario(bench: SuiteBench) -> None:
        bench.suite.model.needle = "loop"
        bench.suite._listed_anew()
        (number,) = bench.suite.model.shown
        entry = bench.suite.model.entries[number]
        await bench.press("r")
        await bench.until(lambda: bool(entry.output), "output")
        await bench.press("space")
        await bench.over()
        assert entry.word is None
        assert entry.lines[0].text == "before"
        await bench.press("r")
        await bench.until(lambda: entry.state is State.RUNNING, "runs again")

    drive(tree_path, scenario)


def test_opening_an_entry_at_its_start(tree_path: Path) -> None:
    async def scenario(bench: SuiteBench) -> None:
        await bench.press("o")
        await bench.until(lambda: bench.app.screen is bench.main, "the machine")
        await bench.started()
        view = bench.main.view
        assert view is not None
        assert view.snapshot.tick == 0
        assert view.image.symbol_at(view.snapshot.cpu.pc) == ("start", 0)
        await bench.press("i")
        assert not bench.main.editing
        assert "no source to edit" in bench.main.status.plain
        before = bench.main.document.path.read_bytes()
        await bench.press("ctrl+s")
        assert bench.main.document.path.read_bytes() == before
        await bench.press("c")
        assert bench.main.view.outcome.verdict == "pass"

    drive(tree_path, scenario)


def test_an_entry_that_is_not_run_says_why(tree_path: Path) -> None:
    async def scenario(bench: SuiteBench) -> None:
        await bench.press("end", "r")
        assert "not run: i386 only" in bench.suite.status.plain
        await bench.press("escape")
        assert bench.app.screen is bench.main

    drive(tree_path, scenario)


def test_manual_runs_are_asked_for_by_name(tree_path: Path) -> None:
    tree = open_tree(tree_path)
    chosen = [
        replace(row, entry=replace(row.entry, groups=("nodefault",)))
        for row in select(tree, Selection(("good",)), max_smp=1)
    ]
    model = SuiteModel(tree, chosen)
    assert model.to_run([0], manual=False) == []
    assert model.to_run([0]) == [model.entries[0].job]


def test_leaving_kvmscope(tree_path: Path) -> None:
    async def scenario(bench: SuiteBench) -> None:
        bench.main.editor.load_text("; changed\n")
        await bench.pilot.press("ctrl+q")
        await bench.until(lambda: "unsaved changes" in bench.screen_text(), "the question")
        await bench.pilot.press("escape")
        await bench.until(lambda: bench.app.screen is bench.main, "back")
        bench.main.editor.load_text("; nothing\n")
        await bench.press("T")
        await bench.pilot.press("ctrl+q")
        await bench.until(lambda: bench.app.return_code == 0, "the end")

    drive(tree_path, scenario)


def test_a_directory_that_is_no_tree_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no kvm-unit-tests tree"):
        tui._open(tmp_path)
