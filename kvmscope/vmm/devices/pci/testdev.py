"""pci-testdev: counts writes to one address, by memory and by port (QEMU hw/misc/pci-testdev.c)."""

from __future__ import annotations

from typing import Final

from kvmscope.vmm.devices.device import DeviceField, DeviceState
from kvmscope.vmm.devices.pci.function import Bar, Identity, PciFunction

__all__ = ["PciTestDevice"]

_KINDS: Final = (("mmio", 2048), ("portio", 128))
"""Name and trigger offset of the first test, by base address register."""
_TESTS: Final = ("no-eventfd", "wildcard-eventfd", "datamatch-eventfd")
_WILDCARD: Final = 1
_MATCH_DATA: Final = 0xFA
_WILDCARD_DATA: Final = 0xCE
_COUNT: Final = 12
"""Offset of the count in the header."""


class PciTestDevice(PciFunction):
    """Two windows, each with a header and one trigger byte.

    Writing 0, 1 or 2 to byte 0 selects a test; then the header reads ``test`` (u8), ``width`` (u8), offset of the trigger
    (u32 at 4), data (u8 at 8), count (u32 at 12), name (at 16).  A byte written to the trigger counts, if it is the data
    or the test is the wildcard one.  QEMU's ioeventfds, for which the tests are named, do not exist here: every write is
    counted, as QEMU does without KVM.
    """

    __test__ = False

    name = "pci-testdev"
    identity = Identity(0x1B36, 0x0005, 0x00FF00)
    bars = (Bar(4096, access=1), Bar(256, io=True, access=1))

    def __init__(self) -> None:
        super().__init__()
        self._current = -1
        """Window * 3 + test; -1: none."""
        self._count = 0

    def _header(self) -> bytes:
        kind, trigger = _KINDS[self._current // len(_TESTS)]
        test = self._current % len(_TESTS)
        head = bytes((self._current, 1, 0, 0)) + (trigger + self._current).to_bytes(4, "little")
        head += bytes((_WILDCARD_DATA if test == _WILDCARD else _MATCH_DATA, 0, 0, 0))
        return head + self._count.to_bytes(4, "little") + f"{kind}-{_TESTS[test]}".encode()

    def bar_read(self, number: int, offset: int, size: int) -> int:
        """A byte of the header of the test selected, through either window."""
        header = b"" if self._current < 0 else self._header()
        return header[offset] if offset < len(header) else 0

    def bar_write(self, number: int, offset: int, size: int, value: int) -> None:
        """Select a test, or count."""
        if offset == 0:
            self._current = number * len(_TESTS) + value if value < len(_TESTS) else -1
            self._count = 0
        elif self._current >= 0:
            trigger = _KINDS[self._current // len(_TESTS)][1] + self._current
            wildcard = self._current % len(_TESTS) == _WILDCARD
            if offset == trigger and (wildcard or value == _MATCH_DATA):
                self._count = self._count + 1 & 0xFFFFFFFF

    def fields(self) -> tuple[DeviceField, ...]:
        """The test selected and its count."""
        name = "none selected" if self._current < 0 else self._header()[_COUNT + 4 :].decode()
        return (DeviceField("test", str(self._current), name), DeviceField("count", str(self._count)))

    def save(self) -> DeviceState:
        """Configuration, test and count."""
        return (*super().save(), self._current, self._count)

    def restore(self, state: DeviceState) -> None:
        """Put them back."""
        config, current, count = state
        assert isinstance(current, int)
        assert isinstance(count, int)
        super().restore((config,))
        self._current, self._count = current, count
