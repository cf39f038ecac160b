"""The two 8259A interrupt controllers of a PC (Intel 8259A data sheet; the ELCR of the 82371SB, section 2.5.4).

The slave sits at IR2 of the master.  Where KVM's `i8259.c` and the data sheet differ, KVM is followed:

- a rising edge is kept in the IRR even if the line falls before it is acknowledged (the data sheet gives a spurious
  IR7); a spurious IR7 comes when the request was masked, or a level went away, before the acknowledge;
- ICW1's LTIM, ICW3 and ICW4's uPM and buffered mode are kept for the view but change nothing: edge or level is the
  ELCR's choice and the cascade is soldered.  SNGL only leaves ICW3 out;
- as long as the slave requests, the master's IR2 is requested again after each acknowledge (QEMU can lose it), and a
  poll of the slave takes its request to the master back.

An input that the ELCR makes level triggered requests exactly while its line is high, from then on.  ICW1 clears the
ISR too, as QEMU does (the data sheet does not say).  Before ICW1-ICW4 have been written there is no interrupt, whatever
the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range
from kvmscope.vmm.devices.interrupts import Line
from kvmscope.vmm.devices.unheard import Source, catch_up, rearm

__all__ = ["Pic"]

_CASCADE: Final = 2
"""The master's input at which the slave is."""
_SPURIOUS: Final = 7
_ELCR_WRITABLE: Final = (0xF8, 0xDE)
"""IRQ0, 1, 2, 8 and 13 are edge triggered whatever is written."""
_BIOS: Final = ((0x08, 0xB8, 0x00), (0x70, 0x8E, 0x0C))
"""Vector base, IMR and ELCR as SeaBIOS leaves them (QEMU 7.2, machine pc)."""
_OCW2: Final = (
    "rotate on automatic EOI off",
    "non-specific EOI",
    "no operation",
    "specific EOI",
    "rotate on automatic EOI on",
    "rotate on non-specific EOI",
    "set priority",
    "rotate on specific EOI",
)


@dataclass(slots=True)
class _Chip:
    """One 8259A.  Bit n of a register is input IRn."""

    lines: int = 0
    """Levels at the inputs."""
    irr: int = 0
    isr: int = 0
    imr: int = 0
    elcr: int = 0
    base: int = 0
    """Vector of IR0 (ICW2)."""
    lowest: int = 7
    """The input of the lowest priority; the next one has the highest."""
    step: int = 0
    """The ICW that is expected next at the odd port: 2, 3, 4, or 0 when the sequence is over."""
    ready: int = 0
    """1 when an initialization sequence has been completed since power-on."""
    icw1: int = 0
    icw3: int = 0
    icw4: int = 0
    read_isr: int = 0
    """OCW3 selected the ISR for reads of the even port, not the IRR."""
    poll: int = 0
    """OCW3 asked for a poll: the next read acknowledges."""
    special_mask: int = 0
    rotate_auto: int = 0
    """OCW2: rotate on automatic EOI."""
    ocw2: int = -1
    """The last OCW2, for the view; -1 when none was written."""

    def state(self) -> tuple[int, ...]:
        """All of it, in the order of the fields."""
        return tuple(int(getattr(self, name)) for name in self.__slots__)

    def set_line(self, line: int, level: bool) -> None:
        """The level at an input; a rising edge is kept, a level is followed."""
        bit = 1 << line
        if level:
            if self.elcr & bit or not self.lines & bit:
                self.irr |= bit
            self.lines |= bit
        else:
            if self.elcr & bit:
                self.irr &= ~bit
            self.lines &= ~bit

    def rank(self, inputs: int) -> int:
        """Priority of the first of ``inputs``: 0 is the highest, 8 when there is none."""
        for rank in range(8):
            if inputs >> (self.lowest + 1 + rank & 7) & 1:
                return rank
        return 8

    def request(self, nested: int = 0) -> int | None:
        """The input whose interrupt would be acknowledged now; ``nested`` are inputs whose service does not block."""
        if not self.ready or self.step:
            return None
        rank = self.rank(self.irr & ~self.imr)
        served = self.isr & ~nested
        if self.special_mask:
            served &= ~self.imr
        return (self.lowest + 1 + rank) & 7 if rank < self.rank(served) else None

    def accept(self, line: int) -> None:
        """INTA: the request is in service (or, with automatic EOI, already over)."""
        bit = 1 << line
        if not self.elcr & bit:
            self.irr &= ~bit
        if not self.icw4 & 0x2:
            self.isr |= bit
        elif self.rotate_auto:
            self.lowest = line

    def initialize(self, icw1: int) -> None:
        """ICW1: start over.  An edge that was pending is forgotten, a level is still there."""
        self.irr &= self.elcr
        self.isr = self.imr = self.read_isr = self.poll = self.special_mask = self.rotate_auto = 0
        self.lowest = 7
        self.icw1 = icw1
        if not icw1 & 0x1:
            self.icw4 = 0
        self.step = 2

    def command(self, value: int) -> None:
        """OCW2 (D4 D3 = 00) or OCW3 (01)."""
        if value & 0x08:
            self.poll = value >> 2 & 1
            if value & 0x02:
                self.read_isr = value & 1
            if value & 0x40:
                self.special_mask = value >> 5 & 1
            return
        self.ocw2 = value
        rotate, specific, end = value >> 7 & 1, value >> 6 & 1, value >> 5 & 1
        if not end:
            if specific:
                # SL = 1 without R is "no operation".
                self.lowest = value & 7 if rotate else self.lowest
            else:
                self.rotate_auto = rotate
            return
        if specific:
            line = value & 7
        else:
            rank = self.rank(self.isr)
            if rank == 8:
                return
            line = (self.lowest + 1 + rank) & 7
        self.isr &= ~(1 << line)
        if rotate:
            self.lowest = line

    def data(self, value: int) -> None:
        """The odd port: ICW2-ICW4 while initializing, else OCW1."""
        if not self.step:
            self.imr = value
            return
        if self.step == 2:
            self.base = value & 0xF8
            self.step = 3 if not self.icw1 & 0x2 else 4 if self.icw1 & 0x1 else 0
        elif self.step == 3:
            self.icw3 = value
            self.step = 4 if self.icw1 & 0x1 else 0
        else:
            self.icw4 = value & 0x1F
            self.step = 0
        self.ready |= not self.step


