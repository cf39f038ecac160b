"""The first serial port: a 16550A UART at 0x3f8 (National PC16550D data sheet, section 8).

A byte written is sent at once, so the transmitter is always empty.  Nothing is received, except in loopback mode.  The
interrupt registers work as documented; the interrupt line leads nowhere, because the machine raises no interrupts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range, bit_names

__all__ = ["Uart16550"]

_BASE: Final = 0x3F8
_CLOCK: Final = 115200
"""Baud rate at divisor 1."""
_FIFO_SIZE: Final = 16

# Register offsets from the base port.
_DATA, _IER, _IIR_FCR, _LCR, _MCR, _LSR, _MSR, _SCR = range(8)

_IER_BITS: Final = ((0, "ERBFI"), (1, "ETBEI"), (2, "ELSI"), (3, "EDSSI"))
_LCR_BITS: Final = ((2, "STB"), (3, "PEN"), (4, "EPS"), (5, "STICK"), (6, "BREAK"), (7, "DLAB"))
_MCR_BITS: Final = ((0, "DTR"), (1, "RTS"), (2, "OUT1"), (3, "OUT2"), (4, "LOOP"))
_LSR_BITS: Final = ((0, "DR"), (1, "OE"), (2, "PE"), (3, "FE"), (4, "BI"), (5, "THRE"), (6, "TEMT"), (7, "ERR"))
_MSR_BITS: Final = (
    (0, "DCTS"),
    (1, "DDSR"),
    (2, "TERI"),
    (3, "DDCD"),
    (4, "CTS"),
    (5, "DSR"),
    (6, "RI"),
    (7, "DCD"),
)
_DLAB: Final = 0x80
_LOOP: Final = 0x10
_LSR_DR: Final = 0x01
_LSR_OE: Final = 0x02
_LSR_EMPTY: Final = 0x60
_MSR_CONNECTED: Final = 0xB0
"""CTS, DSR and DCD: somebody listens at the other end."""
# In loopback the modem outputs feed the inputs: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD.
_LOOPBACK: Final = ((0, 5), (1, 4), (2, 6), (3, 7))
_IIR_MEANING: Final = {
    0x1: "no interrupt pending",
    0x6: "receiver line status",
    0x4: "received data available",
    0x2: "transmitter empty",
    0x0: "modem status",
}


class Uart16550(Device):
    """Eight ports.  ``output`` gets each byte sent."""

    name = "uart"
    ports = (Range(_BASE, 8, access=1),)

    def __init__(self, output: Callable[[int], None]) -> None:
        self._output = output
        self._divisor = 12
        self._ier = self._fcr = self._lcr = self._scr = 0
        self._mcr = 0x08
        self._overrun = 0
        self._transmit_interrupt = False
        self._modem = _MSR_CONNECTED
        self._received: deque[int] = deque()

    def port_read(self, port: int, size: int) -> int:
        """Read a register, with its side effects."""
        offset = port - _BASE
        if self._lcr & _DLAB and offset <= _IER:
            return self._divisor >> 8 * offset & 0xFF
        if offset == _DATA:
            return self._received.popleft() if self._received else 0
        if offset == _IER:
            return self._ier
        if offset == _IIR_FCR:
            value = self._iir()
            if value & 0xF == 0x2:
                self._transmit_interrupt = False
            return value
        if offset == _LSR:
            value, self._overrun = self._lsr(), 0
            return value
        if offset == _MSR:
            value, self._modem = self._modem, self._modem & 0xF0
            return value
        return {_LCR: self._lcr, _MCR: self._mcr, _SCR: self._scr}[offset]

    def port_write(self, port: int, size: int, value: int) -> None:
        """Write a register; LSR and MSR take no writes."""
        offset = port - _BASE
        if self._lcr & _DLAB and offset <= _IER:
            shift = 8 * offset
            self._divisor = self._divisor & ~(0xFF << shift) | value << shift
        elif offset == _DATA:
            self._send(value)
        elif offset == _IER:
            # Enabling ETBEI while the transmitter is empty raises its interrupt again.
            self._transmit_interrupt |= bool(value & ~self._ier & 0x2)
            self._ier = value & 0xF
        elif offset == _IIR_FCR:
            if value & 0x2 or (value ^ self._fcr) & 0x1:
                self._received.clear()
            self._fcr = value & 0xC9
        elif offset == _LCR:
            self._lcr = value
        elif offset == _MCR:
            self._mcr = value & 0x1F
            self._update_modem()
        elif offset == _SCR:
            self._scr = value

    def _send(self, value: int) -> None:
        if self._mcr & _LOOP:
            depth = _FIFO_SIZE if self._fcr & 1 else 1
            if len(self._received) >= depth:
                self._overrun = _LSR_OE
                if depth == 1:
                    self._received[0] = value
            else:
                self._received.append(value)
        else:
            self._output(value)
        self._transmit_interrupt = True

    def _update_modem(self) -> None:
        level = _MSR_CONNECTED
        if self._mcr & _LOOP:
            level = sum((self._mcr >> source & 1) << target for source, target in _LOOPBACK)
        changed = (level ^ self._modem) & 0xF0
        # RI reports its trailing edge only.
        if level & 0x40:
            changed &= ~0x40
        self._modem = level | self._modem & 0x0F | changed >> 4

    def _lsr(self) -> int:
        return _LSR_EMPTY | self._overrun | (_LSR_DR if self._received else 0)

    def _iir(self) -> int:
        fifo = 0xC0 if self._fcr & 1 else 0
        if self._ier & 0x4 and self._overrun:
            return fifo | 0x6
        if self._ier & 0x1 and self._received:
            return fifo | 0x4
        if self._ier & 0x2 and self._transmit_interrupt:
            return fifo | 0x2
        if self._ier & 0x8 and self._modem & 0x0F:
            return fifo
        return fifo | 0x1

    def view(self) -> DeviceView:
        """All registers, read without their side effects."""
        lcr, iir, lsr = self._lcr, self._iir(), self._lsr()
        rate = f"{_CLOCK // self._divisor} baud" if self._divisor else "divisor 0"
        frame = f"{5 + (lcr & 3)} bits, {'parity' if lcr & 8 else 'no parity'}, {2 if lcr & 4 else 1} stop"
        return DeviceView(
            self.name,
            "ports 0x3f8-0x3ff",
            (
                DeviceField("IER", f"{self._ier:#04x}", bit_names(_IER_BITS, self._ier)),
                DeviceField("IIR", f"{iir:#04x}", _IIR_MEANING[iir & 0xF] + (", FIFO on" if iir & 0xC0 else "")),
                DeviceField("FCR", f"{self._fcr:#04x}", "FIFO on" if self._fcr & 1 else "FIFO off"),
                DeviceField("LCR", f"{lcr:#04x}", f"{frame} {bit_names(_LCR_BITS, lcr & 0xC0)}".strip()),
                DeviceField("MCR", f"{self._mcr:#04x}", bit_names(_MCR_BITS, self._mcr)),
                DeviceField("LSR", f"{lsr:#04x}", bit_names(_LSR_BITS, lsr)),
                DeviceField("MSR", f"{self._modem:#04x}", bit_names(_MSR_BITS, self._modem)),
                DeviceField("SCR", f"{self._scr:#04x}", "scratch"),
                DeviceField("DLM:DLL", f"{self._divisor:#06x}", rate),
                DeviceField("received", str(len(self._received)), "bytes waiting (loopback)"),
            ),
        )

    def save(self) -> DeviceState:
        """Every register and the receive FIFO."""
        return (
            self._divisor,
            self._ier,
            self._fcr,
            self._lcr,
            self._mcr,
            self._scr,
            self._overrun,
            int(self._transmit_interrupt),
            self._modem,
            bytes(self._received),
        )

    def restore(self, state: DeviceState) -> None:
        """Put every register and the FIFO back."""
        *registers, received = state
        assert isinstance(received, bytes)
        numbers = [number for number in registers if isinstance(number, int)]
        self._divisor, self._ier, self._fcr, self._lcr, self._mcr, self._scr, self._overrun = numbers[:7]
        self._transmit_interrupt, self._modem = bool(numbers[7]), numbers[8]
        self._received = deque(received)
