"""The timer devices in a machine: a guest that programs them and waits, and what history makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kvmscope.vmm.config import Mode
from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.machine import Machine
from tests.vmm.guests import Guest, build

Run = Callable[[str], Machine]

SETUP = """
        mov     word ptr [0x20 * 4], offset tick
        mov     word ptr [0x20 * 4 + 2], 0
        mov     word ptr [0x28 * 4], offset clock
        mov     word ptr [0x28 * 4 + 2], 0
        mov     al, 0x11
        out     0x20, al
        out     0xa0, al
        mov     al, 0x20
        out     0x21, al
        mov     al, 0x28
        out     0xa1, al
        mov     al, 4
        out     0x21, al
        mov     al, 2
        out     0xa1, al
        mov     al, 1
        out     0x21, al
        out     0xa1, al
"""
HANDLERS = """
tick:   push    ax
        inc     cx
        mov     al, 0x20
        out     0x20, al
        pop     ax
        iret
clock:  push    ax
        inc     bx
        mov     al, 0x0c
        out     0x70, al
        in      al, 0x71
        mov     al, 0x20
        out     0xa0, al
        out     0x20, al
        pop     ax
        iret
"""
PIT = """
        mov     al, 0x34
        out     0x43, al
        mov     al, {low}
        out     0x40, al
        mov     al, {high}
        out     0x40, al
"""

CMOS = """
        mov     al, {index}
        out     0x70, al
        mov     al, {value}
        out     0x71, al
"""
REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi")


@pytest.fixture
def run() -> Iterator[Run]:
    made: list[Machine] = []

    def go(body: str) -> Machine:
        guest = Guest("timers", SETUP + body + HANDLERS, Mode.REAL16)
        machine = Machine(guest.config(), build(guest.source, guest.mode))
        made.append(machine)
        machine.run(2_000_000)
        return machine

    yield go
    for one in made:
        one.close()


def count(machine: Machine, register: str) -> int:
    return machine.cpu.gpr[REGISTERS.index(register)] & 0xFFFF


def test_a_guest_sleeps_from_tick_to_tick(run: Run) -> None:
    machine = run(
        f"""
        mov     al, 0xfe
        out     0x21, al
        {PIT.format(low=1193 & 0xFF, high=1193 >> 8)}
        xor     cx, cx
        sti
again:  hlt
        cmp     cx, 5
        jb      again
        cli
        mov     al, 0xff
        out     0x21, al
        hlt
        """
    )
    assert machine.stop.reason is StopReason.HLT
    assert count(machine, "rcx") == 5
    assert machine.tick < 1000, "time was skipped, not run through"
    end = machine.tick
    state = machine.snapshot()
    machine.goto(end // 2)
    assert count(machine, "rcx") < 5
    machine.goto(end)
    assert machine.snapshot().cpu == state.cpu
    assert machine.snapshot().devices == state.devices


def test_a_masked_timer_leaves_hlt_final(run: Run) -> None:
    machine = run(
        f"""
        mov     al, 0xff
        out     0x21, al
        {PIT.format(low=2, high=0)}
        sti
        hlt
        """
    )
    assert machine.stop.reason is StopReason.HLT
    assert machine.tick < 100


def test_an_edge_under_the_mask_comes_when_it_is_lifted(run: Run) -> None:
    machine = run(
        f"""
        mov     al, 0xff
        out     0x21, al
        {PIT.format(low=100, high=0)}
        xor     cx, cx
        sti
        mov     dx, 20000
spin:   dec     dx
        jnz     spin
        mov     si, cx
        mov     al, 0xfe
        out     0x21, al
        nop
        cli
        mov     al, 0xff
        out     0x21, al
        hlt
        """
    )
    assert machine.stop.reason is StopReason.HLT
    assert count(machine, "rsi") == 0
    assert count(machine, "rcx") == 1


def test_the_alarm_wakes_a_guest(run: Run) -> None:
    machine = run(
        f"""
        mov     al, 0xfb
        out     0x21, al
        mov     al, 0xfe
        out     0xa1, al
{"".join(CMOS.format(index=index, value=value) for index, value in ((1, 0xFF), (3, 0xFF), (5, 0xFF), (11, 0x22)))}
        xor     bx, bx
        sti
again:  hlt
        cmp     bx, 3
        jb      again
        cli
        hlt
        """
    )
    assert machine.stop.reason is StopReason.HLT
    assert count(machine, "rbx") == 3
    assert machine.tick < 1000
