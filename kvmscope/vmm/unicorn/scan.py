"""Which instructions of a translated block must be trapped (see `system`), by opcode."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from kvmscope.vmm.unicorn import x87
from kvmscope.vmm.unicorn.lengths import Shape, instructions
from kvmscope.vmm.unicorn.operands import touches_memory
from kvmscope.vmm.unicorn.system import Kind

__all__ = ["Policy", "classify", "find"]

_Rule = Callable[[Shape, bool], str | None]


def _always(kind: str) -> _Rule:
    return lambda _shape, _code64: kind


def _group5(shape: Shape, code64: bool) -> str | None:
    memory = shape.modrm < 0xC0
    operation = shape.modrm >> 3 & 7
    if operation == 2 and code64:
        return Kind.BRANCH16 if shape.sized else Kind.NEAR_CALL
    if operation in (3, 5) and memory:
        return Kind.FAR_CALL if operation == 3 else Kind.FAR_JUMP
    return None


def _vex(shape: Shape, code64: bool) -> str | None:
    return Kind.UNDEFINED if code64 or shape.modrm >= 0xC0 else None


def _group_15(shape: Shape, code64: bool) -> str | None:
    operation = shape.modrm >> 3 & 7
    if shape.modrm < 0xC0:
        return Kind.MXCSR if operation in (1, 2, 5) else None
    return Kind.BASE if code64 and shape.rep == 0xF3 and operation in (2, 3) else None


def _group_6(shape: Shape, _code64: bool) -> str | None:
    return Kind.UMIP if shape.modrm >> 3 & 7 in (0, 1) else None


def _group_7(shape: Shape, _code64: bool) -> str | None:
    operation = shape.modrm >> 3 & 7
    if shape.modrm < 0xC0 and operation == 7:
        return Kind.INVLPG
    if operation == 4 or (operation < 2 and shape.modrm < 0xC0):
        return Kind.UMIP
    return Kind.XSETBV if shape.modrm == 0xD1 else None


def _immediate_group(shape: Shape, _code64: bool) -> str | None:
    # XABORT and XBEGIN without RTM; Unicorn takes them for MOV.
    return Kind.UNDEFINED if shape.modrm >= 0xC0 and shape.modrm & 0x38 else None


def _pop_group(shape: Shape, _code64: bool) -> str | None:
    # 8F /1 to /7: undefined, or XOP.
    return Kind.UNDEFINED if shape.modrm & 0x38 else None


def _compare_exchange(shape: Shape, _code64: bool) -> str | None:
    return Kind.CMPXCHG if shape.modrm < 0xC0 and shape.modrm & 0x38 == 8 else None


def _byte_swap(shape: Shape, _code64: bool) -> str | None:
    # MOVBE names memory only; with F2 the opcode is CRC32.
    return Kind.UNDEFINED if shape.modrm >= 0xC0 and shape.rep != 0xF2 else None


def _stack_segment(shape: Shape, code64: bool) -> str | None:
    return Kind.STACK_SEGMENT if code64 and shape.modrm & 0x38 == 0x10 else None


def _extract(shape: Shape, _code64: bool) -> str | None:
    # With neither prefix the opcodes are VMREAD and VMWRITE.
    return Kind.SSE4A if shape.sized or shape.rep == 0xF2 else None


def _move_non_temporal(shape: Shape, _code64: bool) -> str | None:
    if shape.rep:
        return Kind.SSE4A
    return Kind.ALIGNED if _aligned(shape) else None


def _control_word(shape: Shape, _code64: bool) -> str | None:
    return Kind.X87_CONTROL if x87.sets_control_word(shape) else None


def _branch16(shape: Shape, code64: bool) -> str | None:
    return Kind.BRANCH16 if code64 and shape.sized else None


_RULES: Final[dict[int, _Rule]] = {
    0x9A: _always(Kind.FAR_CALL),
    0xEA: _always(Kind.FAR_JUMP),
    0xCA: _always(Kind.FAR_RETURN),
    0xCB: _always(Kind.FAR_RETURN),
    0xFF: _group5,
    0xC4: _vex,
    0xC5: _vex,
    0xC6: _immediate_group,
    0xC7: _immediate_group,
    0x8F: _pop_group,
    0x8E: _stack_segment,
    0xC2: _branch16,
    0xC3: _branch16,
    0xD9: _control_word,
    0xDD: _control_word,
    0xE8: _branch16,
    0xE9: _branch16,
    **dict.fromkeys(range(0x180, 0x190), _branch16),
    0x100: _group_6,
    0x101: _group_7,
    0x102: _always(Kind.ACCESS_RIGHTS),
    0x103: _always(Kind.ACCESS_RIGHTS),
    0x105: _always(Kind.SYSCALL),
    0x107: _always(Kind.SYSRET),
    0x133: _always(Kind.RDPMC),
    0x134: _always(Kind.SYSENTER),
    0x135: _always(Kind.SYSEXIT),
    0x12B: _move_non_temporal,
    0x178: _extract,
    0x179: _extract,
    0x1AE: _group_15,
    0x1C7: _compare_exchange,
    0x2F0: _byte_swap,
    0x2F1: _byte_swap,
}

# SSE instructions with a 16-byte memory operand that must be aligned, by mandatory prefix (SDM vol. 2A section 2.4,
# exception types 1, 2 and 4, legacy encodings).
_FLOAT: Final = {0x114, 0x115, 0x128, 0x129, 0x12B, 0x151, *range(0x154, 0x15A), *range(0x15C, 0x160), 0x1C2, 0x1C6}
_ALIGNED: Final[dict[int, frozenset[int]]] = {
    0x00: frozenset(_FLOAT | {0x152, 0x153, 0x15B}),
    0x66: frozenset(
        _FLOAT
        | {0x12C, 0x12D, 0x15A, 0x15B, *range(0x160, 0x16E), 0x16F, 0x170, *range(0x174, 0x177), 0x17C, 0x17D, 0x17F}
        | {0x1D0, *range(0x1D1, 0x1D6), *range(0x1D8, 0x1F0), *range(0x1F1, 0x1F7), *range(0x1F8, 0x1FF)}
        | {*range(0x200, 0x20C), 0x210, 0x214, 0x215, 0x217, *range(0x21C, 0x21F), *range(0x228, 0x22C)}
        | {*range(0x237, 0x242), *range(0x2DB, 0x2E0)}
        | {0x308, 0x309, *range(0x30C, 0x310), *range(0x340, 0x343), 0x344, 0x3DF}
    ),
    0xF2: frozenset({0x170, 0x17C, 0x17D, 0x1D0, 0x1E6}),
    0xF3: frozenset({0x112, 0x116, 0x15B, 0x170}),
}


def _aligned(shape: Shape) -> bool:
    prefix = shape.rep or (0x66 if shape.sized else 0)
    return shape.modrm < 0xC0 and shape.opcode in _ALIGNED[prefix]


# LOCK is allowed with a memory destination only (SDM vol. 2A LOCK): opcode to allowed ModRM.reg values.
_ALL: Final = frozenset(range(8))
_LOCKABLE: Final[dict[int, frozenset[int]]] = {
    **{base + form: _ALL for base in range(0, 0x38, 8) for form in (0, 1)},
    **dict.fromkeys((0x80, 0x81, 0x82, 0x83), frozenset(range(7))),
    0x86: _ALL,
    0x87: _ALL,
    **dict.fromkeys((0xF6, 0xF7), frozenset({2, 3})),
    **dict.fromkeys((0xFE, 0xFF), frozenset({0, 1})),
    **dict.fromkeys((0x1AB, 0x1B3, 0x1BB, 0x1B0, 0x1B1, 0x1C0, 0x1C1), _ALL),
    0x1BA: frozenset({5, 6, 7}),
    0x1C7: frozenset({1}),
}


def _bad_lock(shape: Shape) -> bool:
    allowed = _LOCKABLE.get(shape.opcode)
    return allowed is None or shape.modrm >= 0xC0 or shape.modrm >> 3 & 7 not in allowed


def classify(shape: Shape, code64: bool) -> str | None:
    """Why the instruction must be trapped, or None."""
    if shape.lock and _bad_lock(shape):
        return Kind.UNDEFINED
    rule = _RULES.get(shape.opcode)
    if rule is not None:
        return rule(shape, code64)
    return Kind.ALIGNED if shape.opcode >= 0x112 and _aligned(shape) else None


# Bytes without which no instruction of a block can be of interest.
_INTERESTING: Final = re.compile(
    rb"[\x07\x0f\x17\x1f\x2e\x66\xf0\x9a\xea\xca\xcb\xff\xc4-\xc7\xd9\xdd\x8e\x8f\x6c-\x6f\xe4-\xe7\xec-\xef]"
)
_PORTS: Final = frozenset({*range(0x6C, 0x70), *range(0xE4, 0xE8), *range(0xEC, 0xF0)})


_SEGMENT_LOADS: Final = frozenset({0x8E, 0x07, 0x17, 0x1F, 0xC4, 0xC5, 0x1A1, 0x1A9, 0x1B2, 0x1B4, 0x1B5})
_OVERRIDES: Final = {0x26: 1 << 0, 0x2E: 1 << 1, 0x36: 1 << 2, 0x3E: 1 << 3, 0x64: 1 << 4, 0x65: 1 << 5}
_ES_SS_DS: Final = 1 << 0 | 1 << 2 | 1 << 3
_CS: Final = 1 << 1


class Policy(NamedTuple):
    """What is trapped at the moment besides `classify`'s."""

    ports: bool = False
    """Port I/O: it needs a look at the TSS."""
    segments: int = 0
    """Mask of the segments through which an access may fault (`checks.segments_to_check`); -1 for every access."""
    wide_only: bool = False
    """Of those, only accesses with 32-bit addresses: 16-bit ones stay in a 64 KiB segment."""
    x87: bool = False
    """x87 and MMX instructions: an exception may be pending that is not masked."""


