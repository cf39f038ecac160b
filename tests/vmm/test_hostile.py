"""Guests that mean harm: every one must come back, bounded, with a reason, and leave the host as it was."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

import pytest

from kvmscope.vmm.config import Budget, HandlerInit, Mode, PageInit, Paging
from kvmscope.vmm.engine import Stop, StopReason
from kvmscope.vmm.machine import Machine
from tests.vmm.guests import Guest, build

Boot = Callable[..., Machine]


@pytest.fixture
def boot() -> Iterator[Boot]:
    made: list[Machine] = []

    def make(source: str, *, mode: Mode = Mode.LONG64, budget: Budget | None = None, **guest: object) -> Machine:
        described = Guest("hostile", source, mode=mode, **guest)  # type: ignore[arg-type]
        config = described.config(budget=budget or Budget(instructions=200_000, output=4096, events=5000))
        made.append(Machine(config, build(source, mode)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_flood_of_output_ends_with_a_reason(boot: Boot) -> None:
    m = boot("mov edx, 0x3f8\nagain: out dx, al\n inc al\n jmp again")
    stop = m.run()
    assert stop.reason is StopReason.BUDGET
    assert "output: more than 4096 bytes" in stop.detail
    assert len(m.serial) == 4096
    assert m.serial[:4] == b"\0\1\2\3"
    assert m.run().reason is StopReason.BUDGET, "and again, as often as one likes"
    assert len(m.serial) == 4096


def test_output_of_all_channels_counts_together(boot: Boot) -> None:
    m = boot("again: mov edx, 0x3f8\n out dx, al\n mov edx, 0xe9\n out dx, al\n jmp again")
    m.run()
    assert len(m.serial) + len(m.debugcon) == 4096


def test_a_wide_write_to_a_byte_port_is_split(boot: Boot) -> None:
    m = boot("mov edx, 0xe9\n mov eax, 0x44434241\n out dx, eax\n hlt")
    m.run()
    assert m.debugcon == b"A"


def test_a_flood_of_events_is_bounded(boot: Boot) -> None:
    m = boot("mov esi, 0xfee00000\nagain: in al, 0x60\n out 0x80, al\n mov rbx, [rsi]\n jmp again")
    assert m.run().tick == 200_000
    snapshot = m.snapshot()
    assert len(snapshot.events) <= 5000
    assert snapshot.events_dropped + len(snapshot.events) > 100_000


def test_a_flood_of_faults_is_bounded(boot: Boot) -> None:
    m = boot(
        "start: ud2\nhandler: iretq", handlers=(HandlerInit(6, "handler"),), budget=Budget(12_000, 60.0, 4096, 5000)
    )
    assert m.run().tick == 12_000
    assert len(m.snapshot().events) <= 500, "each holds a whole processor state"


FINAL: list[tuple[str, str, StopReason, dict[str, object]]] = [
    ("INS into a read-only page", "mov edi, 0x200000\n mov edx, 0xe0\n insb\n hlt", StopReason.EXCEPTION, {}),
    (
        "INS to nowhere",
        "mov rdi, 0x7fffffffff000\n mov edx, 0xe0\n mov ecx, 5\n rep insb\n hlt",
        StopReason.EXCEPTION,
        {},
    ),
    (
        "OUTS from nowhere",
        "mov rsi, 0x123456789000\n mov edx, 0x3f8\n mov ecx, 9\n rep outsb\n hlt",
        StopReason.EXCEPTION,
        {},
    ),
    ("jump to nothing", "mov rax, 0x80000000\n jmp rax", StopReason.UNSUPPORTED, {}),
    ("jump to a hole", "mov rax, 0x123456789000\n jmp rax", StopReason.EXCEPTION, {}),
    ("jump to what is no address", "mov rax, 0x8000000000000000\n jmp rax", StopReason.EXCEPTION, {}),
    ("no stack", "mov rsp, 0x123456789000\n push rax", StopReason.EXCEPTION, {}),
    (
        "no stack and a handler",
        "mov rsp, 0x123456789000\n ud2\nh: hlt",
        StopReason.TRIPLE_FAULT,
        {"handlers": (HandlerInit(6, "h"), HandlerInit(14, "h"), HandlerInit(8, "h"))},
    ),
    ("no IDT", "lidt [0x200000]\n ud2", StopReason.TRIPLE_FAULT, {}),
    ("no page tables", "xor eax, eax\n mov cr3, rax\n mov [0], rax\n nop", StopReason.TRIPLE_FAULT, {}),
    ("halted", "cli\n hlt", StopReason.HLT, {}),
    ("debug exit in ring 3", "out 0xf4, al\n hlt", StopReason.EXCEPTION, {"ring": 3}),
]


@pytest.mark.parametrize(("name", "source", "reason", "options"), FINAL, ids=[row[0] for row in FINAL])
def test_a_guest_that_ends_badly_ends(
    boot: Boot, name: str, source: str, reason: StopReason, options: dict[str, object]
) -> None:
    m = boot(source, pages=(PageInit(0x200000, 0x200000, ("P",)),), **options)
    stop = m.run()
    assert stop.reason is reason, stop
    if reason is StopReason.EXCEPTION:
        assert stop.exception is not None
    assert m.step() == stop
    m.goto(0)
    assert _final(m).reason is reason, "by steps as well"


def _final(m: Machine) -> Stop:
    for _ in range(100):
        if m.step().reason.final:
            break
    return m.stop


def test_an_endless_loop_of_one_instruction(boot: Boot) -> None:
    m = boot("start: jmp start")
    stop = m.run()
    assert (stop.reason, stop.tick) == (StopReason.BUDGET, 200_000)
    assert "instructions" in stop.detail


def test_wall_time_is_a_budget_too(boot: Boot) -> None:
    m = boot("start: jmp start", budget=Budget(instructions=1 << 50, seconds=0.05))
    stop = m.run()
    assert stop.reason is StopReason.BUDGET
    assert "wall time" in stop.detail
    tick = m.tick
    assert m.goto(tick // 2).tick == tick // 2, "history is whole"


def test_a_guest_that_writes_everywhere_has_a_bounded_history() -> None:
    source = "start: mov edi, 0x402000\n mov ecx, 0x300\nagain: inc dword ptr [rdi]\n add edi, 4096\n dec ecx\n jnz again\n jmp start"
    described = Guest("everywhere", source)
    limit = 8 << 20
    m = Machine(described.config(memory=8 << 20), build(source, Mode.LONG64), history_limit=limit)
    m.run(1_500_000)
    assert m.history_bytes <= limit
    end, cpu = m.tick, m.cpu
    m.goto(end - 3)
    m.run(3)
    assert m.cpu == cpu
    m.close()


def test_a_guest_that_overwrites_boots_tables(boot: Boot) -> None:
    m = boot("xor edi, edi\n mov ecx, 0x20000\n xor eax, eax\n rep stosq\n hlt")
    assert m.run().reason.final


def test_a_stub_that_the_guest_overwrote_is_its_own_handler(boot: Boot) -> None:
    # iretq where the stub of #UD was, after stepping over the UD2.
    source = """
        mov     dword ptr [0x3060], 0x24048348
        mov     dword ptr [0x3064], 0xcf4802
        ud2
        mov     ebx, 7
        hlt
