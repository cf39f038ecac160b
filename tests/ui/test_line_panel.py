"""The panel base: dirty lines, cursor, windowing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.pilot import Pilot

from kvmscope.ui.line_panel import Key, Kind, LinePanel, PanelActivated, Row, Span, plain
from kvmscope.ui.view import View


class Numbers(LinePanel):
    KIND = "numbers"
    TITLE = "Numbers"

    def __init__(self) -> None:
        super().__init__()
        self.values = list(range(50))

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        return [
            Row((Span(f"{i:3} ", "addr"), Span(f"{value:4}", "value", Key(Kind.REGISTER, f"r{i}", str(value)))))
            for i, value in enumerate(self.values)
        ]


class Shown(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.panel = Numbers()
        self.activated: list[Key] = []

    def compose(self) -> ComposeResult:
        yield self.panel

    def on_panel_activated(self, message: PanelActivated) -> None:
        self.activated.append(message.key)


VIEW = cast(View, object())


def run(scenario: Callable[[Shown, Pilot[None]], Awaitable[None]]) -> None:
    async def inner() -> None:
        app = Shown()
        async with app.run_test(size=(40, 11)) as pilot:
            app.panel.show(VIEW)
            await pilot.pause()
            await scenario(app, pilot)

    asyncio.run(inner())


def lines(app: Shown) -> list[str]:
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


def test_only_changed_lines_are_dirty() -> None:
    async def scenario(app: Shown, pilot: Pilot[None]) -> None:
        regions: list[Region] = []
        original = app.panel.refresh

        def noted(*dirty: Region, **words: bool) -> object:
            regions.extend(dirty)
            return original(*dirty, **words)

        app.panel.refresh = noted  # type: ignore[method-assign,assignment]
        app.panel.values[2] = app.panel.values[3] = 777
        app.panel.values[7] = 888
        app.panel.show(VIEW)
        assert regions == [Region(0, 3, 40, 2), Region(0, 8, 40, 1)]
        regions.clear()
        app.panel.show(VIEW)
        assert regions == []
        await pilot.pause()
        assert lines(app)[3].split() == ["2", "777"]

    run(scenario)


def test_the_cursor_moves_scrolls_and_activates() -> None:
    async def scenario(app: Shown, pilot: Pilot[None]) -> None:
        app.panel.focus()
        await pilot.press("down", "j", "enter")
        assert app.activated[-1].value == "r2"
        await pilot.press("end", "enter")
        assert app.activated[-1].value == "r49"
        assert "41-50/50" in lines(app)[0]
        await pilot.press("home", "k", "enter")
        assert app.activated[-1].value == "r0"
        await pilot.press("pagedown")
        assert app.panel.top == 9

    run(scenario)


def test_the_cursor_survives_new_values() -> None:
    async def scenario(app: Shown, pilot: Pilot[None]) -> None:
        app.panel.focus()
        await pilot.press("down", "down")
        app.panel.values[2] = 1234
        app.panel.show(VIEW)
        assert app.panel.current_key == Key(Kind.REGISTER, "r2", "1234")

    run(scenario)


def test_clicks_select_and_double_clicks_activate() -> None:
    async def scenario(app: Shown, pilot: Pilot[None]) -> None:
        await pilot.click(offset=(6, 4))
        assert app.panel.current_key is not None
        assert app.panel.current_key.value == "r3"
        assert app.activated == []
        await pilot.click(offset=(6, 4), times=2)
        assert [key.value for key in app.activated] == ["r3"]
        await pilot.click(offset=(30, 5), times=2)
        assert len(app.activated) == 1

    run(scenario)


def test_a_hidden_panel_computes_nothing_until_it_is_shown() -> None:
    async def scenario(app: Shown, pilot: Pilot[None]) -> None:
        app.panel.display = False
        await pilot.pause()
        asked = []
        original = app.panel.rows

        def counted(view: View, width: int, height: int) -> list[Row]:
            asked.append(width)
            return original(view, width, height)

        app.panel.rows = counted  # type: ignore[method-assign]
        app.panel.values[0] = 4321
        app.panel.show(VIEW)
        assert asked == []
        app.panel.display = True
        await pilot.pause()
        assert "4321" in lines(app)[1]

    run(scenario)


def test_tabs_shrink_to_their_keys() -> None:
    async def scenario(app: Shown, pilot: Pilot[None]) -> None:
        app.panel.set_tabs(
            [(word.lower(), f"{i} {word}", i == 2) for i, word in enumerate(["First", "Other", "Numbers"])]
        )
        await pilot.pause()
        assert lines(app)[0].startswith("─ 0 First  1 Other  2 Numbers ")
        app.panel.set_tabs([(f"p{i}", f"{i} Something", i == 1) for i in range(6)])
        await pilot.pause()
        assert "1 Something" in lines(app)[0]
        assert " 5 " in lines(app)[0]

    run(scenario)


def test_plain_text_of_rows() -> None:
    assert plain([Row((Span("a"), Span("b", "dim"))), Row()]) == ["ab", ""]
