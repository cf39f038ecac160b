"""The thread that runs entries behind the suite browser, in processes of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

from kvmscope.suite.pool import Event, Pool
from kvmscope.suite.runner import Job

__all__ = ["SuiteWork"]

_POLL: Final = 0.1
"""Seconds until a wish to stop is seen."""


class SuiteWork:
    """``listener`` is called on the thread with what happened; an empty list says that nothing runs any more."""

    def __init__(self, listener: Callable[[Sequence[Event]], object], processes: int | None = None) -> None:
        self._listener = listener
        # One processor is left for the person who watches.
        self._pool = Pool(processes or max(1, (os.cpu_count() or 2) - 1))
        self._wake = threading.Condition()
        self._stopping = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, jobs: Sequence[Job]) -> None:
        """Have these run, after those that wait."""
        if not jobs:
            return
        with self._wake:
            self._stopping = False
            self._pool.submit(jobs)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="suite", daemon=True)
                self._thread.start()
            self._wake.notify()

    def stop(self) -> None:
        """End what runs and forget what waits."""
        with self._wake:
            self._stopping = True
            self._pool.drop()
            self._wake.notify()

    def close(self) -> None:
        """End everything."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while self._pool.idle and not self._closed:
                    self._wake.wait()
                stopping, self._stopping = self._stopping, False
                if self._closed:
                    self._pool.close()
                    return
            if stopping:
                self._pool.close()
                self._listener(())
                continue
            events = self._pool.poll(_POLL)
            if events:
                self._listener(events)
            if self._pool.idle:
                self._listener(())
