"""The places in the manuals, as a table."""

from __future__ import annotations

from typing import Final

from kvmscope.vmm.events import ExceptionEvent, ExceptionSource
from kvmscope.x86.exceptions import mnemonic

__all__ = ["REFERENCES", "event_title", "vector_title"]

_NMI: Final = 2

REFERENCES: Final[dict[str, tuple[str, ...]]] = {
    "#DE": ("SDM vol. 3A 6.15 (interrupt 0)", "SDM vol. 2A DIV, IDIV"),
    "#DB": ("SDM vol. 3B 18.2.3 (DR6)", "SDM vol. 3B 18.3.1"),
    "#BP": ("SDM vol. 3A 6.15 (interrupt 3)",),
    "#OF": ("SDM vol. 3A 6.15 (interrupt 4)",),
    "#BR": ("SDM vol. 3A 6.15 (interrupt 5)", "SDM vol. 2A BOUND"),
    "#UD": ("SDM vol. 3A 6.15 (interrupt 6)",),
    "#NM": ("SDM vol. 3A 6.15 (interrupt 7)", "SDM vol. 3A 2.5 (CR0.TS, EM, MP)"),
    "#DF": ("SDM vol. 3A 6.15 (interrupt 8), table 6-5", "APM vol. 2 8.2.9"),
    "#TS": ("SDM vol. 3A 6.15 (interrupt 10), table 6-6",),
    "#NP": ("SDM vol. 3A 6.15 (interrupt 11)",),
    "#SS": ("SDM vol. 3A 6.15 (interrupt 12)",),
    "#GP": ("SDM vol. 3A 6.15 (interrupt 13)",),
    "#PF": ("SDM vol. 3A 4.6 (access rights), 4.7 (error code)", "APM vol. 2 5.6"),
    "#MF": ("SDM vol. 1 8.7", "SDM vol. 3A 6.15 (interrupt 16)"),
    "#AC": ("SDM vol. 3A 6.15 (interrupt 17)",),
    "#XM": ("SDM vol. 1 11.5", "SDM vol. 3A 6.15 (interrupt 19)"),
    "interrupt": ("SDM vol. 3A 6.12",),
    "nmi": ("SDM vol. 3A 6.7 (NMI), 6.7.1 (further NMIs wait for IRET)",),
    "reset": ("SDM vol. 3A 9.1 (reset and INIT)",),
    "start-up": ("SDM vol. 3A 9.4.4 (INIT and start-up IPIs)",),
    "gate": ("SDM vol. 3A 6.11, 6.14.1 (IDT gates)",),
    "selector": ("SDM vol. 3A 5.5 to 5.8 (privilege checks)", "SDM vol. 3A 3.4.5 (descriptors)"),
    "privileged": ("SDM vol. 3A 5.9 (privileged instructions)",),
    "io": ("SDM vol. 1 19.5.2 (I/O permission bitmap)",),
    "canonical": ("SDM vol. 1 3.3.7.1 (canonical addressing)",),
    "limit": ("SDM vol. 3A 5.3 (limit checking)",),
    "type": ("SDM vol. 3A 5.4 (type checking)",),
    "cr": ("SDM vol. 3A 2.5 (control registers)", "SDM vol. 2B MOV (control registers)"),
    "dr": ("SDM vol. 3B 18.2 (debug registers)", "SDM vol. 2B MOV (debug registers)"),
    "msr": ("SDM vol. 2D WRMSR, 2B RDMSR", "SDM vol. 4 (MSRs)"),
    "xsetbv": ("SDM vol. 2D XSETBV", "SDM vol. 1 13.3"),
    "triple": ("SDM vol. 3A 6.15 (interrupt 8): shutdown", "APM vol. 2 14.1.3"),
    "hlt": ("SDM vol. 2A HLT",),
    "debug-exit": ("QEMU isa-debug-exit: status (value << 1) | 1",),
    "return": ("SDM vol. 2A IRET, 2B RET, SYSRET, SYSEXIT",),
}


def vector_title(vector: int, error_code: int | None) -> str:
    """``#PF(0x2)``, ``#UD``, ``INT 0x80``."""
    name = mnemonic(vector)
    return name if error_code is None else f"{name}({error_code:#x})"


def event_title(event: ExceptionEvent) -> str:
    """Like `vector_title`; an interrupt from outside is ``IRQ 0x20``, whatever exception has its number, or ``NMI``."""
    if event.source is ExceptionSource.EXTERNAL and event.vector != _NMI:
        return f"IRQ {event.vector:#x}"
    return vector_title(event.vector, event.error_code)
