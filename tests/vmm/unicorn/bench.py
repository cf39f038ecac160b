"""A bare board for the engine: flat memory, the boot layout's tables, a host that notes everything.

Guests are assembled with GNU as; `assemble` skips the test, naming it, where there is none.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from kvmscope.vmm.devices.interrupts import Message, Signals
from kvmscope.vmm.engine import Stop
from kvmscope.vmm.events import Event, ExceptionEvent
from kvmscope.vmm.unicorn import UnicornEngine
from kvmscope.x86.profiles import INTEL, Profile
from kvmscope.x86.state import CpuState, DescriptorTable, Seg, SegmentRegister

CODE = 0x400000
REAL_CODE = 0x7C00
GDT, IDT, STUBS, TSS, LDT = 0x1000, 0x6000, 0x3000, 0x4000, 0x5000
TABLES = 0x90000
STACK, USER_STACK, INNER_STACK, IST1 = 0x80000, 0x70000, 0x88000, 0x8A000
CS64, DS, CS3_32, DS3, CS3_64, CS32, CS16, DS16, TR = 0x08, 0x10, 0x18, 0x20, 0x28, 0x38, 0x40, 0x48, 0x50
RAM = 8 << 20

GDT_VALUES = {
    0x08: 0x00AF9B000000FFFF,
    0x10: 0x00CF93000000FFFF,
    0x18: 0x00CFFB000000FFFF,
    0x20: 0x00CFF3000000FFFF,
    0x28: 0x00AFFB000000FFFF,
    0x30: 0x00CFF3000000FFFF,
    0x38: 0x00CF9B000000FFFF,
    0x40: 0x00009B000000FFFF,
    0x48: 0x000093000000FFFF,
    0x50: 0x0000890000000067 | TSS << 16,
}


@cache
def _assembled(source: str, bits: int, origin: int) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "a.s").write_text(f".intel_syntax noprefix\n.code{bits}\n{source}\n")
        word = "64" if bits == 64 else "32"
        subprocess.run(["as", f"--{word}", "-o", path / "a.o", path / "a.s"], check=True, capture_output=True)
        emulation = "elf_x86_64" if bits == 64 else "elf_i386"
        subprocess.run(
            [
                "ld",
                "-m",
                emulation,
                "-Ttext",
                hex(origin),
                "-e",
                "0",
                "--oformat",
                "binary",
                "-o",
                path / "a.bin",
                path / "a.o",
            ],
            check=True,
            capture_output=True,
        )
        return (path / "a.bin").read_bytes()


def assemble(source: str, bits: int = 64, origin: int = CODE) -> bytes:
    """Machine code of Intel syntax ``source``."""
    for tool in ("as", "ld"):
        if shutil.which(tool) is None:
            pytest.skip(f"GNU {tool} is not installed")
    return _assembled(source, bits, origin)


class Host:
    """The machine's side of the contract: every port answers ``reads``, every handler is the guest's own."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.messages: list[Message] = []
        self.ports: list[tuple[str, int, int, int, int]] = []
        self.mmio: list[tuple[str, int, int, int]] = []
        self.memory: dict[int, int] = {}
        self.own: Callable[[int, int], bool] = lambda vector, handler: True
        self.on_write: Callable[[int, int], None] = lambda port, value: None
        self.engine: UnicornEngine
        self.between = False
        self.skipped = 0
        self.timers: list[tuple[int, Callable[[], None]]] = []
        self.pins = [Signals(partial(self._kick, vcpu)) for vcpu in range(16)]
        self.requested: dict[int, list[int]] = {}
        self.inits: list[int] = []
        self.cr8: dict[int, int] = {}

    def _kick(self, vcpu: int) -> None:
        self.engine.look_again(vcpu)

    def port_read(self, port: int, size: int, rip: int) -> int:
        value = 0x12345678 & (1 << 8 * size) - 1
        self.ports.append(("in", port, size, value, self.engine.clock))
        return value

    def port_write(self, port: int, size: int, value: int, rip: int) -> None:
        self.ports.append(("out", port, size, value, self.engine.clock))
        self.on_write(port, value)

    def mmio_read(self, address: int, size: int, rip: int) -> int:
        value = sum(self.memory.get(address + i, 0xFF) << 8 * i for i in range(size))
        self.mmio.append(("read", address, size, value))
        return value

    def mmio_write(self, address: int, size: int, value: int, rip: int) -> None:
        self.mmio.append(("write", address, size, value))
        for i in range(size):
            self.memory[address + i] = value >> 8 * i & 0xFF

    def record(self, event: Event) -> None:
        self.events.append(event)

    # time: timers as (tick, what to do), in order

    def now(self) -> int:
        return self.engine.clock + self.skipped

    def next_deadline(self) -> int | None:
        return self.timers[0][0] - self.skipped if self.timers else None

    def run_timers(self) -> None:
        while self.timers and self.timers[0][0] <= self.now():
            self.timers.pop(0)[1]()

    def skip_idle(self) -> bool:
        if not self.timers:
            return False
        self.skipped += max(0, self.timers[0][0] - self.now())
        self.run_timers()
        return True

    def spend(self, nanoseconds: int) -> None:
        pass

    def spin(self) -> None:
        pass

    # interrupts: vectors wait in `requested`, by vCPU

    def signals(self, vcpu: int) -> Signals:
        return self.pins[vcpu]

    def interrupt(self, vector: int, vcpu: int = 0) -> None:
        self.requested.setdefault(vcpu, []).append(vector)
        self.pins[vcpu].interrupt = True
        self.pins[vcpu].kick()

    def acknowledge(self, vcpu: int) -> int | None:
        waiting = self.requested.get(vcpu, [])
        vector = waiting.pop(0) if waiting else None
        self.pins[vcpu].interrupt = bool(waiting)
        return vector

    def initialized(self, vcpu: int, *, power: bool = False) -> None:
        self.inits.append(vcpu)

    def read_msr(self, vcpu: int, index: int) -> int | None:
        return None

    def write_msr(self, vcpu: int, index: int, value: int) -> bool:
        return False

    def get_cr8(self, vcpu: int) -> int:
        return self.cr8.get(vcpu, 0)

    def set_cr8(self, vcpu: int, value: int) -> None:
        self.cr8[vcpu] = value

    def tsc_written(self, vcpu: int) -> None:
        pass

    def apic_enabled(self, vcpu: int) -> bool:
        return True

    def send_ipi(self, message: Message) -> bool:
        self.messages.append(message)
        return message.destination < 2

    def has_own_handler(self, vector: int, handler: int) -> bool:
        return self.own(vector, handler)

    @property
    def exceptions(self) -> list[ExceptionEvent]:
        return [event for event in self.events if isinstance(event, ExceptionEvent)]


