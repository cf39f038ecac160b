from __future__ import annotations

import mmap
import subprocess
import sys
from dataclasses import fields

import pytest
import unicorn

from kvmscope.errors import EngineError
from kvmscope.vmm.unicorn import layout
from kvmscope.vmm.unicorn.engine import UnicornEngine
from tests.vmm.unicorn.bench import LONG64, Host, board


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unicorn, "__version__", "2.0.0")
    with pytest.raises(EngineError) as caught:
        UnicornEngine(mmap.mmap(-1, 1 << 20), Host())
    assert "2.0.0" in caught.value.detail
    assert "2.1.4" in caught.value.detail
    assert "unicorn==2.1.4" in caught.value.hint


@pytest.mark.parametrize(
    ("table", "field"), [("ENV", "regs"), ("ENV", "cr"), ("ENV", "segs"), ("ENV", "xmm_regs"), ("ENV", "uc")]
)
def test_a_moved_field_is_found_at_start(monkeypatch: pytest.MonkeyPatch, table: str, field: str) -> None:
    offsets = getattr(layout, table)
    monkeypatch.setitem(offsets, field, offsets[field] + 8)
    with pytest.raises(EngineError, match="does not fit"):
        UnicornEngine(mmap.mmap(-1, 1 << 20), Host())


def test_the_package_does_not_load_unicorn() -> None:
    code = "import sys, kvmscope.vmm.unicorn; sys.exit('unicorn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_state_comes_back_as_it_was_set() -> None:
    with board(b"\x90") as b:
        found = b.state
        for field in fields(LONG64):
            if field.name not in ("fpu", "msrs"):
                assert getattr(found, field.name) == getattr(LONG64, field.name), field.name
        assert found.fpu[:2] == b"\x7f\x03"
        assert found.fpu[4] == 0


def test_every_register_of_a_state_is_loaded() -> None:
    from dataclasses import replace

    fpu = bytearray(160)
    fpu[0:2] = b"\x7f\x02"
    fpu[2:4] = (3 << 11).to_bytes(2, "little")
    fpu[4] = 0x81
    fpu[24:28] = b"\x80\x1f\0\0"
    fpu[28:30] = b"\xff\xff"
    fpu[32:42] = bytes(range(1, 11))
    wanted = replace(
        LONG64,
        gpr=tuple(range(1, 17)),
        rflags=0x246,
        cr2=0x1234,
        cr8=5,
        dr=(1, 2, 3, 4, 0, 0, 0xFFFF0FF1, 0x400),
        mxcsr=0x1FA0,
        xmm=tuple(i << 100 | i for i in range(16)),
        fpu=bytes(fpu),
        pkru=0x55,
        interrupt_shadow=2,
        msrs={0xC0000082: 0xFFFF800000000000},
    )
    with board(b"\x90") as b:
        b.engine.set_state(wanted)
        found = b.state
        fpu[24:28] = (0x1FA0).to_bytes(4, "little")
        assert found == replace(wanted, fpu=bytes(fpu), msrs=found.msrs)
        assert found.msrs.items() >= wanted.msrs.items()
        b.engine.set_state(replace(wanted, rflags=0x10002))
        assert b.state.rflags == 0x10002
