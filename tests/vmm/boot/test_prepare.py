"""Boot against the manuals' own readers: the page walker, the descriptor decoder, the TSS layouts."""

from __future__ import annotations

import pytest

from kvmscope.asm.image import Image, Section
from kvmscope.errors import GuestImageError, KvmscopeError, ReproducerError
from kvmscope.vmm.boot import Boot, prepare, stub_address
from kvmscope.vmm.boot.layout import GDT_BASE, IDT_BASE, IST_TOPS, LDT_BASE, RSP0_STACK_TOP, STUB, TSS_BASE, TSS_LIMIT
from kvmscope.vmm.config import DescriptorInit, HandlerInit, MachineConfig, MemoryInit, Mode, PageInit, Paging
from kvmscope.x86.descriptors import decode, decode_gate64
from kvmscope.x86.paging import walk
from kvmscope.x86.state import Gpr, Seg
from kvmscope.x86.tss import TSS32, TSS64, decode_tss, port_allowed

MODES = [
    (Mode.REAL16, None),
    (Mode.PROT32, None),
    (Mode.PROT32, Paging.BITS32),
    (Mode.PROT32, Paging.PAE),
    (Mode.LONG64, None),
    (Mode.LONG64, Paging.LEVEL5),
]
PAGED = MODES[2:]


def image(mode: Mode = Mode.LONG64, *, size: int = 16, **symbols: int) -> Image:
    origin = 0x7C00 if mode is Mode.REAL16 else 0x400000
    return Image((Section(".text", origin, b"\xf4" * size),), symbols)


class Memory:
    """Boot's pages as the walker reads them."""

    def __init__(self, boot: Boot) -> None:
        self.pages = boot.pages

    def read(self, physical: int, size: int) -> bytes:
        out = b""
        while size:
            page, offset = divmod(physical, 4096)
            part = self.pages.get(page, bytes(4096))[offset : offset + size]
            out, physical, size = out + part, physical + len(part), size - len(part)
        return out


def walked(boot: Boot, linear: int, **access: bool | int):
    s = boot.state
    return walk(Memory(boot), s.cr0, s.cr3, s.cr4, s.efer, linear, **access)  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "paging"), MODES)
def test_a_guest_starts_at_its_first_byte(mode: Mode, paging: Paging | None) -> None:
    boot = prepare(MachineConfig(mode=mode, paging=paging), image(mode))
    assert boot.state.pc == boot.entry == image(mode).sections[0].address
    assert boot.state.mode == mode.bits
    assert boot.state.rflags == 2
    assert Memory(boot).read(boot.entry, 1) == b"\xf4"
    assert boot.state.gpr[Gpr.RSP] == (0x7C00 if mode is Mode.REAL16 else 0x80000)


@pytest.mark.parametrize(("mode", "paging"), PAGED)
@pytest.mark.parametrize("linear", [0, 0x1000, 0x400000, 0x1FFFFF, 0x200000, 0x12345678, 0xFEE00000, 0xFFFFFFFF])
def test_memory_is_mapped_one_to_one(mode: Mode, paging: Paging, linear: int) -> None:
    boot = prepare(MachineConfig(mode=mode, paging=paging), image(mode))
    found = walked(boot, linear, write=True)
    assert found.physical == linear, found.fault
    assert walked(boot, linear, cpl=3).physical is None


@pytest.mark.parametrize(("mode", "paging"), PAGED)
def test_image_and_first_region_have_small_pages(mode: Mode, paging: Paging) -> None:
    boot = prepare(MachineConfig(mode=mode, paging=paging), image(mode))
    assert walked(boot, 0x400000).page_size == 4096
    assert walked(boot, 0x8000).page_size == 4096
    assert walked(boot, 0x40000000).page_size == (4 << 20 if paging is Paging.BITS32 else 2 << 20)


@pytest.mark.parametrize(("mode", "paging"), PAGED)
def test_ring_3_reaches_its_own_pages_only(mode: Mode, paging: Paging) -> None:
    boot = prepare(MachineConfig(mode=mode, paging=paging, ring=3), image(mode, size=5000))
    for linear in (0x400000, 0x401000, 0x6F000, 0x6FFF8):
        assert walked(boot, linear, cpl=3, write=True).physical == linear
    for linear in (0x0, 0x1000, 0x6E000, 0x70000, 0x402000, 0x90000, 0x800000):
        assert walked(boot, linear, cpl=3).physical is None, hex(linear)
        assert walked(boot, linear, write=True).physical == linear
    assert boot.state.cpl == 3
    assert boot.state.segments[Seg.CS].selector == (0x2B if mode is Mode.LONG64 else 0x1B)
    assert boot.state.segments[Seg.SS].selector == 0x23
    assert boot.state.gpr[Gpr.RSP] == 0x70000


