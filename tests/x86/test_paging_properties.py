"""Walks of arbitrary tables: never an exception, and `translate`, the tree and the engine's own walker agree."""

from __future__ import annotations

import ctypes
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmscope.x86.paging import iter_mappings, mapped_ranges, root_table, table_entries, translate, walk
from tests.x86.support import CR0, LA57, LONG, PAE, PGE, PKE, PSE, SMAP, SMEP, Memory

FRAMES = st.sampled_from(range(0x1000, 0x8000, 0x1000))
FLAGS = st.sets(st.sampled_from([0, 1, 2, 5, 6, 7, 8, 12, 13, 21, 30, 39, 40, 51, 52, 59, 62, 63]), max_size=4)


@st.composite
def entries(draw: Any) -> int:
    """Mostly well-formed entries: present, writable, user, with a few bits toggled."""
    value = draw(FRAMES) | 0x27
    for bit in draw(FLAGS):
        value ^= 1 << bit
    return int(value)


@st.composite
def guests(draw: Any) -> tuple[Memory, tuple[int, int, int, int], int]:
    """Memory whose seven frames point at each other, control registers, and a linear address."""
    memory = Memory(0x9000)
    mode = draw(st.sampled_from(["32", "pae", "4", "5"]))
    size = 4 if mode == "32" else 8
    indices = draw(st.lists(st.integers(0, 3), min_size=5, max_size=5))
    for frame in range(0x1000, 0x8000, 0x1000):
        for index in range(4):
            memory.put(frame + size * index, draw(entries()) & (1 << 8 * size) - 1, size)
    cr0 = draw(st.sampled_from([CR0, CR0 & ~0x10000]))
    efer = draw(st.sampled_from([0, 0x800]))
    cr4 = draw(st.sampled_from([0, PSE, SMEP, SMAP, PGE, PKE, SMEP | SMAP | PGE | PKE | PSE]))
    linear = draw(st.integers(0, 0xFFF))
    if mode == "32":
        linear |= indices[0] << 22 | indices[1] << 12
    else:
        cr4 |= LA57 if mode == "5" else PAE
        linear |= indices[0] << 30 | indices[1] << 21 | indices[2] << 12
    if mode in "45":
        efer |= 0x500
        linear |= indices[3] << 39 | (indices[4] << 48 if mode == "5" else 0)
    return memory, (cr0, 0x1000, cr4, efer), linear


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(guests(), st.booleans(), st.booleans(), st.sampled_from([0, 3]), st.integers(0, (1 << 32) - 1))
def test_translate_agrees_with_walk(
    guest: tuple[Memory, tuple[int, int, int, int], int], write: bool, fetch: bool, cpl: int, pkru: int
) -> None:
    memory, registers, linear = guest
    found = walk(memory, *registers, linear, write=write, fetch=fetch, cpl=cpl, pkru=pkru)
    assert translate(memory, *registers, linear) == found.mapped
    assert (found.physical is None) == (found.fault is not None or found.unbacked is not None)
    assert found.physical in (None, found.mapped)
    assert bool(found.reason) == (found.physical is None)
    if found.fault is not None:
        assert found.fault.error_code & 1 or not found.fault.error_code & 0x28
    root = root_table(*registers)
    assert root is not None
    covering = [e for e in table_entries(memory, root) or [] if e.first <= linear <= e.last]
    assert bool(covering) == bool(found.steps and found.steps[0].value and found.steps[0].value & 1)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=0x3000), *(st.integers(0, (1 << 64) - 1) for _ in range(5)))
def test_any_memory_and_registers(data: bytes, cr0: int, cr3: int, cr4: int, efer: int, linear: int) -> None:
    memory = Memory(0)
    memory.data[:] = data
    found = walk(memory, cr0, cr3, cr4, efer, linear)
    assert translate(memory, cr0, cr3, cr4, efer, linear) == found.mapped
    mapped_ranges(memory, root_table(cr0, cr3, cr4, efer), max_tables=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(guests())
def test_every_mapping_is_what_the_walk_finds(guest: tuple[Memory, tuple[int, int, int, int], int]) -> None:
    memory, registers, _ = guest
    last = -1
    for mapping in islice(iter_mappings(memory, root_table(*registers)), 40):
        found = walk(memory, *registers, mapping.linear)
        assert found.mapped == mapping.physical
        assert found.page_size == mapping.size
        assert (found.writable, found.user, found.executable, found.global_) == (
            mapping.writable,
            mapping.user,
            mapping.executable,
            mapping.global_,
        )
        assert mapping.linear > last
        last = mapping.last


# The engine's own walker as an oracle: supervisor accesses in IA-32e mode.


def new_engine() -> Any:
    unicorn = pytest.importorskip("unicorn")
    from unicorn.x86_const import UC_CPU_X86_ICELAKE_SERVER

    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.ctl_set_cpu_model(UC_CPU_X86_ICELAKE_SERVER)
    uc.mem_map(0, 1 << 20)
    uc.ctl_exits_enabled(True)
    return uc


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(entries(), min_size=4, max_size=4),
    st.booleans(),
    st.sampled_from([0, SMEP, SMAP]),
    st.booleans(),
    st.booleans(),
)
def test_engine_agrees(values: list[int], write: bool, more: int, wp: bool, nxe: bool) -> None:
    from unicorn import UC_HOOK_INTR
    from unicorn import x86_const as x86

    from kvmscope.vmm.unicorn.layout import ENV, env_address

    code, linear = 0x10000, 0x4000_0000_7008
    memory = Memory()
    # Linear 0-2 MiB is the identity for the code; the address under test has PML4 entry 128 and index 0 below.
    for table in range(0x1000, 0x5000, 0x1000):
        memory.put(table, table + 0x1000 | 3 if table < 0x4000 else 3)
    for page in range(256):
        memory.put(0x4000 + 8 * page, page << 12 | 3)
    chain = [0x1000 + 8 * 128, 0x5000, 0x6000, 0x7000 + 8 * 7]
    for place, value, target in zip(chain, values, (0x5000, 0x6000, 0x7000, 0x8000), strict=True):
        # Large pages keep their small frame number; their address bits would otherwise leave the RAM there is.
        memory.put(place, value & ~0x7000 | target)
    memory.data[code : code + 3] = bytes.fromhex("488902" if write else "488b02")
    cr0 = CR0 if wp else CR0 & ~0x10000
    efer = LONG if nxe else LONG & ~0x800
    # Bit 63 in the identity's entries is clear, so the code runs with and without NXE.
    expected = walk(memory, cr0, 0x1000, PAE | more, efer, linear, write=write)
    if expected.unbacked is not None or (expected.physical is not None and memory.read(expected.physical, 8) is None):
        return
    engine = new_engine()
    engine.mem_write(0, bytes(memory.data))
    engine.reg_write(x86.UC_X86_REG_MSR, (0xC0000080, efer))
    engine.reg_write(x86.UC_X86_REG_CR4, PAE | more)
    engine.reg_write(x86.UC_X86_REG_CR3, 0x1000)
    engine.reg_write(x86.UC_X86_REG_CR0, cr0)
    engine.reg_write(x86.UC_X86_REG_RDX, linear)
    raised: list[int] = []
    engine.hook_add(UC_HOOK_INTR, lambda _uc, vector, _data: raised.append(vector))
    engine.emu_start(code, code + 3, count=1)
    error = int.from_bytes(ctypes.string_at(env_address(engine)[1] + ENV["error_code"], 4), "little")
    assert bool(raised) == (expected.fault is not None), expected
    if expected.fault is not None:
        assert (raised[0], error) == (14, expected.fault.error_code), expected
