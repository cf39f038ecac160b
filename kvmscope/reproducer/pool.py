"""Reproducers in several processes.

A process that dies or hangs costs the verdict of one file, never the run: it is replaced and the suite goes on.  That is why this
is not a `concurrent.futures` pool, where one death fails everything that is still to come.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from kvmscope.reproducer.suite import Job, Outcome, run_job
from kvmscope.reproducer.verdict import Verdict

__all__ = ["run_pool"]

_GRACE: Final = 30.0
"""Seconds over a file's own wall-clock budget after which its process is taken for hung."""


class _Worker:
    """A process and the file it is at."""

    def __init__(self) -> None:
        # Fork: this process has imported neither engine nor assembler and runs no threads, and a start from scratch would
        # cost more than most files take.
        context = get_context("fork")
        ours, theirs = context.Pipe()
        self.pipe: Connection = ours
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.index: int | None = None
        self.deadline = 0.0

    def begin(self, index: int, job: Job) -> None:
        self.index = index
        self.deadline = time.monotonic() + _budget(job) + _GRACE
        self.pipe.send(job)

    def stop(self) -> None:
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _budget(job: Job) -> float:
    """The file's own wall-clock budget; a file that cannot be parsed ends at once."""
    from kvmscope.errors import KvmscopeError
    from kvmscope.reproducer.document import load

    try:
        return load(job.path).timeout
    except KvmscopeError:
        return 0.0


def _serve(pipe: Connection) -> None:
    # Ctrl-C ends the parent, which ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(run_job(job))


def run_pool(jobs: Sequence[Job], processes: int) -> Iterator[Outcome]:
    """Outcomes in the order of ``jobs``."""
    waiting = deque(enumerate(jobs))
    done: dict[int, Outcome] = {}
    workers = [_Worker() for _ in range(processes)]
    try:
        following = 0
        for worker in workers:
            worker.begin(*waiting.popleft())
        while following < len(jobs):
            busy = {worker.pipe: place for place, worker in enumerate(workers) if worker.index is not None}
            nearest = min(workers[place].deadline for place in busy.values())
            for pipe in wait(list(busy), max(0.0, nearest - time.monotonic())):
                _collect(workers, busy[pipe], jobs, done)  # type: ignore[index]
            for place in busy.values():
                worker = workers[place]
                if worker.index is not None and time.monotonic() > worker.deadline:
                    done[worker.index] = _lost(jobs[worker.index], "its process hung and was ended")
                    worker.stop()
                    workers[place] = _Worker()
            for worker in workers:
                if worker.index is None and waiting:
                    worker.begin(*waiting.popleft())
            while following in done:
                yield done.pop(following)
                following += 1
    finally:
        for worker in workers:
            worker.stop()


def _collect(workers: list[_Worker], place: int, jobs: Sequence[Job], done: dict[int, Outcome]) -> None:
    worker = workers[place]
    index = worker.index
    if index is None:
        return
    try:
        done[index] = worker.pipe.recv()
        worker.index = None
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode or 0
        why = f"signal {-code}" if code < 0 else f"status {code}"
        done[index] = _lost(jobs[index], f"its process died ({why})")
        worker.stop()
        workers[place] = _Worker()


def _lost(job: Job, why: str) -> Outcome:
    return Outcome(str(job.path), Verdict.ERROR, why)
