"""A process that runs entries: ``python -m kvmscope.suite.worker FD``, spoken to by `kvmscope.suite.pool`.

It gets `Job` values and answers each with any number of bytes (serial output) and one `Outcome`.
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from kvmscope.suite.runner import run_entry

__all__ = ["main"]


def main(descriptor: int) -> None:
    """Serve until the other end is closed."""
    pipe = Connection(descriptor)
    while True:
        try:
            job = pipe.recv()
            pipe.send(run_entry(job, pipe.send))
        except (EOFError, OSError):
            # The parent has gone, or does not want the answer.
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))
