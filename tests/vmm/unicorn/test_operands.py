"""Shortcuts to an instruction's shape and accesses agree with the long way."""

from __future__ import annotations

import random

import pytest

from kvmscope.vmm.unicorn import decode
from kvmscope.vmm.unicorn.lengths import first_instruction, instructions
from kvmscope.vmm.unicorn.operands import accesses, may_write
from tests.vmm.unicorn.bench import board

PREFIXES = (b"", b"", b"\x66", b"\x67", b"\xf3", b"\xf0\x64")


def some_code(rng: random.Random) -> bytes:
    escape = rng.choice((b"", b"", b"\x0f", b"\x0f\x38"))
    return rng.choice(PREFIXES) + escape + rng.randbytes(rng.randrange(1, 15))


@pytest.mark.parametrize(("code64", "code32"), [(True, False), (False, True), (False, False)])
def test_the_first_instruction_is_the_first_of_all(code64: bool, code32: bool) -> None:
    rng = random.Random(1)
    for _ in range(3000):
        data = some_code(rng)
        found = instructions(data, code64, code32)
        assert first_instruction(data, code64, code32) == (found[0] if found else None)


@pytest.mark.parametrize(("mode", "bits"), [("long64", 64), ("prot32", 32), ("real16", 16)])
def test_what_cannot_write_writes_nothing(mode: str, bits: int) -> None:
    rng = random.Random(2)
    with board(b"\xf4", mode) as b:
        refused = 0
        for _ in range(3000):
            data = some_code(rng)
            shape = first_instruction(data, bits == 64, bits == 32)
            if shape is None or may_write(shape):
                continue
            refused += 1
            assert not any(access.write for access in accesses(b.engine.cpu, shape, data[: shape.length])), data.hex()
        assert refused > 500


def test_an_operand_follows_the_registers() -> None:
    code = bytes.fromhex("488b849900010000")  # mov rax, [rcx + rbx*4 + 0x100]
    with board(code) as b:
        cpu = b.engine.cpu
        for rcx, rbx in ((0x1000, 1), (0x2000, 3), (0xFFFFFFFFFFFFFF00, 0)):
            b.registers(rcx=rcx, rbx=rbx)
            ins = decode.decode(cpu, code)
            assert ins.offset == rcx + 4 * rbx + 0x100 & 0xFFFFFFFFFFFFFFFF
            assert (ins.length, ins.reg, ins.operand_size) == (8, 0, 8)
        # RIP-relative: from the end of the whole instruction, its immediate included.
        relative = bytes.fromhex("813d1000000078563412")
        assert decode.decode(cpu, relative, length=10).offset == b.state.rip + 10 + 16
        assert decode.decode(cpu, relative).offset == b.state.rip + 6 + 16
