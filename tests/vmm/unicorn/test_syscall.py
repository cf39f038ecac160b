"""SYSCALL, SYSRET, SYSENTER, SYSEXIT on both vendors' profiles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvmscope.x86.profiles import AMD, INTEL, Profile
from tests.vmm.unicorn.bench import CODE, STUBS, Board, board

STAR = 0x0018_0008_0000_0000
ENTRY = 0x420000
MSRS = {
    0xC0000081: STAR,
    0xC0000082: ENTRY,
    0xC0000083: ENTRY + 0x100,
    0xC0000084: 0x300,
    0x174: 8,
    0x175: 0x86000,
    0x176: ENTRY,
}

VENDORS = pytest.mark.parametrize("profile", [INTEL, AMD], ids=lambda p: p.name)


def prepare(b: Board, **changes: object) -> None:
    b.put(ENTRY, b"\x90\x90\xf4")
    b.engine.set_state(replace(b.state, msrs=MSRS, **changes))  # type: ignore[arg-type]


def found(b: Board) -> tuple[int, int | None]:
    return b.host.exceptions[0].vector, b.host.exceptions[0].error_code


@VENDORS
def test_syscall(profile: Profile) -> None:
    with board("syscall", "user64", profile) as b:
        prepare(b, rflags=0x10246)
        b.run(1)
        s = b.state
        assert (s.cpl, s.mode, s.rip) == (0, 64, ENTRY)
        assert (s.segments[1].selector, s.segments[2].selector) == (8, 0x10)
        assert (s.gpr[1], s.gpr[11], s.rflags) == (CODE + 2, 0x246, 0x46)
        assert s.gpr[4] == 0x70000


@VENDORS
def test_syscall_with_the_trap_flag_in_fmask(profile: Profile) -> None:
    with board("syscall", "user64", profile) as b:
        prepare(b, rflags=0x102)
        b.run(1)
        assert not b.host.exceptions
        assert b.state.gpr[11] == 0x102


def test_syscall_without_fmask_traps_in_ring_0() -> None:
    with board("syscall", "user64") as b:
        prepare(b, rflags=0x102)
        b.engine.set_state(replace(b.state, msrs={**MSRS, 0xC0000084: 0}))
        b.run(1)
        assert [(e.vector, e.rip) for e in b.host.exceptions] == [(1, ENTRY)]


def test_syscall_needs_sce() -> None:
    with board("syscall", "user64") as b:
        prepare(b, efer=0xD00)
        b.run(1)
        assert found(b) == (6, None)


def test_compatibility_mode_syscall_is_amds() -> None:
    for profile, vector in ((INTEL, 6), (AMD, None)):
        with board(b"\x0f\x05", "user64", profile) as b:
            prepare(b)
            cs = replace(b.state.segments[1], selector=0x1B, attributes=0xC0FB)
            b.engine.set_state(replace(b.state, segments=(b.state.segments[0], cs, *b.state.segments[2:])))
            b.run(1)
            assert [e.vector for e in b.host.exceptions] == ([] if vector is None else [vector])
            if vector is None:
                assert b.state.rip == ENTRY + 0x100


@VENDORS
def test_sysret(profile: Profile) -> None:
    with board(b"\x48\x0f\x07", profile=profile) as b:
        prepare(b)
        b.registers(rcx=0x410000, r11=0x10246 | 1 << 17)
        b.run(1)
        s = b.state
        assert (s.cpl, s.mode, s.rip) == (3, 64, 0x410000)
        assert (s.segments[1].selector, s.segments[2].selector) == (0x2B, 0x23)
        # RF and VM are not loaded.
        assert s.rflags == 0x246
        assert s.segments[2].dpl == (3 if profile is INTEL else 0)


def test_sysretl_goes_to_compatibility_mode() -> None:
    with board(b"\x0f\x07") as b:
        prepare(b)
        b.registers(rcx=0xFFFFFFFF_00410000, r11=2)
        b.run(1)
        s = b.state
        assert (s.cpl, s.mode, s.rip, s.segments[1].selector) == (3, 32, 0x410000, 0x1B)


def test_a_non_canonical_return_address() -> None:
    """Intel raises #GP in ring 0, before anything changed; AMD in ring 3, at the address."""
    for profile, expected in ((INTEL, (CODE, 0)), (AMD, (1 << 63, 3))):
        with board(b"\x48\x0f\x07", profile=profile) as b:
            prepare(b)
            b.registers(rcx=1 << 63, r11=2)
            b.run(2)
            (event,) = b.host.exceptions
            assert (event.vector, event.error_code) == (13, 0)
            assert (event.rip, event.before.cpl) == expected
            assert b.state.rip == STUBS + 16 * 13 + (profile is INTEL)


def test_sysret_needs_ring_0() -> None:
    with board(b"\x48\x0f\x07", "user64") as b:
        prepare(b)
        b.run(1)
        assert found(b) == (13, 0)


def test_sysenter_and_sysexit() -> None:
    with board("sysenter", "user64") as b:
        prepare(b, rflags=0x202)
        b.run(1)
        s = b.state
        assert (s.cpl, s.rip, s.gpr[4], s.rflags) == (0, ENTRY, 0x86000, 2)
        assert (s.segments[1].selector, s.segments[2].selector) == (8, 0x10)
    with board(b"\x48\x0f\x35") as b:
        prepare(b)
        b.registers(rcx=0x70000, rdx=0x410000)
        b.run(1)
        s = b.state
        assert (s.cpl, s.mode, s.rip, s.gpr[4]) == (3, 64, 0x410000, 0x70000)
        assert (s.segments[1].selector, s.segments[2].selector) == (0x2B, 0x33)
    with board(b"\x48\x0f\x35") as b:
        prepare(b)
        b.registers(rcx=1 << 63, rdx=0x410000)
        b.run(1)
        assert found(b) == (13, 0)


def test_sysenter_without_a_code_segment() -> None:
    with board("sysenter", "user64") as b:
        prepare(b)
        b.engine.set_state(replace(b.state, msrs={**MSRS, 0x174: 3}))
        b.run(1)
        assert found(b) == (13, 0)


def test_sysenter_in_long_mode_is_intels() -> None:
    with board("sysenter", "user64", AMD) as b:
        prepare(b)
        b.run(1)
        assert found(b) == (6, None)


def test_sysenter_in_protected_mode() -> None:
    with board("sysenter", "user32") as b:
        prepare(b)
        b.run(1)
        s = b.state
        assert (s.cpl, s.mode, s.rip, s.gpr[4]) == (0, 32, ENTRY, 0x86000)
