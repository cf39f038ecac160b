"""Real machines for the debugger's tests."""

from __future__ import annotations

from kvmscope.asm.image import Image
from kvmscope.debug.explain import Explanation, explain
from kvmscope.reproducer import parse
from kvmscope.reproducer.assembling import assemble_reproducer
from kvmscope.vmm.engine import Stop
from kvmscope.vmm.machine import Machine


def boot(code: str, header: str = "", suffix: str = ".asm") -> tuple[Machine, Image]:
    """A machine at tick 0 running ``code``; ``header`` is the TOML of its header."""
    block = "".join(f"# {line}\n" for line in ["/// kvmscope", *header.strip().splitlines(), "///"])
    reproducer = parse(block + code, "test" + suffix)
    assembly = assemble_reproducer(reproducer, cross_check=False)
    assert assembly.image is not None, assembly.diagnostics
    return Machine(reproducer.config, assembly.image), assembly.image


def ended(code: str, header: str = "", suffix: str = ".asm") -> tuple[Stop, Explanation]:
    """Run ``code`` to its end: the stop, explained."""
    machine, image = boot(code, header, suffix)
    try:
        stop = machine.run()
        return stop, explain(stop, machine.snapshot(), image)
    finally:
        machine.close()


TWO_VCPUS = """
start:  mov     ebx, 0xfee00000
        mov     dword ptr [rbx + 0xf0], 0x1ff
        mov     dword ptr [rbx + 0x310], 1 << 24
        mov     dword ptr [rbx + 0x300], 0x4500
        mov     dword ptr [rbx + 0x300], 0x4608
first:  inc     eax
        pause
        jmp     first
        .section .ap, 0x8000
        .code16
        nop
second: inc     cx
        jmp     second
"""
"""Starts its second processor at 0x8000; both then count for ever.  Needs ``smp = 2``."""
