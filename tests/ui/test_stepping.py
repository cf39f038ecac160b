"""Moving the machine by keys, forward and back."""

from __future__ import annotations

from tests.ui.support import CALLING, FAULTING, LOOPING, Bench, drive


def test_a_step_moves_the_machine_and_the_current_line() -> None:
    async def scenario(bench: Bench) -> None:
        assert (bench.tick, bench.line) == (0, 10)
        await bench.press("s")
        assert (bench.tick, bench.line, bench.register(0)) == (1, 11, 0x200000)
        assert bench.main.editor.line == 11
        await bench.press("S")
        assert (bench.tick, bench.line, bench.register(0)) == (0, 10, 0)

    drive(scenario)


def test_a_fault_is_explained_and_undone() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("c")
        assert bench.line == 12
        assert "#PF(0x3)" in bench.main.status.plain
        assert "R/W = 0" in bench.main.status.plain
        assert "FAULT" in bench.main.header.plain
        assert bench.main.front == "explanation" or "explanation" in bench.main.panels
        await bench.press("S")
        assert "PAST" in bench.main.header.plain
        assert bench.main.editor._in_past

    drive(scenario, FAULTING)


def test_over_and_back_over_take_a_call_as_one() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("s", "n")
        assert (bench.line, bench.tick) == (6, 4)
        await bench.press("N")
        assert (bench.line, bench.tick) == (5, 1)
        await bench.press("s", "f")
        assert bench.line == 6
        await bench.press("S", "F")
        assert bench.line == 5

    drive(scenario, CALLING)


def test_events_are_visited_in_both_directions() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("]")
        first = bench.tick
        assert bench.main.view is not None
        assert first > 0
        await bench.press("]")
        second = bench.tick
        assert second > first
        await bench.press("[")
        assert bench.tick == first

    drive(scenario, CALLING)


def test_breakpoints_by_key_and_gutter_stop_a_run() -> None:
    async def scenario(bench: Bench) -> None:
        bench.main.editor.go_to(10)
        await bench.press("b")
        assert bench.main.controller.breakpoint_lines() == {10}
        await bench.press("c")
        assert bench.line == 10
        assert "BREAKPOINT" in bench.main.header.plain
        # Ten lines below the title; the gutter's first cell.
        await bench.pilot.click("#editor", offset=(0, 10 - bench.main.editor.scroll_offset.y))
        await bench.idle()
        assert bench.main.controller.breakpoint_lines() == set()
        await bench.press("c", "C")
        assert bench.tick == 0

    drive(scenario, CALLING)


def test_to_cursor_and_back_to_cursor() -> None:
    async def scenario(bench: Bench) -> None:
        bench.main.editor.go_to(8)
        await bench.press("u")
        assert bench.line == 8
        bench.main.editor.go_to(5)
        await bench.press("U")
        assert bench.line == 5

    drive(scenario, CALLING)


def test_a_free_run_shows_progress_and_stops_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.pilot.press("c")
        await bench.until(lambda: bench.main._progress is not None, "progress")
        assert "RUNNING" in bench.main.header.plain
        assert "space stop" in bench.main.keys.plain
        await bench.pilot.press("space")
        await bench.idle()
        assert 0 < bench.tick < 2_000_000_000
        here = bench.tick
        await bench.press("S")
        assert bench.tick == here - 1

    drive(scenario, LOOPING)


def test_held_keys_do_not_pile_up() -> None:
    async def scenario(bench: Bench) -> None:
        for _ in range(60):
            bench.main.action_step()
        assert bench.main.controller._outstanding <= 3
        await bench.idle()
        assert bench.tick <= 3

    drive(scenario, LOOPING)


def test_restart_goes_to_the_first_instruction_and_keeps_breakpoints() -> None:
    async def scenario(bench: Bench) -> None:
        bench.main.editor.go_to(6)
        await bench.press("b", "c", "r")
        await bench.until(lambda: bench.tick == 0 and not bench.main.controller.busy, "restarted")
        assert bench.main.controller.breakpoint_lines() == {6}
        await bench.press("c")
        assert bench.line == 6

    drive(scenario, CALLING)
