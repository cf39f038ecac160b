"""The source: typing, errors, running what was typed, finding, undo, breakpoints that follow their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmscope.ui.document import Document, line_mover
from tests.ui.support import CALLING, FAULTING, Bench, drive


def test_letters_are_keys_until_i_and_typed_after_it() -> None:
    async def scenario(bench: Bench) -> None:
        before = bench.main.editor.text
        await bench.press("s")
        assert bench.main.editor.text == before
        await bench.press("i")
        bench.main.editor.go_to(13)
        await bench.type("nop", by_keys=True)
        assert "nophlt" in bench.main.editor.text.replace(" ", "")
        assert "EDIT" in bench.main.header.plain

    drive(scenario)


def test_a_typed_error_stands_at_its_line_and_goes_when_mended() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("i")
        bench.main.editor.go_to(13, 9)
        await bench.type("bogus ")
        await bench.until(lambda: bench.main.editor.problem_at(13) is not None, "diagnostic")
        assert "13:" in bench.main.status.plain
        assert "✗" in bench.screen_text()
        for _ in "bogus ":
            await bench.pilot.press("backspace")
        await bench.until(lambda: bench.main.editor.problem_at(13) is None, "mended")

    drive(scenario)


def test_a_wrong_header_is_a_diagnostic_of_its_line() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.until(lambda: bench.main.editor.problem_at(2) is not None, "diagnostic")
        note = bench.main.editor.problem_at(2)
        assert note is not None
        assert "modd" in note.message
        assert bench.main.view is None

    drive(scenario, '; /// kvmscope\n; modd = "long64"\n; ///\n hlt\n', start=False)


def test_escape_assembles_and_starts_a_changed_text() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("s", "i")
        bench.main.editor.go_to(10, 22)
        await bench.pilot.press("shift+end")
        await bench.type("0x1234")
        await bench.pilot.press("escape")
        await bench.started()
        assert bench.tick == 0
        await bench.press("s")
        assert bench.register(0) == 0x1234

    drive(scenario)


def test_what_does_not_assemble_is_not_started() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("i")
        bench.main.editor.go_to(13, 9)
        await bench.type("bogus ")
        await bench.pilot.press("escape")
        await bench.until(lambda: "to mend" in bench.main.status.plain or "13:" in bench.main.status.plain, "said so")
        assert bench.main.stale
        await bench.press("ctrl+l")
        assert bench.main.editor.line == 13

    drive(scenario)


def test_breakpoints_follow_their_lines() -> None:
    async def scenario(bench: Bench) -> None:
        bench.main.editor.go_to(6)
        await bench.press("b", "i")
        bench.main.editor.go_to(4)
        await bench.type("nop\nnop\n", by_keys=True)
        await bench.until(lambda: bench.main.controller.breakpoint_lines() == {8}, "moved")
        await bench.pilot.press("escape")
        await bench.started()
        await bench.press("c")
        assert bench.line == 8

    drive(scenario, CALLING)


def test_a_breakpoint_in_changed_text_waits_for_the_start() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("i")
        bench.main.editor.go_to(4)
        await bench.type("nop\n")
        bench.main.toggle_line(7)
        assert bench.main.controller.breakpoint_lines() == {7}
        await bench.pilot.press("escape")
        await bench.started()
        await bench.press("c")
        assert bench.line == 7

    drive(scenario, CALLING)


def test_undo_and_redo() -> None:
    async def scenario(bench: Bench) -> None:
        before = bench.main.editor.text
        await bench.press("i")
        await bench.type("x")
        await bench.pilot.press("ctrl+z")
        assert bench.main.editor.text == before
        await bench.pilot.press("ctrl+y")
        assert bench.main.editor.text != before

    drive(scenario)


def test_enter_keeps_the_indentation() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("i")
        bench.main.editor.go_to(11, 23)
        await bench.pilot.press("end", "enter")
        await bench.type("nop", by_keys=True)
        assert bench.main.editor.document.get_line(11) == "        nop"

    drive(scenario)


def test_find_goes_on_from_the_cursor_and_around_the_end() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("/")
        await bench.type("rcx")
        await bench.press("enter")
        assert bench.main.editor.selected_text == "rcx"
        first = bench.main.editor.selection
        await bench.press("f3")
        assert bench.main.editor.selection != first
        await bench.press("f3")
        assert bench.main.editor.selection == first
        await bench.press("/")
        await bench.type("nowhere")
        await bench.press("enter")
        assert "not in the source" in bench.main.status.plain

    drive(scenario, CALLING)


@pytest.mark.parametrize(
    ("old", "new", "moves"),
    [
        ("a b c", "a x b c", {1: 1, 2: 3, 3: 4}),
        ("a b c", "x a b c", {1: 2, 2: 3, 3: 4}),
        ("a b c d", "a d", {1: 1, 4: 2}),
        ("a b c", "a b c x", {1: 1, 2: 2, 3: 3}),
        ("a", "a a a", {1: 3}),
    ],
)
def test_line_numbers_after_an_edit(old: str, new: str, moves: dict[int, int]) -> None:
    moved = line_mover(old.split(), new.split())
    assert moved is not None
    assert {line: moved(line) for line in moves} == moves


def test_lines_that_do_not_move() -> None:
    assert line_mover(["a", "b"], ["a", "c"]) is None


def test_tabs_and_wide_characters_are_drawn_in_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "wide.asm"
    path.write_text("\tnop\t; 猫 é\n\thlt\n", encoding="utf-8")

    async def scenario(bench: Bench) -> None:
        assert "猫" in bench.screen_text()
        assert all(strip.cell_length == 80 for strip in bench.app.screen._compositor.render_strips())

    drive(scenario, Document.load(path), (80, 24))


def test_the_listing_shows_addresses_and_bytes_where_there_is_room() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("z")
        assert "400007" in bench.screen_text()
        assert "bb 05 00 00 00" in bench.screen_text()

    drive(scenario, FAULTING)
