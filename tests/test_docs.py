"""Pages that are made from the program's own tables are up to date, and links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import PAGES as PAGES_MADE
from kvmscope.cli import run_command_line
from kvmscope.reproducer import parse, run
from kvmscope.reproducer.verdict import Verdict

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", sorted(PAGES_MADE))
def test_a_generated_page_is_what_the_program_has(name):
    # `python -m docs.generate` writes it anew.
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == PAGES_MADE[name]()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


SHOWN_RUNS = [
    (page.name, command, verdict)
    for page in PAGES
    for command, verdict in re.findall(
        r"^\$ kvmscope (run \S+)\n(PASS .*)$", page.read_text(encoding="utf-8"), re.MULTILINE
    )
]
SHOWN_FILES = [
    (page.name, text)
    for page in PAGES
    for text in re.findall(r"^```(?:asm)?\n([;#] /// kvmscope\n.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
]


@pytest.mark.parametrize(("page", "command", "verdict"), SHOWN_RUNS)
def test_a_run_that_is_shown_ends_as_shown(page, command, verdict, monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    assert run_command_line(command.split()) == 0, page
    assert capfd.readouterr().err == f"{verdict}\n"


@pytest.mark.parametrize(("page", "text"), SHOWN_FILES)
def test_a_reproducer_that_is_shown_passes(page, text):
    result = run(parse(text, f"{page}.asm"))
    assert result.verdict is Verdict.PASS, "\n".join(result.report(page))


def test_what_is_shown_is_found():
    assert len(SHOWN_RUNS) >= 2
    assert len(SHOWN_FILES) >= 2
