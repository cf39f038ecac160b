"""'Did you mean': the one place that finds the nearest known word."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word fewest typing slips away, letter case aside; None when nothing is near.

    A slip is a letter added, lost, replaced, or two neighbours swapped; one is allowed for every three letters.

    >>> nearest("mdoe", ["mode", "memory"])
    'mode'
    """
    wrong = word.lower()[:80]
    allowed = max(1, (len(wrong) + 1) // 3)
    best: tuple[int, bool, int] | None = None
    found: str | None = None
    for order, candidate in enumerate(known):
        right = candidate.lower()
        if abs(len(right) - len(wrong)) > allowed:
            continue
        slips = _slips(wrong, right)
        key = slips, right[:1] != wrong[:1], order
        # Every letter replaced is no slip but another word.
        if slips <= allowed and slips < len(right) and (best is None or key < best):
            best, found = key, candidate
    return found


def _slips(a: str, b: str) -> int:
    """Edit distance with swaps of neighbours (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, char in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (char != other))
            if i > 1 and j > 1 and char == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
