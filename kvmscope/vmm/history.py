"""History: checkpoints by dirty pages, so that any earlier tick is a checkpoint and an exact replay away.

A checkpoint keeps the processor, the devices and the pages that changed since the one before it; what a page held at
a checkpoint is its newest version at or before that tick, else what boot put there.  RAM "stands on" one checkpoint:
it equals that one but for the pages noted as written since.  Going to another checkpoint touches only pages that can
differ.

Memory is bounded: past ``limit`` bytes old checkpoints are thinned out (every second one goes, the newest 64 last);
nothing becomes inexact by that, a jump back only replays a longer way.  What stays in any case: boot, the user's edits,
and the newest checkpoint.
"""

from __future__ import annotations

import mmap
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from kvmscope.vmm.devices.device import DeviceState
from kvmscope.vmm.dirty import DirtyTracker, make_tracker, present_pages
from kvmscope.vmm.snapshot import MemoryChange

__all__ = ["Checkpoint", "History", "PageVersions"]

_PAGE: Final = 4096
_ZERO: Final = bytes(_PAGE)
_DENSE: Final = (64, 8, 1)
"""Newest checkpoints spared by the first, second and third pass of thinning."""
_MAX_CHECKPOINTS: Final = 4096
_MAX_DELTA_PAGES: Final = 256
_RUN: Final = re.compile(rb"[^\0]+")


@dataclass(slots=True)
class Checkpoint:
    """The machine at ``tick``; its RAM is in `PageVersions`."""

    tick: int
    cpu: bytes
    devices: tuple[DeviceState, ...]
    positions: tuple[int, ...]
    """Where events and output stood."""
    pages: frozenset[int] = frozenset()
    """Pages that have a version at this tick."""
    edit: bool = False
    """Made by an edit: the state does not follow from the checkpoint before, so a replay must not run across."""

    @property
    def size(self) -> int:
        """Bytes held, page versions apart (estimate)."""
        return (
            len(self.cpu) + 512 + sum(len(part) for state in self.devices for part in state if isinstance(part, bytes))
        )


class PageVersions:
    """Contents of pages by tick, over what boot put there."""

    def __init__(self, boot: Mapping[int, bytes]) -> None:
        self._boot = boot
        self._versions: dict[int, tuple[list[int], list[bytes]]] = {}
        self.bytes = 0

    def at(self, page: int, tick: int) -> bytes:
        """What ``page`` held at the checkpoint of ``tick``."""
        found = self._versions.get(page)
        if found is not None:
            i = bisect_right(found[0], tick)
            if i:
                return found[1][i - 1]
        return self._boot.get(page, _ZERO)

    def add(self, page: int, tick: int, content: bytes) -> None:
        """Note a version newer than all others of the page (or replacing the one of this very tick)."""
        ticks, contents = self._versions.setdefault(page, ([], []))
        if ticks and ticks[-1] == tick:
            contents[-1] = content
            return
        ticks.append(tick)
        contents.append(content)
        self.bytes += _PAGE

    def move(self, page: int, old: int, new: int) -> None:
        """The checkpoint ``old`` is gone; its version serves the next one, ``new``, unless that has its own."""
        ticks, contents = self._versions[page]
        i = bisect_right(ticks, old) - 1
        if i + 1 < len(ticks) and ticks[i + 1] == new:
            del ticks[i], contents[i]
            self.bytes -= _PAGE
        else:
            ticks[i] = new

    def cut(self, tick: int) -> None:
        """Forget versions after ``tick``."""
        for page in list(self._versions):
            ticks, contents = self._versions[page]
            i = bisect_right(ticks, tick)
            self.bytes -= _PAGE * (len(ticks) - i)
            del ticks[i:], contents[i:]
            if not ticks:
                del self._versions[page]

    def pages(self) -> Iterable[int]:
        """Pages that have a version."""
        return self._versions.keys()


