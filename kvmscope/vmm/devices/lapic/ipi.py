"""Who is addressed by a message (SDM vol. 3A sections 11.6.2 and 11.12.10), and the message that the ICR describes."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from kvmscope.vmm.devices.interrupts import DeliveryMode, Message

__all__ = ["BROADCAST", "Shorthand", "icr_message", "matches_x2apic", "matches_xapic", "x2apic_logical_id"]

BROADCAST: Final = 0xFFFFFFFF
"""Everybody, whatever the mode of their APICs; in a message of 8-bit destinations 0xff is the same."""
_BROADCAST8: Final = 0xFF

_RESERVED_MODES: Final = (3, DeliveryMode.EXTINT)
"""Of the ICR (figure 11-12)."""


class Shorthand(IntEnum):
    """Destination shorthand, bits 19:18 of the ICR."""

    NONE = 0
    SELF = 1
    ALL = 2
    OTHERS = 3


def x2apic_logical_id(apic_id: int) -> int:
    """The LDR in x2APIC mode: cluster in the high half, one bit in the low one (section 11.12.10.2)."""
    return apic_id >> 4 << 16 | 1 << (apic_id & 0xF)


def _is_broadcast(message: Message) -> bool:
    return message.destination == BROADCAST or (message.destination == _BROADCAST8 and not message.wide)


def matches_x2apic(message: Message, apic_id: int) -> bool:
    """True when ``message`` is for an APIC in x2APIC mode."""
    if _is_broadcast(message):
        return True
    if not message.logical:
        return message.destination == apic_id
    logical = x2apic_logical_id(apic_id)
    return message.destination >> 16 == logical >> 16 and bool(message.destination & logical & 0xFFFF)


def matches_xapic(message: Message, xapic_id: int, x2apic_id: int, ldr: int, dfr: int) -> bool:
    """True when ``message`` is for an APIC in xAPIC mode.

    A destination above 255 can only mean an APIC whose ID the 8-bit register does not hold, before its software has
    turned x2APIC mode on (KVM does the same: such a processor could not be started otherwise).
    """
    if _is_broadcast(message):
        return True
    if message.destination > _BROADCAST8:
        return not message.logical and message.destination == x2apic_id
    if not message.logical:
        return message.destination == xapic_id
    logical, model = ldr >> 24, dfr >> 28
    if model == 0xF:
        return bool(message.destination & logical)
    if model == 0:
        return message.destination >> 4 == logical >> 4 and bool(message.destination & logical & 0xF)
    return False


def icr_message(low: int, destination: int, wide: bool) -> Message | None:
    """The message that a write of ``low`` to the ICR sends; None when it sends none.

    Reserved delivery modes send nothing, nor does INIT level de-assert, which only processors with an APIC bus heed.
    The trigger mode matters to that alone: IPIs are edge triggered.  ``wide``: the destination has 32 bits.
    """
    mode, level, level_triggered = low >> 8 & 7, bool(low >> 14 & 1), bool(low >> 15 & 1)
    if mode in _RESERVED_MODES or (mode == DeliveryMode.INIT and level_triggered and not level):
        return None
    return Message(
        vector=low & 0xFF,
        mode=DeliveryMode(mode),
        destination=destination,
        logical=bool(low >> 11 & 1),
        wide=wide,
    )