@pytest.mark.parametrize(
    ("flags", "access", "error_code"),
    [
        (("P", "RW"), {"write": True}, None),
        (("P",), {"write": True}, 0x3),
        (("P",), {}, None),
        (("RW",), {}, 0x0),
        (("P", "RW", "NX"), {"fetch": True}, 0x11),
        (("P", "RW"), {"cpl": 3}, 0x5),
        (("P", "RW", "US"), {"cpl": 3, "write": True}, None),
        (("P", "RW", "bit51"), {}, 0x9),
    ],
)
def test_declared_page_rights(flags: tuple[str, ...], access: dict[str, int], error_code: int | None) -> None:
    boot = prepare(MachineConfig(pages=(PageInit(0x20_0000, 0x9000, flags),)), image())
    found = walked(boot, 0x200123, **access)
    assert (found.fault.error_code if found.fault else None) == error_code
    if error_code is None:
        assert found.physical == 0x9123
    # The neighbour keeps boot's rights.
    assert walked(boot, 0x201000, write=True).physical == 0x201000


@pytest.mark.parametrize(
    ("paging", "linear"), [(Paging.LEVEL4, 0xFFFF8000_00000000), (Paging.LEVEL5, 0xFF000000_00000000)]
)
def test_declared_pages_anywhere(paging: Paging, linear: int) -> None:
    page = PageInit(linear, 0x5000, ("P", "RW", "G"), count=3, pkey=5)
    boot = prepare(MachineConfig(paging=paging, pages=(page,)), image())
    for i in range(3):
        assert walked(boot, linear + i * 4096 + 7).physical == 0x5007 + i * 4096
    assert walked(boot, linear + 3 * 4096).physical is None
    entry = walked(boot, linear).steps[-1]
    assert entry.value >> 59 & 15 == 5


def test_page_tables_leave_the_image_alone() -> None:
    program = Image((Section(".text", 0x90000, b"\xf4" * 4096 * 16),), {})
    boot = prepare(MachineConfig(), program)
    assert boot.state.cr3 == 0x100000
    assert Memory(boot).read(0x90000, 4096) == b"\xf4" * 4096
    assert walked(boot, 0x90000).physical == 0x90000


@pytest.mark.parametrize("mode", [Mode.PROT32, Mode.LONG64])
def test_every_vector_has_its_stub(mode: Mode) -> None:
    boot = prepare(MachineConfig(mode=mode), image(mode))
    memory = Memory(boot)
    for vector in range(256):
        if mode is Mode.LONG64:
            gate = decode_gate64(memory.read(IDT_BASE + 16 * vector, 16))
        else:
            gate = decode(memory.read(IDT_BASE + 8 * vector, 8))
        assert gate.offset == stub_address(vector)
        assert gate.kind == "interrupt-gate"
        assert gate.present
        assert not gate.problems()
        assert memory.read(gate.offset, 16) == STUB


def test_real_mode_vectors() -> None:
    handlers = (HandlerInit(0x21, "here"), HandlerInit(0x22, 0x12345))
    boot = prepare(MachineConfig(mode=Mode.REAL16, handlers=handlers), image(Mode.REAL16, here=0x7C08))
    table = Memory(boot).read(0, 1024)
    far = [
        (int.from_bytes(table[i : i + 2], "little"), int.from_bytes(table[i + 2 : i + 4], "little"))
        for i in range(0, 1024, 4)
    ]
    assert far[0] == (stub_address(0), 0)
    assert far[0x21] == (0x7C08, 0)
    assert far[0x22][0] + (far[0x22][1] << 4) == 0x12345


def test_handlers_become_gates() -> None:
    handlers = (HandlerInit(14, "pf", ist=2), HandlerInit(0x80, "pf", dpl=3, kind="trap"))
    memory = Memory(prepare(MachineConfig(handlers=handlers), image(pf=0x400008)))
    gate = decode_gate64(memory.read(IDT_BASE + 16 * 14, 16))
    assert (gate.kind, gate.offset, gate.ist, gate.dpl) == ("interrupt-gate", 0x400008, 2, 0)
    gate = decode_gate64(memory.read(IDT_BASE + 16 * 0x80, 16))
    assert (gate.kind, gate.offset, gate.dpl, gate.selector) == ("trap-gate", 0x400008, 3, 8)