class History:
    """Checkpoints of one machine, and what changed since its last mark."""

    def __init__(self, ram: mmap.mmap, boot: Mapping[int, bytes], first: Checkpoint, limit: int) -> None:
        self._ram = ram
        self._limit = limit
        self._boot = boot
        self._versions = PageVersions(boot)
        self._checkpoints = [first]
        self._state_bytes = first.size
        self._ticks = [first.tick]
        self._edits: list[int] = []
        self._at = 0
        """Index of the checkpoint that RAM stands on."""
        self._tracker: DirtyTracker | None = None
        self._written: set[int] = set()
        """Pages that may differ from the checkpoint RAM stands on."""
        self._unmarked: set[int] = set()
        """Pages that may differ from the mark."""
        self._marked: dict[int, bytes] | None = None
        """What pages held at the mark, as far as not as at boot; None before the first mark."""

    # looking at RAM

    def _look(self) -> None:
        """Take note of the pages written since the last look."""
        if self._tracker is None:
            boot = self._boot
            pages = [p for p in present_pages(self._ram) if self._read(p) != boot.get(p, _ZERO)]
            self._tracker = make_tracker(self._ram)
        else:
            pages = self._tracker.collect()
        self._written.update(pages)
        self._unmarked.update(pages)

    def _read(self, page: int) -> bytes:
        return self._ram[page * _PAGE : (page + 1) * _PAGE]

    # checkpoints

    @property
    def bytes(self) -> int:
        """Memory that history holds: page versions, processor and device states (an upper estimate: states may share)."""
        return self._versions.bytes + self._state_bytes

    @property
    def count(self) -> int:
        """Checkpoints held."""
        return len(self._checkpoints)

    def find(self, tick: int) -> Checkpoint:
        """The newest checkpoint at or before ``tick``."""
        return self._checkpoints[bisect_right(self._ticks, tick) - 1]

    def next_edit(self, tick: int) -> int | None:
        """Tick of the first edit after ``tick``."""
        i = bisect_right(self._edits, tick)
        return self._edits[i] if i < len(self._edits) else None

    def add(self, checkpoint: Checkpoint) -> None:
        """Keep ``checkpoint``, made of the machine as it is now, as the newest one (or in the place of the newest)."""
        self._look()
        tick = checkpoint.tick
        if self._ticks[-1] == tick:
            before = self._checkpoints.pop()
            self._ticks.pop()
            self._state_bytes -= before.size
            pages = set(before.pages)
            checkpoint.edit |= before.edit
        else:
            pages = set()
        for page in self._written:
            content = self._read(page)
            known = self._versions.at(page, tick)
            if content != known:
                self._versions.add(page, tick, _ZERO if content == _ZERO else content)
                pages.add(page)
        self._written.clear()
        checkpoint.pages = frozenset(pages)
        self._checkpoints.append(checkpoint)
        self._state_bytes += checkpoint.size
        self._ticks.append(tick)
        if checkpoint.edit and (not self._edits or self._edits[-1] != tick):
            self._edits.append(tick)
        self._at = len(self._checkpoints) - 1
        while (self.bytes > self._limit or self.count > _MAX_CHECKPOINTS) and self._thin():
            pass

    def passed(self, tick: int) -> Checkpoint | None:
        """A replay stands at ``tick``: RAM stands on the checkpoint of that tick, if there still is one."""
        i = bisect_right(self._ticks, tick) - 1
        if self._ticks[i] != tick:
            return None
        self._look()
        self._written.clear()
        self._at = i
        return self._checkpoints[i]

    def restore(self, checkpoint: Checkpoint) -> list[int]:
        """Put RAM back to ``checkpoint``; the page numbers that had to change."""
        self._look()
        target = bisect_right(self._ticks, checkpoint.tick) - 1
        candidates = set(self._written)
        for between in self._checkpoints[min(target, self._at) + 1 : max(target, self._at) + 1]:
            candidates |= between.pages
        changed = []
        for page in sorted(candidates):
            content = self._versions.at(page, checkpoint.tick)
            if self._read(page) != content:
                self._ram[page * _PAGE : (page + 1) * _PAGE] = content
                changed.append(page)
        # Our own writes are no writes of the guest's, but they do differ from the mark.
        self._look()
        self._written.clear()
        self._at = target
        return changed

    def cut(self, tick: int) -> None:
        """Forget everything after ``tick``.  RAM must stand on a checkpoint at or before it."""
        keep = bisect_right(self._ticks, tick)
        if keep == len(self._ticks):
            return
        self._look()
        self._state_bytes -= sum(checkpoint.size for checkpoint in self._checkpoints[keep:])
        del self._checkpoints[keep:], self._ticks[keep:], self._edits[bisect_right(self._edits, tick) :]
        self._versions.cut(tick)

    def _thin(self) -> bool:
        """Drop every second old checkpoint, edits apart; False when none is left to drop."""
        for dense in _DENSE:
            doomed: list[int] = []
            for i in range(1, len(self._checkpoints) - dense):
                if not self._checkpoints[i].edit and i != self._at and (not doomed or doomed[-1] != i - 1):
                    doomed.append(i)
            if doomed:
                self._drop(doomed)
                return True
        return False

    def _drop(self, doomed: list[int]) -> None:
        standing = self._checkpoints[self._at]
        # Downwards: the numbers still to come stay right.
        for i in reversed(doomed):
            gone, successor = self._checkpoints[i], self._checkpoints[i + 1]
            for page in gone.pages:
                self._versions.move(page, gone.tick, successor.tick)
            successor.pages |= gone.pages
            self._state_bytes -= gone.size
            del self._checkpoints[i], self._ticks[i]
        self._at = bisect_right(self._ticks, standing.tick) - 1

    # marks: what the last command changed

    def mark(self) -> None:
        """From now on `changes` counts from here."""
        self._look()
        if self._marked is None:
            self._marked = {}
            self._unmarked = set(self._written)
            self._unmarked.update(self._versions.pages())
        tick = self._ticks[self._at]
        for page in self._unmarked:
            content = self._read(page)
            # One object with the checkpoint's version where they agree: a mark costs little memory.
            known = self._versions.at(page, tick)
            self._marked[page] = known if content == known else content
        self._unmarked.clear()

    def changes(self) -> tuple[tuple[MemoryChange, ...], bool]:
        """(runs of bytes that differ from the mark, whether more pages differ than are listed)."""
        assert self._marked is not None, "changes are counted from a mark"
        self._look()
        out: list[MemoryChange] = []
        pages = 0
        for page in sorted(self._unmarked):
            old = self._marked.get(page)
            if old is None:
                old = self._boot.get(page, _ZERO)
            new = self._read(page)
            if old == new:
                continue
            if pages == _MAX_DELTA_PAGES:
                return tuple(out), True
            pages += 1
            for change in _differences(page * _PAGE, old, new):
                last = out[-1] if out else None
                if last is not None and last.address + len(last.old) == change.address:
                    out[-1] = MemoryChange(last.address, last.old + change.old, last.new + change.new)
                else:
                    out.append(change)
        return tuple(out), False

    def close(self) -> None:
        """Release the tracker."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None


def _differences(address: int, old: bytes, new: bytes) -> Iterator[MemoryChange]:
    difference = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
    for run in _RUN.finditer(difference.to_bytes(_PAGE, "little")):
        first, last = run.span()
        yield MemoryChange(address + first, old[first:last], new[first:last])
