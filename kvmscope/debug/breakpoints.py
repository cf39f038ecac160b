"""Breakpoints as values in a numbered list: where, whether, under which condition, how often hit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kvmscope.errors import UsageError
from kvmscope.expr import Expression

__all__ = ["Breakpoint", "Breakpoints"]


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """One breakpoint at a linear address."""

    number: int
    address: int
    where: str
    """As the user wrote it: ``*0x401000``, ``line 12``, ``label``."""
    enabled: bool = True
    condition: Expression | None = None
    once: bool = False
    """Deleted when hit."""
    hits: int = 0
    line: int | None = None


class Breakpoints:
    """The list; numbers are never used twice, as in gdb."""

    def __init__(self) -> None:
        self._all: dict[int, Breakpoint] = {}
        self._next = 1

    def __iter__(self) -> Iterator[Breakpoint]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def add(
        self,
        address: int,
        where: str,
        *,
        condition: Expression | None = None,
        once: bool = False,
        line: int | None = None,
    ) -> Breakpoint:
        """A new breakpoint, enabled."""
        found = Breakpoint(self._next, address, where, condition=condition, once=once, line=line)
        self._all[found.number] = found
        self._next += 1
        return found

    def get(self, number: int) -> Breakpoint:
        """The breakpoint of that number.  Raises UsageError when there is none."""
        found = self._all.get(number)
        if found is None:
            known = ", ".join(str(n) for n in self._all) or "none is set"
            raise UsageError(f"No breakpoint number {number}", hint=f"there are: {known}")
        return found

    def delete(self, number: int) -> Breakpoint:
        """Remove one.  Raises UsageError when there is none of that number."""
        found = self.get(number)
        del self._all[number]
        return found

    def clear(self) -> int:
        """Remove all; how many there were."""
        count = len(self._all)
        self._all.clear()
        return count

    def enable(self, number: int, on: bool) -> Breakpoint:
        """Switch one on or off.  Raises UsageError when there is none of that number."""
        found = self._all[number] = replace(self.get(number), enabled=on)
        return found

    def condition(self, number: int, expression: Expression | None) -> Breakpoint:
        """Give one a condition, or take it away."""
        found = self._all[number] = replace(self.get(number), condition=expression)
        return found

    def at(self, address: int) -> list[Breakpoint]:
        """The enabled ones at a linear address, in the order of their numbers."""
        return [b for b in self._all.values() if b.enabled and b.address == address]

    def addresses(self) -> set[int]:
        """Linear addresses of the enabled ones."""
        return {b.address for b in self._all.values() if b.enabled}

    def toggle(self, address: int, where: str, line: int | None = None) -> Breakpoint | None:
        """Set one at ``address``, or remove all that are there; the new one or None."""
        here = [b.number for b in self._all.values() if b.address == address]
        for number in here:
            del self._all[number]
        return None if here else self.add(address, where, line=line)

    def count_hit(self, number: int) -> Breakpoint:
        """Note a hit; a one-shot breakpoint goes away."""
        found = replace(self.get(number), hits=self._all[number].hits + 1)
        if found.once:
            del self._all[number]
        else:
            self._all[number] = found
        return found

    def moved(self, addresses: dict[int, int], lines: dict[int, int] | None = None) -> None:
        """Give breakpoints set on lines their new addresses (and lines) after another assembly, by number."""
        for number, address in addresses.items():
            found = self._all.get(number)
            if found is None:
                continue
            line = (lines or {}).get(number, found.line)
            where = f"line {line}" if line != found.line and found.where == f"line {found.line}" else found.where
            self._all[number] = replace(found, address=address, line=line, where=where)
