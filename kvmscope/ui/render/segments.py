"""What a segment register's hidden part says, in words."""

from __future__ import annotations

from functools import lru_cache

from kvmscope.x86.descriptors import SYSTEM_TYPES
from kvmscope.x86.state import Seg, SegmentRegister

__all__ = ["segment_words"]


@lru_cache(maxsize=512)
def segment_words(segment: SegmentRegister, which: Seg, long: bool, real: bool) -> str:
    """``code64 dpl0 xr a``: kind, then privilege, rights and what is odd about it.

    In real-address mode a selector names no descriptor; only what differs from a plain 64 KiB segment is said.
    """
    if segment.attributes >> 16 & 1:
        return "unusable"
    words: list[str] = []
    if segment.s:
        code = segment.type >> 3 & 1
        if code:
            bits = 64 if segment.long and long else 32 if segment.db else 16
            words += [f"code{bits}", f"dpl{segment.dpl}", "xr" if segment.type & 2 else "x"]
        else:
            words += [f"data{32 if segment.db else 16}", f"dpl{segment.dpl}", "rw" if segment.type & 2 else "r"]
        if segment.type & 4:
            words.append("conforming" if code else "expand-down")
        if not segment.type & 1:
            words.append("not accessed")
    else:
        kind = SYSTEM_TYPES[segment.type]
        if not segment.attributes and which not in (Seg.LDTR, Seg.TR):
            return "null"
        size = f"{64 if long else kind.bits}" if kind.kind == "tss" else ""
        words += [(kind.kind or f"type {segment.type:#x}") + size] + ["busy"] * kind.busy
    if not segment.present:
        words.insert(1, "not present")
    if real and segment.limit == 0xFFFF and segment.base == segment.selector << 4:
        return ""
    return " ".join(words)
