"""Guests that are measured, as machine code so that no assembler is in the way."""

from __future__ import annotations

from kvmscope.asm.image import Image, Section
from kvmscope.vmm.config import Budget, HandlerInit, MachineConfig
from kvmscope.vmm.machine import Machine

__all__ = ["FAULTS", "FAULT_HANDLERS", "FAULT_TICKS", "LOOP", "LOOP_TICKS", "MIXED", "MIXED_TICKS", "ORIGIN", "machine"]

ORIGIN = 0x400000

LOOP = bytes.fromhex(
    "4801d8"  # L: add rax, rbx
    "4831c2"  # xor rdx, rax
    "48ffc9"  # dec rcx
    "75f5"  # jne L
    "f4"  # hlt
)
"""Register instructions, as often as RCX says; with RCX = 0, for ever."""
LOOP_TICKS = 4
"""Instructions of one turn."""

MIXED = bytes.fromhex(
    "bf00002000"  # mov edi, 0x200000
    "48890f"  # L: mov [rdi], rcx
    "488b07"  # mov rax, [rdi]
    "50"  # push rax
    "5b"  # pop rbx
    "4801c2"  # add rdx, rax
    "48ffc9"  # dec rcx
    "75f0"  # jne L
    "f4"  # hlt
)
"""Loads, stores and stack, as often as RCX says."""
MIXED_TICKS = 7

FAULTS = bytes.fromhex(
    "0f0b"  # L: ud2
    "ebfc"  # jmp L
    "4883042402"  # handler: add qword ptr [rsp], 2
    "48cf"  # iretq
)
"""An exception and its IRETQ for ever."""
FAULT_HANDLERS = (HandlerInit(6, ORIGIN + 4),)
FAULT_TICKS = 4
"""UD2, ADD, IRETQ and JMP."""


def machine(code: bytes, handlers: tuple[HandlerInit, ...] = ()) -> Machine:
    """A booted 64-bit guest running ``code``."""
    image = Image((Section(".text", ORIGIN, code),), {}, (), ORIGIN)
    budget = Budget(instructions=1 << 40, seconds=3600)
    return Machine(MachineConfig(budget=budget, handlers=handlers), image)
