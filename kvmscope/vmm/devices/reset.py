"""The chipset's reset registers: port 0x92 and port 0xcf9 (Intel ICH9 data sheet, sections 13.7.3 and 13.7.5).

Two kinds of reset come from them: `INIT` restarts the processors and leaves the devices alone, `RESET` restarts all.
Processors of today have no A20M# pin, so the A20 bits here and in the keyboard controller mask no address: they only
read back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range, bit_names

__all__ = ["INIT", "RESET", "ResetControl", "ResetKind"]

ResetKind = Literal["init", "reset"]
INIT: Final = "init"
"""INIT# to every processor: registers are reset, caches, memory and devices stay."""
RESET: Final = "reset"
"""The platform's reset: processors and devices."""

_FAST: Final = 0x92
_CONTROL: Final = 0xCF9
_FAST_BITS: Final = ((0, "INIT_NOW"), (1, "A20"))
_CONTROL_BITS: Final = ((1, "SYS_RST"), (2, "RST_CPU"), (3, "FULL_RST"))
_INIT_NOW: Final = 0x01
_SYS_RST: Final = 0x02
_RST_CPU: Final = 0x04


class ResetControl(Device):
    """``reset`` is called when bit 0 of port 0x92 or bit 2 of port 0xcf9 goes from 0 to 1.

    It has to come before the PCI root on the bus: 0xcf9 lies in the configuration address register, and is a register of
    its own for byte accesses.  A platform reset clears port 0x92 bit 0 (`restart`), an INIT does not: by that software
    tells them apart.
    """

    name = "reset"
    ports = (Range(_FAST, 1, access=1), Range(_CONTROL, 1, access=1))

    def __init__(self, reset: Callable[[ResetKind], None]) -> None:
        self._reset = reset
        self._fast = 0x02
        self._control = 0

    def restart(self) -> None:
        """The platform has been reset; A20 is on, as firmware leaves it."""
        self._fast, self._control = 0x02, 0

    def port_read(self, port: int, size: int) -> int:
        """The register."""
        return self._fast if port == _FAST else self._control

    def port_write(self, port: int, size: int, value: int) -> None:
        """Change it; a rising reset bit resets."""
        if port == _FAST:
            rising, self._fast = value & ~self._fast & _INIT_NOW, value & 0x03
            if rising:
                self._reset(INIT)
        else:
            rising, self._control = value & ~self._control & _RST_CPU, value & 0x0E
            if rising:
                self._reset(RESET if value & _SYS_RST else INIT)

    def view(self) -> DeviceView:
        """Both registers."""
        kind = "of the platform" if self._control & _SYS_RST else "of the processors"
        return DeviceView(
            self.name,
            "ports 0x92, 0xcf9",
            (
                DeviceField("port 92", f"{self._fast:#04x}", bit_names(_FAST_BITS, self._fast)),
                DeviceField(
                    "RST_CNT",
                    f"{self._control:#04x}",
                    f"{bit_names(_CONTROL_BITS, self._control)} reset {kind}".strip(),
                ),
            ),
        )

    def save(self) -> DeviceState:
        """Both registers."""
        return (self._fast, self._control)

    def restore(self, state: DeviceState) -> None:
        """Put both back."""
        fast, control = state
        assert isinstance(fast, int)
        assert isinstance(control, int)
        self._fast, self._control = fast, control