class Pic(Device):
    """Ports 0x20, 0x21 (master), 0xa0, 0xa1 (slave), 0x4d0 and 0x4d1 (ELCR).  ``output`` is the INTR pin."""

    name = "pic"
    ports = (Range(0x20, 2, access=1), Range(0xA0, 2, access=1), Range(0x4D0, 2, access=1))

    def __init__(self, output: Line) -> None:
        self._output = output
        self._chips = (_Chip(), _Chip())
        self._intr = False
        self.sources: tuple[Source, ...] = ()
        """Periodic sources at these inputs: they catch up before anybody looks."""

    def set_bios_state(self) -> None:
        """Be as firmware leaves it: IRQ0-15 at vectors 0x08-0x0f and 0x70-0x77, IRQ0, 1, 2, 6, 8, 12-14 open."""
        for chip, (base, mask, elcr) in zip(self._chips, _BIOS, strict=True):
            chip.elcr = elcr
            chip.initialize(0x11)
            for word in (base, 0x04 if chip is self._chips[0] else 0x02, 0x01, mask):
                chip.data(word)
        self._update()
        rearm(self.sources)

    def set_irq(self, irq: int, level: bool) -> None:
        """The level of ISA interrupt ``irq`` (0-15).  IRQ2 is the cascade and has no input."""
        if irq != _CASCADE:
            self._chips[irq >> 3].set_line(irq & 7, level)
            self._update()

    def masked(self, irq: int) -> bool:
        """True when a request of ``irq`` cannot reach the processor as things are set."""
        master, slave = self._chips
        chip = self._chips[irq >> 3]
        if irq == _CASCADE or not chip.ready or chip.step or chip.imr >> (irq & 7) & 1:
            return True
        return chip is slave and (not master.ready or bool(master.step) or bool(master.imr >> _CASCADE & 1))

    def acknowledge(self) -> int:
        """The INTA cycle: the vector of the interrupt, now in service; IR7's when the request has gone."""
        master, slave = self._chips
        line = master.request(self._nested)
        if line is None:
            vector = master.base + _SPURIOUS
        elif line == _CASCADE:
            inner = slave.request()
            if inner is not None:
                slave.accept(inner)
            master.accept(_CASCADE)
            vector = slave.base + (_SPURIOUS if inner is None else inner)
        else:
            master.accept(line)
            vector = master.base + line
        self._update()
        return vector

    @property
    def _nested(self) -> int:
        # Special fully nested mode: an interrupt of the slave in service does not block higher ones of the slave.
        return 1 << _CASCADE if self._chips[0].icw4 & 0x10 else 0

    def _update(self) -> None:
        """Pass requests on: slave to master, master to the INTR pin."""
        master, slave = self._chips
        if slave.request() is not None:
            master.irr |= 1 << _CASCADE
        level = master.request(self._nested) is not None
        if level != self._intr:
            self._intr = level
            self._output(level)

    def port_read(self, port: int, size: int) -> int:
        """IRR, ISR, a poll, IMR, or ELCR."""
        if port >= 0x4D0:
            return self._chips[port & 1].elcr
        chip = self._chips[port >> 7]
        if chip.poll:
            catch_up(self.sources)
            chip.poll = 0
            line = chip.request(self._nested if chip is self._chips[0] else 0)
            if line is None:
                return _SPURIOUS
            chip.accept(line)
            # A poll of the slave also takes back what it asked of the master, as in KVM.
            if chip is self._chips[1]:
                self._chips[0].irr &= ~(1 << _CASCADE)
            self._update()
            return 0x80 | line
        if port & 1:
            return chip.imr
        if chip.read_isr:
            return chip.isr
        catch_up(self.sources)
        return chip.irr

    def port_write(self, port: int, size: int, value: int) -> None:
        """An initialization word, a command word, the mask, or ELCR."""
        catch_up(self.sources)
        if port >= 0x4D0:
            self._set_elcr(port & 1, value)
        else:
            chip = self._chips[port >> 7]
            if port & 1:
                chip.data(value)
            elif value & 0x10:
                chip.initialize(value & 0x1F)
            else:
                chip.command(value)
        self._update()
        rearm(self.sources)

    def _set_elcr(self, index: int, value: int) -> None:
        chip = self._chips[index]
        value &= _ELCR_WRITABLE[index]
        # An input that has become level triggered requests while its line is high, and only then.
        became = value & ~chip.elcr
        chip.irr = chip.irr & ~became | chip.lines & became
        chip.elcr = value

    def view(self) -> DeviceView:
        """All registers of both chips."""
        fields: list[DeviceField] = []
        for who, first, chip in zip(("master", "slave"), (0, 8), self._chips, strict=True):
            fields += _fields(who, first, chip)
        fields.append(DeviceField("INTR", str(int(self._intr)), "interrupt requested" if self._intr else ""))
        return DeviceView(self.name, "ports 0x20-0x21, 0xa0-0xa1, 0x4d0-0x4d1", tuple(fields))

    def save(self) -> DeviceState:
        """Both chips and the pin."""
        master, slave = self._chips
        return (*master.state(), *slave.state(), int(self._intr))

    def restore(self, state: DeviceState) -> None:
        """Put both chips back.  The pin's level is the machine's to restore."""
        numbers = [number for number in state if isinstance(number, int)]
        size = len(_Chip.__slots__)
        self._chips = (_Chip(*numbers[:size]), _Chip(*numbers[size : 2 * size]))
        self._intr = bool(numbers[-1])


