"""The bus: ports and device memory to devices, whichever engine runs.

Ports and addresses that nobody claims read all ones and drop writes, as on a PC without a bus error.  An access wider
than its device takes, or one that leaves the device's range, is split into bytes, each routed for itself (as ISA did).
"""

from __future__ import annotations

from collections.abc import Iterable

from kvmscope.vmm.devices.device import Device, DeviceState, DeviceView

__all__ = ["Bus"]


class Bus:
    """Routes accesses.  A port claimed twice belongs to the device that comes first."""

    def __init__(self, devices: Iterable[Device]) -> None:
        self.devices: tuple[Device, ...] = tuple(devices)
        self._ports: dict[int, tuple[Device, int]] = {}
        """Port to (device, widest access that stays inside the range)."""
        self._viewed: dict[Device, tuple[tuple[DeviceState, int | None], DeviceView]] = {}
        self._memory: tuple[tuple[int, int, int, Device], ...] = ()
        self.remap()

    def add(self, device: Device) -> None:
        """One more device, behind those that are there; before anything was saved."""
        self.devices += (device,)
        self.remap()

    def remap(self) -> None:
        """Take over the devices' ranges anew: one of them has moved (a PCI base address register was written)."""
        self._ports.clear()
        for device in self.devices:
            for ports in device.ports:
                for port in range(ports.first, ports.end):
                    self._ports.setdefault(port, (device, min(ports.access, ports.end - port)))
        self._memory = tuple((r.first, r.end, r.access, device) for device in self.devices for r in device.memory)

    def port_read(self, port: int, size: int) -> tuple[int, str]:
        """(value, name of the device that answered or empty)."""
        found = self._ports.get(port)
        if found is not None and size <= found[1]:
            return found[0].port_read(port, size) & (1 << 8 * size) - 1, found[0].name
        if size == 1:
            return 0xFF, ""
        value, name = 0, ""
        for i in range(size):
            byte, answered = self.port_read(port + i & 0xFFFF, 1)
            value |= byte << 8 * i
            name = name or answered
        return value, name

    def port_write(self, port: int, size: int, value: int) -> str:
        """Name of the device that took it, or empty."""
        found = self._ports.get(port)
        if found is not None and size <= found[1]:
            found[0].port_write(port, size, value & (1 << 8 * size) - 1)
            return found[0].name
        name = ""
        if size > 1:
            for i in range(size):
                name = self.port_write(port + i & 0xFFFF, 1, value >> 8 * i & 0xFF) or name
        return name

    def port_device(self, port: int) -> str:
        """Name of the device that claims ``port``; empty when none does."""
        found = self._ports.get(port)
        return found[0].name if found else ""

    def memory_device(self, address: int) -> str:
        """Name of the device that claims ``address``; empty when none does."""
        for first, end, _, device in self._memory:
            if first <= address < end:
                return device.name
        return ""

    def memory_read(self, address: int, size: int) -> tuple[int, str]:
        """(value, name of the device that answered or empty)."""
        for first, end, access, device in self._memory:
            if first <= address < end:
                if size <= access and address + size <= end:
                    return device.memory_read(address, size) & (1 << 8 * size) - 1, device.name
                break
        if size == 1:
            return 0xFF, ""
        value, name = 0, ""
        for i in range(size):
            byte, answered = self.memory_read(address + i, 1)
            value |= byte << 8 * i
            name = name or answered
        return value, name

    def memory_write(self, address: int, size: int, value: int) -> str:
        """Name of the device that took it, or empty."""
        for first, end, access, device in self._memory:
            if first <= address < end:
                if size <= access and address + size <= end:
                    device.memory_write(address, size, value & (1 << 8 * size) - 1)
                    return device.name
                break
        name = ""
        if size > 1:
            for i in range(size):
                name = self.memory_write(address + i, 1, value >> 8 * i & 0xFF) or name
        return name

    def peek(self, address: int, size: int) -> bytes | None:
        """RAM-like device memory without a side effect; None where there is none."""
        for first, end, _, device in self._memory:
            if first <= address and address + size <= end:
                return device.peek(address, size)
        return None

    def views(self, now: int | None = None) -> tuple[DeviceView, ...]:
        """Every device, decoded; the same objects while neither state nor guest time ``now`` has changed."""
        for device in self.devices:
            key = (device.save(), now if device.ticking else 0)
            known = self._viewed.get(device)
            if known is None or known[0] != key or key[1] is None:
                self._viewed[device] = key, device.view()
        return tuple(self._viewed[device][1] for device in self.devices)

    def save(self) -> tuple[DeviceState, ...]:
        """State of every device."""
        return tuple(device.save() for device in self.devices)

    def restore(self, state: tuple[DeviceState, ...]) -> None:
        """Put back what `save` gave."""
        for device, saved in zip(self.devices, state, strict=True):
            device.restore(saved)
