from __future__ import annotations

from dataclasses import replace

import pytest

from kvmscope.debug.run_scope import FACTS, RunScope, is_known
from kvmscope.errors import ExpressionError
from kvmscope.expr import Value, evaluate, parse
from kvmscope.vmm.engine import Stop, StopReason
from kvmscope.vmm.events import Event, ExceptionEvent, ExceptionSource, PortEvent
from kvmscope.vmm.snapshot import Snapshot
from kvmscope.x86.state import CpuState, DescriptorTable, SegmentRegister

MAX = (1 << 64) - 1


class Ram:
    """Physical memory whose first page table maps linear 0x1000 to physical 0x3000 and nothing beside."""

    size = 0x8000

    def __init__(self) -> None:
        self.data = bytearray(self.size)
        for level, at in enumerate((0x4000, 0x5000, 0x6000)):
            self.data[at : at + 8] = (0x5000 + 0x1000 * level | 7).to_bytes(8, "little")
        self.data[0x7008:0x7010] = (0x3000 | 7).to_bytes(8, "little")
        self.data[0x3FF8:0x4000] = bytes.fromhex("8877665544332211")

    def read(self, physical: int, size: int) -> bytes | None:
        return bytes(self.data[physical : physical + size]) if physical + size <= self.size else None


def cpu() -> CpuState:
    code = SegmentRegister(0x8, 0, MAX >> 32, 0xA09B)
    data = SegmentRegister(0x10, 0, MAX >> 32, 0xC093)
    return CpuState(
        gpr=(0x1122334455667788, *range(1, 16)),
        rip=0x400010,
        rflags=0x246,
        segments=(data, code, data, data, replace(data, base=0xF5), replace(data, base=0x65), data, data),
        gdtr=DescriptorTable(0x1000, 0x7F),
        idtr=DescriptorTable(0x2000, 0xFFF),
        cr0=0x80010001,
        cr2=0xDEAD000,
        cr3=0x4000,
        cr4=0x20,
        cr8=0,
        efer=0xD00,
        dr=(0,) * 8,
        xcr0=1,
        mxcsr=0x1F80,
        xmm=(1 << 127, *(0,) * 15),
        msrs={0x10: 5, 0xC0000082: 0xABC},
    )


def raised(
    vector: int, source: ExceptionSource = ExceptionSource.FAULT, code: int | None = None, cr2: int | None = None
) -> Event:
    return ExceptionEvent(1, 0x400000 + vector, 0, vector, source, code, cr2, None, cpu())


EVENTS = (
    raised(14, code=2, cr2=0x7000),
    PortEvent(2, 0, 0, 0xF4, 1, 0, True, "debug-exit"),
    raised(13, code=0x10),
    raised(3, ExceptionSource.SOFTWARE),
    raised(14, ExceptionSource.SOFTWARE),
    raised(0x80, ExceptionSource.SOFTWARE),
    raised(0x20, ExceptionSource.EXTERNAL),
)


def scope(
    *events: Event, symbols: dict[str, int] | None = None, debug_exit: int | None = None, dropped: int = 0
) -> RunScope:
    state = cpu()
    snapshot = Snapshot(
        tick=42,
        cpu=state,
        memory=Ram(),
        stop=Stop(StopReason.HLT),
        events=events,
        serial=b"ok\n\xff",
        msrs=state.msrs,
        events_dropped=dropped,
    )
    return RunScope(snapshot, symbols or {"start": 0x400000}, debug_exit)


def value(text: str, over: RunScope) -> Value:
    return evaluate(parse(text), over)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rax", 0x1122334455667788),
        ("EAX", 0x55667788),
        ("cr0.wp", 1),
        ("CR0.WP", 1),
        ("zf", 1),
        ("cs.limit", 0xFFFFFFFF),
        ("xmm0 >> 127", 1),
        ("start", 0x400000),
        ("stop", "hlt"),
        ("ticks", 42),
        ("mode", 64),
        ("cpl", 0),
        ("serial", "ok\n\\xff"),
        ("debug_exit == -1", True),
        ("u64(0x1ff8)", 0x1122334455667788),
        ("u8(0x1ff8)", 0x88),
        ("u16(0x1ffe)", 0x1122),
        ("p32(0x3ffc)", 0x11223344),
        ("msr(0x10)", 5),
        ("msr('efer')", 0xD00),
        ("msr(IA32_LSTAR)", 0xABC),
        ("msr(IA32_FS_BASE)", 0xF5),
    ],
)
def test_names_and_functions(text: str, wanted: Value) -> None:
    assert value(text, scope()) == wanted


@pytest.mark.parametrize(
    ("text", "none", "some"),
    [
        ("exception", "", "#BP"),
        ("vector", MAX, 3),
        ("error_code", MAX, MAX),
        ("fault_rip", MAX, 0x400003),
        ("fault_address", MAX, 0xDEAD000),
        ("exceptions", 0, 6),
        ("count('#PF')", 0, 1),
        ("count('pf')", 0, 1),
        ("count(14)", 0, 2),
        ("count('#BP')", 0, 1),
        ("count(0x80)", 0, 1),
        ("count(0x20)", 0, 1),
    ],
)
def test_exceptions(text: str, none: Value, some: Value) -> None:
    assert value(text, scope()) == none
    assert value(text, scope(*EVENTS)) == some


def test_the_last_exception_is_the_one_asked_about() -> None:
    over = scope(*EVENTS[:1])
    assert [value(text, over) for text in ("exception", "error_code", "fault_address")] == ["#PF", 2, 0x7000]
    assert value("error_code", scope(*EVENTS[:3])) == 0x10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("u8(0x2000)", "0x2000 is not mapped"),
        ("u64(0x1ffc)", "0x2000 is not mapped"),
        ("p8(0x8000)", "0x8000 is not memory"),
        ("u8(1 << 64)", "no address"),
        ("msr(0x999)", "no MSR 0x999"),
        ("msr('nonsense')", "no MSR is called"),
        ("count('#PQ')", "no exception is called"),
        ("rxa == 1", "did you mean 'rax'"),
        ("IA32_NONSENSE", "unknown name"),
    ],
)
def test_errors(text: str, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value(text, scope())
    assert words in str(caught.value)


def test_a_label_with_a_name_of_the_language_is_ambiguous() -> None:
    over = scope(symbols={"cf": 0x400000, "ticks": 0x400001, "stop": 0x400002, "RAX": 5})
    for name in ("cf", "ticks"):
        with pytest.raises(ExpressionError, match="label"):
            value(name, over)
    assert value("stop", over) == "hlt"
    assert value("RAX", over) == 5


def test_events_that_were_not_kept_are_not_counted_as_none() -> None:
    over = scope(*EVENTS, dropped=3)
    for text in ("exceptions", "count('#PF')"):
        with pytest.raises(ExpressionError, match="not kept"):
            value(text, over)
    assert value("exception", over) == "#BP"


def test_every_fact_has_a_value_and_is_known() -> None:
    over = scope(*EVENTS, debug_exit=0)
    for name in FACTS:
        assert over.lookup(name) is not None
        assert is_known(name, ())
    assert is_known("label", {"label"})
    assert not is_known("label", ())


def test_an_nmi_counts_by_name_and_other_interrupts_do_not() -> None:
    over = scope(raised(2, ExceptionSource.EXTERNAL), raised(14, ExceptionSource.EXTERNAL))
    assert value("count('NMI')", over) == 1
    assert value("count('#PF')", over) == 0
    assert value("count(14)", over) == 1
    assert value("exception", over) == ""
