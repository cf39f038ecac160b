"""What raises which exception, in 64-bit mode: vector, error code, CR2, return address, RF."""

from __future__ import annotations

from copy import copy
from dataclasses import fields, replace

import pytest

from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.events import ExceptionEvent, ExceptionSource
from kvmscope.x86.profiles import AMD, INTEL
from tests.vmm.unicorn.bench import CODE, IDT, STUBS, TABLES, Board, assemble, board, frame, gate

NONCANONICAL = 0x8000000000000000

# (source, vector, error code, offset of the faulting instruction)
FAULTS = {
    "divide": ("xor ecx, ecx; div ecx", 0, None, 2),
    "bound to be undefined": ("ud2", 6, None, 0),
    "lock nop": (b"\xf0\x90", 6, None, 0),
    "lock mov": (b"\xf0\x89\x00", 6, None, 0),
    "lock add register": (b"\xf0\x01\xc0", 6, None, 0),
    "lock cmp": (b"\xf0\x39\x00", 6, None, 0),
    "lock mov from cr0": (b"\xf0\x0f\x20\xc0", 6, None, 0),
    "vex 2": (b"\xc5\xf8\x57\xc0", 6, None, 0),
    "vex 3": (b"\xc4\xe2\x79\x18\xc0", 6, None, 0),
    "evex": (b"\x62\xf1\x7c\x48\x28\xc0", 6, None, 0),
    "xop": (b"\x8f\xe8\x78\xa2\xc0\x00", 6, None, 0),
    "xbegin": (b"\xc7\xf8\x00\x00\x00\x00", 6, None, 0),
    "rdrand": ("rdrand eax", 6, None, 0),
    "monitor": ("monitor", 6, None, 0),
    "movbe register": (b"\x0f\x38\xf0\xc1", 6, None, 0),
    "vmcall": ("vmcall", 6, None, 0),
    "mov to cr1": (b"\x0f\x22\xc8", 6, None, 0),
    "too long": (b"\x66" * 15 + b"\x90", 13, 0, 0),
    "non-canonical read": ("mov rax, 0x8000000000000000; mov rbx, [rax]", 13, 0, 10),
    "non-canonical stack": ("mov rbp, 0x8000000000000000; mov rbx, [rbp]", 12, 0, 10),
    "non-canonical jump": ("mov rax, 0x8000000000000000; jmp rax", 13, 0, 10),
    "non-canonical call": ("mov rax, 0x8000000000000000; call rax", 13, 0, 10),
    "non-canonical ret": ("mov rax, 0x8000000000000000; push rax; ret", 13, 0, 11),
    "non-canonical ret 8": ("mov rax, 0x8000000000000000; push rax; ret 8", 13, 0, 11),
    "misaligned movaps": ("mov eax, 0x500008; movaps xmm0, [rax]", 13, 0, 5),
    "misaligned paddd": ("mov eax, 0x500008; paddd xmm0, [rax]", 13, 0, 5),
    "misaligned store": ("mov eax, 0x500008; movdqa [rax], xmm0", 13, 0, 5),
    "misaligned cmpxchg16b": ("mov eax, 0x500008; cmpxchg16b [rax]", 13, 0, 5),
    "unknown msr": ("mov ecx, 0x12345; rdmsr", 13, 0, 5),
    "rdpmc": ("xor ecx, ecx; rdpmc", 13, 0, 2),
    "null ss with rpl 3": ("mov eax, 3; mov ss, eax", 13, 0, 5),
    "bad selector": ("mov eax, 0xfff8; mov ds, eax", 13, 0xFFF8, 5),
    "system selector": ("mov eax, 0x50; mov ds, eax", 13, 0x50, 5),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str) -> None:
    source, vector, error, at = FAULTS[name]
    with board(source) as b:
        before = None
        while b.state.rip != CODE + at:
            assert b.engine.step().reason is StopReason.STEP
        before = b.state
        assert b.engine.step().reason is StopReason.STEP
        (event,) = b.host.exceptions
        assert (event.vector, event.error_code, event.rip) == (vector, error, CODE + at)
        assert event.before == before
        assert event.source is ExceptionSource.FAULT
        assert (event.delivered, event.parent, event.handler) == (True, None, STUBS + 16 * vector)
        words = frame(b, error=error is not None)
        assert words[-3:] == (CODE + at, 8, 0x10002 | before.rflags)
        if error is not None:
            assert words[0] == error
        # Nothing but the stack pointer, RIP and the flags has changed.
        after = b.state
        assert (after.gpr[:4], after.gpr[5:]) == (before.gpr[:4], before.gpr[5:])
        assert after.rip == STUBS + 16 * vector


