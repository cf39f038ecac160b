"""The local APIC as the device panel shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.devices.device import DeviceField, DeviceView, bit_names
from kvmscope.vmm.devices.lapic.ipi import BROADCAST
from kvmscope.vmm.devices.lapic.msr import X2APIC
from kvmscope.vmm.devices.lapic.registers import (
    LVT_LEVEL,
    LVT_MASKED,
    LVT_REMOTE_IRR,
    LVTS,
    MAX_LVT,
    REGISTERS,
    SVR_ENABLED,
    VERSION,
    Reg,
)
from kvmscope.vmm.devices.lapic.timer import TimerMode

if TYPE_CHECKING:
    from kvmscope.vmm.devices.lapic.apic import LocalApic

__all__ = ["describe"]

_BASE_BITS: Final = ((8, "BSP"), (10, "EXTD"), (11, "EN"))
_ERROR_BITS: Final = (
    (5, "send-illegal-vector"),
    (6, "receive-illegal-vector"),
    (7, "illegal-register-address"),
)
_MODES: Final = ("fixed", "lowest priority", "SMI", "reserved", "NMI", "INIT", "start-up", "ExtINT")
_LVT_MODES: Final = ("fixed", "reserved", "SMI", "reserved", "NMI", "INIT", "reserved", "ExtINT")
_SHORTHANDS: Final = ("", "to itself", "to all", "to all others")
_TIMER_MODES: Final = {
    TimerMode.ONE_SHOT: "one-shot",
    TimerMode.PERIODIC: "periodic",
    TimerMode.TSC_DEADLINE: "TSC deadline",
    TimerMode.RESERVED: "reserved mode",
}
_WITH_VECTOR: Final = (0, 1, 6)
"""Delivery modes that use the vector."""
_DFR_MODELS: Final = {0xF: "flat model", 0x0: "cluster model"}


def describe(apic: LocalApic) -> DeviceView:
    """Every register, and the levels of the pins."""
    if not apic.enabled:
        where = "disabled"
    elif apic.x2apic_mode:
        where = f"x2APIC, MSRs {X2APIC.start:#x}-{X2APIC.start + 0x3F:#x}"
    else:
        where = f"xAPIC, memory {apic.base:#x}-{apic.base + 0xFFF:#x}"
    return DeviceView(apic.name, where, tuple(_fields(apic)))


def _fields(apic: LocalApic) -> Iterator[DeviceField]:
    values = apic.values
    yield _field("APIC_BASE", apic.apic_base, bit_names(_BASE_BITS, apic.apic_base))
    apic_id = apic.load(Reg.ID)
    yield _field("ID", apic_id, f"APIC ID {apic_id if apic.x2apic_mode else apic_id >> 24}")
    yield _field("VERSION", VERSION, f"version {VERSION & 0xFF:#x}, {MAX_LVT + 1} LVT entries")
    yield _field("TPR", values[Reg.TPR], f"class {values[Reg.TPR] >> 4} (CR8)", 2)
    yield _field("PPR", apic.priority, f"classes above {apic.priority >> 4} are delivered", 2)
    yield _field("LDR", apic.load(Reg.LDR), _logical_id(apic))
    if not apic.x2apic_mode:
        yield _field("DFR", values[Reg.DFR], _DFR_MODELS.get(values[Reg.DFR] >> 28, "reserved model"))
    svr = values[Reg.SVR]
    enabled = "enabled" if svr & SVR_ENABLED else "disabled by software"
    yield _field("SVR", svr, f"{enabled}, spurious vector {svr & 0xFF:#x}")
    for name, vectors in (("ISR", apic.isr), ("TMR", apic.tmr), ("IRR", apic.irr)):
        yield DeviceField(name, *_vectors(vectors))
    yield _field("ESR", values[Reg.ESR], bit_names(_ERROR_BITS, values[Reg.ESR]))
    yield _field("errors", apic.errors, bit_names(_ERROR_BITS, apic.errors) or "none since ESR was written")
    yield _field("ICR", values[Reg.ICR_HIGH] << 32 | values[Reg.ICR], _icr(apic), 16)
    for lvt in LVTS:
        yield _field(REGISTERS[lvt].name, values[lvt], _lvt(lvt, values[lvt]))
    timer = apic.timer
    yield _field("INITIAL_COUNT", timer.initial, str(timer.initial))
    yield _field("CURRENT_COUNT", timer.current, str(timer.current))
    yield _field("DIVIDE", values[Reg.DIVIDE], f"1 GHz / {timer.divisor}", 2)
    if apic.has_tsc_deadline:
        deadline = timer.tsc_deadline
        meaning = f"in {max(0, deadline - apic.tsc())} ticks of the TSC" if deadline else "not armed"
        yield _field("TSC_DEADLINE", deadline, meaning, 16)
    yield DeviceField("LINT0 LINT1", " ".join(str(int(level)) for level in apic.pins), "levels at the pins")
    yield DeviceField("INTR", str(int(apic.signals.interrupt)), "an interrupt waits" if apic.signals.interrupt else "")


def _field(name: str, value: int, meaning: str, digits: int = 8) -> DeviceField:
    return DeviceField(name, f"{value:#0{digits + 2}x}", meaning)


def _logical_id(apic: LocalApic) -> str:
    ldr = apic.load(Reg.LDR)
    if apic.x2apic_mode:
        return f"cluster {ldr >> 16}, bit {(ldr & 0xFFFF).bit_length() - 1}"
    return f"logical ID {ldr >> 24:#04x}"


def _vectors(vectors: int) -> tuple[str, str]:
    """How many, and their numbers, highest first."""
    numbers = [vector for vector in range(255, -1, -1) if vectors >> vector & 1]
    return str(len(numbers)), " ".join(f"{vector:#x}" for vector in numbers)


def _icr(apic: LocalApic) -> str:
    low, high = apic.values[Reg.ICR], apic.values[Reg.ICR_HIGH]
    mode, shorthand = low >> 8 & 7, low >> 18 & 3
    words = [_MODES[mode]]
    if mode in _WITH_VECTOR:
        words.append(f"vector {low & 0xFF:#x}")
    if shorthand:
        words.append(_SHORTHANDS[shorthand])
    else:
        destination, broadcast = (high, BROADCAST) if apic.x2apic_mode else (high >> 24, 0xFF)
        kind = "logical" if low >> 11 & 1 else "APIC"
        words.append("to all" if destination == broadcast else f"to {kind} {destination:#x}")
    return ", ".join(words)


def _lvt(lvt: int, entry: int) -> str:
    mode = 0 if lvt in (Reg.LVT_TIMER, Reg.LVT_ERROR) else entry >> 8 & 7
    words = [_LVT_MODES[mode]]
    if mode == 0:
        words.append(f"vector {entry & 0xFF:#x}")
    if lvt == Reg.LVT_TIMER:
        words.append(_TIMER_MODES[TimerMode(entry >> 17 & 3)])
    if lvt == Reg.LVT_LINT0 and mode == 0:
        words.append("level" if entry & LVT_LEVEL else "edge")
    if entry & LVT_REMOTE_IRR:
        words.append("in service")
    if entry & LVT_MASKED:
        words.append("masked")
    return ", ".join(words)
