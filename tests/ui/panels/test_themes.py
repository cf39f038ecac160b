"""The application starts and draws its panels in every theme that ``ctrl+t`` and NO_COLOR lead to."""

from __future__ import annotations

import asyncio

import pytest

from kvmscope.ui.app import KvmscopeApp
from kvmscope.ui.document import Document

SOURCE = '; /// kvmscope\n; mode = "long64"\n; ///\nstart: mov eax, 1\n hlt\n'


@pytest.mark.parametrize("theme", ["kvmscope-dark", "kvmscope-light", "ansi-dark", "ansi-light"])
def test_every_theme_starts(theme, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    app = KvmscopeApp(Document.blank(SOURCE), theme=theme)

    async def run() -> str:
        async with app.run_test(size=(100, 30)) as pilot:
            for _ in range(100):
                await pilot.pause(0.05)
                if app.main.view is not None and "registers" in app.main.panels:
                    break
            await pilot.pause(0.1)
            return "\n".join(app.main.panels["registers"].render_line(y).text for y in range(10))

    assert "rip 0000000000400000 <start>" in asyncio.run(run())
