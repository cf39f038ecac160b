"""Starting: what is imported when, and what the command line refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvmscope.cli import tui
from kvmscope.errors import UsageError

_HEAVY = ("capstone", "keystone", "unicorn", "pygments")


def test_the_first_paint_waits_for_no_engine() -> None:
    code = (
        "import sys, kvmscope.cli.tui, kvmscope.ui.app\n"
        f"print([m for m in {_HEAVY!r} if m in sys.modules],"
        " [m for m in sys.modules if m.startswith(('kvmscope.vmm', 'kvmscope.x86', 'kvmscope.debug', 'kvmscope.asm.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_a_plain_guest_loads_nothing_that_it_does_not_ask_for(tmp_path: Path) -> None:
    source = tmp_path / "x.asm"
    source.write_text("hlt\n")
    idle = ("asm.loading", "suite", "vmm.boot.acpi", "vmm.boot.multiboot", "vmm.boot.rom", "vmm.devices.iommu")
    idle += ("vmm.devices.pci.edu", "vmm.devices.pci.testdev", "vmm.devices.pci.q35")
    code = (
        "import sys; from kvmscope.cli.main import run_command_line\n"
        f"assert run_command_line(['run', {str(source)!r}]) == 0\n"
        f"print([m for m in sys.modules if m.startswith({tuple('kvmscope.' + name for name in idle)!r})])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("argv", "word"),
    [(["no-such-file", "argument"], "no such file"), (["--bogus"], "Cannot take"), (["-x"], "Cannot take")],
)
def test_what_cannot_be_taken(argv: list[str], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        tui.main(argv)


def test_no_terminal_no_ui(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", open("/dev/null"))  # noqa: SIM115 - closed with the process
    with pytest.raises(UsageError, match="needs a terminal"):
        tui.main([])


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert tui.main(["--help"]) == 0
    assert tui.main(["--version"]) == 0
    out = capsys.readouterr().out
    assert "usage: kvmscope" in out
    assert "kvmscope 0." in out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("no/such/place.asm", None, "no directory"), ("bad.asm", b"\xff\xfe", "is not text")],
)
def test_a_file_that_cannot_be_opened_is_a_message(name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        tui._open(Path(name))
