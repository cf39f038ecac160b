"""A guest made by hand: state, sparse memory, page tables, events. Nothing of it needs an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kvmscope.asm.image import Image, LineEntry, Section
from kvmscope.ui.view import Focus, View
from kvmscope.vmm.config import MachineConfig
from kvmscope.vmm.engine import Activity, Stop, StopReason
from kvmscope.vmm.events import (
    ControlRegisterEvent,
    Event,
    ExceptionEvent,
    ExceptionSource,
    ModeEvent,
    MsrEvent,
    PortEvent,
)
from kvmscope.vmm.snapshot import Delta, DeviceField, DeviceView, MemoryChange, Snapshot, VcpuView, diff_states
from kvmscope.x86.state import CpuState, DescriptorTable, SegmentRegister

CODE = 0x401000
# mov rax, [rbx+8]; add rax, 1; cmp rax, 5; jne start; out 0xf4, al; hlt
PROGRAM = bytes.fromhex("488b43084883c0014883f80575f2e6f4f4")
LINES = ((3, 0, 4), (4, 4, 4), (5, 8, 4), (6, 12, 2), (7, 14, 2), (9, 16, 1))
TABLE = b"\x2a\x00\x00\x00\x00\x00\x00\x00" + b"Hello, guest\x00"


class FakeMemory:
    """RAM of ``size`` bytes, kept as pages; everything beyond is not backed."""

    def __init__(self, size: int = 4 << 20) -> None:
        self.size = size
        self.pages: dict[int, bytearray] = {}

    def read(self, physical: int, size: int) -> bytes | None:
        if physical < 0 or physical + size > self.size:
            return None
        out = bytearray()
        while size:
            number, at = divmod(physical, 4096)
            chunk = min(size, 4096 - at)
            page = self.pages.get(number)
            out += page[at : at + chunk] if page is not None else bytes(chunk)
            physical, size = physical + chunk, size - chunk
        return bytes(out)

    def write(self, physical: int, data: bytes) -> None:
        for i, byte in enumerate(data, physical):
            self.pages.setdefault(i // 4096, bytearray(4096))[i % 4096] = byte

    def word(self, physical: int, value: int, size: int = 8) -> None:
        self.write(physical, value.to_bytes(size, "little"))


def code_segment(selector: int = 8, bits: int = 64, dpl: int = 0) -> SegmentRegister:
    attributes = 0x809B | dpl << 5 | {64: 1 << 13, 32: 1 << 14, 16: 0}[bits]
    return SegmentRegister(selector, 0, 0xFFFFFFFF, attributes)


def data_segment(selector: int = 0x10) -> SegmentRegister:
    return SegmentRegister(selector, 0, 0xFFFFFFFF, 0xC093)


def long_state(**changes: object) -> CpuState:
    data = data_segment()
    gpr = [0] * 16
    gpr[0], gpr[3], gpr[4], gpr[6] = 0x29, 0x402000, 0x7FFE0, 0x402008
    state = CpuState(
        gpr=tuple(gpr),
        rip=CODE,
        rflags=0x246,
        segments=(
            data,
            code_segment(),
            data,
            data,
            data,
            data,
            SegmentRegister(0x60, 0x6400, 0x3F, 0x82),
            SegmentRegister(0x50, 0x4000, 0x2068, 0x8B),
        ),
        gdtr=DescriptorTable(0x1000, 0x7F),
        idtr=DescriptorTable(0x2000, 0xFFF),
        cr0=0x80010033,
        cr2=0,
        cr3=0x90000,
        cr4=0x620,
        cr8=0,
        efer=0xD01,
        dr=(0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400),
        xcr0=1,
        mxcsr=0x1F80,
        xmm=(0,) * 16,
        msrs={0x10: 5, 0x277: 0x0007040600070406, 0xC0000081: 0, 0xC0000082: 0xFFFF800000001000},
    )
    return replace(state, **changes)  # type: ignore[arg-type]


def legacy_state(bits: int) -> CpuState:
    """A 16-bit real-mode or flat 32-bit state without paging."""
    if bits == 16:
        segment = SegmentRegister(0, 0, 0xFFFF, 0x93)
        segments = (segment, SegmentRegister(0, 0, 0xFFFF, 0x9B), *(segment,) * 4)
        cr0 = 0x10
    else:
        segments = (data_segment(), code_segment(0x38, 32), *(data_segment(),) * 4)
        cr0 = 0x11
    gpr = (0x1234, 0, 0, 0x7C00, 0x7BFE, *(0,) * 11)
    system = (SegmentRegister(0, 0, 0xFFFF, 0x82), SegmentRegister(0, 0, 0xFFFF, 0x8B))
    return long_state(
        gpr=gpr, rip=0x7C00, segments=(*segments, *system), cr0=cr0, cr3=0, cr4=0, efer=0, rflags=2,
        gdtr=DescriptorTable(0x1000, 0x7F), idtr=DescriptorTable(0, 0x3FF), msrs={},
    )  # fmt: skip


def page_tables(memory: FakeMemory) -> None:
    """0-2M in 4 KiB pages (0x7000 read-only, 0x8000 not present, 0x9000 reserved bit), 2-4M and 4-6M large, one user page."""
    memory.word(0x90000, 0x91007)
    memory.word(0x91000, 0x92007)
    memory.word(0x92000, 0x93007)
    memory.word(0x92008, 0x200083)
    memory.word(0x92010, 0x94007)
    for i in range(512):
        memory.word(0x93000 + 8 * i, i << 12 | 3)
        memory.word(0x94000 + 8 * i, 0x200000 + (i << 12) | 3)
    memory.word(0x93000 + 8 * 7, 0x7021)
    memory.word(0x93000 + 8 * 8, 0)
    memory.word(0x93000 + 8 * 9, 0x9003 | 1 << 51)
    memory.word(0x94000 + 8 * 2, 0x202067 | 1 << 63)
    # A page of device memory: mapped, not RAM.
    memory.word(0x94000 + 8 * 0x100, 0xFED00003)


def boot_memory() -> FakeMemory:
    memory = FakeMemory()
    page_tables(memory)
    memory.write(0x201000, PROGRAM)
    memory.write(0x202000, TABLE)
    memory.word(0x7FFE0, 0x401004)
    memory.word(0x7FFE8, 0x402000)
    memory.word(0x7FFF0, 0xFFFF)
    gdt = (
        0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF,
        0x00CFF3000000FFFF, 0x00CF9B000000FFFF, 0x00009B000000FFFF, 0x000093000000FFFF, 0x00008B0040002068, 0,
        0x000082006400003F, 0, 0, 0x00EF9B000000FFFF,
    )  # fmt: skip
    for i, value in enumerate(gdt):
        memory.word(0x1000 + 8 * i, value)
    for vector in range(256):
        offset = 0x3000 + 16 * vector
        memory.word(0x2000 + 16 * vector, offset & 0xFFFF | 8 << 16 | 0x8E << 40)
    memory.word(0x2000 + 16 * 14, 0x1010 | 8 << 16 | 1 << 32 | 0x8E << 40 | 0x40 << 48)
    memory.word(0x2000 + 16 * 0x80, 0x1000 | 8 << 16 | 0xEF << 40 | 0x40 << 48)
    memory.word(0x4004, 0x88000)
    memory.word(0x4024, 0x8A000)
    memory.word(0x4066, 0x68, 2)
    return memory


def image(code: int = CODE, bits: int = 64) -> Image:
    return Image(
        sections=(Section(".text", code, PROGRAM), Section(".data", 0x402000, TABLE, executable=False)),
        symbols={"start": code, "done": code + 14, "table": 0x402000, "SEVEN": 7},
        lines=(
            *(LineEntry(line, code + at, PROGRAM[at : at + size]) for line, at, size in LINES),
            LineEntry(12, 0x402000, TABLE[:8], code=False),
            LineEntry(13, 0x402008, TABLE[8:], code=False),
        ),
        entry=code,
        source="start:\n",
        bits=bits,
    )


def page_fault(tick: int, state: CpuState, cr2: int = 0x7000) -> ExceptionEvent:
    return ExceptionEvent(
        tick, state.rip, 0, 14, ExceptionSource.FAULT, 3, cr2, None, replace(state, cr2=cr2), handler=0x401010
    )


def events(state: CpuState) -> list[Event]:
    return [
        ModeEvent(0, 0x7C00, 0, "16 -> 32"),
        ControlRegisterEvent(1, 0x7C10, 0, "cr0", 0x11, 0x80000011),
        MsrEvent(2, 0x7C20, 0, 0xC0000080, 0x500, True),
        PortEvent(4, 0x401000, 0, 0x3F8, 1, 0x48, True, "uart"),
        page_fault(6, state),
        PortEvent(9, 0x40100E, 0, 0xF4, 4, 0x2A, True, "debug-exit"),
        PortEvent(9, 0x40100E, 0, 0x61, 1, 0xFF, False, ""),
    ]


@dataclass(frozen=True)
class Words:
    """An explanation."""

    title: str
    lines: Sequence[str] = ()
    references: Sequence[str] = ()


@dataclass
class Guest:
    """Builds views: change a field, take `view`."""

    cpu: CpuState = field(default_factory=long_state)
    before: CpuState | None = None
    memory: FakeMemory = field(default_factory=boot_memory)
    image: Image = field(default_factory=image)
    focus: Focus = field(default_factory=Focus)
    breakpoints: frozenset[int] = frozenset()
    changes: tuple[MemoryChange, ...] = ()
    events: Sequence[Event] = ()
    serial: bytes = b""
    debugcon: bytes = b""
    new_serial: bytes = b""
    explanation: Words | None = None
    stop: Stop = field(default_factory=lambda: Stop(StopReason.STEP))
    tick: int = 9
    last_tick: int = 9
    vcpu: int = 0
    vcpus: tuple[VcpuView, ...] = ()
    time: int = 9
    devices: tuple[DeviceView, ...] = (
        DeviceView("uart", "0x3f8-0x3ff", (DeviceField("IER", "0x00", "no interrupts"), DeviceField("LCR", "0x03"))),
    )

    def view(self) -> View:
        old = diff_states(self.before, self.cpu) if self.before is not None else {}
        snapshot = Snapshot(
            self.tick, self.cpu, self.memory, self.stop, self.events, self.serial, self.debugcon, self.devices,
            last_tick=self.last_tick, vcpu=self.vcpu, vcpus=self.vcpus, time=self.time,
        )  # fmt: skip
        delta = Delta(registers=old, memory=self.changes, serial=self.new_serial, ticks=1)
        return View(snapshot, delta, self.image, MachineConfig(), self.breakpoints, self.focus, self.explanation)


def vcpus(count: int, **activities: Activity) -> tuple[VcpuView, ...]:
    """``count`` of them, the first with the turn; ``v1=Activity.HALTED``."""
    return tuple(VcpuView(i, long_state(), activities.get(f"v{i}", Activity.ACTIVE), next=i == 0) for i in range(count))


def stepped() -> Guest:
    """The guest one instruction after a step that changed RAX, RFLAGS, RIP and one byte of the stack."""
    before = long_state()
    gpr = (0x2A, *before.gpr[1:])
    after = replace(before, gpr=gpr, rip=CODE + 4, rflags=0x202)
    return Guest(after, before, changes=(MemoryChange(0x7FFF0, b"\x0f\xff", b"\xff\xff"),))
