"""What a multiboot image finds: read back the way an image reads it."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest

from kvmscope.asm import assemble
from kvmscope.asm.image import Image, Section
from kvmscope.errors import GuestImageError, KvmscopeError, UsageError
from kvmscope.vmm.boot import Boot, prepare
from kvmscope.vmm.boot.firmware import _CODE, _IRET_AT, _MASTER_AT, _SLAVE_AT, _TIMER_AT
from kvmscope.vmm.boot.multiboot import memory_map
from kvmscope.vmm.config import MachineConfig, Mode
from kvmscope.x86.descriptors import decode
from kvmscope.x86.state import Gpr, Seg

MIB = 1 << 20


def image(*sections: Section) -> Image:
    return Image(
        sections or (Section(".text", 0x400000, b"\xf4", zeros=12 * MIB),), {}, entry=0x400000, name="x86/t.flat"
    )


def booted(*sections: Section, **changes: object) -> Boot:
    return prepare(MachineConfig(mode=Mode.MULTIBOOT, memory=64 * MIB).with_(**changes), image(*sections))


def read(boot: Boot, physical: int, size: int) -> bytes:
    out = b""
    while len(out) < size:
        page, offset = divmod(physical + len(out), 4096)
        out += boot.pages.get(page, bytes(4096))[offset : offset + size - len(out)]
    return out


def words(boot: Boot, physical: int, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}I", read(boot, physical, 4 * count))


def text(boot: Boot, physical: int) -> bytes:
    return read(boot, physical, 4096).split(b"\0")[0]


def info(boot: Boot) -> tuple[int, ...]:
    return words(boot, boot.state.gpr[Gpr.RBX], 29)


def test_the_state_is_that_of_the_specification() -> None:
    state = booted().state
    assert state.gpr[Gpr.RAX] == 0x2BADB002
    assert (state.pc, state.mode, state.cpl) == (0x400000, 32, 0)
    assert (state.cr0 & 1, state.cr0 >> 31, state.rflags) == (1, 0, 2)
    for seg in (Seg.CS, Seg.DS, Seg.ES, Seg.FS, Seg.GS, Seg.SS):
        segment = state.segments[seg]
        assert (segment.base, segment.limit, segment.db, segment.dpl) == (0, 0xFFFFFFFF, True, 0)


def test_the_segments_stand_in_the_loaders_table() -> None:
    boot = booted()
    state = boot.state
    assert state.gdtr.limit == 23
    for seg in (Seg.CS, Seg.SS):
        segment = state.segments[seg]
        raw = read(boot, state.gdtr.base + segment.selector, 8)
        found = decode(raw, long=False)
        assert (found.base, found.limit, found.attributes) == (segment.base, segment.limit, segment.attributes)


def test_the_command_line_is_file_name_and_arguments_as_typed() -> None:
    boot = booted(args=("-a", "two words", 'quo"te'))
    assert text(boot, info(boot)[4]) == b'x86/t.flat -a two words quo"te'
    plain = booted()
    assert text(plain, info(plain)[4]) == b"x86/t.flat "


def test_memory_and_its_map() -> None:
    boot = booted()
    found = info(boot)
    assert found[0] & 0x45 == 0x45
    assert found[1:3] == (639, (64 - 1) * 1024)
    ranges = []
    at = found[12]
    while at < found[12] + found[11]:
        size, first, length, kind = struct.unpack("<IQQI", read(boot, at, 24))
        ranges.append((first, length, kind))
        at += size + 4
    assert ranges == list(memory_map(64 * MIB))
    assert (MIB, 63 * MIB, 1) in ranges
    assert all(before[0] + before[1] <= after[0] for before, after in pairwise(ranges))


def test_an_environment_is_the_one_module() -> None:
    assert info(booted())[0] & 8 == 0
    boot = booted(environment={"NR_CPUS": "2", "X": "a b"})
    found = info(boot)
    assert (found[0] & 8, found[5]) == (8, 1)
    start, end, *_ = words(boot, found[6], 4)
    assert read(boot, start, end - start) == b"NR_CPUS=2\nX=a b\n"
    assert start % 4096 == 0
    assert start >= 0x400000 + 12 * MIB


@pytest.mark.parametrize(
    "sections",
    [
        (Section(".text", 0x8000, b"\xf4" * 0x2800), Section(".data", 0xB000, b"", zeros=0x3000)),
        (Section(".text", 0x1000, b"\xf4" * 0x90000),),
        (Section(".text", 0x9000, b"\xf4" * 0x97000),),
    ],
)
def test_what_is_told_stays_clear_of_the_image(sections: tuple[Section, ...]) -> None:
    boot = booted(*sections, environment={"A": "1"})
    found = info(boot)
    starts = (boot.state.gpr[Gpr.RBX], boot.state.gdtr.base, found[4], found[6], found[12], words(boot, found[6], 1)[0])
    for at in starts:
        assert not any(section.address - 256 < at < section.end for section in sections)
        assert not 0x9FC00 <= at < MIB


@pytest.mark.parametrize(
    ("sections", "changes", "kind", "title"),
    [
        ((Section(".text", 0x400000, b"x", zeros=64 * MIB),), {}, GuestImageError, "does not lie in memory"),
        ((Section("a", 0x400000, b"xx"), Section("b", 0x400001, b"x")), {}, GuestImageError, "b runs into section a"),
        (
            (Section("a", 0x1000, b"x", zeros=64 * MIB - 0x1001),),
            {},
            GuestImageError,
            "no room for the loader's tables",
        ),
        ((), {"args": ("a" * 70_000,)}, UsageError, "arguments"),
        ((), {"environment": {"A": "a" * (MIB + 1)}}, UsageError, "environment"),
    ],
)
def test_refused(
    sections: tuple[Section, ...], changes: dict[str, object], kind: type[KvmscopeError], title: str
) -> None:
    with pytest.raises(kind, match=title):
        booted(*sections, **changes)


HANDLERS = {
    _IRET_AT: "iret",
    _MASTER_AT: "push ax\nmov al, 0x20\nout 0x20, al\npop ax\niret",
    _SLAVE_AT: "push ax\nmov al, 0x20\nout 0xa0, al\nout 0x20, al\npop ax\niret",
    _TIMER_AT: """
        push ds
        push ax
        mov ax, 0x40
        mov ds, ax
        inc dword ptr [0x6c]
        cmp dword ptr [0x6c], 0x1800b0
        jb  eoi
        mov dword ptr [0x6c], 0
        mov byte ptr [0x70], 1
