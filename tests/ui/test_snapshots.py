"""Pictures of the screen: what a user sees, cell by cell.

After a wanted change: ``pytest tests/ui/test_snapshots.py --snapshot-update``, and look at the difference.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from kvmscope.ui.app import KvmscopeApp
from kvmscope.ui.document import Document
from tests.ui.support import FAULTING, Bench

SnapCompare = Callable[..., bool]


def _app(theme: str = "kvmscope-dark") -> KvmscopeApp:
    document = Document.blank(FAULTING)
    document.saved = FAULTING
    return KvmscopeApp(document, theme=theme)


def _keys(*keys: str) -> Callable[[Pilot[int]], object]:
    async def act(pilot: Pilot[int]) -> None:
        app = pilot.app
        assert isinstance(app, KvmscopeApp)
        bench = Bench(app, pilot)
        await bench.until(lambda: bool(bench.main.panels), "panels loaded")
        await bench.started()
        await bench.until(lambda: bench.main.editor.highlighter.lexer is not None, "lexer loaded")
        await bench.press(*keys)

    return act


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_fault(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    assert snap_compare(_app(), terminal_size=size, run_before=_keys("c"))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_step_back(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    assert snap_compare(_app(), terminal_size=size, run_before=_keys("s", "s", "S"))


@pytest.mark.parametrize("theme", ["kvmscope-light", "ansi-dark", "ansi-light"])
def test_themes(snap_compare: SnapCompare, theme: str) -> None:
    assert snap_compare(_app(theme), terminal_size=(80, 24), run_before=_keys("s", "2", "down"))


def test_editing(snap_compare: SnapCompare) -> None:
    assert snap_compare(_app(), terminal_size=(80, 24), run_before=_keys("i"))


def test_help(snap_compare: SnapCompare) -> None:
    assert snap_compare(_app(), terminal_size=(80, 24), run_before=_keys("?"))
