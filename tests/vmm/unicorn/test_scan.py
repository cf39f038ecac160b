"""Instruction lengths and the instructions that must be trapped."""

from __future__ import annotations

import random

import pytest

from kvmscope.vmm.unicorn.lengths import instructions
from kvmscope.vmm.unicorn.scan import find
from kvmscope.vmm.unicorn.system import HANDLERS, Kind

capstone = pytest.importorskip("capstone")

MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_lengths_agree_with_capstone(bits: int) -> None:
    chooser = random.Random(bits)
    decoder = capstone.Cs(capstone.CS_ARCH_X86, MODES[bits])
    prefixes = [b"\x66", b"\x67", b"\xf2", b"\xf3", b"\x2e", b"\x48", b"\x41", b"\xf0", b"\x0f", b"\x0f", b""]
    compared = 0
    for _ in range(12000):
        data = (chooser.choice(prefixes) + chooser.choice(prefixes) + chooser.randbytes(13))[:15]
        found = next(decoder.disasm_lite(data, 0), None)
        if found is None:
            continue
        _, size, mnemonic, _ = found
        # VEX ends a block; UD0 and UD1 are undefined whatever follows; 66 on near branches is a matter of vendor.
        if mnemonic.startswith(("v", "ud", "j", "call", "bnd")) or 0x8F in data[:3] or data[:1] in b"\xc4\xc5\x62":
            continue
        shapes = instructions(data, bits == 64, bits == 32)
        assert shapes, (data.hex(), mnemonic)
        assert shapes[0].length == size, (data.hex(), mnemonic)
        compared += 1
    assert compared > 7000


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        ("0f05", [Kind.SYSCALL]),
        ("480f07", [Kind.SYSRET]),
        ("90 0f05 90", [Kind.SYSCALL]),
        # The same bytes inside of an immediate.
        ("b80f050f05", []),
        ("c5f857c0", [Kind.UNDEFINED]),
        ("f0ff00", []),
        ("f0ff10", [Kind.UNDEFINED]),
        ("f08701", []),
        ("0f2800", [Kind.ALIGNED]),
        ("0f28c1", []),
        ("0f1000", []),
        ("f30f6f00", []),
        ("660f6f00", [Kind.ALIGNED]),
        ("660f3a6300c0", []),
        ("66e800000000", [Kind.BRANCH16]),
        ("cb", [Kind.FAR_RETURN]),
        ("0f0138", [Kind.INVLPG]),
        ("0f01f8", []),
    ],
)
def test_what_is_trapped(code: str, kinds: list[str]) -> None:
    assert [kind for _, kind in find(bytes.fromhex(code), True, True)] == kinds


def test_every_kind_has_its_handler() -> None:
    assert set(HANDLERS) == {value for name, value in vars(Kind).items() if not name.startswith("_")}
