"""Quick looks at memory operands tell what the full decoding tells."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvmscope.vmm.unicorn.env import selector_index
from kvmscope.vmm.unicorn.lengths import instructions
from kvmscope.vmm.unicorn.operands import accesses
from kvmscope.vmm.unicorn.plans import plan, surely_allowed
from kvmscope.x86.state import Seg
from tests.vmm.unicorn.bench import board, segment, with_segments

TAIL = bytes([0x9A, 0x34, 0x92, 0x7F, 0xEE, 0x11, 0x22])
SIBS = (0x24, 0x1D, 0xED, 0x25, 0x8B, 0x6C)
PREFIXES = (b"", b"\x67", b"\x66", b"\x2e", b"\x64\x67")


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda p: p.hex())
def test_the_address_is_that_of_the_decoder(bits: int, prefix: bytes) -> None:
    checked = 0
    with board(b"\xf4", "real16" if bits == 16 else "prot32") as b:
        names = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
        b.registers(**{name: 0x1111 * (i + 1) for i, name in enumerate(names)})
        cpu = b.engine.cpu
        for opcode in (b"\x8b", b"\x88", b"\x80", b"\x0f\xb7", b"\x0f\x38\xf0"):
            for modrm in range(0xC0):
                for sib in SIBS:
                    data = prefix + opcode + bytes([modrm, sib]) + TAIL
                    (shape, *_) = instructions(data, False, bits == 32)
                    code = data[: shape.length]
                    found = plan(shape, code, bits == 32)
                    (access,) = accesses(cpu, shape, code)
                    assert found is not None
                    q = cpu.env.q
                    offset = found.displacement
                    offset += q[found.base] if found.base >= 0 else 0
                    offset += q[found.scaled] << found.scale if found.scaled >= 0 else 0
                    expected = (selector_index(access.segment), access.offset, access.size)
                    assert (found.segment, offset & found.mask, found.size) == expected, data.hex()
                    checked += 1
    assert checked == 5 * 0xC0 * len(SIBS)


@pytest.mark.parametrize(
    "code",
    ["50", "a4", "0fa300", "8f00", "ff30", "ff10", "0f1000", "d700", "c8000000", "8d00", "8bc0"],
)
def test_no_plan_where_it_is_not_as_simple(code: str) -> None:
    data = bytes.fromhex(code) + bytes(8)
    (shape, *_) = instructions(data, False, True)
    assert plan(shape, data[: shape.length], True) is None


@pytest.mark.parametrize(
    ("attributes", "limit", "offset", "expected"),
    [
        (0xC093, 0xFFFF, 0xFFFC, True),
        (0xC093, 0xFFFF, 0xFFFD, False),
        (0xC093, 0xFFFFFFFF, 0xFFFFFFFD, False),
        # Read-only, code, expand-down, not present: for the full check to say.
        (0xC091, 0xFFFF, 0, False),
        (0xC09B, 0xFFFF, 0, False),
        (0xC097, 0xFFF, 0x2000, False),
        (0xC013, 0xFFFF, 0, False),
    ],
)
def test_only_what_is_plain_is_sure(attributes: int, limit: int, offset: int, expected: bool) -> None:
    code = bytes.fromhex("8b03")
    with board(code + b"\xf4", "prot32") as b:
        state = with_segments(b.state, {Seg.DS: segment(0x10, attributes, 0, limit)})
        gpr = list(state.gpr)
        gpr[3] = offset
        b.engine.set_state(replace(state, gpr=tuple(gpr)))
        found = plan(instructions(code, False, True)[0], code, True)
        assert found is not None
        assert surely_allowed(b.engine.cpu, found) is expected