def segment(selector: int, attributes: int, base: int = 0, limit: int = 0xFFFFFFFF) -> SegmentRegister:
    return SegmentRegister(selector, base, limit, attributes)


def gate(offset: int, selector: int, kind: int = 14, dpl: int = 0, ist: int = 0, present: int = 1) -> bytes:
    """A 16-byte IDT gate."""
    access = present << 7 | dpl << 5 | kind
    return struct.pack("<HHBBHII", offset & 0xFFFF, selector, ist, access, offset >> 16 & 0xFFFF, offset >> 32, 0)


def gate32(offset: int, selector: int, kind: int = 14, dpl: int = 0, present: int = 1) -> bytes:
    """An 8-byte gate; ``offset`` is a parameter count's owner too (call gates pass it in ``kind``'s caller)."""
    return struct.pack("<HHBBH", offset & 0xFFFF, selector, 0, present << 7 | dpl << 5 | kind, offset >> 16 & 0xFFFF)


class Board:
    """An engine with its memory; ``m`` is RAM."""

    def __init__(self, profile: Profile = INTEL, python_probe: bool = False, vcpus: int = 1) -> None:
        self.m = mmap.mmap(-1, RAM)
        self.host = Host()
        self.engine = UnicornEngine(self.m, self.host, profile, vcpus=vcpus, python_probe=python_probe)
        self.host.engine = self.engine
        for selector, value in GDT_VALUES.items():
            self.put(GDT + selector, value)
        self.put(TSS + 4, INNER_STACK)
        self.put(TSS + 36, IST1)
        self.put(TSS + 0x66, 0x68, 2)

    def put(self, address: int, value: int | bytes, size: int = 8) -> None:
        data = value if isinstance(value, bytes) else value.to_bytes(size, "little")
        self.m[address : address + len(data)] = data
        self.engine.memory_written(address, len(data))

    def get(self, address: int, size: int = 8) -> int:
        return int.from_bytes(self.m[address : address + size], "little")

    def page_tables(self, user: bool = True) -> None:
        """Identity map of 4 GiB with 2 MiB pages."""
        bits = 7 if user else 3
        self.put(TABLES, TABLES + 0x1000 | bits)
        for i in range(4):
            self.put(TABLES + 0x1000 + 8 * i, TABLES + 0x2000 + 0x1000 * i | bits)
            for j in range(512):
                self.put(TABLES + 0x2000 + 0x1000 * i + 8 * j, (512 * i + j) << 21 | 0x80 | bits)

    def handler(self, vector: int, code: bytes, long: bool = True, **options: int) -> None:
        """A handler of its own for ``vector`` at its stub (16 bytes; longer ones run over the next stub)."""
        at = STUBS + 16 * vector
        self.put(at, code)
        if long:
            self.put(IDT + 16 * vector, gate(at, CS64, **options))
        else:
            self.put(IDT + 8 * vector, gate32(at, CS32, **options))

    def start(self, state: CpuState, code: bytes = b"", at: int = CODE) -> None:
        self.put(at, code)
        self.engine.set_state(state)

    @property
    def state(self) -> CpuState:
        return self.engine.get_state()

    def registers(self, **values: int) -> None:
        """Change general-purpose registers."""
        names = [
            "rax",
            "rcx",
            "rdx",
            "rbx",
            "rsp",
            "rbp",
            "rsi",
            "rdi",
            "r8",
            "r9",
            "r10",
            "r11",
            "r12",
            "r13",
            "r14",
            "r15",
        ]
        state = self.state
        gpr = list(state.gpr)
        for name, value in values.items():
            gpr[names.index(name)] = value
        self.engine.set_state(replace(state, gpr=tuple(gpr)))

    def run(self, ticks: int = 1000) -> Stop:
        return self.engine.run(ticks)

    def close(self) -> None:
        self.engine.close()
        self.m.close()


