"""Events through the guest's IVT or IDT (SDM vol. 3A chapter 6; the pseudocode of INT n in vol. 2A).

Everything that can fault is read and checked before anything is changed, so a delivery that faults leaves the state
at the instruction that raised the event, and the fault that it raised is the next event (double fault rules included).
"""

from __future__ import annotations

import struct
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from kvmscope.vmm.engine import Activity, Stop, StopReason
from kvmscope.vmm.events import ExceptionEvent, ExceptionSource
from kvmscope.vmm.unicorn import segments, taskswitch
from kvmscope.vmm.unicorn.env import (
    CR,
    CS_BASE,
    EIP,
    FLAG,
    HF,
    HFLAGS,
    IDT_BASE,
    IDT_LIMIT,
    M32,
    M64,
    SS_BASE,
    SS_FLAGS,
    TR_BASE,
    TR_FLAGS,
    TR_LIMIT,
    TR_SELECTOR,
    decode,
    selector_index,
)
from kvmscope.vmm.unicorn.faults import Fault
from kvmscope.vmm.unicorn.memory import canonical
from kvmscope.x86.state import CpuState, Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Captured, Cpu

__all__ = ["DB", "DF", "GP", "NMI", "NP", "PF", "SS", "TS", "UD", "CapturedException", "deliver"]

DE, DB, NMI, BP, OF, BR, UD, NM, DF = range(9)
TS, NP, SS, GP, PF = range(10, 15)

_HAS_ERROR: Final = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
_CONTRIBUTORY: Final = frozenset({0, 10, 11, 12, 13, 21})
_TRAPS_AND_ABORTS: Final = frozenset({1, 2, 3, 4, 8, 18})
"""Vectors whose pushed image does not get RF set (SDM vol. 3B section 17.3.1.1); the rest below 32 are faults."""

_MODE: Final = HF.CS64 | HF.CS32 | 3
"""What `Cpu.mode` is made of."""
_CLEARED: Final = FLAG.TF | FLAG.NT | FLAG.RF | FLAG.VM
_CS_SELECTOR: Final = selector_index(Seg.CS)
_SS_SELECTOR: Final = selector_index(Seg.SS)


class CapturedException(ExceptionEvent):
    """An `ExceptionEvent` that is unpacked when somebody looks at it, ``before`` decoded: most are never looked at."""

    __slots__ = ("_kept",)
    _kept: tuple[Any, ...]

    def __init__(self, *values: Any, **named: Any) -> None:
        """All fields of an `ExceptionEvent`, in order or by name; ``before`` may be `Captured`."""
        _keep(self, values if not named else values + tuple(named[name] for name in _NAMES[len(values) :]))

    def __reduce__(self) -> tuple[type[CapturedException], tuple[Any, ...]]:
        return CapturedException, self._kept

    @property
    def before(self) -> CpuState:
        """The state at the faulting instruction."""
        kept: CpuState | Captured = self._kept[_BEFORE]
        if isinstance(kept, tuple):
            kept = decode(*kept)
            _keep(self, (*self._kept[:_BEFORE], kept, *self._kept[_BEFORE + 1 :]))
        return kept


_keep: Final = vars(CapturedException)["_kept"].__set__
_NAMES: Final = tuple(f.name for f in fields(ExceptionEvent))
_BEFORE: Final = _NAMES.index("before")


def _field(index: int) -> property:
    return property(lambda event: event._kept[index])


for _i, _name in enumerate(_NAMES):
    if _i != _BEFORE:
        setattr(CapturedException, _name, _field(_i))


class _Handled(Exception):
    """The machine stops instead of entering ``handler``: it is not the guest's own."""

    def __init__(self, handler: int) -> None:
        self.handler = handler


