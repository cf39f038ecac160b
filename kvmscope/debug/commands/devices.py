"""``info devices``: the registers of the devices, decoded."""

from __future__ import annotations

from kvmscope.debug.commands.model import CommandContext
from kvmscope.debug.explain.model import plural
from kvmscope.errors import UsageError
from kvmscope.expr import nearest
from kvmscope.vmm.snapshot import DeviceView

__all__ = ["device_names", "info_devices"]


def device_names(context: CommandContext) -> list[str]:
    """The names of the devices, for completion."""
    return [device.name for device in context.machine.snapshot().devices]


def info_devices(argument: str, context: CommandContext) -> list[str]:
    """Without a name every device in a line; with one (or its beginning) the registers of those meant."""
    devices = context.machine.snapshot().devices
    wanted = " ".join(argument.split()).lower()
    if not wanted:
        longest = max((len(device.name) for device in devices), default=0)
        return [
            f"{device.name:<{longest}}  {plural(len(device.fields), 'register'):>12}  {device.where}"
            for device in devices
        ] or ["No devices."]
    exact = [device for device in devices if device.name.lower() == wanted]
    found = exact or [device for device in devices if device.name.lower().startswith(wanted)]
    if not found:
        names = [device.name for device in devices]
        close = nearest(wanted, names)
        raise UsageError(
            f"There is no device {argument.strip()!r}",
            hint=f"did you mean {close!r}?" if close else f"one of: {', '.join(names)}",
        )
    return [line for device in found for line in _lines(device)]


def _lines(device: DeviceView) -> list[str]:
    names = max((len(field.name) for field in device.fields), default=0)
    values = max((len(field.value) for field in device.fields), default=0)
    return [
        f"{device.name}: {device.where}" if device.where else device.name,
        *(f"  {f.name:<{names}}  {f.value:<{values}}  {f.meaning}".rstrip() for f in device.fields),
    ]