_FLAT = segment(DS, 0xC093)
_BASE = CpuState(
    gpr=(0, 0, 0, 0, STACK, *[0] * 11),
    rip=CODE,
    rflags=2,
    segments=(_FLAT,) * 6 + (segment(0, 0x10000, 0, 0), segment(TR, 0x8B, TSS, 0x67)),
    gdtr=DescriptorTable(GDT, 0xFF),
    idtr=DescriptorTable(IDT, 0xFFF),
    cr0=0x11,
    cr2=0,
    cr3=TABLES,
    cr4=0x600,
    cr8=0,
    efer=0,
    dr=(0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400),
    xcr0=1,
    mxcsr=0x1F80,
    xmm=(0,) * 16,
)


def with_segments(state: CpuState, changes: Mapping[int, SegmentRegister]) -> CpuState:
    return replace(state, segments=tuple(changes.get(i, old) for i, old in enumerate(state.segments)))


LONG64 = replace(with_segments(_BASE, {Seg.CS: segment(CS64, 0xA09B)}), cr0=0x80010033, cr4=0x620, efer=0xD01)
PROT32 = with_segments(_BASE, {Seg.CS: segment(CS32, 0xC09B)})
_REAL = segment(0, 0x93, 0, 0xFFFF)
REAL16 = replace(
    with_segments(_BASE, {**dict.fromkeys(range(6), _REAL), Seg.CS: segment(0, 0x9B, 0, 0xFFFF)}),
    rip=REAL_CODE,
    cr0=0x10,
    cr4=0,
    idtr=DescriptorTable(0, 0x3FF),
    gpr=(0, 0, 0, 0, 0x7000, *[0] * 11),
)
USER64 = replace(
    with_segments(
        LONG64, {Seg.CS: segment(CS3_64 | 3, 0xA0FB), **dict.fromkeys((0, 2, 3, 4, 5), segment(DS3 | 3, 0xC0F3))}
    ),
    cpl=3,
    gpr=(0, 0, 0, 0, USER_STACK, *[0] * 11),
)
USER32 = replace(
    with_segments(
        PROT32, {Seg.CS: segment(CS3_32 | 3, 0xC0FB), **dict.fromkeys((0, 2, 3, 4, 5), segment(DS3 | 3, 0xC0F3))}
    ),
    cpl=3,
    gpr=(0, 0, 0, 0, USER_STACK, *[0] * 11),
)

STATES = {"long64": LONG64, "prot32": PROT32, "real16": REAL16, "user64": USER64, "user32": USER32}
BITS = {"long64": 64, "prot32": 32, "real16": 16, "user64": 64, "user32": 32}


@contextmanager
def board(
    source: str | bytes = b"",
    mode: str = "long64",
    profile: Profile = INTEL,
    python_probe: bool = False,
    vcpus: int = 1,
) -> Iterator[Board]:
    """A board that stands at the first instruction of ``source`` in ``mode``; HLT stubs in all gates."""
    state = STATES[mode]
    origin = state.rip
    code = assemble(source, BITS[mode], origin) if isinstance(source, str) else source
    made = Board(profile, python_probe, vcpus)
    try:
        long = bool(state.efer & 0x400)
        if long:
            made.page_tables()
        for vector in range(256):
            made.put(STUBS + 16 * vector, b"\xf4\xeb\xfd")
            if long:
                made.put(IDT + 16 * vector, gate(STUBS + 16 * vector, CS64, dpl=3 if vector in (3, 4, 0x80) else 0))
            elif mode == "real16":
                made.put(4 * vector, STUBS + 16 * vector, 4)
            else:
                made.put(IDT + 8 * vector, gate32(STUBS + 16 * vector, CS32, dpl=3 if vector in (3, 4, 0x80) else 0))
        if not long and mode != "real16":
            made.put(TSS + 4, struct.pack("<II", INNER_STACK, DS))
        made.start(state, code, origin)
        yield made
    finally:
        made.close()


def frame(b: Board, size: int = 8, error: bool = False) -> tuple[int, ...]:
    """The interrupt frame at RSP: ([error,] ip, cs, flags)."""
    sp = b.state.gpr[4]
    return tuple(b.get(sp + size * i, size) for i in range(3 + error))
