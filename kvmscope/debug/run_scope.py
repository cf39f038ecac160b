"""What the names of an expression mean for a stopped machine: registers, labels, and facts of the run.

The one scope of expectations, conditional breakpoints and watches; docs/reproducer-file.md lists the names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Final

from kvmscope.errors import ExpressionError
from kvmscope.expr import FUNCTIONS, Value, nearest
from kvmscope.vmm.events import ExceptionEvent, ExceptionSource
from kvmscope.vmm.snapshot import Snapshot
from kvmscope.x86.exceptions import EXCEPTIONS, mnemonic, vector_of
from kvmscope.x86.paging import translate
from kvmscope.x86.registers import KNOWN_NAMES, read_register
from kvmscope.x86.state import Seg

__all__ = ["FACTS", "RunScope", "is_known", "known_names"]

FACTS: Final[Mapping[str, str]] = {
    "stop": "why the machine stopped: 'exception', 'triple-fault', 'debug-exit', 'hlt', 'breakpoint', 'budget', ...",
    "exception": "mnemonic of the last exception raised ('#PF'); '' when there was none",
    "vector": "its vector; -1 when there was none",
    "error_code": "its error code; -1 when it has none",
    "fault_address": "CR2 at that exception; -1 when there was none",
    "fault_rip": "RIP of the instruction that raised it; -1 when there was none",
    "exceptions": "how many exceptions and interrupts were raised",
    "debug_exit": "the value written to port 0xf4; -1 when there was none",
    "serial": "the serial output",
    "ticks": "instructions started since boot",
    "cpl": "current privilege level",
    "mode": "code size: 16, 32 or 64",
}
"""Names that are neither registers nor labels."""

_NONE: Final = -1
_EFER: Final = 0xC0000080
_TSC: Final = 0x10
_FS_BASE: Final = 0xC0000100
_GS_BASE: Final = 0xC0000101
_MSR_PREFIXES: Final = ("IA32_", "MSR_")
_NMI: Final = 2
_BREAKPOINT_VECTORS: Final = (1, 3, 4)
"""INT1, INT3 and INTO raise exceptions although software asks for them."""


def known_names(labels: Iterable[str]) -> frozenset[str]:
    """Every name an expression may use with a program of these labels."""
    return frozenset((*FACTS, *KNOWN_NAMES, *labels))


def is_known(name: str, labels: Collection[str]) -> bool:
    """True for a name that a `RunScope` over a program of these labels answers to."""
    return name in FACTS or name in labels or name.lower() in KNOWN_NAMES or msr_constant(name) is not None


def msr_constant(name: str) -> int | None:
    """The index that ``IA32_LSTAR`` or ``MSR_LSTAR`` stands for; None for every other name."""
    if not name.startswith(_MSR_PREFIXES):
        return None
    from kvmscope.x86.msrs import msr_index

    return msr_index(name)


def is_exception(event: ExceptionEvent) -> bool:
    """True for an exception, False for INT n and external interrupts."""
    if event.source is ExceptionSource.FAULT:
        return True
    return event.source is ExceptionSource.SOFTWARE and event.vector in _BREAKPOINT_VECTORS


def _is_nmi(event: ExceptionEvent) -> bool:
    """The one interrupt from outside that has a name."""
    return event.source is ExceptionSource.EXTERNAL and event.vector == _NMI


class RunScope:
    """A `kvmscope.expr.Scope` over one snapshot.

    A register or fact goes before a label of the same name, but an integer one is then an error: which of the two was meant
    cannot be known.
    """

    def __init__(self, snapshot: Snapshot, symbols: Mapping[str, int], debug_exit: int | None = None) -> None:
        self._snapshot = snapshot
        self._symbols = symbols
        self._debug_exit = debug_exit

    def lookup(self, name: str) -> Value | None:
        if name in FACTS:
            return self._unambiguous(name, self._fact(name))
        if name in KNOWN_NAMES:
            return self._unambiguous(name, read_register(self._snapshot.cpu, name))
        if name in self._symbols:
            return self._symbols[name]
        lower = name.lower()
        if lower in KNOWN_NAMES:
            return read_register(self._snapshot.cpu, lower)
        return msr_constant(name)

    def call(self, name: str, arguments: tuple[Value, ...]) -> Value | None:
        (argument,) = arguments
        if name == "msr":
            return self._msr(argument)
        if name == "count":
            return self._count(argument)
        function = FUNCTIONS[name]
        if not function.size or not isinstance(argument, int):
            return None
        return self._memory(argument, function.size, physical=function.physical)

    def names(self) -> Iterable[str]:
        return sorted(known_names(self._symbols))

    def _unambiguous(self, name: str, value: Value) -> Value:
        if name in self._symbols and not isinstance(value, str):
            raise ExpressionError(f"{name!r} is a label here and a name of the language", hint="rename the label")
        return value

    def _fact(self, name: str) -> Value:
        return _FACT_VALUES[name](self)

    @cached_property
    def _last(self) -> ExceptionEvent | None:
        for event in reversed(self._snapshot.events):
            if isinstance(event, ExceptionEvent) and is_exception(event):
                return event
        return None

    def _error_code(self) -> int:
        return _NONE if self._last is None or self._last.error_code is None else self._last.error_code

    def _fault_address(self) -> int:
        if self._last is None:
            return _NONE
        return self._last.before.cr2 if self._last.cr2 is None else self._last.cr2

    def _exit_code(self) -> int:
        return _NONE if self._debug_exit is None else self._debug_exit

    def _all(self) -> list[ExceptionEvent]:
        dropped = self._snapshot.events_dropped
        if dropped:
            raise ExpressionError(f"the first {dropped} events of the run were not kept: they cannot be counted")
        return [event for event in self._snapshot.events if isinstance(event, ExceptionEvent)]

    def _raised(self) -> int:
        return len(self._all())

    def _count(self, what: Value) -> int:
        events = self._all()
        if isinstance(what, str):
            vector = vector_of(what)
            if vector is None:
                close = nearest(what, [entry.mnemonic for entry in EXCEPTIONS])
                raise ExpressionError(
                    f"no exception is called {what!r}", hint=f"did you mean {close!r}?" if close else ""
                )
            return sum(event.vector == vector and (is_exception(event) or _is_nmi(event)) for event in events)
        return sum(event.vector == what for event in events)

    def _msr(self, what: Value) -> int:
        from kvmscope.x86.msrs import msr_index

        index = msr_index(what) if isinstance(what, str) else what
        if not isinstance(index, int):
            raise ExpressionError(f"no MSR is called {what!r}")
        cpu = self._snapshot.cpu
        # Kept as registers or as the clock, not among the MSRs.
        fields = {_EFER: cpu.efer, _FS_BASE: cpu.segments[Seg.FS].base, _GS_BASE: cpu.segments[Seg.GS].base}
        value = fields.get(index, self._snapshot.msrs.get(index))
        if value is None and index == _TSC:
            raise ExpressionError("the TSC counts instructions and stands in no snapshot", hint="use ticks")
        if value is None and self._snapshot.profile:
            from kvmscope.x86.msrs import reset_values
            from kvmscope.x86.profiles import resolve

            # Never written: what it was after reset.
            value = reset_values(resolve(self._snapshot.profile)).get(index)
        if value is None:
            raise ExpressionError(f"the processor has no MSR {index:#x}")
        return value

    def _memory(self, address: int, size: int, *, physical: bool) -> int:
        cpu, memory = self._snapshot.cpu, self._snapshot.memory
        if address >> 64:
            raise ExpressionError(f"{address:#x} is no address")
        out = bytearray()
        while len(out) < size:
            here = address + len(out)
            part = min(size - len(out), 4096 - (here & 0xFFF))
            frame = here if physical else translate(memory, cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer, here)
            if frame is None:
                raise ExpressionError(f"linear address {here:#x} is not mapped")
            data = memory.read(frame, part)
            if data is None:
                raise ExpressionError(f"physical address {frame:#x} is not memory")
            out += data
        return int.from_bytes(out, "little")


_FACT_VALUES: Final[Mapping[str, Callable[[RunScope], Value]]] = {
    "stop": lambda scope: scope._snapshot.stop.reason.value,
    "exception": lambda scope: mnemonic(scope._last.vector) if scope._last else "",
    "vector": lambda scope: scope._last.vector if scope._last else _NONE,
    "error_code": RunScope._error_code,
    "fault_address": RunScope._fault_address,
    "fault_rip": lambda scope: scope._last.rip if scope._last else _NONE,
    "exceptions": RunScope._raised,
    "debug_exit": RunScope._exit_code,
    "serial": lambda scope: scope._snapshot.serial.decode("utf-8", "backslashreplace"),
    "ticks": lambda scope: scope._snapshot.tick,
    "cpl": lambda scope: scope._snapshot.cpu.cpl,
    "mode": lambda scope: scope._snapshot.cpu.mode,
}
