"""``python -m kvmscope`` and the ``kvmscope`` command."""

from __future__ import annotations

import gc
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line; returns the exit status."""
    from kvmscope.cli import run_command_line

    status = run_command_line(sys.argv[1:])
    # The interpreter looks through all objects for cycles before it ends, for 15 ms, though the process's memory goes
    # as a whole.  Files and guests have been closed by those who opened them.
    gc.freeze()
    return status


if __name__ == "__main__":
    sys.exit(main())