def deliver(
    cpu: Cpu,
    vector: int,
    error_code: int | None = None,
    address: int | None = None,
    *,
    software: bool = False,
    external: bool = False,
    next_ip: int | None = None,
    dr6: int = 0,
    trap: bool = False,
    resume: bool = False,
) -> None:
    """Raise ``vector`` at the current instruction and enter its handler.

    ``next_ip`` is the return address of a software interrupt or trap that is not simply RIP; ``dr6`` are the DR6 bits
    of a #DB; ``trap`` says that the instruction before RIP has completed, ``resume`` that
    RIP is at a REP instruction with iterations left (the image then has RF).  Ends in a pending stop where the guest has no handler of its own, or at a triple fault.
    """
    env = cpu.env
    source = ExceptionSource.SOFTWARE if software else ExceptionSource.EXTERNAL if external else ExceptionSource.FAULT
    parent: int | None = None
    rip = env.q[EIP]
    mode = env.d[HFLAGS]
    # Nothing of the translated code goes on after this: the flags need not stay lazy.
    flags = env.flags() | 2
    env.set_flags(flags)
    while True:
        if vector == PF and address is not None:
            cpu.cr2 = env.q[CR + 2] = address
        if vector == DB and not software:
            _note_debug(cpu, dr6)
        pushed = error_code
        captured = cpu.capture(0 if trap else 1)
        rf = 0 if software else captured[1] & FLAG.RF
        if resume or (vector < 32 and vector not in _TRAPS_AND_ABORTS and not software and not external):
            rf = FLAG.RF
        ext = 0 if software else 1
        handler: int | None = None
        raised: Fault | None = None
        stopped = False
        try:
            if env.q[CR] & 1:
                code = pushed if vector in _HAS_ERROR and not software and not external else None
                if mode & HF.LMA:
                    back = rip if next_ip is None else next_ip
                    handler = cpu.routes.enter(vector, software, external, code, back, flags, rf)
                if handler is None:
                    handler = _protected(cpu, vector, code, software, external, ext, next_ip, rf)
                    if mode & HF.LMA:
                        cpu.routes.learn_inward()
            else:
                pushed = None
                handler = _real(cpu, vector, next_ip, rf)
        except Fault as fault:
            raised = fault
        except _Handled as handled:
            handler = handled.handler
            stopped = True
        event = CapturedException(
            cpu.clock,
            rip,
            cpu.vcpu,
            vector,
            source,
            pushed,
            address if vector == PF else None,
            cpu.dr[6] if vector == DB and not software else None,
            captured,
            raised is None and not stopped,
            parent,
            handler,
        )
        cpu.host.record(event)
        if stopped:
            cpu.stop(Stop(StopReason.EXCEPTION, cpu.clock, exception=event))
            return
        if raised is None:
            cpu.activity = Activity.ACTIVE
            if (mode ^ env.d[HFLAGS]) & _MODE or not mode & HF.CS64:
                cpu.note_mode((64 if mode & HF.CS64 else 32 if mode & HF.CS32 else 16, mode & 3), rip)
            return
        if raised.vector == PF and raised.address is not None:
            # A second #PF overwrites CR2 even if it ends in #DF or a triple fault (SDM vol. 3A section 6.15, #PF).
            cpu.cr2 = env.q[CR + 2] = raised.address
        parent = vector
        if vector == DF and source is ExceptionSource.FAULT:
            cpu.stop(Stop(StopReason.TRIPLE_FAULT, cpu.clock, exception=event))
            return
        if source is ExceptionSource.FAULT and _doubles(vector, raised.vector):
            vector, error_code, address = DF, 0, None
        else:
            vector, error_code, address = raised.vector, raised.error_code, raised.address
        source, software, external, next_ip, dr6, trap, resume = (
            ExceptionSource.FAULT,
            False,
            False,
            None,
            0,
            False,
            False,
        )


def _doubles(first: int, second: int) -> bool:
    """True if ``second`` raised while delivering ``first`` makes a double fault (SDM vol. 3A table 6-5)."""
    if first in _CONTRIBUTORY:
        return second in _CONTRIBUTORY
    return first == PF and (second == PF or second in _CONTRIBUTORY)


def _note_debug(cpu: Cpu, bits: int) -> None:
    """DR6 of a #DB: bits 3:0 are replaced, BS BD BT are added; DR7.GD is cleared (SDM vol. 3B section 17.2.3)."""
    old = cpu.dr[6]
    cpu.dr[6] = old & ~0xF | bits
    cpu.dr[7] &= ~0x2000


def _stop_unless_own(cpu: Cpu, vector: int, handler: int) -> None:
    if not cpu.host.has_own_handler(vector, handler):
        raise _Handled(handler)