@pytest.mark.parametrize("mode", [Mode.PROT32, Mode.LONG64])
def test_segments_agree_with_the_gdt(mode: Mode) -> None:
    boot = prepare(MachineConfig(mode=mode), image(mode))
    memory = Memory(boot)
    for seg in Seg:
        register = boot.state.segments[seg]
        found = decode(memory.read(GDT_BASE + (register.selector & ~7), 16), long=mode is Mode.LONG64)
        assert (register.base, register.limit, register.attributes) == (found.base, found.limit, found.attributes), seg
        assert not found.problems(), seg
    assert boot.state.segments[Seg.TR].base == TSS_BASE
    assert boot.state.segments[Seg.TR].type == 0xB
    assert boot.state.segments[Seg.LDTR].base == LDT_BASE


def test_tss_has_stacks_and_bitmap() -> None:
    config = MachineConfig(ring=3, io_permission=((0x3F8, 0x3FF), (0xE0, 0xE0), (0xFFFF, 0xFFFF)))
    data = Memory(prepare(config, image())).read(TSS_BASE, TSS_LIMIT + 1)
    fields = decode_tss(data[: TSS64.size], 64)
    assert fields["rsp0"] == RSP0_STACK_TOP
    assert tuple(fields[f"ist{i}"] for i in (1, 2, 3)) == IST_TOPS
    for port, size, allowed in [
        (0x3F8, 1, True),
        (0x3FC, 4, True),
        (0x3FD, 4, False),
        (0x3F7, 1, False),
        (0xE0, 1, True),
        (0xE0, 2, False),
        (0xFFFF, 1, True),
        (0xFFFE, 1, False),
    ]:
        assert port_allowed(data, port, size) == allowed, hex(port)
    boot = prepare(MachineConfig(mode=Mode.PROT32, paging=Paging.PAE), image(Mode.PROT32))
    fields = decode_tss(Memory(boot).read(TSS_BASE, TSS32.size), 32)
    assert (fields["esp0"], fields["ss0"], fields["cr3"], fields["ldt"]) == (RSP0_STACK_TOP, 0x10, boot.state.cr3, 0x60)


def test_declared_descriptors_reach_tables_and_limits() -> None:
    descriptors = (
        DescriptorInit("gdt", 14, kind="call-gate", fields={"selector": 8, "offset": "service", "dpl": 3}),
        DescriptorInit("gdt", 40, value=0x00CF1300_0000FFFF),
        DescriptorInit("ldt", 9, kind="data", fields={"base": "service", "limit": 0xFF}),
        DescriptorInit("idt", 3, kind="interrupt-gate", fields={"selector": 8, "offset": "service", "present": 0}),
    )
    boot = prepare(MachineConfig(descriptors=descriptors, registers={"fs": 0x4C}), image(service=0x400004))
    memory = Memory(boot)
    assert decode(memory.read(GDT_BASE + 14 * 8, 16), long=True).offset == 0x400004
    assert boot.state.gdtr.limit == 41 * 8 - 1
    assert boot.state.segments[Seg.LDTR].limit == 10 * 8 - 1
    assert boot.state.segments[Seg.FS].base == 0x400004
    assert boot.state.segments[Seg.FS].limit == 0xFF
    assert not decode_gate64(memory.read(IDT_BASE + 48, 16)).present


def test_contents_and_registers_take_labels() -> None:
    config = MachineConfig(
        contents=(MemoryInit("table", b"ab", ((2, 0x1234), (8, "entry2"), (4, -1))), MemoryInit(0xFFE, b"wxyz")),
        registers={"rax": "table", "r15d": 0xFFFFFFFF, "cr0.wp": 0, "xmm3": 1 << 127, "gdtr.limit": 0x17, "zf": 1},
        msrs={0xC0000080: 0x500, 0xC0000102: 0x77, 0xC0000101: 0x1234},
        entry="entry2",
    )
    boot = prepare(config, image(table=0x400100, entry2=0x400008))
    expected = b"ab\x34\x12" + (0x400008).to_bytes(8, "little") + b"\xff" * 4
    assert Memory(boot).read(0x400100, 16) == expected
    assert Memory(boot).read(0xFFE, 4) == b"wxyz"
    state = boot.state
    assert state.gpr[Gpr.RAX] == 0x400100
    assert state.gpr[Gpr.R15] == 0xFFFFFFFF
    assert state.xmm[3] == 1 << 127
    assert state.gdtr.limit == 0x17
    assert state.rflags == 0x42
    assert state.cr0 >> 16 & 1 == 0
    assert state.efer == 0x500
    assert state.msrs[0xC0000102] == 0x77
    assert state.segments[Seg.GS].base == 0x1234
    assert state.rip == boot.entry == 0x400008


