"""Boot's interrupt tables: the real-mode IVT or the IDT, a stub behind every vector, and declared handlers."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from kvmscope.errors import ReproducerError
from kvmscope.vmm.boot.layout import IDT_BASE, IVT_BASE, SELECTORS, STUB, STUB_BASE, stub_address
from kvmscope.vmm.boot.memory import BootMemory, Labels, at_line
from kvmscope.vmm.config import HandlerInit, MachineConfig, Mode
from kvmscope.x86.encode import encode

__all__ = ["write_handlers", "write_interrupt_tables"]

_VECTORS: Final = 256
# Ring 3 may execute INT3 and INTO with the boot IDT, as with every usual kernel's.
_USER_VECTORS: Final = frozenset({3, 4})
_GATES: Final = {"interrupt": "interrupt-gate", "trap": "trap-gate", "task": "task-gate"}


@lru_cache
def _stub_bytes() -> bytes:
    return STUB * _VECTORS


@lru_cache
def _ivt_bytes() -> bytes:
    return b"".join(struct.pack("<HH", stub_address(vector), 0) for vector in range(_VECTORS))


@lru_cache
def _idt_bytes(long: bool) -> bytes:
    selector = SELECTORS.code64 if long else SELECTORS.code32
    return b"".join(
        encode(
            "interrupt-gate",
            {"selector": selector, "offset": stub_address(vector), "dpl": 3 if vector in _USER_VECTORS else 0},
            long=long,
        )
        for vector in range(_VECTORS)
    )


def write_interrupt_tables(memory: BootMemory, config: MachineConfig) -> None:
    """Put stubs and the mode's vector table in place.

    Application processors start in real mode: where there are any, the IVT is there in every mode, so that what they
    raise stops the machine too.
    """
    memory.write(STUB_BASE, _stub_bytes(), "boot stubs")
    if config.mode is Mode.REAL16 or config.smp > 1:
        memory.write(IVT_BASE, _ivt_bytes(), "boot IVT")
    if config.mode is not Mode.REAL16:
        memory.write(IDT_BASE, _idt_bytes(config.mode is Mode.LONG64), "boot IDT")


def write_handlers(memory: BootMemory, config: MachineConfig, labels: Labels) -> None:
    """Install ``[handlers]``.  Raises ReproducerError for what the mode's table cannot hold."""
    for handler in config.handlers:
        what = f"handler of vector {handler.vector:#x}"
        if not 0 <= handler.vector < _VECTORS:
            raise ReproducerError("A vector is 0 to 255", at_line(handler.line, what))
        target = labels.resolve(handler.target, what, handler.line)
        if config.mode is Mode.REAL16:
            raw = _far_pointer(handler, target, what)
            memory.write(IVT_BASE + 4 * handler.vector, raw, what, handler.line)
        else:
            raw = _gate(handler, target, what, config.mode is Mode.LONG64)
            memory.write(IDT_BASE + len(raw) * handler.vector, raw, what, handler.line)


def _far_pointer(handler: HandlerInit, target: int, what: str) -> bytes:
    if handler.kind != "interrupt" or handler.dpl or handler.ist:
        raise ReproducerError(
            "The real-mode vector table holds addresses only",
            at_line(handler.line, f"{what}: type, dpl and ist need mode prot32 or long64"),
        )
    if target < 0x10000:
        return struct.pack("<HH", target, 0)
    if target > 0xFFFFF:
        raise ReproducerError(
            "Real mode reaches the first MiB only", at_line(handler.line, f"{what}: {target:#x}"), "move the handler"
        )
    return struct.pack("<HH", target & 0xF, target >> 4)


def _gate(handler: HandlerInit, target: int, what: str, long: bool) -> bytes:
    kind = _GATES.get(handler.kind)
    if kind is None:
        raise ReproducerError(
            f"Unknown gate type {handler.kind!r}", at_line(handler.line, what), "interrupt, trap or task"
        )
    if kind == "task-gate":
        if long:
            raise ReproducerError("64-bit mode has no task gates", at_line(handler.line, what), 'mode = "prot32"')
        fields = {"selector": target, "dpl": handler.dpl}
    else:
        fields = {
            "selector": SELECTORS.code64 if long else SELECTORS.code32,
            "offset": target,
            "dpl": handler.dpl,
            "ist": handler.ist,
        }
    try:
        return encode(kind, fields, long=long)
    except ValueError as error:
        raise ReproducerError(f"Wrong {what}", at_line(handler.line, str(error))) from error
