"""Opening, saving, templates, recovery and export: nothing is lost and nothing overwritten unasked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from textual.widgets import Input

from kvmscope.errors import UsageError
from kvmscope.ui.document import Document
from kvmscope.ui.files import free_name, read_text, write_atomically
from kvmscope.ui.modals import AskPath, Choose, Confirm
from kvmscope.ui.recent import RecentFiles
from kvmscope.ui.recovery import Recovery
from tests.ui.support import CALLING, FAULTING, Bench, drive


def _file(text: str = FAULTING, name: str = "mine.asm") -> Document:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return Document.load(path)


async def _dialog(bench: Bench, kind: type) -> None:
    await bench.until(lambda: isinstance(bench.app.screen, kind), f"{kind.__name__} open")


async def _closed(bench: Bench) -> None:
    await bench.until(lambda: bench.app.screen is bench.main, "dialog closed")


async def _edit(bench: Bench) -> None:
    await bench.press("i")
    await bench.pilot.press("ctrl+home")
    bench.main.editor.insert("; edited\n", (0, 0))
    await bench.pilot.press("escape")


def test_save_writes_what_is_seen_and_nothing_else() -> None:
    document = _file()

    async def scenario(bench: Bench) -> None:
        await _edit(bench)
        assert "mine.asm *" in bench.main.header.plain
        await bench.pilot.press("ctrl+s")
        await bench.until(lambda: not bench.main.modified, "saved")
        assert Path("mine.asm").read_text() == "; edited\n" + FAULTING
        assert "Written" in bench.main.status.plain
        assert sorted(os.listdir()) == ["mine.asm", "state"]

    drive(scenario, document)


def test_save_asks_before_it_overwrites_anothers_change() -> None:
    document = _file()

    async def scenario(bench: Bench) -> None:
        await _edit(bench)
        Path("mine.asm").write_text("; by another program\n")
        await bench.pilot.press("ctrl+s")
        await _dialog(bench, Confirm)
        await bench.pilot.press("c")
        await _closed(bench)
        assert Path("mine.asm").read_text() == "; by another program\n"
        await bench.pilot.press("ctrl+s")
        await _dialog(bench, Confirm)
        await bench.pilot.press("o")
        await bench.until(lambda: not bench.main.modified, "saved")
        assert Path("mine.asm").read_text() == "; edited\n" + FAULTING

    drive(scenario, document)


def test_a_document_without_a_name_asks_for_one() -> None:
    async def scenario(bench: Bench) -> None:
        Path("taken.asm").write_text("nop\n")
        await bench.pilot.press("ctrl+s")
        await _dialog(bench, AskPath)
        bench.app.screen.query_one(Input).value = "taken.asm"
        await bench.pilot.press("enter")
        await _dialog(bench, Confirm)
        await bench.pilot.press("escape")
        await _closed(bench)
        assert Path("taken.asm").read_text() == "nop\n"
        await bench.pilot.press("ctrl+s")
        await _dialog(bench, AskPath)
        bench.app.screen.query_one(Input).value = "fresh.asm"
        await bench.pilot.press("enter")
        await bench.until(lambda: bench.main.document.name == "fresh.asm", "saved")
        assert Path("fresh.asm").read_text() == FAULTING

    drive(scenario)


def test_a_shipped_file_is_never_written() -> None:
    document = _file()
    document.shipped = True

    async def scenario(bench: Bench) -> None:
        await _edit(bench)
        await bench.pilot.press("ctrl+s")
        await _dialog(bench, AskPath)
        await bench.pilot.press("escape")
        await _closed(bench)
        assert Path("mine.asm").read_text() == FAULTING

    drive(scenario, document)


def test_a_directory_that_takes_no_file_is_said(tmp_path: Path) -> None:
    document = _file()

    async def scenario(bench: Bench) -> None:
        await _edit(bench)
        bench.main.document.path = tmp_path / "mine.asm" / "below.asm"
        await bench.pilot.press("ctrl+s")
        await bench.until(lambda: "Cannot write" in bench.main.status.plain, "complaint")
        assert bench.main.modified

    drive(scenario, document)


def test_open_takes_another_file_after_asking_about_changes() -> None:
    document = _file()
    Path("other.asm").write_text(CALLING)

    async def scenario(bench: Bench) -> None:
        bench.main.editor.go_to(11)
        await bench.press("b")
        await _edit(bench)
        await bench.started()
        await bench.pilot.press("ctrl+o")
        await _dialog(bench, AskPath)
        await bench.type("oth")
        await bench.pilot.press("tab", "enter")
        await _dialog(bench, Confirm)
        await bench.pilot.press("d")
        await bench.until(lambda: bench.main.document.name == "other.asm", "opened")
        await bench.started()
        assert bench.main.editor.text == CALLING
        assert bench.main.controller.breakpoint_lines() == set()
        assert [path.name for path in RecentFiles().paths()] == ["other.asm", "mine.asm"]

    drive(scenario, document)


def test_open_of_what_is_no_text_is_said() -> None:
    Path("binary.asm").write_bytes(b"nop\n\xff\xfe")

    async def scenario(bench: Bench) -> None:
        await bench.command("open binary.asm")
        await bench.until(lambda: "is not text" in bench.main.status.plain, "complaint")
        assert "line 2" in bench.main.status.plain
        assert bench.main.editor.text == FAULTING

    drive(scenario)


def test_a_template_is_a_program_that_starts() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.pilot.press("ctrl+n")
        await _dialog(bench, Choose)
        await bench.type("real")
        await bench.pilot.press("enter")
        await bench.until(lambda: "real16" in bench.main.editor.text, "template")
        await bench.started()
        assert "real mode" in bench.main.header.plain

    drive(scenario)


def test_quit_asks_about_changes_and_discards_them_when_told() -> None:
    document = _file()

    async def scenario(bench: Bench) -> None:
        await _edit(bench)
        await bench.pilot.press("ctrl+q")
        await _dialog(bench, Confirm)
        await bench.pilot.press("escape")
        await _closed(bench)
        assert bench.app.is_running
        await bench.pilot.press("ctrl+q")
        await _dialog(bench, Confirm)
        await bench.pilot.press("d")
        await bench.until(lambda: bench.app.return_code == 0 and not bench.app.is_running, "left")
        assert Path("mine.asm").read_text() == FAULTING

    drive(scenario, document)


def test_what_was_typed_and_not_saved_is_offered_again() -> None:
    document = _file()
    lost = Recovery(Path("mine.asm"))
    lost.save("; typed before the crash\n" + FAULTING)
    # Of a process that is gone.
    lost.file.rename(lost.file.with_name(lost.file.name.replace(f"-{os.getpid()}", "-999999999")))

    async def scenario(bench: Bench) -> None:
        await _dialog(bench, Confirm)
        await bench.pilot.press("r")
        await bench.until(lambda: bench.main.editor.text.startswith("; typed before"), "restored")
        assert Path("mine.asm").read_text() == FAULTING
        assert bench.main.modified
        await bench.pilot.press("ctrl+z")
        assert not bench.main.modified or bench.main.editor.read_only

    drive(scenario, document, start=False)


def test_typing_is_kept_in_a_recovery_file_until_it_is_saved() -> None:
    document = _file()

    async def scenario(bench: Bench) -> None:
        await _edit(bench)
        await bench.until(lambda: bench.main.recovery.file.exists(), "autosaved")
        assert "edited" in bench.main.recovery.file.read_text()
        await bench.pilot.press("ctrl+s")
        await bench.until(lambda: not bench.main.recovery.file.exists(), "discarded")

    drive(scenario, document)


def test_the_recovery_file_of_a_living_process_is_not_offered() -> None:
    recovery = Recovery(Path("mine.asm"))
    recovery.save("of this very process")
    assert recovery.find("other") is None
    assert recovery.file.exists()


def test_torn_and_foreign_recovery_files_are_no_offer() -> None:
    recovery = Recovery(Path("mine.asm"))
    recovery.directory.mkdir(parents=True)
    stem = recovery.file.stem.rpartition("-")[0]
    for number, text in enumerate(["{", "[]", '{"path": "other", "saved": 1, "text": "x"}', '{"path": 3}']):
        (recovery.directory / f"{stem}-99999999{number}.json").write_text(text)
    assert recovery.find("") is None
    assert list(recovery.directory.iterdir()) == []


def test_export_writes_a_file_and_refuses_to_overwrite() -> None:
    document = _file()

    async def scenario(bench: Bench) -> None:
        for _attempt in range(2):
            await bench.press("e")
            await _dialog(bench, Choose)
            await bench.type("pytest")
            await bench.pilot.press("enter")
            await _dialog(bench, AskPath)
            line = bench.app.screen.query_one(Input)
            line.value = "exported.py"
            await bench.pilot.press("enter")
            await _closed(bench)
            await bench.until(lambda: "xport" in bench.main.status.plain, "said so")
        assert "exists" in bench.main.status.plain
        assert "kvmscope" in Path("exported.py").read_text()

    drive(scenario, document)


def test_pictures_are_numbered() -> None:
    document = _file()

    async def scenario(bench: Bench) -> None:
        await bench.press("P", "P")
        assert sorted(p.name for p in Path().glob("*.svg")) == ["kvmscope-mine-2.svg", "kvmscope-mine.svg"]
        assert "<svg" in Path("kvmscope-mine.svg").read_text()

    drive(scenario, document)


def test_a_crash_keeps_what_was_typed() -> None:
    document = _file()

    async def scenario(bench: Bench) -> None:
        await _edit(bench)
        assert bench.app.keep_text()
        assert "edited" in bench.main.recovery.file.read_text()

    drive(scenario, document)


def test_atomic_writes_keep_mode_and_links() -> None:
    target = Path("real.asm")
    target.write_text("old")
    target.chmod(0o640)
    Path("link.asm").symlink_to(target)
    write_atomically(Path("link.asm"), "new")
    assert Path("link.asm").is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_line_ends_are_kept() -> None:
    document = _file("nop\r\nhlt\r\n")

    async def scenario(bench: Bench) -> None:
        assert not bench.main.modified
        await _edit(bench)
        await bench.pilot.press("ctrl+s")
        await bench.until(lambda: not bench.main.modified, "saved")
        assert Path("mine.asm").read_bytes().count(b"\r\n") == 3

    drive(scenario, document)


def test_reading_refuses_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot read"):
        read_text(tmp_path)
    with pytest.raises(UsageError, match="Cannot read"):
        read_text(tmp_path / "absent")


def test_free_names() -> None:
    Path("a.svg").touch()
    Path("a-2.svg").symlink_to("nowhere")
    assert free_name(Path(), "a", ".svg").name == "a-3.svg"
