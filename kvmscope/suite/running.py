"""A whole suite: the rows of the selected entries in the configuration's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kvmscope.suite.config import TIMEOUT_SCALE
from kvmscope.suite.pool import Done, Output, Pool
from kvmscope.suite.runner import NO_LIMIT, Job, Outcome, skipped
from kvmscope.suite.selection import Selected
from kvmscope.suite.tree import Tree

__all__ = ["job_of", "run_selected"]

_POLL = 1.0
"""Seconds; the pool returns as soon as something happens."""


def job_of(
    tree: Tree, selected: Selected, *, scale: float = TIMEOUT_SCALE, instructions: int = NO_LIMIT, cpu: str = ""
) -> Job:
    """The job of an entry; its time-out is ``scale`` times the configuration's."""
    entry = selected.entry
    return Job(entry, tree.image(entry.file), entry.timeout * scale, instructions, cpu)


def run_selected(
    tree: Tree,
    chosen: Sequence[Selected],
    *,
    processes: int = 1,
    scale: float = TIMEOUT_SCALE,
    instructions: int = NO_LIMIT,
    cpu: str = "",
    emit: Callable[[str, bytes], None] | None = None,
) -> Iterator[Outcome]:
    """Rows in the order of ``chosen``, each as soon as it and all before it are there.

    ``emit`` gets (name, serial output), in that order too: what runs ahead of its turn is kept until then.
    """
    pool = Pool(processes)
    done: dict[int, Outcome] = {
        index: skipped(selected.entry, selected.skip) for index, selected in enumerate(chosen) if selected.skip
    }
    # By identity: two entries may be equal.
    jobs = {
        index: job_of(tree, selected, scale=scale, instructions=instructions, cpu=cpu)
        for index, selected in enumerate(chosen)
        if not selected.skip
    }
    numbers = {id(job): index for index, job in jobs.items()}
    kept: dict[int, bytearray] = {index: bytearray() for index in jobs}

    def tell(index: int) -> None:
        if emit is not None and kept.get(index):
            emit(chosen[index].entry.name, bytes(kept[index]))
            kept[index].clear()

    pool.submit(list(jobs.values()))
    following = 0
    try:
        while following < len(chosen):
            tell(following)
            if following in done:
                yield done.pop(following)
                following += 1
                continue
            for event in pool.poll(_POLL):
                index = numbers[id(event.job)]
                if isinstance(event, Output) and emit is not None:
                    kept[index] += event.data
                elif isinstance(event, Done):
                    done[index] = event.outcome
    finally:
        pool.close()
