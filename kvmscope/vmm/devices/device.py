"""What every device is to the bus, to a panel and to history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from kvmscope.vmm.snapshot import DeviceField, DeviceView

__all__ = ["Device", "DeviceField", "DeviceState", "DeviceView", "GuestRam", "Range", "bit_names"]

DeviceState = tuple[int | bytes, ...]
"""What `Device.save` gives: immutable, so history may keep it without a copy."""


@dataclass(frozen=True, slots=True)
class Range:
    """``size`` ports (or bytes of physical address space) from ``first`` on."""

    first: int
    size: int
    access: int = 4
    """Widest access in bytes that the device takes whole; the bus splits wider ones into bytes."""

    @property
    def end(self) -> int:
        """First port or address after the range."""
        return self.first + self.size


class GuestRam(Protocol):
    """Guest memory as a device that reads and writes it by itself (DMA) sees it."""

    def read(self, physical: int, size: int) -> bytes:
        """Bytes of RAM; what is not RAM reads as all ones."""
        ...

    def write(self, physical: int, data: bytes) -> None:
        """Store into RAM; what is not RAM is dropped."""
        ...


class Device(ABC):
    """A device on the bus.  Ports and addresses are absolute; values are unsigned and fit the size."""

    name: str
    ports: tuple[Range, ...] = ()
    memory: tuple[Range, ...] = ()
    ticking: bool = False
    """What `view` shows depends on guest time, not only on the state (a counter that runs)."""

    def port_read(self, port: int, size: int) -> int:
        """IN of ``size`` bytes."""
        return (1 << 8 * size) - 1

    # A device without ports (or without memory) drops writes: that is its behaviour, not a gap to fill.
    def port_write(self, port: int, size: int, value: int) -> None:  # noqa: B027
        """OUT of ``size`` bytes."""

    def memory_read(self, address: int, size: int) -> int:
        """Load of ``size`` bytes."""
        return (1 << 8 * size) - 1

    def memory_write(self, address: int, size: int, value: int) -> None:  # noqa: B027
        """Store of ``size`` bytes."""

    def peek(self, address: int, size: int) -> bytes | None:
        """Contents of RAM-like device memory, read without side effect; None where there is none."""
        return None

    @abstractmethod
    def view(self) -> DeviceView:
        """The registers, decoded."""

    @abstractmethod
    def save(self) -> DeviceState:
        """Everything that a later `restore` needs."""

    @abstractmethod
    def restore(self, state: DeviceState) -> None:
        """Be again what `save` saw."""


def bit_names(bits: tuple[tuple[int, str], ...], value: int) -> str:
    """Names of the bits set, ``THRE TEMT``; ``bits`` are (position, name)."""
    return " ".join(name for position, name in bits if value >> position & 1)
