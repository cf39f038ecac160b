"""The keyboard controller: an 8042 at ports 0x60 and 0x64, with no keyboard and no mouse plugged in.

IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller".  A command is obeyed at
once, so the input buffer is always empty.  Bytes sent to the devices that are not there end with a time-out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range, bit_names
from kvmscope.vmm.devices.interrupts import Line
from kvmscope.vmm.devices.reset import INIT, ResetKind

__all__ = ["KeyboardController"]

_DATA: Final = 0x60
_COMMAND: Final = 0x64

_STATUS_BITS: Final = (
    (0, "OBF"),
    (1, "IBF"),
    (2, "SYS"),
    (3, "COMMAND"),
    (4, "UNLOCKED"),
    (5, "AUX"),
    (6, "TIMEOUT"),
    (7, "PARITY"),
)
_OBF: Final = 0x01
_SYS: Final = 0x04
_WAS_COMMAND: Final = 0x08
_UNLOCKED: Final = 0x10
_AUX: Final = 0x20
_TIMEOUT: Final = 0x40
_CONFIG_BITS: Final = ((0, "INT"), (1, "AUX_INT"), (2, "SYS"), (4, "OFF"), (5, "AUX_OFF"), (6, "TRANSLATE"))
_OUTPUT_BITS: Final = ((0, "RESET#"), (1, "A20"), (4, "IRQ1"), (5, "IRQ12"), (6, "CLOCK"), (7, "DATA"))
_RESET_LINE: Final = 0x01
_A20: Final = 0x02
_KEYBOARD_OFF: Final = 0x10
_AUX_OFF: Final = 0x20
_NO_ANSWER: Final = 0xFE
"""What the controller puts into the output buffer when a device does not answer."""
_INPUT_PORT: Final = 0xB0
"""Keyboard not locked, manufacturing jumper not set, colour display."""

# Commands that take a byte at port 0x60.
_TAKES_DATA: Final = {0x60, 0xD1, 0xD2, 0xD3, 0xD4}
# Commands that only answer: self test passed, auxiliary and keyboard interface tests passed, input port.
_ANSWERS: Final = {0xAA: 0x55, 0xA9: 0x00, 0xAB: 0x00, 0xC0: _INPUT_PORT}
# Commands that set or clear a bit of the configuration byte: (bits to clear, bits to set).
_CONFIGURE: Final = {0xA7: (0, _AUX_OFF), 0xA8: (_AUX_OFF, 0), 0xAD: (0, _KEYBOARD_OFF), 0xAE: (_KEYBOARD_OFF, 0)}


class KeyboardController(Device):
    """``irq`` is interrupt line 1, ``aux_irq`` line 12, ``reset`` the processors' INIT (a falling RESET# line)."""

    name = "i8042"
    ports = (Range(_DATA, 1, access=1), Range(_COMMAND, 1, access=1))

    def __init__(self, reset: Callable[[ResetKind], None], irq: Line, aux_irq: Line) -> None:
        self._reset = reset
        self._lines = irq, aux_irq
        self.restart()

    def restart(self) -> None:
        """As firmware leaves it that found no keyboard: interfaces and interrupts off, A20 on."""
        self._config = _SYS | _KEYBOARD_OFF | _AUX_OFF
        self._output = _RESET_LINE | _A20 | 0xC0
        self._status = _SYS | _UNLOCKED
        self._buffer = 0
        self._command = 0

    def port_read(self, port: int, size: int) -> int:
        """The status, or the output buffer (which empties it)."""
        if port == _COMMAND:
            return self._status
        if self._status & _OBF:
            self._status &= ~(_OBF | _AUX | _TIMEOUT)
            self._drive()
        return self._buffer

    def port_write(self, port: int, size: int, value: int) -> None:
        """A command (port 0x64), or a byte for the last command or the keyboard (port 0x60)."""
        if port == _COMMAND:
            self._status |= _WAS_COMMAND
            self._obey(value)
            return
        self._status &= ~_WAS_COMMAND
        command, self._command = self._command, 0
        if command == 0x60:
            self._configure(value)
        elif command == 0xD1:
            self._set_output(value)
        elif command == 0xD2:
            self._answer(value)
        elif command == 0xD3:
            self._answer(value, _AUX)
        else:
            # To the mouse after 0xd4, else to the keyboard.  Sending enables the interface.
            aux = command == 0xD4
            self._configure(self._config & ~(_AUX_OFF if aux else _KEYBOARD_OFF))
            self._answer(_NO_ANSWER, _TIMEOUT | (_AUX if aux else 0))

    def _obey(self, command: int) -> None:
        self._command = command if command in _TAKES_DATA else 0
        if command == 0x20:
            self._answer(self._config)
        elif command in _ANSWERS:
            if command == 0xAA:
                # The self test also resets the configuration.
                self._configure(_SYS | _KEYBOARD_OFF | _AUX_OFF)
            self._answer(_ANSWERS[command])
        elif command in _CONFIGURE:
            clear, put = _CONFIGURE[command]
            self._configure(self._config & ~clear | put)
        elif command == 0xD0:
            self._answer(self._output)
        elif command in (0xDD, 0xDF):
            self._set_output(self._output & ~_A20 | (_A20 if command == 0xDF else 0))
        elif command >= 0xF0 and not command & _RESET_LINE:
            # Pulse the output lines whose bit is 0.  Only RESET# hears it.
            self._reset(INIT)

    def _configure(self, config: int) -> None:
        self._config = config & 0x77
        self._status = self._status & ~_SYS | self._config & _SYS
        self._drive()

    def _set_output(self, value: int) -> None:
        falling = self._output & ~value & _RESET_LINE
        self._output = self._output & 0x30 | value & ~0x30
        if falling:
            # INIT# is a pulse to the processors: the line is high again when they restart.
            self._output |= _RESET_LINE
            self._reset(INIT)

    def _answer(self, value: int, flags: int = 0) -> None:
        self._buffer = value
        self._status = self._status & ~(_AUX | _TIMEOUT) | _OBF | flags
        self._drive()

    def _drive(self) -> None:
        """Interrupt lines: high while the output buffer is full, if the configuration byte allows."""
        full, aux = bool(self._status & _OBF), bool(self._status & _AUX)
        levels = (full and not aux and bool(self._config & 1), full and aux and bool(self._config & 2))
        before = self._output
        self._output = before & ~0x30 | levels[0] << 4 | levels[1] << 5
        for bit, line, level in zip((4, 5), self._lines, levels, strict=True):
            if before >> bit & 1 != level:
                line(level)

    def view(self) -> DeviceView:
        """Status, configuration, ports and buffer."""
        waits = f"for the byte of command {self._command:#04x}" if self._command else ""
        return DeviceView(
            self.name,
            "ports 0x60, 0x64",
            (
                DeviceField("status", f"{self._status:#04x}", bit_names(_STATUS_BITS, self._status)),
                DeviceField("config", f"{self._config:#04x}", bit_names(_CONFIG_BITS, self._config)),
                DeviceField("output port", f"{self._output:#04x}", bit_names(_OUTPUT_BITS, self._output)),
                DeviceField("buffer", f"{self._buffer:#04x}", waits),
            ),
        )

    def save(self) -> DeviceState:
        """Every register; the output port holds the levels of the interrupt lines."""
        return (self._config, self._output, self._status, self._buffer, self._command)

    def restore(self, state: DeviceState) -> None:
        """Put every register back."""
        numbers = [number for number in state if isinstance(number, int)]
        self._config, self._output, self._status, self._buffer, self._command = numbers
