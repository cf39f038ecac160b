"""Breakpoints where interrupts lead, in the middle of a run."""

from __future__ import annotations

from kvmscope.debug.debugger import Debugger
from kvmscope.vmm.engine import StopReason
from tests.debug.support import boot

SELF_IPI = """
start:  mov     ebx, 0xfee00000
        mov     dword ptr [rbx + 0xf0], 0x1ff
        mov     dword ptr [rbx + 0x310], 0
        sti
again:  mov     dword ptr [rbx + 0x300], 0x4055
after:  cmp     ecx, 3
        jne     again
        hlt
on_ipi: inc     ecx
        mov     dword ptr [rbx + 0xb0], 0
        iretq
"""


def test_a_breakpoint_at_a_handler_is_hit_each_time():
    machine, image = boot(SELF_IPI, '[handlers]\n0x55 = "on_ipi"')
    try:
        debugger = Debugger(machine)
        debugger.breakpoints.add(image.symbols["on_ipi"], "on_ipi")
        for count in range(3):
            assert debugger.cont().reason is StopReason.BREAKPOINT
            assert machine.cpu.gpr[1] == count
        assert debugger.cont().reason is StopReason.HLT
        ticks = []
        while machine.tick and debugger.back_cont().reason is StopReason.BREAKPOINT:
            ticks.append(machine.cpu.gpr[1])
        assert ticks == [2, 1, 0]
    finally:
        machine.close()


def test_a_breakpoint_behind_an_interrupt_is_hit_once_each_time():
    machine, image = boot(SELF_IPI, '[handlers]\n0x55 = "on_ipi"')
    try:
        debugger = Debugger(machine)
        debugger.breakpoints.add(image.symbols["after"], "after")
        seen = []
        while debugger.cont().reason is StopReason.BREAKPOINT:
            seen.append(machine.cpu.gpr[1])
        assert seen == [1, 2, 3]
    finally:
        machine.close()
