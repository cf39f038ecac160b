"""Trapped addresses follow the code that a guest writes."""

from __future__ import annotations

from kvmscope.vmm.engine import StopReason
from tests.vmm.unicorn.bench import REAL_CODE, Board, assemble, board

REWRITING = """
        mov     ebx, 0x6000
        mov     cx, 1
again:  call    place
        mov     byte ptr [bx], 1
        mov     dword ptr [place], 0x90909090
        mov     cx, 5000
spin:   call    place
        loop    spin
        mov     dword ptr [place], {back:#x}
        mov     byte ptr [bx], 0
        call    place
        hlt
        .balign 4096
place:  .long   {back:#x}
        ret
"""
"""``place`` holds a 32-bit store, which is trapped in real mode, then NOPs, then the store again."""
STORE = int.from_bytes(bytes.fromhex("67c60307"), "little")
"""mov byte ptr [ebx], 7"""


def traps(b: Board) -> list[int]:
    """The addresses that call back from now on."""
    seen: list[int] = []
    probe = b.engine._probe
    trap = probe._trap

    def note(address: int) -> None:
        seen.append(address)
        trap(address)

    probe._trap = note
    return seen


def test_code_that_was_written_over_is_not_trapped_for_ever() -> None:
    code = assemble(REWRITING.format(back=STORE), 16, REAL_CODE)
    with board(code, "real16") as b:
        seen = traps(b)
        assert b.run(100_000).reason is StopReason.HLT
        place = REAL_CODE + code.rindex(b"\x67\xc6\x03\x07")
        assert seen.count(place) < 100, "a few of 5,000 until the table is filled anew"
        # The store came back, and executed.
        assert seen[-1] == place
        assert b.get(0x6000, 1) == 7


def test_a_store_that_came_back_is_checked_again() -> None:
    # The second time it goes beyond the segment.
    source = REWRITING.replace("mov     byte ptr [bx], 0\n", "mov ebx, 0x10000\n")
    code = assemble(source.format(back=STORE), 16, REAL_CODE)
    with board(code, "real16") as b:
        b.run(100_000)
        assert b.host.exceptions[0].vector == 13
