"""Entries in several processes; one that dies or hangs costs one row and is replaced.

The processes are started afresh, not forked: a front end with threads uses this too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final

from kvmscope.reproducer.kut import Word, report_lines
from kvmscope.suite.runner import Job, Outcome

__all__ = ["Began", "Done", "Event", "Output", "Pool"]

_GRACE: Final = 20.0
"""Seconds over an entry's time-out after which its process is taken for hung: the machine stops by itself long before."""
_MOMENT: Final = 2.0
_ROOT: Final = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Began:
    """An entry's turn has come."""

    job: Job


@dataclass(frozen=True, slots=True)
class Output:
    """An entry's serial output."""

    job: Job
    data: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """An entry is over."""

    job: Job
    outcome: Outcome


Event = Began | Output | Done


class _Worker:
    """A process and what it is at."""

    def __init__(self) -> None:
        ours, theirs = Pipe()
        self.pipe: Connection = ours
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH", ""))))
        # A session of its own: Ctrl-C is for the front end, which then ends us.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kvmscope.suite.worker", str(theirs.fileno()), str(os.getpid())],
            pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
        theirs.close()
        self.job: Job | None = None
        self.output = bytearray()
        self.began = 0.0

    @property
    def deadline(self) -> float:
        return self.began + (self.job.wall + _GRACE if self.job else 0.0)

    def begin(self, job: Job) -> None:
        self.job, self.began = job, time.monotonic()
        self.output.clear()
        self.pipe.send(job)

    def lost(self, job: Job, why: str) -> Done:
        """The row of an entry whose process gave no answer."""
        output = bytes(self.output)
        outcome = Outcome(
            job.entry.name, Word.ERROR, why, output=output, seconds=time.monotonic() - self.began,
            lines=report_lines(output),
        )  # fmt: skip
        self.job = None
        return Done(job, outcome)

    def stop(self) -> int:
        """End the process, by its id; returns its status."""
        self.pipe.close()
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait()


class Pool:
    """Give jobs with `submit` (from any thread) and take what comes of them with `poll` (on one)."""

    def __init__(self, processes: int = 1) -> None:
        self._processes = max(1, processes)
        self._workers: list[_Worker] = []
        self._waiting: deque[Job] = deque()
        self._lock = threading.Lock()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs."""
        with self._lock:
            self._waiting.extend(jobs)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        with self._lock:
            return not self._waiting and all(worker.job is None for worker in self._workers)

    def drop(self) -> None:
        """Forget the jobs that wait."""
        with self._lock:
            self._waiting.clear()

    def poll(self, timeout: float) -> list[Event]:
        """What happened; waits up to ``timeout`` seconds for something to."""
        events: list[Event] = list(self._start_waiting())
        busy = {worker.pipe: worker for worker in self._workers if worker.job is not None}
        if not busy:
            return events
        until = 0.0 if events else min(timeout, *(max(0.0, w.deadline - time.monotonic()) for w in busy.values()))
        for pipe in wait(list(busy), until):
            event = self._take(busy[pipe])  # type: ignore[index]
            if event is not None:
                events.append(event)
        for worker in busy.values():
            if worker.job is not None and time.monotonic() > worker.deadline:
                events.append(worker.lost(worker.job, "it did not stop at its time-out, and its process was ended"))
                self._remove(worker)
        return events

    def _start_waiting(self) -> list[Began]:
        began = []
        with self._lock:
            while self._waiting:
                free = next((worker for worker in self._workers if worker.job is None), None)
                if free is None:
                    if len(self._workers) >= self._processes:
                        break
                    free = _Worker()
                    self._workers.append(free)
                job = self._waiting.popleft()
                try:
                    free.begin(job)
                except OSError:
                    # It died while it had nothing to do.
                    free.job = None
                    self._waiting.appendleft(job)
                    self._remove(free)
                    continue
                began.append(Began(job))
        return began

    def _take(self, worker: _Worker) -> Event | None:
        job = worker.job
        if job is None:
            return None
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            status = self._died(worker)
            why = f"signal {-status}" if status < 0 else f"status {status}"
            return worker.lost(job, f"its process died ({why})")
        if isinstance(message, bytes):
            worker.output += message
            return Output(job, message)
        worker.job = None
        return Done(job, message)

    def _died(self, worker: _Worker) -> int:
        """The status of a worker whose pipe has ended."""
        try:
            # The pipe goes a moment before the process does.
            worker.process.wait(_MOMENT)
        except subprocess.TimeoutExpired:
            pass
        return self._remove(worker)

    def _remove(self, worker: _Worker) -> int:
        """Take a worker out, which is dying or is to be ended; returns its status."""
        self._workers.remove(worker)
        return worker.stop()

    def close(self) -> None:
        """End every process and forget what waits."""
        self.drop()
        while self._workers:
            self._workers.pop().stop()
