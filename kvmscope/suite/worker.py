"""A process that runs entries: ``python -m kvmscope.suite.worker FD PARENT``, spoken to by `kvmscope.suite.pool`.

It gets `Job` values and answers each with any number of bytes (serial output) and one `Outcome`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Final

from kvmscope.suite.runner import run_entry

__all__ = ["main"]


_LOOK: Final = 1.0
"""Seconds between two looks whether the parent is still there."""


def _end_with(parent: int) -> None:
    """End when the parent has, however it did: a guest may run for long before anybody looks at the pipe."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def main(descriptor: int, parent: int) -> None:
    """Serve until the other end is closed."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    pipe = Connection(descriptor)
    while True:
        try:
            job = pipe.recv()
            pipe.send(run_entry(job, pipe.send))
        except (EOFError, OSError):
            # The parent has gone, or does not want the answer.
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
