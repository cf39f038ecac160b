"""The engines by name."""

from __future__ import annotations

import mmap

from kvmscope.errors import EngineError
from kvmscope.vmm.engine import QUANTUM, Engine, EngineHost
from kvmscope.x86.profiles import resolve

__all__ = ["ENGINES", "make_engine"]

ENGINES = ("unicorn",)


def make_engine(
    name: str,
    ram: mmap.mmap,
    host: EngineHost,
    cpu: str,
    vcpus: int = 1,
    quantum: int = QUANTUM,
    rom: tuple[int, bytes] | None = None,
) -> Engine:
    """An engine on ``ram`` with ``vcpus`` processors of profile ``cpu``.

    Raises EngineError for an unknown or unusable engine, UsageError for a profile that cannot be.
    """
    if name not in ENGINES:
        raise EngineError(f"Unknown engine {name!r}", hint=f"engines: {', '.join(ENGINES)}")
    profile = resolve(cpu)
    # Imported here: loading Unicorn takes 50 ms, and not every command needs it.
    from kvmscope.vmm.unicorn import UnicornEngine

    return UnicornEngine(ram, host, profile, vcpus=vcpus, quantum=quantum, rom=rom)
