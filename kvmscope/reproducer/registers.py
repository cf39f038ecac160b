"""A processor's registers as a flat mapping of integers, for ``run --json``."""

from __future__ import annotations

from typing import Final

from kvmscope.x86.registers import read_register
from kvmscope.x86.state import GPR_NAMES, SEGMENT_NAMES, CpuState

__all__ = ["JSON_REGISTERS", "register_values"]

JSON_REGISTERS: Final = (
    *GPR_NAMES,
    "rip",
    "rflags",
    *(
        name
        for segment in SEGMENT_NAMES
        for name in (segment, f"{segment}.base", f"{segment}.limit", f"{segment}.attributes")
    ),
    "gdtr.base",
    "gdtr.limit",
    "idtr.base",
    "idtr.limit",
    *("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "xcr0"),
    *("dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
    "mxcsr",
    "pkru",
    *(f"xmm{number}" for number in range(16)),
    "cpl",
)
"""Names in the order in which they are written; every one is also a name of the expression language."""


def register_values(cpu: CpuState) -> dict[str, int]:
    """Every register of `JSON_REGISTERS` with its value."""
    return {name: read_register(cpu, name) for name in JSON_REGISTERS}