def find(data: bytes, code64: bool, code32: bool, policy: Policy | None = None) -> list[tuple[Shape, str]]:
    """The instructions of a block that must be trapped, each with its reasons; checks come before executions."""
    if policy is None:
        policy = Policy()
    if not policy.segments and not policy.x87 and _INTERESTING.search(data) is None:
        return []
    out = []
    for shape in instructions(data, code64, code32):
        if policy.x87 and x87.waits(shape):
            out.append((shape, Kind.X87))
        kind = Kind.PORT if policy.ports and shape.opcode in _PORTS else classify(shape, code64)
        if kind != Kind.UNDEFINED:
            if _may_fault(shape, data, code64, code32, policy):
                out.append((shape, Kind.MEMORY))
            if not code64 and shape.opcode in _SEGMENT_LOADS:
                out.append((shape, Kind.SEGMENT))
        if kind is not None:
            out.append((shape, kind))
    return out


def _may_fault(shape: Shape, data: bytes, code64: bool, code32: bool, policy: Policy) -> bool:
    """Whether the instruction accesses memory through a segment of the policy."""
    if not touches_memory(shape):
        return False
    if code64:
        return bool(policy.segments)
    wide, segments, override = code32, _ES_SS_DS, 0
    for byte in data[shape.offset : shape.offset + shape.length]:
        if byte in _OVERRIDES:
            override = _OVERRIDES[byte]
        elif byte == 0x67:
            wide = not code32
        elif byte not in (0x66, 0xF0, 0xF2, 0xF3):
            break
    if override == _CS:
        # A write through CS faults in protected mode whatever CS is.
        return True
    if policy.wide_only and not wide:
        return False
    return bool((segments | override) & policy.segments)
