"""Layouts, tabs, zoom, mouse and themes on the real screen."""

from __future__ import annotations

import pytest

from kvmscope.ui.layouts import PANELS, SLOTS, docked, layout_name
from tests.ui.support import FAULTING, Bench, drive


@pytest.mark.parametrize("size", [(80, 24), (80, 60), (120, 24), (120, 40), (120, 60), (160, 50), (200, 60), (200, 24)])
def test_every_layout_shows_its_panels_and_fills_the_screen(size: tuple[int, int]) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("s")
        layout = layout_name(*size)
        shown = {name for name in PANELS if bench.main.widget_of(name).display}
        assert shown == {*SLOTS[layout], bench.main.front}
        for name in shown:
            region = bench.main.widget_of(name).region
            assert region.width >= 30, name
            assert region.height >= 4, name
            assert bench.app.screen.region.contains_region(region), name
        lines = bench.screen_text().split("\n")
        assert len(lines) == size[1]
        assert all(strip.cell_length == size[0] for strip in bench.app.screen._compositor.render_strips())

    drive(scenario, FAULTING, size)


def test_digits_bring_panels_up_and_tabs_can_be_clicked() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("5")
        assert bench.main.front == "paging"
        assert bench.main.panels["paging"].has_focus
        await bench.press(">")
        assert bench.main.front == "timeline"
        await bench.press("<", "<")
        assert bench.main.front == "memory"
        title = bench.screen_text().split("\n")[13]
        await bench.pilot.click(offset=(title.index("7"), 13))
        assert bench.main.front == "serial"

    drive(scenario, FAULTING, (80, 24))


def test_zoom_and_back() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("2", "z")
        assert bench.main.panels["registers"].size.width == 120
        assert not bench.main.editor.display
        await bench.press("5")
        assert bench.main.panels["paging"].size.width == 120
        await bench.press("escape")
        assert bench.main.editor.display

    drive(scenario)


def test_a_resize_rearranges() -> None:
    async def scenario(bench: Bench) -> None:
        assert not bench.main.panels["paging"].display
        await bench.pilot.resize_terminal(200, 60)
        await bench.until(lambda: bench.main.panels["paging"].display, "paging shown")
        assert bench.main.panels["timeline"].display
        await bench.pilot.resize_terminal(80, 24)
        await bench.until(lambda: not bench.main.panels["timeline"].display, "timeline hidden")
        assert bench.main.front in docked("narrow-short")

    drive(scenario, FAULTING, (80, 24))


def test_tab_goes_round_the_panels_on_screen() -> None:
    async def scenario(bench: Bench) -> None:
        seen = []
        for _ in range(3):
            await bench.press("tab")
            seen.append(bench.app.focused.id if bench.app.focused else None)
        assert seen == ["registers", bench.main.front, "editor"]
        await bench.press("shift+tab")
        assert bench.main.panels[bench.main.front].has_focus

    drive(scenario, FAULTING, (80, 24))


def test_a_step_lays_nothing_out() -> None:
    """A layout in a step would cost more than everything else in it."""

    async def scenario(bench: Bench) -> None:
        await bench.press("s")
        screen = bench.app.screen
        layouts = []
        original = screen._refresh_layout

        def counted(*args: object, **kwargs: object) -> None:
            layouts.append(args)
            original(*args, **kwargs)  # type: ignore[arg-type]

        screen._refresh_layout = counted  # type: ignore[method-assign]
        await bench.press("s", "S", "s", "S")
        assert layouts == []

    drive(scenario, FAULTING, (160, 50))


def test_a_step_repaints_only_lines_that_changed() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("s")
        painted: list[int] = []
        registers = bench.main.panels["registers"]
        original = registers.render_line

        def counted(y: int) -> object:
            painted.append(y)
            return original(y)

        registers.render_line = counted  # type: ignore[method-assign,assignment]
        await bench.press("s")
        assert 0 < len(set(painted)) < registers.size.height // 2

    drive(scenario, FAULTING, (160, 50))


@pytest.mark.parametrize("presses", [1, 2, 3])
def test_themes_change_while_running(presses: int) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("s", *["ctrl+t"] * presses)
        assert "rax" in bench.screen_text()

    drive(scenario)


def test_the_footer_does_what_it_says() -> None:
    async def scenario(bench: Bench) -> None:
        text = bench.main.keys.plain
        await bench.pilot.click("#keys", offset=(text.index("step"), 0))
        await bench.idle()
        assert bench.tick == 1

    drive(scenario)


def test_the_wheel_scrolls_a_panel() -> None:
    async def scenario(bench: Bench) -> None:
        from textual import events

        panel = bench.main.panels["registers"]
        before = panel.top
        panel.post_message(events.MouseScrollDown(panel, 1, 1, 0, 0, 0, False, False, False))
        await bench.pilot.pause()
        assert panel.top > before

    drive(scenario)
