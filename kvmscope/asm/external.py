"""Run an external assembler on untrusted text: bounded in time, memory and output, in a directory of its own."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kvmscope.asm.limits import TOOL_FILE_SIZE, TOOL_MEMORY, TOOL_SECONDS

__all__ = ["ToolRun", "run_tool"]

_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "LANG": "C"}


@dataclass(frozen=True, slots=True)
class ToolRun:
    """How an external assembler ended; ``failure`` is what kept it from an answer (time-out, signal), or empty."""

    status: int
    errors: str
    failure: str = ""


def run_tool(command: Sequence[str], text: str, directory: str, environment: dict[str, str] | None = None) -> ToolRun:
    """Run ``command`` in ``directory`` with ``text`` on its standard input.

    Messages go to a file, whose size is bounded like that of every file it writes.  The limits are set before the
    first byte of the input is sent, so there is nothing to run away with before they hold; a hook between fork and
    exec would not be safe in a program with threads.
    """
    path = os.path.join(directory, "messages")
    with open(path, "wb") as messages:
        try:
            process = subprocess.Popen(
                command, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=messages,
                env=_ENVIRONMENT | (environment or {}),
            )  # fmt: skip
        except OSError as error:
            return ToolRun(-1, "", f"{command[0]}: {error.strerror}")
    _limit(process.pid)
    failure = ""
    if not _feed(process, text.encode(errors="replace"), TOOL_SECONDS):
        process.kill()
        failure = f"it did not end within {TOOL_SECONDS:.0f} s"
    process.communicate()
    if not failure and process.returncode < 0:
        failure = f"it was ended by signal {-process.returncode} (a bound on time, memory or output)"
    with open(path, errors="replace") as messages_read:
        return ToolRun(process.returncode, messages_read.read(1 << 20), failure)


def _feed(process: subprocess.Popen[bytes], data: bytes, seconds: float) -> bool:
    """Send ``data`` to the process and wait for its end; False when ``seconds`` passed before."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        # Not Linux, or a kernel before 5.3.
        return _feed_polling(process, data, seconds)
    try:
        return _feed_watching(process, descriptor, memoryview(data), time.monotonic() + seconds)
    finally:
        os.close(descriptor)


def _feed_watching(process: subprocess.Popen[bytes], ended: int, data: memoryview, deadline: float) -> bool:
    """The same by the pidfd ``ended``, which tells the end at once.

    The standard library looks every 0.5, 1, 2 ... ms instead, which doubles the time that a small file takes.
    """
    pipe = process.stdin
    assert pipe is not None
    os.set_blocking(pipe.fileno(), False)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(pipe, select.POLLOUT)
    while True:
        ready = [fd for fd, _event in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)]
        if ended in ready:
            return True
        if not ready:
            return False
        try:
            data = data[os.write(pipe.fileno(), data) :]
        except BrokenPipeError:
            # It reads no more; how it ended tells why.
            data = data[:0]
        if not data:
            poll.unregister(pipe)
            pipe.close()


def _feed_polling(process: subprocess.Popen[bytes], data: bytes, seconds: float) -> bool:
    """The same where the end of a process can only be asked for."""
    try:
        process.communicate(data, timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _limit(pid: int) -> None:
    """Bound the process where the system can (Linux); elsewhere the time-out alone holds."""
    prlimit = getattr(resource, "prlimit", None)
    if prlimit is None:
        return
    seconds = int(TOOL_SECONDS)
    for kind, value in (
        (resource.RLIMIT_AS, TOOL_MEMORY),
        (resource.RLIMIT_FSIZE, TOOL_FILE_SIZE),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            prlimit(pid, kind, (value, value))
        except (OSError, ValueError):
            # It has ended already, or a lower limit was inherited.
            return
