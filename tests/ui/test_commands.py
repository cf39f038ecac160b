"""The command line, the palette, going to places, values edited in place."""

from __future__ import annotations

from textual.command import CommandPalette

from kvmscope.ui.line_panel import Kind
from kvmscope.ui.modals import Help
from tests.ui.support import CALLING, FAULTING, Bench, drive


def test_a_command_answers_in_the_status_line() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("s")
        await bench.command("print/x $rax")
        assert "200000" in bench.main.status.plain

    drive(scenario)


def test_a_long_answer_comes_to_the_front() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.command("info registers")
        assert bench.main.front == "console"
        assert "rax" in bench.screen_text()

    drive(scenario)


def test_a_wrong_command_is_one_readable_line() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.command("brek 3")
        assert "Unknown command" in bench.main.status.plain
        await bench.command("break nowhere")
        assert "nowhere" in bench.main.status.plain

    drive(scenario)


def test_commands_move_the_machine_and_set_breakpoints() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.command("break double")
        assert bench.main.controller.breakpoint_lines() == {10}
        await bench.command("continue")
        assert bench.line == 10
        await bench.command("set $rcx = 0x21")
        assert bench.register(1) == 0x21
        await bench.press("s")
        assert bench.register(0) == 0x42

    drive(scenario, CALLING)


def test_escape_and_history_of_the_line() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.command("print 1")
        await bench.press(":")
        await bench.press("up")
        assert bench.main.line.value == "print 1"
        await bench.press("escape")
        assert not bench.main.line.display
        assert bench.main.editor.has_focus
        assert bench.main.status.display

    drive(scenario)


def test_tab_completes_commands_and_labels() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press(":")
        await bench.type("tbreak dou")
        await bench.press("tab")
        assert bench.main.line.value.strip() == "tbreak double"

    drive(scenario, CALLING)


def test_goto_a_line_a_label_a_step_and_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        async def goto(text: str) -> None:
            await bench.press("g")
            await bench.type(text)
            await bench.press("enter")

        await goto("7")
        assert bench.main.editor.line == 7
        await goto("double")
        assert bench.main.editor.line == 10
        await bench.press("s", "s", "s")
        await goto("@1")
        assert bench.tick == 1
        await goto("@99")
        assert "History does not know" in bench.main.status.plain
        await goto("doubel")
        assert "double" in bench.main.status.plain
        await goto("0x1000")
        assert bench.main.where is not None
        assert bench.main.where.memory == 0x1000

    drive(scenario, CALLING)


def test_a_register_is_edited_in_place() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("2")
        panel = bench.main.panels["registers"]
        assert panel.has_focus
        spot = next(s for s in panel._spots if s.key.kind is Kind.REGISTER and s.key.value == "rbx")
        assert panel.select(spot.key)
        await bench.press("enter")
        assert bench.main.inplace.has_focus
        await bench.pilot.press("ctrl+u")
        await bench.type("0x77 + 1")
        await bench.press("enter")
        assert bench.register(3) == 0x78
        assert panel.has_focus

    drive(scenario)


def test_a_byte_is_edited_in_place() -> None:
    async def scenario(bench: Bench) -> None:
        bench.main.show_memory(0x3000)
        await bench.press("4")
        panel = bench.main.panels["memory"]
        spot = next(s for s in panel._spots if s.key.kind is Kind.BYTE and s.key.value == 0x3001)
        panel.select(spot.key)
        await bench.press("enter")
        await bench.pilot.press("ctrl+u")
        await bench.type("c3")
        await bench.press("enter")
        assert bench.main.view is not None
        assert bench.main.view.snapshot.memory.read(0x3001, 1) == b"\xc3"
        await bench.press("enter")
        await bench.pilot.press("ctrl+u")
        await bench.type("zz")
        await bench.press("enter")
        assert "is no byte" in bench.main.status.plain

    drive(scenario)


def test_memory_walk_and_decode_of_the_word_under_the_cursor() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("s")
        bench.main.editor.go_to(12, 18)
        await bench.press("m")
        assert bench.main.where is not None
        assert (bench.main.where.memory, bench.main.where.memory_register) == (0x200000, "rax")
        bench.main.editor.go_to(12, 18)
        await bench.press("p")
        assert bench.main.where.walk == 0x200000
        await bench.press("t")
        assert "physical 0x200000" in bench.screen_text()

    drive(scenario, FAULTING)


def test_the_palette_finds_and_does() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.pilot.press("ctrl+p")
        await bench.until(lambda: isinstance(bench.app.screen, CommandPalette), "palette")
        await bench.type("step")
        await bench.pilot.pause(0.2)
        await bench.pilot.press("enter")
        await bench.until(lambda: bench.app.screen is bench.main and bench.tick == 1, "stepped")

    drive(scenario)


def test_help_opens_and_closes() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.pilot.press("?")
        await bench.until(lambda: isinstance(bench.app.screen, Help), "help")
        assert "Execute one instruction." in bench.screen_text()
        await bench.pilot.press("escape")
        await bench.until(lambda: bench.app.screen is bench.main, "closed")

    drive(scenario)


def test_display_is_shown_at_each_stop() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.command("display/x $rax")
        await bench.press("s")
        assert bench.main.console.text().endswith("$rax = 0x0000000000200000")
        assert "200000" in bench.main.status.plain

    drive(scenario)