def _real(cpu: Cpu, vector: int, next_ip: int | None, rf: int) -> int:
    """Real-address mode: FLAGS, CS and IP as words, through the IVT."""
    env, memory = cpu.env, cpu.memory
    d, q = env.d, env.q
    if vector * 4 + 3 > d[IDT_LIMIT]:
        raise Fault(GP, 0)
    ip, cs = struct.unpack("<HH", memory.read((q[IDT_BASE] + vector * 4) & M32, 4))
    flags = env.flags()
    _stop_unless_own(cpu, vector, (cs << 4) + ip)
    image = flags | rf
    sp = q[4]
    values = (image & 0xFFFF, d[_CS_SELECTOR] & 0xFFFF, (q[EIP] if next_ip is None else next_ip) & 0xFFFF)
    places = []
    for _ in values:
        sp = sp & ~0xFFFF | (sp - 2) & 0xFFFF
        if sp & 0xFFFF == 0xFFFF:
            raise Fault(SS, 0)
        places.append((q[SS_BASE] + (sp & 0xFFFF)) & M32)
    for place, value in zip(places, values, strict=True):
        memory.write(place, value.to_bytes(2, "little"))
    q[4] = sp
    d[_CS_SELECTOR] = cs
    q[CS_BASE] = cs << 4
    q[EIP] = ip
    env.set_flags(flags & ~(FLAG.IF | FLAG.TF | FLAG.AC | FLAG.RF))
    d[HFLAGS] &= ~HF.INHIBIT
    entered: int = ip
    return entered


def _gate(cpu: Cpu, vector: int, software: bool, ext: int) -> tuple[int, int, int, int]:
    """Read and check the gate: (low, high, offset, idt error code)."""
    env = cpu.env
    long = env.d[HFLAGS] & HF.LMA
    size = 16 if long else 8
    code = vector * 8 + 2 + ext
    if vector * size + size - 1 > env.d[IDT_LIMIT]:
        raise Fault(GP, code)
    where = env.q[IDT_BASE] + vector * size
    raw = cpu.memory.read(where & M64 if long else where & M32, size, implicit=True)
    low, high = struct.unpack_from("<II", raw)
    kind = high >> 8 & 0x1F
    if kind not in ((14, 15) if long else (5, 6, 7, 14, 15)):
        raise Fault(GP, code)
    if software and high >> 13 & 3 < env.cpl:
        raise Fault(GP, code)
    if not high >> 15 & 1:
        raise Fault(NP, code)
    offset = low & 0xFFFF
    if kind & 8:
        offset |= high & 0xFFFF0000
    if long:
        offset |= int.from_bytes(raw[8:12], "little") << 32
    return low, high, offset, code


def _protected(
    cpu: Cpu,
    vector: int,
    error_code: int | None,
    software: bool,
    external: bool,
    ext: int,
    next_ip: int | None,
    rf: int,
) -> int:
    """Protected and IA-32e mode, virtual-8086 mode included."""
    env = cpu.env
    d, q = env.d, env.q
    low, high, offset, _code = _gate(cpu, vector, software, ext)
    kind = high >> 8 & 0x1F
    if kind == 5:
        return _task_gate(cpu, low >> 16, ext, error_code, q[EIP] if next_ip is None else next_ip, rf)
    flags = env.flags()
    vm = flags & FLAG.VM
    selector = low >> 16
    if not selector & 0xFFFC:
        raise Fault(GP, ext)
    descriptor = segments.read_descriptor(cpu, selector)
    if descriptor is None:
        raise Fault(GP, selector & 0xFFFC | ext)
    c_low, c_high = descriptor
    cpl, dpl = env.cpl, c_high >> 13 & 3
    if c_high >> 11 & 3 != 3 or dpl > cpl:
        raise Fault(GP, selector & 0xFFFC | ext)
    long = bool(d[HFLAGS] & HF.LMA)
    if long and c_high >> 21 & 3 != 1:
        raise Fault(GP, selector & 0xFFFC | ext)
    if not c_high >> 15 & 1:
        raise Fault(NP, selector & 0xFFFC | ext)
    conforming = c_high >> 10 & 1
    new_cpl = cpl if conforming else dpl
    if vm and (conforming or dpl):
        raise Fault(GP, selector & 0xFFFC | ext)

    image = flags | rf
    back = q[EIP] if next_ip is None else next_ip
    if long:
        if not canonical(offset, cpu.memory.linear_bits):
            raise Fault(GP, ext)
        linear = offset
    else:
        if offset > segments.limit_of(c_low, c_high):
            raise Fault(GP, ext)
        linear = segments.base_of(c_low, c_high) + offset & M32
    _stop_unless_own(cpu, vector, linear)

    frame = [d[_CS_SELECTOR] & 0xFFFF, back]
    if long:
        _push_long(cpu, high_ist(low, high), new_cpl, cpl, image, frame, error_code, ext)
    else:
        _push_legacy(cpu, 4 if kind & 8 else 2, new_cpl, cpl, image, frame, error_code, ext, bool(vm))
    segments.set_accessed(cpu, selector, c_high)
    env.set_segment(
        Seg.CS,
        selector & ~3 | new_cpl,
        segments.base_of(c_low, c_high),
        segments.limit_of(c_low, c_high),
        c_high | 1 << 8,
    )
    q[EIP] = offset
    cleared = _CLEARED if kind & 1 else _CLEARED | FLAG.IF
    env.set_flags(flags & ~cleared)
    d[HFLAGS] &= ~HF.INHIBIT
    env.update_hflags(new_cpl)
    return offset