eoi:    int 0x1c
        mov al, 0x20
        out 0x20, al
        pop ax
        pop ds
        iret
""",
}


@pytest.mark.parametrize(("offset", "code"), _CODE)
def test_the_firmwares_handlers_are_what_their_comments_say(offset: int, code: bytes) -> None:
    assembly = assemble(HANDLERS[offset], bits=16, origin=offset, cross_check=False)
    assert assembly.image is not None
    assert b"".join(section.data for section in assembly.image.sections) == code


@pytest.mark.parametrize(
    ("vector", "handler"), [(0, 0xFF53), (8, 0xFEA5), (9, _MASTER_AT), (0x70, _SLAVE_AT), (0x78, 0xFF53)]
)
def test_real_mode_finds_the_firmwares_vectors(vector: int, handler: int) -> None:
    boot = booted()
    assert struct.unpack("<HH", read(boot, 4 * vector, 4)) == (handler, 0xF000)
    assert (boot.state.idtr.base, boot.state.idtr.limit) == (0, 0x3FF)
    assert boot.firmware


def test_acpi_tables_are_found_by_their_signature() -> None:
    boot = booted(smp=3)
    area = read(boot, 0xE0000, 0x20000)
    at = area.find(b"RSD PTR ")
    assert at >= 0
    assert at % 16 == 0
    assert area.count(b"APIC") == 1