def test_a_selector_brings_its_hidden_part() -> None:
    boot = prepare(MachineConfig(registers={"cs": 0x2B, "ss": 0x23, "ds": 0, "ds.base": 0x55}), image())
    assert boot.state.cpl == 3
    assert boot.state.segments[Seg.CS].long
    assert boot.state.segments[Seg.DS].attributes >> 16 & 1
    assert boot.state.segments[Seg.DS].base == 0x55
    boot = prepare(MachineConfig(mode=Mode.REAL16, registers={"ds": 0x1234}), image(Mode.REAL16))
    assert boot.state.segments[Seg.DS].base == 0x12340


def test_real_mode_entry_above_64k_gets_a_code_segment() -> None:
    boot = prepare(MachineConfig(mode=Mode.REAL16), Image((Section(".text", 0x12345, b"\xf4"),), {}))
    assert boot.state.segments[Seg.CS].base + boot.state.rip == 0x12345


WRONG: list[tuple[dict[str, object], type[KvmscopeError], str, str]] = [
    ({"entry": "xyz"}, ReproducerError, "Unknown label 'xyz'", "labels: here"),
    ({"entry": "her"}, ReproducerError, "Unknown label 'her'", "did you mean 'here'?"),
    ({"registers": {"raxx": 1}}, ReproducerError, "Unknown register 'raxx'", "did you mean 'rax'?"),
    ({"registers": {"al": 256}}, ReproducerError, "The value of al does not fit", ""),
    ({"registers": {"fs": 0x1F8}}, ReproducerError, "fs = 0x1f8 lies beyond the boot GDT", "fs.base"),
    ({"registers": {"rax": "lost"}}, ReproducerError, "Unknown label 'lost'", ""),
    ({"msrs": {0x10: 1 << 64}}, ReproducerError, "An MSR has", ""),
    ({"ring": 1}, ReproducerError, "A guest starts in ring 0 or 3", ""),
    ({"mode": Mode.REAL16, "ring": 3}, ReproducerError, "Real mode has no rings", ""),
    ({"mode": Mode.PROT32, "paging": Paging.LEVEL4}, ReproducerError, "prot32 cannot start with 4level", '"pae"'),
    ({"paging": Paging.NONE}, ReproducerError, "long64 cannot start with none", ""),
    ({"memory": 4096}, ReproducerError, "Memory is a multiple", ""),
    ({"memory": 4 << 30}, ReproducerError, "Memory is a multiple", ""),
    ({"memory": (1 << 20) + 1}, ReproducerError, "Memory is a multiple", ""),
    ({"memory": 1 << 20}, GuestImageError, "Section .text does not lie in memory", "origin"),
    ({"smp": 17}, ReproducerError, "A machine has 1 to 16 vCPUs, not 17", ""),
    ({"contents": (MemoryInit(0xFFFFFF, b"ab", line=7),)}, ReproducerError, "memory 0xffffff lies outside", ""),
    ({"contents": (MemoryInit(-1, b"ab"),)}, ReproducerError, "memory -0x1 lies outside", ""),
    ({"contents": (MemoryInit(0, words=((1, 256),)),)}, ReproducerError, "0x100 does not fit in 1 byte", ""),
    ({"pages": (PageInit(0x123, 0, ("P",)),)}, ReproducerError, "A declared page begins", ""),
    ({"pages": (PageInit(0x800000000000, 0, ("P",)),)}, ReproducerError, "0x800000000000 is not a linear", "canonical"),
    ({"pages": (PageInit(0, 1 << 52, ("P",)),)}, ReproducerError, "0x10000000000000 does not fit", ""),
    ({"pages": (PageInit(0, 0, ("RX",)),)}, ReproducerError, "Unknown page flag 'RX'", ""),
    ({"pages": (PageInit(0, 0, ("bit64",)),)}, ReproducerError, "bit64 does not exist", ""),
    ({"pages": (PageInit(0, 0, ("P",), pkey=16),)}, ReproducerError, "A protection key", ""),
    ({"pages": (PageInit(0, 0, ("P",), count=0),)}, ReproducerError, "A declared page's count", ""),
    (
        {"pages": (PageInit(0, 0, ("P",), count=1 << 20),)},
        ReproducerError,
        "The declared pages need more page tables",
        "",
    ),
    ({"mode": Mode.PROT32, "pages": (PageInit(0, 0, ("P",)),)}, ReproducerError, "Declared pages need paging", ""),
    (
        {"mode": Mode.PROT32, "paging": Paging.BITS32, "pages": (PageInit(0, 0, ("NX",)),)},
        ReproducerError,
        "NX does not exist",
        "",
    ),
    ({"handlers": (HandlerInit(256, 0),)}, ReproducerError, "A vector is 0 to 255", ""),
    ({"handlers": (HandlerInit(1, 0, ist=8),)}, ReproducerError, "Wrong handler of vector 0x1", ""),
    ({"handlers": (HandlerInit(1, 0, kind="task"),)}, ReproducerError, "64-bit mode has no task gates", ""),
    ({"handlers": (HandlerInit(1, 0, kind="trapp"),)}, ReproducerError, "Unknown gate type", ""),
    ({"mode": Mode.PROT32, "handlers": (HandlerInit(1, 0, ist=1),)}, ReproducerError, "Wrong handler", ""),
    ({"descriptors": (DescriptorInit("gdt", 512, value=0),)}, ReproducerError, "Descriptor 512 does not fit", ""),
    ({"descriptors": (DescriptorInit("gdt", 1, value=1 << 64),)}, ReproducerError, "A descriptor's value", ""),
    (
        {"descriptors": (DescriptorInit("gdt", 1, kind="cod"),)},
        ReproducerError,
        "Wrong gdt descriptor 1",
        "kinds: code",
    ),
    ({"descriptors": (DescriptorInit("tss", 1, value=0),)}, ReproducerError, "Unknown descriptor table", ""),
    ({"io_permission": ((5, 4),)}, ReproducerError, "Wrong port range", ""),
]


