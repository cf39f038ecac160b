"""Segment limits and types, and alignment, outside of what Unicorn checks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvmscope.vmm.engine import StopReason
from kvmscope.x86.state import CpuState, Seg
from tests.vmm.unicorn.bench import CODE, DS, GDT, REAL_CODE, Board, board

FREE = 0x60
CODE_ONLY, CODE_RX, READ_ONLY, DOWN, DATA = 0x98, 0x9A, 0x90, 0x96, 0x92


def segment(b: Board, index: int, **changes: int) -> CpuState:
    state = b.state
    return replace(
        state, segments=tuple(replace(s, **changes) if i == index else s for i, s in enumerate(state.segments))
    )


def outcome(b: Board, ticks: int = 20) -> tuple[int, int | None, int] | None:
    """(vector, error code, offset of the instruction) of the first exception; None at HLT without one."""
    assert b.run(ticks).reason is StopReason.HLT
    if not b.host.exceptions:
        return None
    e = b.host.exceptions[0]
    return e.vector, e.error_code, e.rip - CODE


NULL = {"attributes": 0x10000, "selector": 0, "limit": 0}

# (program, segment, its fields, expected)
PROT = {
    "null, read": ("mov eax, [0x500000]; hlt", Seg.DS, NULL, (13, 0, 0)),
    "null, write": ("mov [0x500000], eax; hlt", Seg.DS, NULL, (13, 0, 0)),
    "null, lea": ("lea eax, [0x500000]; hlt", Seg.DS, NULL, None),
    "null, nop": ("nop dword ptr [eax]; prefetcht0 [eax]; hlt", Seg.DS, NULL, None),
    "null, other segment": ("mov eax, [0x500000]; hlt", Seg.FS, NULL, None),
    "null, override": ("mov eax, fs:[0x500000]; hlt", Seg.FS, NULL, (13, 0, 0)),
    "null, string source": ("mov esi, 0x500000; mov edi, esi; movsb; hlt", Seg.DS, NULL, (13, 0, 7)),
    "null, string destination": ("mov edi, 0x500000; stosd; hlt", Seg.ES, NULL, (13, 0, 5)),
    "null, rep of nothing": ("xor ecx, ecx; rep stosd; hlt", Seg.ES, NULL, None),
    "null, sse": ("movups xmm0, [0x500000]; hlt", Seg.DS, NULL, (13, 0, 0)),
    "null, x87": ("fld qword ptr [0x500000]; hlt", Seg.DS, NULL, (13, 0, 0)),
    "null, xlat": ("mov ebx, 0x500000; xlatb; hlt", Seg.DS, NULL, (13, 0, 5)),
    "null, moffs": (b"\xa1\x00\x00\x50\x00\xf4", Seg.DS, NULL, (13, 0, 0)),
    "null, far pointer": (b"\xff\x2d\x00\x00\x50\x00\xf4", Seg.DS, NULL, (13, 0, 0)),
    "null, lgdt": ("lgdt [0x500000]; hlt", Seg.DS, NULL, (13, 0, 0)),
    "ebp goes through ss": ("mov ebp, 0x500000; mov eax, [ebp]; hlt", Seg.DS, NULL, None),
    "last byte": ("mov al, [0x500fff]; hlt", Seg.DS, {"limit": 0x500FFF}, None),
    "beyond the limit": ("mov al, [0x501000]; hlt", Seg.DS, {"limit": 0x500FFF}, (13, 0, 0)),
    "across the limit": ("mov eax, [0x500ffd]; hlt", Seg.DS, {"limit": 0x500FFF}, (13, 0, 0)),
    "up to the limit": ("mov eax, [0x500ffc]; hlt", Seg.DS, {"limit": 0x500FFF}, None),
    "sse far below the limit": ("movups xmm0, [0x500000]; hlt", Seg.DS, {"limit": 0x500FFF}, None),
    "read-only, read": ("mov eax, [0x500000]; hlt", Seg.DS, {"attributes": 0xC091}, None),
    "read-only, write": ("mov [0x500000], eax; hlt", Seg.DS, {"attributes": 0xC091}, (13, 0, 0)),
    "read-only, cmp": ("cmp dword ptr [0x500000], 1; hlt", Seg.DS, {"attributes": 0xC091}, None),
    "read-only, add": ("add dword ptr [0x500000], 1; hlt", Seg.DS, {"attributes": 0xC091}, (13, 0, 0)),
    "read-only, bts": ("bts dword ptr [0x500000], 1; hlt", Seg.DS, {"attributes": 0xC091}, (13, 0, 0)),
    "code in ds, read": ("mov eax, [0x500000]; hlt", Seg.DS, {"attributes": 0xC09B}, None),
    "code in ds, write": ("mov [0x500000], eax; hlt", Seg.DS, {"attributes": 0xC09B}, (13, 0, 0)),
    "execute-only, read": ("mov eax, cs:[0x500000]; hlt", Seg.CS, {"attributes": 0xC099}, (13, 0, 0)),
    "write through cs": ("mov cs:[0x500000], eax; hlt", Seg.GS, {}, (13, 0, 0)),
    "read through cs": ("mov eax, cs:[0x500000]; hlt", Seg.GS, {}, None),
    "expand-down, above": ("mov eax, [0x501000]; hlt", Seg.DS, {"attributes": 0xC097, "limit": 0x500FFF}, None),
    "expand-down, at the limit": (
        "mov eax, [0x500fff]; hlt", Seg.DS, {"attributes": 0xC097, "limit": 0x500FFF}, (13, 0, 0)),
    "expand-down, 16-bit top": (
        "mov ebx, 0xfffe; mov eax, [ebx]; hlt", Seg.DS, {"attributes": 0x0097, "limit": 0xFFF}, (13, 0, 5)),
    "bit string": ("mov eax, 0x8000; bt [0x500000], eax; hlt", Seg.DS, {"limit": 0x500FFF}, (13, 0, 5)),
    "bit string backwards": ("mov eax, -32; bt [0x500000], eax; hlt", Seg.DS, {"limit": 0x4FFFFF}, None),
    "push": ("mov esp, 0x2000; push eax; push eax; hlt", Seg.SS, {"limit": 0x1FFB, "attributes": 0x4093}, (12, 0, 5)),
    "pop": ("mov esp, 0x1ffa; pop eax; hlt", Seg.SS, {"limit": 0x1FFC, "attributes": 0x4093}, (12, 0, 5)),
    "call": ("mov esp, 0x2004; call 1f; 1: hlt", Seg.SS, {"limit": 0x1FFF, "attributes": 0x4093}, (12, 0, 5)),
    "ss operand": ("mov ebp, 0x3000; mov eax, [ebp]; hlt", Seg.SS, {"limit": 0x2FFF, "attributes": 0x4093}, (12, 0, 5)),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["run", "step"])
@pytest.mark.parametrize("name", PROT)
def test_protected_mode(name: str, kind: str) -> None:
    source, index, fields, expected = PROT[name]
    with board(source, "prot32") as b:
        b.put(0x500000, b"\0" * 8)
        for vector in (12, 13):
            # A task switch would need more; a small stack only needs a handler that can push.
            b.put(0x6000 + 8 * vector + 5, b"\x8e")
        b.engine.set_state(segment(b, index, **fields))
        if index == Seg.SS and expected is not None:
            b.host.own = lambda vector, handler: False
            stop = b.run(20)
            assert stop.exception is not None
            assert (stop.exception.vector, stop.exception.error_code, stop.exception.rip - CODE) == expected
            return
        if kind == "step":
            while b.engine.step().reason is StopReason.STEP:
                pass
        assert outcome(b) == expected


def test_what_the_guest_loads_is_checked_from_then_on() -> None:
    source = "l: mov eax, [0x500000]; inc ebx; cmp ebx, 3; jne l; xor ecx, ecx; mov ds, ecx; mov eax, [0x500000]; hlt"
    with board(source, "prot32") as b:
        assert outcome(b, 40) == (13, 0, 15)
        assert b.state.gpr[3] == 3
    # And not any more once it is flat again.
    with board(f"xor ecx, ecx; mov ds, ecx; mov ecx, {DS}; mov ds, ecx; mov eax, [0x500000]; hlt", "prot32") as b:
        assert outcome(b, 40) is None


def test_a_return_to_ring_3_nulls_and_then_faults() -> None:
    with board("push 0x23; push 0x70000; push 0x1b; push 0x410000; retf", "prot32") as b:
        b.put(0x410000, b"\xa1\x00\x00\x50\x00")
        b.put(0x4004, (0x88000 | DS << 32).to_bytes(8, "little"))
        b.run(6)
        (event,) = b.host.exceptions
        assert (event.vector, event.error_code, event.rip) == (13, 0, 0x410000)


@pytest.mark.parametrize(
    ("source", "at"),
    [
        ("nop; jmp 1f; .fill 20, 1, 0x90; 1: hlt", 1),
        ("mov ecx, 3; l: loop 1f; .fill 20, 1, 0x90; 1: hlt", 5),
        ("push offset 1f; ret; .fill 20, 1, 0x90; 1: hlt", 5),
        ("call 1f; .fill 20, 1, 0x90; 1: hlt", 0),
        ("mov eax, offset 1f; call eax; .fill 20, 1, 0x90; 1: hlt", 5),
    ],
)
def test_a_branch_beyond_the_code_segment(source: str, at: int) -> None:
    with board(source, "prot32") as b:
        b.engine.set_state(segment(b, Seg.CS, limit=CODE + 16))
        b.host.own = lambda vector, handler: False
        for _ in range(10):
            before = b.state
            stop = b.engine.step()
            if stop.reason is StopReason.EXCEPTION:
                break
        assert stop.exception is not None
        assert (stop.exception.vector, stop.exception.error_code, stop.exception.rip) == (13, 0, CODE + at)
        assert (b.state.gpr, b.state.rip) == (before.gpr, CODE + at)
    with board(source, "prot32") as b:
        b.engine.set_state(segment(b, Seg.CS, limit=CODE + 16))
        b.host.own = lambda vector, handler: False
        again = b.run(30)
        assert again.exception is not None
        assert (again.exception.rip, again.tick) == (CODE + at, stop.tick)


def test_code_that_runs_over_the_end_of_its_segment() -> None:
    with board("nop; nop; mov eax, 0x11223344; hlt", "prot32") as b:
        b.put(0x6000 + 8 * 13 + 2, b"\x60\0")
        b.put(GDT + FREE, 0x00CF9B000000FFFF)
        b.engine.set_state(segment(b, Seg.CS, limit=CODE + 4))
        assert outcome(b) == (13, 0, 2)


def test_real_mode_has_64_kib() -> None:
    for mov, expected in (("mov al, [ebx]", False), ("mov ax, [ebx]", True)):
        with board(f"mov ebx, 0xffff; {mov}; hlt", "real16") as b:
            b.run(3)
            assert [e.vector for e in b.host.exceptions] == ([13] if expected else [])
    with board("mov ebx, 0x10000; mov al, [ebx]; hlt", "real16") as b:
        b.run(2)
        assert [(e.vector, e.rip) for e in b.host.exceptions] == [(13, REAL_CODE + 6)]
    # Unreal mode: a limit from protected mode stays.
    with board("mov ebx, 0x500000; mov al, [ebx]; hlt", "real16") as b:
        b.engine.set_state(segment(b, Seg.DS, limit=0xFFFFFFFF))
        b.run(3)
        assert not b.host.exceptions


ALIGNMENT = {
    "aligned": ("mov eax, [0x500004]", None),
    "word": ("mov ax, [0x500001]", (17, 0)),
    "doubleword": ("mov eax, [0x500002]", (17, 0)),
    "quadword": ("mov rax, [0x500004]", (17, 0)),
    "byte": ("mov al, [0x500003]", None),
    "write": ("mov [0x500002], eax", (17, 0)),
    "push": ("push rax", None),
    "string": ("lodsd", (17, 0)),
}


@pytest.mark.parametrize("name", ALIGNMENT)
def test_alignment_checks(name: str) -> None:
    source, expected = ALIGNMENT[name]
    with board(f"mov esi, 0x500001; {source}; jmp .", "user64") as b:
        b.engine.set_state(replace(b.state, cr0=b.state.cr0 | 1 << 18, rflags=0x40002))
        b.run(2)
        assert [(e.vector, e.error_code) for e in b.host.exceptions] == ([] if expected is None else [expected])
    for changes in ({"rflags": 0x40002}, {"cr0": 0x80050033}):
        with board(f"mov esi, 0x500001; {source}; jmp .", "user64") as b:
            b.engine.set_state(replace(b.state, **changes))  # type: ignore[arg-type]
            b.run(3)
            assert not b.host.exceptions
    with board(f"mov esi, 0x500001; {source}; jmp .") as b:
        b.engine.set_state(replace(b.state, cr0=b.state.cr0 | 1 << 18, rflags=0x40002))
        b.run(3)
        assert not b.host.exceptions