@pytest.mark.parametrize("name", FAULTS)
def test_without_a_handler_the_machine_stands_at_the_fault(name: str) -> None:
    source, vector, error, at = FAULTS[name]
    with board(source) as b:
        b.host.own = lambda vector, handler: False
        stop = b.run()
        assert stop.reason is StopReason.EXCEPTION
        assert stop.exception is not None
        assert (stop.exception.vector, stop.exception.error_code, stop.exception.delivered) == (vector, error, False)
        assert b.state.rip == CODE + at
        assert b.state.gpr[4] == stop.exception.before.gpr[4]
        assert stop.tick == b.engine.clock


def map_4k(b: Board, page: int, entry: int) -> None:
    """Map the 2 MiB around ``page`` (0x400000 or 0x600000) with 4 KiB pages, ``page`` itself by ``entry``."""
    table = 0xA0000
    region = page & ~0x1FFFFF
    for i in range(512):
        b.put(table + 8 * i, region + 0x1000 * i | 7)
    b.put(table + 8 * (page >> 12 & 511), entry)
    b.put(TABLES + 0x2000 + 8 * (page >> 21), table | 7)
    b.engine.set_state(b.state)


# (source, page entry, CR4 bits, CPL 3, error code)
PAGE_FAULTS = {
    "read not present": ("mov rax, [0x600000]", 0, 0, False, 0),
    "write not present": ("mov [0x600000], rax", 0, 0, False, 2),
    "write read-only": ("mov [0x600000], rax", 0x600005, 0, False, 3),
    "reserved bit": ("mov rax, [0x600000]", 0x600007 | 1 << 51, 0, False, 9),
    "fetch nx": ("mov eax, 0x600000; jmp rax", 0x600007 | 1 << 63, 0, False, 0x11),
    "fetch not present": ("mov eax, 0x600000; jmp rax", 0, 0, False, 0x10),
    "smap": ("mov rax, [0x600000]", 0x600007, 1 << 21, False, 1),
    "smep": ("mov eax, 0x600000; jmp rax", 0x600007, 1 << 20, False, 0x11),
    "user read": ("mov rax, [0x600000]", 0x600003, 0, True, 5),
    "user write": ("mov [0x600000], rax", 0x600005, 0, True, 7),
}


@pytest.mark.parametrize("name", PAGE_FAULTS)
def test_page_faults(name: str) -> None:
    source, entry, cr4, user, error = PAGE_FAULTS[name]
    with board(source, "user64" if user else "long64") as b:
        map_4k(b, 0x600000, entry)
        if cr4:
            # Supervisor code must not be on user pages then.
            for i in range(512):
                at = TABLES + 0x2000 + 8 * i
                if i != 3:
                    b.put(at, b.get(at) & ~4)
        b.engine.set_state(replace(b.state, cr4=b.state.cr4 | cr4))
        b.run(3)
        (event,) = b.host.exceptions
        assert (event.vector, event.error_code, event.cr2) == (14, error, 0x600000)
        assert b.state.cr2 == 0x600000
        fetch = "jmp" in source
        assert event.rip == (0x600000 if fetch else CODE)
        assert b.get(b.state.gpr[4]) == error


def test_a_fetch_fault_names_the_instruction_that_runs_into_the_page() -> None:
    """Unicorn translates ahead: the block before the page must still execute."""
    code = assemble("inc rax; inc rbx; inc rcx; mov edx, 0x11223344", origin=CODE + 0xFF5)
    assert len(code) == 14
    with board() as b:
        map_4k(b, 0x401000, 0)
        b.put(CODE + 0xFF5, code)
        b.engine.set_state(replace(b.state, rip=CODE + 0xFF5))
        b.run(5)
        (event,) = b.host.exceptions
        assert (event.rip, event.cr2, event.error_code, event.tick) == (CODE + 0xFFE, 0x401000, 0x10, 4)
        assert event.before.gpr[:4] == (1, 1, 0, 1)


@pytest.mark.parametrize("source", ["push rax", "pop rax", "call .", "pushfq", "push [rsi]", "leave"])
def test_a_non_canonical_stack_is_a_stack_fault(source: str) -> None:
    with board(f"mov rsi, 0x500000; mov rsp, 0x8000000000000000; mov rbp, rsp; {source}") as b:
        b.put(IDT + 16 * 12, gate(STUBS + 16 * 12, 8, ist=1))
        b.run(4)
        (event,) = b.host.exceptions
        assert (event.vector, event.error_code) == (12, 0)


def test_ret_to_a_non_canonical_address_leaves_the_stack() -> None:
    with board("mov rax, 0x8000000000000000; push rax; ret") as b:
        b.host.own = lambda vector, handler: False
        b.run()
        assert b.state.gpr[4] == 0x80000 - 8


