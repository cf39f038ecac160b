"""Images in the UI: sources that follow the machine, lines to step by, and what an image has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmscope.ui.document import Document
from tests.asm.loading.support import C_CODE, assembled, compiled, says
from tests.ui.support import Bench, drive


@pytest.fixture(scope="module")
def image_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("images"))


def shown_line(bench: Bench) -> int | None:
    return bench.main.editor._current


def test_the_source_follows_the_machine(image_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        # start has no lines: the disassembly says where the machine is.
        assert bench.main.editor.text.startswith("// code.elf: entry 0x40000c <start>")
        assert bench.main.panels["disassembly"].display
        await bench.press("x")
        assert bench.main.editor.text == C_CODE
        assert bench.main.source_file.endswith("code.c")
        assert shown_line(bench) == 12
        assert bench.main.editor.line == 12
        await bench.press("o", "o")
        assert shown_line(bench) == 14
        assert "code.c:1" in bench.screen_text()
        await bench.press("X")
        assert shown_line(bench) == 13
        assert not bench.main.modified
        assert not bench.main.stale

    drive(scenario, Document.load(image_path), size=(160, 50))


def test_breakpoints_on_lines_of_c(image_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("x")
        bench.main.editor.go_to(16)
        await bench.press("b")
        assert bench.main.editor._breakpoints == {16}
        await bench.press("c")
        assert shown_line(bench) == 16
        await bench.press("b")
        assert bench.main.editor._breakpoints == set()
        bench.main.editor.go_to(18)
        await bench.press("u")
        assert shown_line(bench) == 18
        bench.main.editor.go_to(20)
        await bench.press("b")
        assert "There is no code at or below line 20" in bench.screen_text()

    drive(scenario, Document.load(image_path), size=(160, 50))


def test_the_end_says_the_images_verdict(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("c")
        assert "FAIL" in bench.screen_text()
        assert "1 failed, exit status 3" in bench.screen_text()

    drive(scenario, Document.load(assembled(tmp_path, says("FAIL: x\n", 1))), size=(160, 50))


def test_without_lines_the_disassembly_is_the_source(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        assert "No line table" in bench.main.editor.text
        await bench.press("x")
        assert "Only an image with a line table" in bench.screen_text()
        await bench.press("s")
        assert bench.tick == 1
        await bench.command("until text")
        await bench.press("i")
        assert not bench.main.editing

    drive(scenario, Document.load(assembled(tmp_path, says("a"))), size=(160, 50))


def test_another_document_gets_its_text_back(image_path: Path, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.press("x")
        source = tmp_path / "t.asm"
        source.write_text("mov eax, 1\nhlt\n")
        bench.main.take_document(Document.load(source))
        await bench.started()
        assert bench.main.editor.text == "mov eax, 1\nhlt\n"
        assert bench.line == 1
        assert bench.main.source_file == ""
        await bench.press("s")
        assert bench.line == 2

    drive(scenario, Document.load(image_path), size=(160, 50))
