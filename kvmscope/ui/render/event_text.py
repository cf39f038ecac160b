"""Events in words: what kind, and what happened, with names for ports, MSRs, bits and error codes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from kvmscope.debug.explain.names import event_title
from kvmscope.ui.line_panel import Span
from kvmscope.ui.render.reader import Symbols
from kvmscope.ui.render.text import printable
from kvmscope.vmm.devices.lapic.msr import X2APIC
from kvmscope.vmm.devices.lapic.registers import REGISTERS
from kvmscope.vmm.events import (
    ControlRegisterEvent,
    Event,
    ExceptionEvent,
    ExceptionSource,
    MmioEvent,
    ModeEvent,
    MsrEvent,
    PortEvent,
)
from kvmscope.x86.bitfields import BIT_TABLES
from kvmscope.x86.exceptions import decode_error_code, mnemonic
from kvmscope.x86.msrs import msr_name
from kvmscope.x86.paging import PF_FETCH, PF_WRITE

__all__ = ["EventKind", "EventWords", "describe", "kind_of"]


class EventKind(StrEnum):
    """What the timeline can be filtered by."""

    EXCEPTION = "exceptions"
    INTERRUPT = "interrupts"
    IO = "I/O"
    MSR = "MSR"
    CONTROL = "control"
    MODE = "mode"
    OTHER = "other"


class EventWords(NamedTuple):
    """``verb`` of a few letters in ``style``, then the particulars."""

    verb: str
    style: str
    spans: tuple[Span, ...]


_IOAPIC: Final = {0x00: "IOREGSEL", 0x10: "IOWIN"}
_KINDS: Final[dict[type[Event], EventKind]] = {
    PortEvent: EventKind.IO,
    MmioEvent: EventKind.IO,
    MsrEvent: EventKind.MSR,
    ControlRegisterEvent: EventKind.CONTROL,
    ModeEvent: EventKind.MODE,
}


def kind_of(event: Event) -> EventKind:
    """The kind that an event is filtered by."""
    if isinstance(event, ExceptionEvent):
        return EventKind.INTERRUPT if event.source is ExceptionSource.EXTERNAL else EventKind.EXCEPTION
    return _KINDS.get(type(event), EventKind.OTHER)


def describe(event: Event, symbols: Symbols) -> EventWords:
    """An event in words."""
    if isinstance(event, ExceptionEvent):
        return _exception(event, symbols)
    if isinstance(event, PortEvent):
        return _access(event.write, f"port {event.port:x}", event.size, event.value, event.device, "unclaimed")
    if isinstance(event, MmioEvent):
        device = f"{event.device} {_apic_register(event)}".rstrip()
        return _access(event.write, f"mmio {event.address:x}", event.size, event.value, device, "unclaimed")
    if isinstance(event, MsrEvent):
        verb = "wrmsr" if event.write else "rdmsr"
        sign = " ← " if event.write else " = "
        return EventWords(
            verb,
            "mnemonic",
            (Span(_msr(event.index), "reg"), Span(sign, "operator"), Span(f"{event.value:x}", "num")),
        )
    if isinstance(event, ControlRegisterEvent):
        return _control(event)
    if isinstance(event, ModeEvent):
        return EventWords("mode", "accent", (Span(event.what),))
    # A kind of event that this table does not know yet is still an event, and is shown by its name.
    return EventWords(type(event).__name__.removesuffix("Event").lower(), "dim", ())


def _exception(event: ExceptionEvent, symbols: Symbols) -> EventWords:
    external = event.source is ExceptionSource.EXTERNAL
    code = "" if event.error_code is None else f"({event.error_code:x})"
    name = event_title(event) if external else mnemonic(event.vector)
    style = "error" if event.source is ExceptionSource.FAULT else "ok" if external else "accent"
    spans: list[Span] = []
    if event.vector == 14 and event.error_code is not None:
        spans += _page_fault(event.error_code, event.cr2, symbols)
    elif event.error_code is not None and event.vector != 8:
        spans.append(Span(", ".join(decode_error_code(event.vector, event.error_code)), "value"))
    if event.dr6 is not None and event.vector == 1 and not external:
        spans.append(Span(f"DR6 {event.dr6:x}", "num"))
    if event.source is ExceptionSource.SOFTWARE:
        spans.append(Span(event.source.value, "dim"))
    if event.parent is not None:
        spans.append(Span(f"{' ' if spans else ''}while delivering {mnemonic(event.parent)}", "warn"))
    gap = " " if spans else ""
    if not event.delivered:
        spans.append(Span(f"{gap}✗ not delivered", "error"))
    elif event.handler is not None:
        label = symbols.words(event.handler)
        spans += (Span(f"{gap}→ ", "operator"), Span(f"{event.handler:x}", "addr"))
        spans.append(Span(f" {label}" if label else "", "symbol"))
    return EventWords(f"{name}{code}", style, tuple(spans))


def _page_fault(code: int, cr2: int | None, symbols: Symbols) -> list[Span]:
    """``write 7000 <table>, supervisor, protection violation``: the access first."""
    kind = "fetch" if code & PF_FETCH else "write" if code & PF_WRITE else "read"
    words = [word for word in decode_error_code(14, code) if word not in ("write", "read", "instruction fetch")]
    spans = [Span(f"{kind} ", "value")]
    if cr2 is not None:
        where = symbols.words(cr2)
        spans += (Span(f"{cr2:x}", "num"), Span(f" {where}" if where else "", "symbol"))
    # Who, then why.
    return [*spans, Span("".join(f", {word}" for word in reversed(words)), "dim")]


def _apic_register(event: MmioEvent) -> str:
    """Which register of an interrupt controller was accessed; empty for other devices."""
    if event.device == "ioapic":
        return _IOAPIC.get(event.address & 0xFF, "")
    found = REGISTERS.get(event.address & 0xFFF) if event.device.startswith("lapic") else None
    return found.name if found is not None else ""


def _msr(index: int) -> str:
    """``IA32_EFER``, or ``x2APIC ICR`` for a local APIC's register."""
    found = REGISTERS.get(index - X2APIC.start << 4) if index in X2APIC else None
    return msr_name(index) if found is None else f"x2APIC {found.name}"


def _access(write: bool, where: str, size: int, value: int, device: str, nobody: str) -> EventWords:
    # What is read is a status more often than a character.
    text = f" '{chr(value)}'" if write and size == 1 and printable(value) == chr(value) else ""
    return EventWords(
        f"{'out' if write else 'in'}{8 * size}",
        "mnemonic" if device else "warn",
        (
            Span(where, "reg"),
            Span(" ← " if write else " = ", "operator"),
            Span(f"{value:0{2 * size}x}", "num"),
            Span(text, "string"),
            Span(f"  {device or nobody}", "dim" if device else "warn"),
        ),
    )


def _control(event: ControlRegisterEvent) -> EventWords:
    """``cr0 80000011 → 80010011  +WP``."""
    spans = [Span(f"{event.old:x}", "dim"), Span(" → ", "operator"), Span(f"{event.new:x}", "num")]
    for bit in reversed(BIT_TABLES.get(event.name, ())):
        if bit.name == "BASE" or not (event.old ^ event.new) & bit.mask:
            continue
        if bit.width == 1:
            on = event.new & bit.mask
            spans.append(Span(f" {'+' if on else '-'}{bit.name}", "flag_on" if on else "dim"))
        else:
            spans.append(Span(f" {bit.name}={bit.of(event.new):x}", "flag_on"))
    return EventWords(event.name, "accent", tuple(spans))