@pytest.mark.parametrize(
    ("source", "vector", "length", "software"),
    [
        ("int3", 3, 1, True),
        ("int 3", 3, 1, True),
        (b"\xcd\x03", 3, 2, True),
        ("int 0x80", 0x80, 2, True),
        (b"\x66\xcd\x80", 0x80, 3, True),
        (b"\xf1", 1, 1, False),
    ],
)
def test_traps_return_after_themselves(source: str | bytes, vector: int, length: int, software: bool) -> None:
    with board(source) as b:
        b.engine.step()
        (event,) = b.host.exceptions
        assert (event.vector, event.error_code) == (vector, None)
        assert (event.source is ExceptionSource.SOFTWARE) == software
        assert frame(b) == (CODE + length, 8, 2)
    with board(source) as b:
        b.host.own = lambda vector, handler: False
        assert b.run().reason is StopReason.EXCEPTION
        assert b.state.rip == CODE + (0 if software else length)


def test_int_n_needs_the_gates_privilege() -> None:
    with board("int 0x20", "user64") as b:
        b.engine.step()
        event = b.host.exceptions[-1]
        assert (event.vector, event.error_code, event.parent) == (13, 0x20 * 8 + 2, 0x20)
    with board("int 0x80", "user64") as b:
        b.engine.step()
        assert [e.vector for e in b.host.exceptions] == [0x80]
        assert b.state.cpl == 0
        assert b.state.gpr[4] == 0x88000 - 40


def chain(b: Board) -> list[tuple[int, int | None, int | None, bool]]:
    return [(e.vector, e.error_code, e.parent, e.delivered) for e in b.host.exceptions]


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("not present", gate(STUBS, 8, present=0), [(6, None, None, False), (11, 6 * 8 + 3, 6, True)]),
        ("wrong type", gate(STUBS, 8, kind=12), [(6, None, None, False), (13, 6 * 8 + 3, 6, True)]),
        ("null selector", gate(STUBS, 0), [(6, None, None, False), (13, 1, 6, True)]),
        ("data selector", gate(STUBS, 0x10), [(6, None, None, False), (13, 0x11, 6, True)]),
        ("32-bit code", gate(STUBS, 0x38), [(6, None, None, False), (13, 0x39, 6, True)]),
        ("beyond the GDT", gate(STUBS, 0x200), [(6, None, None, False), (13, 0x201, 6, True)]),
        ("non-canonical", gate(NONCANONICAL, 8), [(6, None, None, False), (13, 1, 6, True)]),
        ("ist unmapped", gate(STUBS, 8, ist=2), [(6, None, None, False), (12, 1, 6, True)]),
    ],
)
def test_a_bad_gate_is_the_next_exception(
    name: str, entry: bytes, expected: list[tuple[int, int | None, int | None, bool]]
) -> None:
    with board("ud2") as b:
        b.put(IDT + 16 * 6, entry)
        b.put(0x4000 + 44, NONCANONICAL)
        b.engine.step()
        assert chain(b) == expected
        assert b.host.exceptions[0].before.rip == b.host.exceptions[1].before.rip == CODE


def test_contributory_faults_make_a_double_fault_and_then_a_shutdown() -> None:
    with board("mov ecx, 0x12345; rdmsr") as b:
        b.put(IDT + 16 * 13, gate(STUBS, 8, present=0))
        assert b.run(2).reason is StopReason.SLICE
        assert chain(b) == [(13, 0, None, False), (8, 0, 13, True)]
        assert frame(b, error=True) == (0, CODE + 5, 8, 2)
    with board("mov ecx, 0x12345; rdmsr") as b:
        b.put(IDT + 16 * 13, gate(STUBS, 8, present=0))
        b.put(IDT + 16 * 8, gate(STUBS, 8, present=0))
        stop = b.run(2)
        assert stop.reason is StopReason.TRIPLE_FAULT
        assert chain(b) == [(13, 0, None, False), (8, 0, 13, False)]
        assert stop.exception is b.host.exceptions[-1]
        assert b.state.rip == CODE + 5


def test_a_page_fault_while_delivering_one_is_a_double_fault() -> None:
    with board("mov rax, [0x7fffff000000]") as b:
        b.engine.set_state(replace(b.state, gpr=(0, 0, 0, 0, 0x7FFFFE000000, *[0] * 11)))
        assert b.run(1).reason is StopReason.TRIPLE_FAULT
        assert [(e.vector, e.cr2) for e in b.host.exceptions] == [(14, 0x7FFFFF000000), (8, None)]
        # The second page fault loads CR2 before it turns into a double fault; the last one is that of #DF itself.
        assert b.state.cr2 == 0x7FFFFE000000 - 48


