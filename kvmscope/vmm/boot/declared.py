"""Declared registers and MSRs, applied last and unchecked by the mode: a reproducer may start from any state."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kvmscope.errors import ReproducerError
from kvmscope.vmm.boot.memory import BootMemory, Labels, nearest
from kvmscope.vmm.boot.state import load_segment
from kvmscope.vmm.boot.tables import TableLimits
from kvmscope.vmm.config import MachineConfig, Mode
from kvmscope.x86.registers import KNOWN_NAMES, write_register
from kvmscope.x86.state import SEGMENT_NAMES, CpuState, Seg, SegmentRegister

__all__ = ["apply_msrs", "apply_registers"]

# MSRs that are fields of `CpuState`, by the register's name.
_MSR_REGISTERS: Final = {0xC0000080: "efer", 0xC0000100: "fs.base", 0xC0000101: "gs.base"}


def apply_msrs(state: CpuState, config: MachineConfig) -> CpuState:
    """``state`` with ``[msrs]`` in place.  Raises ReproducerError for a value wider than 64 bits."""
    rest = dict(state.msrs)
    for index, value in config.msrs.items():
        if not 0 <= index < 1 << 32 or not 0 <= value < 1 << 64:
            raise ReproducerError("An MSR has a 32-bit index and a 64-bit value", f"msrs: {index:#x} = {value:#x}")
        name = _MSR_REGISTERS.get(index)
        if name is None:
            rest[index] = value
        else:
            state = write_register(state, name, value)
    return replace(state, msrs=rest)


def apply_registers(
    state: CpuState, config: MachineConfig, memory: BootMemory, limits: TableLimits, labels: Labels
) -> CpuState:
    """``state`` with ``[registers]`` in place.

    A segment's selector brings its hidden part with it (from the boot GDT or LDT; base = selector * 16 in real mode);
    ``ds.base`` and its like then change single fields.  Raises ReproducerError for unknown names and values that do
    not fit.
    """
    values = {
        name.lower(): labels.resolve(value, f"registers: {name} = {value}") for name, value in config.registers.items()
    }
    for name in values:
        if name not in KNOWN_NAMES:
            raise ReproducerError(
                f"Unknown register {name!r}", f"registers: {name}", nearest(name, sorted(KNOWN_NAMES))
            )
    for name in sorted(values, key=lambda name: name not in SEGMENT_NAMES):
        value = values[name]
        try:
            state = write_register(state, name, value)
        except ValueError as error:
            raise ReproducerError(f"The value of {name} does not fit", f"registers: {error}") from error
        if name in SEGMENT_NAMES:
            state = _with_segment(state, _hidden_part(config, memory, limits, name, value), Seg[name.upper()])
    if "cpl" in values or not state.cr0 & 1:
        return state
    return replace(state, cpl=3 if state.rflags >> 17 & 1 else state.segments[Seg.CS].rpl)


def _hidden_part(
    config: MachineConfig, memory: BootMemory, limits: TableLimits, name: str, selector: int
) -> SegmentRegister:
    selector &= 0xFFFF
    if config.mode is Mode.REAL16 and name not in ("ldtr", "tr"):
        return SegmentRegister(selector, selector << 4, 0xFFFF, 0x9B if name == "cs" else 0x93)
    found = load_segment(memory, limits, selector, long=config.mode is Mode.LONG64)
    if found is None:
        raise ReproducerError(
            f"{name} = {selector:#x} lies beyond the boot {'LDT' if selector & 4 else 'GDT'}",
            f"registers: {name}",
            f"declare the descriptor, or the hidden part alone with {name}.base, {name}.limit and {name}.attributes",
        )
    return found


def _with_segment(state: CpuState, segment: SegmentRegister, place: Seg) -> CpuState:
    return replace(state, segments=(*state.segments[:place], segment, *state.segments[place + 1 :]))
