"""Guests that are measured, as machine code so that no assembler is in the way."""

from __future__ import annotations

from kvmscope.vmm.machine import Machine

from kvmscope.asm.image import Image, Section
from kvmscope.vmm.config import Budget, MachineConfig

__all__ = ["LOOP", "MIXED", "ORIGIN", "machine"]

ORIGIN = 0x400000

LOOP = bytes.fromhex(
    "4801d8"  # add rax, rbx
    "48ffc1"  # inc rcx
    "4831c2"  # xor rdx, rax
    "ebf5"  # jmp back
)
"""Four register instructions for ever."""

MIXED = bytes.fromhex(
    "48c7c700002000"  # mov rdi, 0x200000
    "48890f"  # L: mov [rdi], rcx
    "488b07"  # mov rax, [rdi]
    "50"  # push rax
    "5b"  # pop rbx
    "48ffc1"  # inc rcx
    "4801c2"  # add rdx, rax
    "ebf0"  # jmp L
)
"""Loads, stores and stack for ever."""


def machine(code: bytes, instructions: int = 1 << 40) -> Machine:
    """A booted 64-bit guest running ``code``."""
    image = Image((Section(".text", ORIGIN, code),), {}, (), ORIGIN)
    return Machine(MachineConfig(budget=Budget(instructions=instructions, seconds=3600)), image)
