from __future__ import annotations

from pathlib import Path

import pytest

from kvmscope.debug.explain import explain
from kvmscope.ui.controller import load_debugger
from kvmscope.ui.highlight import load_lexer
from kvmscope.ui.live import assemble_text
from kvmscope.ui.panel_set import make_panels
from kvmscope.vmm.machine import Machine


def _load_everything() -> None:
    """Import here what the app imports on threads: pytest rewrites our modules, and before 3.12 two threads that handle
    syntax trees at once (it does, and so does Textual for an action's arguments) can break each other."""
    load_debugger()
    load_lexer()
    assert make_panels
    done = assemble_text("ud2\n", "warm.asm")
    assert done.assembly is not None
    assert done.assembly.image is not None
    assert done.reproducer is not None
    machine = Machine(done.reproducer.config, done.assembly.image)
    explain(machine.step(), machine.snapshot(), done.assembly.image)
    machine.close()


_load_everything()


@pytest.fixture(autouse=True)
def _private_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own state, or files outside its directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