def test_a_benign_fault_is_followed_by_the_second() -> None:
    with board("ud2") as b:
        b.engine.set_state(replace(b.state, gpr=(0, 0, 0, 0, 0x7FFFFE000000, *[0] * 11)))
        b.put(IDT + 16 * 14, gate(STUBS, 8, ist=1))
        b.engine.step()
        assert [(e.vector, e.error_code, e.parent) for e in b.host.exceptions] == [(6, None, None), (14, 2, 6)]
        assert b.state.gpr[4] == 0x8A000 - 48
        # The address of the lowest byte of the frame that could not be pushed.
        assert b.state.cr2 == 0x7FFFFE000000 - 40


def test_ist_and_alignment() -> None:
    with board("push rax; ud2") as b:
        b.run(2)
        assert b.state.gpr[4] % 16 == 8
        assert b.get(b.state.gpr[4] + 24) == 0x80000 - 8
        assert b.state.gpr[4] == 0x80000 - 16 - 40
    with board("push rax; ud2") as b:
        b.put(IDT + 16 * 6, gate(STUBS, 8, ist=1))
        b.run(2)
        assert b.state.gpr[4] == 0x8A000 - 40
        assert b.get(b.state.gpr[4] + 24) == 0x80000 - 8
        assert b.get(b.state.gpr[4] + 32) == 0x10


def test_an_exception_from_ring_3_switches_the_stack() -> None:
    with board("ud2", "user64") as b:
        b.engine.step()
        s = b.state
        assert s.cpl == 0
        assert s.segments[2].selector == 0
        assert s.gpr[4] == 0x88000 - 40
        assert [b.get(s.gpr[4] + 8 * i) for i in range(5)] == [CODE, 0x2B, 0x10002, 0x70000, 0x23]


def test_trap_and_interrupt_gates_treat_if_differently() -> None:
    for kind, expected in ((14, 0), (15, 0x200)):
        with board("ud2") as b:
            b.put(IDT + 16 * 6, gate(STUBS, 8, kind=kind))
            b.engine.set_state(replace(b.state, rflags=0x4302))
            b.engine.step()
            # TF and NT are cleared by both.
            assert b.state.rflags == 2 | expected


def test_the_sse_denials_come_before_alignment() -> None:
    for cr0, cr4, vector in ((0x8001003B, 0x620, 7), (0x80010037, 0x620, 6), (0x80010033, 0x420, 6)):
        with board("movaps xmm0, [0x500008]") as b:
            b.engine.set_state(replace(b.state, cr0=cr0, cr4=cr4))
            b.engine.step()
            assert b.host.exceptions[0].vector == vector


@pytest.mark.parametrize("profile", [INTEL, AMD], ids=lambda p: p.name)
@pytest.mark.parametrize(
    "source",
    [
        "movups xmm0, [0x500001]",
        "movdqu xmm0, [0x500001]",
        "pmovzxbw xmm0, [0x500001]",
        "lddqu xmm0, [0x500001]",
        "cvtdq2pd xmm0, [0x500001]",
        "addsd xmm0, [0x500001]",
        "movaps xmm0, [0x500010]",
    ],
)
def test_other_sse_accesses_need_no_alignment(profile: object, source: str) -> None:
    with board(source, profile=profile) as b:  # type: ignore[arg-type]
        b.engine.step()
        assert not b.host.exceptions


def test_unmasked_sse_exceptions_are_refused() -> None:
    with board("mov dword ptr [0x500000], 0x1f00; ldmxcsr [0x500000]") as b:
        stop = b.run()
        assert stop.reason is StopReason.UNSUPPORTED
        assert "0x1f00" in stop.detail
        assert b.state.rip == CODE + 11
        assert b.state.mxcsr == 0x1F80


def test_reserved_mxcsr_bits() -> None:
    with board("mov dword ptr [0x500000], 0x11f80; ldmxcsr [0x500000]") as b:
        b.run(2)
        assert (b.host.exceptions[0].vector, b.host.exceptions[0].error_code) == (13, 0)


def test_x87_errors_wait_for_the_next_instruction() -> None:
    with board("fninit; mov word ptr [0x500000], 0x37b; fldcw [0x500000]; fldz; fld1; fdivrp; nop; fwait") as b:
        b.engine.set_state(replace(b.state, cr0=b.state.cr0 | 0x20))
        b.run(8)
        (event,) = b.host.exceptions
        assert event.vector == 16


def test_an_event_is_a_value_like_any_other() -> None:
    with board("ud2") as b:
        b.run(1)
        (event,) = b.host.exceptions
        plain = ExceptionEvent(**{f.name: getattr(event, f.name) for f in fields(event)})
        assert repr(event).partition("(")[2] == repr(plain).partition("(")[2]
        other = replace(event, tick=5, parent=14)
        assert (other.tick, other.parent, other.before) == (5, 14, event.before)
        assert copy(event) == event != other
        with pytest.raises(AttributeError):
            event.tick = 3  # type: ignore[misc]