def _task_gate(cpu: Cpu, selector: int, ext: int, error_code: int | None, back: int, rf: int) -> int:
    """An event through a task gate: a nested task, its stack with the error code."""
    env = cpu.env
    taskswitch.through_gate(cpu, selector, taskswitch.CALL, back, ext, rf)
    if error_code is not None:
        d, q = env.d, env.q
        width = 4 if d[TR_FLAGS] & 1 << 11 else 2
        limit, high = d[_SS_SELECTOR + 4], d[SS_FLAGS]
        segments.push_all(cpu, [error_code], width, q[4], q[SS_BASE], limit, high, ext, env.cpl == 3)
    return env.q[EIP]


def high_ist(low: int, high: int) -> int:
    """IST index of a 64-bit gate: bits 2:0 of its second doubleword."""
    return high & 7


def _push_long(
    cpu: Cpu,
    ist: int,
    new_cpl: int,
    cpl: int,
    flags: int,
    frame: list[int],
    error_code: int | None,
    ext: int,
) -> None:
    """The 64-bit stack: IST, RSP of the TSS, or the current one, aligned to 16 bytes; five or six quadwords."""
    env, memory = cpu.env, cpu.memory
    d, q = env.d, env.q
    if ist or new_cpl < cpl:
        at = 28 + 8 * ist if ist else 4 + 8 * new_cpl
        if at + 7 > d[TR_LIMIT]:
            raise Fault(TS, d[TR_SELECTOR] & 0xFFFC | ext)
        sp = int.from_bytes(memory.read(q[TR_BASE] + at & M64, 8, implicit=True), "little")
    else:
        sp = q[4]
    if not canonical(sp, memory.linear_bits):
        raise Fault(SS, ext)
    values = [d[_SS_SELECTOR] & 0xFFFF, q[4], flags, *frame]
    if error_code is not None:
        values.append(error_code)
    sp = (sp & ~15) - 8 * len(values) & M64
    if not canonical(sp, memory.linear_bits):
        raise Fault(SS, ext)
    values.reverse()
    memory.write(sp, struct.pack(f"<{len(values)}Q", *values), user=new_cpl == 3, stack=True)
    if new_cpl < cpl:
        env.set_segment(Seg.SS, new_cpl, 0, 0, new_cpl << 13)
    q[4] = sp


def _push_legacy(
    cpu: Cpu,
    width: int,
    new_cpl: int,
    cpl: int,
    flags: int,
    frame: list[int],
    error_code: int | None,
    ext: int,
    vm: bool,
) -> None:
    """The 16-bit or 32-bit stack frame, with a stack switch through the TSS towards an inner ring."""
    env = cpu.env
    d, q = env.d, env.q
    values: list[int] = []
    if new_cpl < cpl:
        selector, sp, s_low, s_high = segments.inner_stack(cpu, new_cpl, ext)
        base, limit = segments.base_of(s_low, s_high), segments.limit_of(s_low, s_high)
        if vm:
            values += [d[selector_index(s)] & 0xFFFF for s in (Seg.GS, Seg.FS, Seg.DS, Seg.ES)]
        values += [d[_SS_SELECTOR] & 0xFFFF, q[4] & M32]
        code = selector & 0xFFFC | ext
    else:
        sp, base, limit = q[4], q[SS_BASE], d[_SS_SELECTOR + 4]
        s_high = d[SS_FLAGS]
        code = ext
    values += [flags, *frame]
    if error_code is not None:
        values.append(error_code)
    segments.push_all(cpu, values, width, sp, base, limit, s_high, code, user=new_cpl == 3)
    if new_cpl < cpl:
        stack = q[4]
        segments.set_accessed(cpu, selector, s_high)
        env.set_segment(Seg.SS, selector, base, limit, s_high | 1 << 8)
        q[4] = stack
    if vm:
        for segment in (Seg.GS, Seg.FS, Seg.DS, Seg.ES):
            env.set_segment(segment, 0, 0, 0, 0)