@pytest.mark.parametrize(("changes", "kind", "title", "hint"), WRONG, ids=[row[2] for row in WRONG])
def test_what_cannot_be_done_is_said(
    changes: dict[str, object], kind: type[KvmscopeError], title: str, hint: str
) -> None:
    config = MachineConfig().with_(**changes)
    with pytest.raises(kind) as caught:
        prepare(config, image(config.mode, here=0x400000))
    assert title in caught.value.title
    assert hint in caught.value.hint


def test_the_header_line_is_named() -> None:
    with pytest.raises(ReproducerError) as caught:
        prepare(MachineConfig(pages=(PageInit(1, 0, ("P",), line=12),)), image())
    assert caught.value.detail.startswith("line 12:")


@pytest.mark.parametrize(
    ("sections", "title"),
    [
        ([(0x400000, 32), (0x40001F, 1)], "Section s1 runs into section s0"),
        ([(0x1FFF, 2)], "Section s0 runs into boot's GDT"),
        ([(0x6000, 1)], "Section s0 runs into boot's TSS"),
        ([(0xFFFFFF, 2)], "Section s0 does not lie in memory"),
        ([], "The program is empty"),
        ([(0x400000, 0)], "The program is empty"),
    ],
)
def test_sections_lie_in_memory_and_apart(sections: list[tuple[int, int]], title: str) -> None:
    program = Image(tuple(Section(f"s{i}", at, b"\x90" * n) for i, (at, n) in enumerate(sections)), {})
    with pytest.raises(GuestImageError) as caught:
        prepare(MachineConfig(), program)
    assert caught.value.title == title


def test_boot_is_the_same_every_time() -> None:
    config = MachineConfig(ring=3, pages=(PageInit(0x200000, 0x200000, ("P",)),), handlers=(HandlerInit(14, "a"),))
    first, second = prepare(config, image(a=0x400000)), prepare(config, image(a=0x400000))
    assert first == second
    # A second guest's declarations do not leak into shared templates.
    assert prepare(MachineConfig(), image()) != first
