"""What the bars say of several vCPUs, and of guest time.

Activities are compared as the words they are: this module is loaded before the first paint, the machine's are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kvmscope.ui.bars import BarItem

if TYPE_CHECKING:
    from kvmscope.ui.view import View
    from kvmscope.vmm.snapshot import Snapshot, VcpuView

__all__ = ["Since", "duration", "guest_time", "since", "vcpu_glyph", "vcpu_items"]

_LETTERS: Final = {"halted": "H", "wait-for-SIPI": "W"}


@dataclass(frozen=True, slots=True)
class Since:
    """What one command did beside what its `Delta` says."""

    switched_from: int | None = None
    """The vCPU that was looked at before, where the machine chose another one."""
    passed: int = 0
    """Nanoseconds of guest time, where they are not the ticks: waiting processors and devices take time."""


def since(before: View | None, now: View) -> Since:
    """Compare two stops of one machine; nothing is said of different ones."""
    if before is None or before.image is not now.image or now.snapshot.tick <= before.snapshot.tick:
        return Since()
    old, new = before.snapshot, now.snapshot
    passed = new.time - old.time
    return Since(old.vcpu if old.vcpu != new.vcpu else None, passed if passed != new.tick - old.tick else 0)


def vcpu_glyph(vcpu: VcpuView) -> str:
    """One cell: ``▶`` its turn, ``▷`` runs when its turn comes, ``H`` halted, ``W`` waits for a start-up IPI, ``❄`` frozen."""
    if vcpu.frozen:
        return "❄"
    return _LETTERS.get(vcpu.activity.value, "▶" if vcpu.next else "▷")


def vcpu_items(snapshot: Snapshot, room: int) -> list[BarItem]:
    """``vCPU 1/4  0▶ 1H 2W 3❄``, the one looked at as a badge; without the strip where there is no room for it.

    Nothing where there is one vCPU.
    """
    vcpus = snapshot.vcpus
    if not vcpus:
        return []
    head = BarItem(f"vCPU {snapshot.vcpu}/{len(vcpus)}", "bar_strong", "next_vcpu")
    strip: list[BarItem] = []
    for vcpu in vcpus:
        here = vcpu.index == snapshot.vcpu
        style = "bar_run" if here else "bar_strong" if vcpu.activity.value == "active" else "bar"
        strip += [BarItem(" "), BarItem(f"{vcpu.index}{vcpu_glyph(vcpu)}", style, f"vcpu({vcpu.index})")]
    return [head, BarItem(" "), *strip] if sum(len(item.text) for item in (head, *strip)) < room else [head]


def duration(nanoseconds: int) -> str:
    """Exact: ``999 ns``, ``12.345 µs``, ``1.5 ms``, ``2 s``."""
    for unit, digits in (("s", 9), ("ms", 6), ("µs", 3)):
        whole, rest = divmod(nanoseconds, 10**digits)
        if whole:
            part = f"{rest:0{digits}d}".rstrip("0")
            return f"{whole:,}{f'.{part}' if part else ''} {unit}"
    return f"{nanoseconds} ns"


def guest_time(snapshot: Snapshot, change: Since, room: int) -> str:
    """``t=12.345 µs (+10 µs)``, the second what the last command took, as far as there is room.

    Empty while time is the tick.
    """
    if snapshot.time == snapshot.tick:
        return ""
    now = f"t={duration(snapshot.time)}"
    both = f"{now} (+{duration(change.passed)})" if change.passed else now
    return next((text for text in (both, now) if len(text) <= room), "")
