"""How interrupts travel: lines from devices to controllers, messages between APICs, signals at the processors' pins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

__all__ = ["ApicBus", "DeliveryMode", "EoiListener", "Line", "Message", "MsrFault", "Receiver", "Signals"]

Line = Callable[[bool], None]
"""An interrupt line as its device sees it: call it with the level.  An edge is two calls."""


class DeliveryMode(IntEnum):
    """Delivery modes of ICR, redirection entries and MSIs (SDM vol. 3A section 11.6.1)."""

    FIXED = 0
    LOWEST = 1
    SMI = 2
    NMI = 4
    INIT = 5
    SIPI = 6
    EXTINT = 7


class MsrFault(Exception):
    """An MSR access that the device refuses: #GP(0) at the instruction."""


@dataclass(slots=True)
class Signals:
    """What waits at one processor's pins.  Controllers set it, the engine takes it at instruction boundaries.

    Whoever sets anything calls ``kick`` so that the processor looks.
    """

    kick: Callable[[], None]
    interrupt: bool = False
    """INTR: a maskable interrupt is ready; RFLAGS.IF is the engine's to respect, priorities are the controller's."""
    nmi: bool = False
    init: bool = False
    reset: bool = False
    """Power is cut (S3): the processor is reset and then waits for ``startup``, also the first one."""
    startup: tuple[int, int] | None = None
    """(CS selector, IP) to start at in real-address mode: SIPI, or the resume from S3; taken only while it waits for it."""

    @property
    def any(self) -> bool:
        """Something waits."""
        return self.interrupt or self.nmi or self.init or self.reset or self.startup is not None


@dataclass(frozen=True, slots=True)
class Message:
    """One interrupt message (SDM vol. 3A sections 11.6.1, 11.11)."""

    vector: int
    mode: DeliveryMode = DeliveryMode.FIXED
    destination: int = 0
    """APIC ID (physical) or message destination address (logical)."""
    logical: bool = False
    level: bool = False
    """Level triggered (else edge)."""
    assert_: bool = True
    """Level bit of the ICR; False only in INIT level de-assert, which does nothing on these processors."""
    wide: bool = False
    """The destination has 32 bits (ICR in x2APIC mode), so that 0xff is an ordinary one; else 0xff is everybody."""


class Receiver(Protocol):
    """A local APIC on the bus."""

    def accepts(self, message: Message) -> bool:
        """True when the destination of ``message`` (shorthands are the sender's) names this APIC."""
        ...

    @property
    def priority(self) -> int:
        """Processor priority for lowest-priority arbitration (PPR)."""
        ...

    def receive(self, message: Message) -> None:
        """Take the interrupt."""
        ...


class EoiListener(Protocol):
    """An I/O APIC: it hears of the end of level-triggered interrupts."""

    def end_of_interrupt(self, vector: int) -> None: ...


class ApicBus:
    """Messages from I/O APICs, MSIs and IPIs to local APICs, and EOIs back."""

    def __init__(self) -> None:
        self.receivers: list[Receiver] = []
        self.listeners: list[EoiListener] = []

    def send(self, message: Message) -> bool:
        """Deliver to every APIC addressed (of a lowest-priority message: to one).  False when nobody accepts."""
        targets = [apic for apic in self.receivers if apic.accepts(message)]
        if message.mode == DeliveryMode.LOWEST and targets:
            # Of equals the one of the lowest number: deterministic, as the manual leaves it open.
            targets = [min(targets, key=lambda apic: apic.priority)]
        for apic in targets:
            apic.receive(message)
        return bool(targets)

    def end_of_interrupt(self, vector: int) -> None:
        """A level-triggered ``vector`` has ended at some local APIC."""
        for listener in self.listeners:
            listener.end_of_interrupt(vector)

    def message_signalled(self, address: int, data: int) -> bool:
        """A write of ``data`` to ``address`` in FEExxxxx: an MSI (SDM vol. 3A section 11.11)."""
        mode = data >> 8 & 7
        if mode == 3:
            return False
        return self.send(
            Message(
                vector=data & 0xFF,
                mode=DeliveryMode(mode),
                destination=address >> 12 & 0xFF,
                logical=bool(address >> 2 & 1),
                level=bool(data >> 15 & 1),
            )
        )
