"""Assembling a reproducer's source: once for each content in a process."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Final

from kvmscope.asm import assemble
from kvmscope.asm.image import Assembly
from kvmscope.reproducer.document import Reproducer

__all__ = ["assemble_reproducer"]

_KEPT: Final = 256
_lock: Final = Lock()
_cache: OrderedDict[tuple[object, ...], Assembly] = OrderedDict()


def assemble_reproducer(reproducer: Reproducer, *, cross_check: bool) -> Assembly:
    """The image of a reproducer, or its diagnostics.

    The key is everything the outcome depends on, the text itself included, so that a hit is never another program.
    """
    if reproducer.image is not None:
        return Assembly(reproducer.image, (), "")
    key = (reproducer.source, reproducer.bits, reproducer.syntax, reproducer.origin, reproducer.backend, cross_check)
    with _lock:
        found = _cache.get(key)
        if found is not None:
            _cache.move_to_end(key)
            return found
    # Not under the lock: two threads may assemble the same text, but neither waits for the other's text.
    assembly = assemble(
        reproducer.source,
        bits=reproducer.bits,
        syntax=reproducer.syntax,
        origin=reproducer.origin,
        backend=reproducer.backend,
        cross_check=cross_check,
    )
    with _lock:
        _cache[key] = assembly
        if len(_cache) > _KEPT:
            _cache.popitem(last=False)
    return assembly
