"""Why the unit blocks a request (VT-d specification, appendix A, legacy mode)."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Reason", "RemapFault"]


class Reason(IntEnum):
    """Fault reason encodings."""

    ROOT_NOT_PRESENT = 0x01
    CONTEXT_NOT_PRESENT = 0x02
    CONTEXT_INVALID = 0x03
    ADDRESS_TOO_WIDE = 0x04
    WRITE_REFUSED = 0x05
    READ_REFUSED = 0x06
    ROOT_RESERVED = 0x0A
    CONTEXT_RESERVED = 0x0B
    PAGING_RESERVED = 0x0C
    REQUEST_RESERVED = 0x20
    INDEX_TOO_HIGH = 0x21
    IRTE_NOT_PRESENT = 0x22
    IRTE_RESERVED = 0x24
    COMPATIBILITY_BLOCKED = 0x25
    SOURCE_REFUSED = 0x26

    @property
    def interrupt(self) -> bool:
        """A fault of interrupt remapping."""
        return self >= Reason.REQUEST_RESERVED


_UNQUALIFIED = {
    Reason.ROOT_NOT_PRESENT,
    Reason.ROOT_RESERVED,
    Reason.REQUEST_RESERVED,
    Reason.INDEX_TOO_HIGH,
    Reason.COMPATIBILITY_BLOCKED,
}


class RemapFault(Exception):
    """A request is blocked for ``reason``.

    ``silent``: the entry's FPD bit is set, so a qualified fault is neither recorded nor reported.  ``index`` is that of
    the interrupt.
    """

    def __init__(self, reason: Reason, fpd: bool = False, index: int = 0) -> None:
        super().__init__(reason.name)
        self.reason = reason
        self.silent = fpd and reason not in _UNQUALIFIED
        self.index = index
