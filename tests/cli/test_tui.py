from __future__ import annotations

from pathlib import Path

import pytest

from kvmscope.cli.tui import _image, main
from kvmscope.errors import UsageError
from tests.asm.loading.support import assembled, says


def test_an_image_takes_arguments_and_options(tmp_path: Path) -> None:
    path = assembled(tmp_path, says(""))
    program = _image([str(path), "a", "--smp", "2", "--memory", "32M", "--env", "X=1", "--", "-b"])
    config = program.config
    assert (config.args, config.smp, config.memory, config.environment) == (("a", "-b"), 2, 32 << 20, {"X": "1"})
    assert program.image is not None


def test_a_source_takes_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "t.asm").write_text("hlt\n")
    with pytest.raises(UsageError, match="Cannot take"):
        main([str(tmp_path / "t.asm"), "a"])
    with pytest.raises(UsageError, match="Cannot take"):
        main(["--smp", "2"])
