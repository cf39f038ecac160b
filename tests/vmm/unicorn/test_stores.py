"""Stores are fast where no code is, and code that is written over is never run stale."""

from __future__ import annotations

import ctypes

import pytest

from tests.vmm.unicorn.bench import TABLES, Board, board

DATA, ALIAS = 0x511000, 0x80_0000_0000

# Fill a page with stores until its translation is "clean", make a function of it, then change the function in a loop:
# through the same address (ALIAS 0) or through another that maps the same page.
GUEST = """
    mov     rdi, {data}
    mov     rbx, {alias}
    mov     ecx, 3000
fill:   mov     [rbx + 8], cl
    mov     [rdi + 8], cl
    dec     ecx
    jnz     fill
    mov     byte ptr [rdi], 0xb0
    mov     byte ptr [rdi + 1], 0
    mov     byte ptr [rdi + 2], 0xc3
    xor     esi, esi
    mov     ecx, 3000
again:  mov     [rbx + 1], cl
    xor     eax, eax
    call    rdi
    add     esi, eax
    mov     [rbx + 64], cl
    dec     ecx
    jnz     again
    hlt
"""
WANTED = sum(n & 0xFF for n in range(1, 3001))


def mapped(b: Board) -> None:
    """ALIAS maps DATA's page once more."""
    tables = 0x94000
    b.put(TABLES + 8 * (ALIAS >> 39), tables | 3)
    b.put(tables, tables + 0x1000 | 3)
    b.put(tables + 0x1000, tables + 0x2000 | 3)
    b.put(tables + 0x2000, DATA | 3)


@pytest.mark.parametrize("slices", [1_000_000, 1500, 97])
@pytest.mark.parametrize("alias", [DATA, ALIAS])
def test_code_that_was_data_is_seen_when_it_changes(alias: int, slices: int) -> None:
    with board(GUEST.format(data=DATA, alias=alias)) as b:
        mapped(b)
        while b.engine.activity(0) == "active" and b.engine.clock < 100_000:
            b.run(slices)
        assert b.state.gpr[6] == WANTED


def test_a_page_without_code_is_stored_to_directly_and_one_with_code_is_not() -> None:
    with board(f"mov rdi, {DATA}; lea rsi, [rip+0x800]; l: mov [rdi], al; mov [rsi], al; jmp l") as b:
        if not b.engine._probe.native:
            pytest.skip("the host has no native probe: stores stay as Unicorn has them")
        b.run(5_000)
        env = b.engine._env
        flags = {}
        for mode in range(3):
            mask, table = (ctypes.c_uint64.from_address(env.address - 64 + 16 * mode + at).value for at in (0, 8))
            for entry in range(table, table + mask + 64, 64):
                write = ctypes.c_uint64.from_address(entry + 8).value
                if write != (1 << 64) - 1:
                    flags[write & ~0xFFF] = write & 0xFFF
        assert flags == {DATA: 0, 0x400000: 0x400}
