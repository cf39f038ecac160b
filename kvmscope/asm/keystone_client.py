"""Asks the Keystone process for encodings; survives its crashes and hangs."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path
from typing import Final

__all__ = ["encode", "keystone_version", "start"]

_SECONDS: Final = 5.0
"""For one batch; Keystone needs 2 microseconds for a line, its start 50 milliseconds."""
_BATCH: Final = 1000
_LOSSES: Final = 3
"""Crashes or hangs in one batch after which the rest is given up."""
_KEPT: Final = 20_000
_WORKER: Final = Path(__file__).with_name("keystone_worker.py")


@lru_cache(maxsize=1)
def keystone_version() -> str:
    """The version of the installed keystone-engine; empty where there is none (no wheel for ARM)."""
    if util.find_spec("keystone") is None:
        return ""
    try:
        return metadata.version("keystone-engine")
    except metadata.PackageNotFoundError:
        return "unknown"


class _Lost(Exception):
    """The process died or did not answer."""


class _Worker:
    """One process and its pipes, used under a lock by all threads of one process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._rest = b""

    def ask(self, bits: int, texts: Sequence[str]) -> list[str | None]:
        """One batch; raises _Lost."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = json.dumps({"bits": bits, "texts": list(texts)}).encode() + b"\n"
        output = self._process.stdout.fileno()
        end = time.monotonic() + _SECONDS
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
            while b"\n" not in self._rest:
                left = end - time.monotonic()
                if left <= 0 or not select.select([output], [], [], left)[0]:
                    raise _Lost
                part = os.read(output, 1 << 16)
                if not part:
                    raise _Lost
                self._rest += part
        except (OSError, ValueError):
            raise _Lost from None
        line, _, self._rest = self._rest.partition(b"\n")
        answer: list[str | None] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process; a child that was forked from its owner leaves it alone."""
        if self.owner != os.getpid():
            return
        self._process.kill()
        self._process.communicate()


_lock = threading.Lock()
_current: list[_Worker] = []
_known: OrderedDict[tuple[int, str], bytes | None] = OrderedDict()


def _close() -> None:
    while _current:
        _current.pop().close()


atexit.register(_close)


def encode(bits: int, texts: Sequence[str]) -> list[bytes | None]:
    """Keystone's bytes of every text (Intel syntax, one instruction, numbers as 0x...), None where it has none.

    The bytes are not to be trusted: see guard.
    """
    with _lock:
        wanted = sorted({text for text in texts if (bits, text) not in _known})
        if wanted:
            for at in range(0, len(wanted), _BATCH):
                part = wanted[at : at + _BATCH]
                for text, data in zip(part, _ask(bits, part), strict=True):
                    _known[bits, text] = data
        answers = [_known[bits, text] for text in texts]
        while len(_known) > _KEPT:
            _known.popitem(last=False)
        return answers


def start() -> None:
    """Start the process, if there is none, without waiting for it."""
    with _lock:
        try:
            _worker()
        except OSError:
            # The next question will fail in the same way, and be answered with refusals.
            return


def _worker() -> _Worker:
    if _current and _current[0].owner != os.getpid():
        # We are a fork: the process and its pipes belong to the parent.
        _current.clear()
    if not _current:
        _current.append(_Worker())
    return _current[0]


def _ask(bits: int, texts: Sequence[str]) -> list[bytes | None]:
    answer = _try(bits, texts)
    if answer is not None:
        return answer
    # One of them brings Keystone down: one by one, until it has done so too often.
    result: list[bytes | None] = []
    losses = 0
    for text in texts:
        single = _try(bits, [text]) if losses < _LOSSES else [None]
        losses += single is None
        result += single if single is not None else [None]
    return result


def _try(bits: int, texts: Sequence[str]) -> list[bytes | None] | None:
    try:
        answer = _worker().ask(bits, texts)
    except (_Lost, OSError):
        _close()
        return None
    if len(answer) != len(texts):
        _close()
        return None
    return [bytes.fromhex(data) if data else None for data in answer]