"""
    m = boot(source)
    assert m.run().reason is StopReason.HLT
    assert m.cpu.gpr[3] == 7


@pytest.mark.parametrize("paging", [Paging.BITS32, Paging.PAE])
def test_32_bit_guests_wrap_at_4_gib(boot: Boot, paging: Paging) -> None:
    m = boot("mov eax, [0xfffffffe]\n hlt", mode=Mode.PROT32, paging=paging)
    assert m.run().reason is StopReason.HLT


def test_machines_leave_nothing_behind() -> None:
    source = "mov edi, 0x300000\n mov ecx, 0x8000\n rep stosd\n xor eax, eax\n out 0xf4, eax"
    image = build(source, Mode.LONG64)
    config = Guest("short", source).config()

    def one() -> None:
        m = Machine(config, image)
        assert m.run().reason is StopReason.DEBUG_EXIT
        mark = m.mark()
        m.goto(5)
        m.delta_since(mark)
        m.close()

    for _ in range(20):
        one()
    before = _descriptors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(60):
        one()
    assert _descriptors() == before[0]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before[1]
    assert grown < 60 * 128, f"{grown} KiB for 60 machines whose RAM alone would be 300 MiB"


def _descriptors() -> int:
    import os

    return len(os.listdir("/proc/self/fd"))
