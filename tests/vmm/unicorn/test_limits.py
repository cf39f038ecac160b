"""The table of limits is true where it can be tried out."""

from __future__ import annotations

from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.unicorn.limits import LIMITS
from tests.vmm.unicorn.bench import board


def test_rows_are_whole() -> None:
    for limit in LIMITS:
        assert limit.area
        assert limit.what
        assert limit.instead
        assert limit.stops == limit.instead.lower().__contains__("stop"), limit


def test_a_66_prefixed_branch_is_refused_on_intel() -> None:
    with board(b"\x66\xe9\x00\x00\x00\x00") as b:
        stop = b.run(1)
        assert stop.reason is StopReason.UNSUPPORTED
        assert "66" in stop.detail


def test_a_refusal_leaves_the_instruction_to_be_seen() -> None:
    with board(b"\x90\x66\xc3") as b:
        stop = b.run(10)
        assert stop.reason is StopReason.UNSUPPORTED
        assert (b.state.rip, stop.tick) == (0x400001, 2)
        assert b.run(10).reason is StopReason.UNSUPPORTED