def _fields(who: str, first: int, chip: _Chip) -> list[DeviceField]:
    """The registers of one chip, whose IR0 is interrupt ``first``."""

    def irqs(bits: int) -> str:
        return " ".join(f"IRQ{first + i}" for i in range(8) if bits >> i & 1)

    highest = first + (chip.lowest + 1 & 7)
    modes = [f"IRQ{highest} has the highest priority"]
    if chip.icw4 & 0x2:
        modes.append("automatic EOI" + (", rotating" if chip.rotate_auto else ""))
    if chip.icw4 & 0x10:
        modes.append("special fully nested")
    if chip.special_mask:
        modes.append("special mask")
    if chip.poll:
        modes.append("poll: the next read acknowledges")
    modes.append(f"even port reads {'ISR' if chip.read_isr else 'IRR'}")
    if chip.step:
        stage = f"ICW{chip.step} expected"
    elif chip.ready:
        stage = f"vectors {chip.base:#04x}-{chip.base + 7:#04x}"
    else:
        stage = "not initialized: raises nothing"
    ocw2 = "-" if chip.ocw2 < 0 else f"{chip.ocw2:#04x}"
    return [
        DeviceField(f"IRR {who}", f"{chip.irr:#04x}", irqs(chip.irr) or "nothing requested"),
        DeviceField(f"ISR {who}", f"{chip.isr:#04x}", irqs(chip.isr) or "nothing in service"),
        DeviceField(f"IMR {who}", f"{chip.imr:#04x}", f"{chip.imr.bit_count()} of 8 lines masked"),
        DeviceField(f"ELCR {who}", f"{chip.elcr:#04x}", f"level: {irqs(chip.elcr)}" if chip.elcr else "all edge"),
        DeviceField(f"lines {who}", f"{chip.lines:#04x}", irqs(chip.lines) or "all low"),
        DeviceField(f"ICW1-4 {who}", f"{chip.icw1:02x} {chip.base:02x} {chip.icw3:02x} {chip.icw4:02x}", stage),
        DeviceField(f"OCW2 {who}", ocw2, _OCW2[chip.ocw2 >> 5] if chip.ocw2 >= 0 else "none written"),
        DeviceField(f"mode {who}", "", "; ".join(modes)),
    ]
