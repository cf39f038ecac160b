"""Images from files: what is loaded where, and what is said of files that are none."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscope.asm.image import Image, Section
from kvmscope.asm.loading import load_image
from kvmscope.asm.loading.elf import read_elf
from kvmscope.errors import GuestImageError, UsageError
from tests.asm.loading.support import GUEST, MULTIBOOT, Segment, elf, link

CODE = MULTIBOOT + b"\xf4" * 8
GLOBAL_FUNCTION, LOCAL_LABEL, FILE = 0x12, 0x00, 0x04
ABSOLUTE = 0xFFF1


def put(directory: Path, blob: bytes, name: str = "x.flat") -> Path:
    path = directory / name
    path.write_bytes(blob)
    return path


@pytest.mark.parametrize("wide", [False, True])
def test_segments_go_to_their_physical_addresses(tmp_path: Path, wide: bool) -> None:
    blob = elf((Segment(0x400000, CODE, virtual=0x10400000), Segment(0x500000, b"data", 0x800000, 6)), wide=wide,
               entry=0x10400000 + 12)  # fmt: skip
    loaded = load_image(put(tmp_path, blob))
    image = loaded.image
    assert (loaded.multiboot, loaded.placed) == (True, True)
    assert [(s.address, s.data, s.zeros, s.executable) for s in image.sections] == [
        (0x400000, CODE, 0, True),
        (0x500000, b"data", 0x800000 - 4, False),
    ]
    assert image.sections[1].end == 0xD00000
    assert (image.entry, image.bits) == (0x40000C, 32)


def test_code_of_64_bits_without_a_header_is_not_multiboot(tmp_path: Path) -> None:
    loaded = load_image(put(tmp_path, elf((Segment(0x400000, b"\xf4" * 32),), wide=True)))
    assert (loaded.multiboot, loaded.placed, loaded.image.bits) == (False, True, 64)


def test_symbols_and_constants(tmp_path: Path) -> None:
    symbols = (
        ("a.c", 0, FILE, ABSOLUTE),
        ("lock", 0x400004, 0x01, 1),
        ("b.c", 0, FILE, ABSOLUTE),
        ("lock", 0x400008, 0x01, 1),
        (".L12", 0x400005, LOCAL_LABEL, 1),
        ("vector", 0x20, LOCAL_LABEL, ABSOLUTE),
        ("main", 0x40000C, GLOBAL_FUNCTION, 1),
        ("elsewhere", 0, GLOBAL_FUNCTION, 0),
    )
    image = load_image(put(tmp_path, elf((Segment(0x400000, CODE),), symbols=symbols))).image
    assert image.symbols == {"main": 0x40000C, "lock": 0x400004, "lock@b.c": 0x400008}
    assert image.constants == {"vector": 0x20}
    assert image.symbol_at(0x400009) == ("lock@b.c", 1)


def test_a_linked_guest(tmp_path: Path) -> None:
    image = load_image(link(tmp_path, GUEST)).image
    (section,) = image.sections
    assert section.zeros >= 0x200000 > len(section.data)
    assert image.entry == image.symbols["start"]
    assert image.symbols["stack"] == section.end
    assert image.place_at(image.entry).line == 5  # type: ignore[union-attr]


def test_the_file_beside_a_stripped_image_tells_names(tmp_path: Path) -> None:
    from tests.asm.loading.support import run

    flat = link(tmp_path, GUEST)
    run(tmp_path, "strip", "guest.flat")
    image = load_image(flat).image
    assert image.symbols["say"] > image.entry
    assert image.place_at(image.entry) is not None
    # Another program's names would be lies.
    link(tmp_path, GUEST.replace("xor     %eax, %eax", "mov     $1, %eax"), name="other")
    (tmp_path / "other.elf").replace(tmp_path / "guest.elf")
    image = load_image(flat).image
    assert (image.symbols, image.places) == ({}, None)


def test_a_header_with_addresses(tmp_path: Path) -> None:
    # header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr
    addresses = struct.pack("<5I", 0x100010, 0x100008, 0x100040, 0x101000, 0x100030)
    header = struct.pack("<III", 0x1BADB002, 1 << 16, -(0x1BADB002 + (1 << 16)) & 0xFFFFFFFF)
    blob = b"\xcc" * 16 + header + addresses + b"\xf4" * 64
    loaded = load_image(put(tmp_path, blob, "x.bin"))
    (section,) = loaded.image.sections
    assert (section.address, section.data, section.zeros) == (0x100008, blob[8:0x40], 0x101000 - 0x100040)
    assert (loaded.image.entry, loaded.multiboot) == (0x100030, True)
    with pytest.raises(GuestImageError, match="more than the file holds"):
        load_image(put(tmp_path, blob[:0x30], "x.bin"))


def test_raw_bytes(tmp_path: Path) -> None:
    loaded = load_image(put(tmp_path, b"\xf4\x90", "x.bin"), address=0x7C00, bits=16)
    assert loaded.image.sections == (Section("image", 0x7C00, b"\xf4\x90"),)
    assert (loaded.multiboot, loaded.placed, loaded.image.entry, loaded.image.bits) == (False, False, 0x7C00, 16)


@pytest.mark.parametrize(
    ("blob", "title"),
    [
        (b"\x7fELF\x01\x01", "The ELF header lies beyond the end"),
        (elf((Segment(0x400000, CODE),), machine=183), "Not an image for x86"),
        (elf((Segment(0x400000, CODE),), kind=1), "a relocatable object"),
        (elf((Segment(0x400000, CODE),), entry=0x300000), "The entry point lies in nothing"),
        (elf((Segment(0x400000, b"/lib/ld.so", kind=3),)), "a program of an operating system"),
        (elf((Segment(0x400000, CODE, kind=4),)), "nothing to load"),
        (elf(()), "nothing to load"),
        (elf((Segment(0x400000, CODE),)).replace(b"\1\1\1\0", b"\1\2\1\0", 1), "Not an x86 ELF file"),
        (MULTIBOOT + b"\xf4", "is an ELF file, or has the addresses"),
        (struct.pack("<III", 0x1BADB002, 4, -(0x1BADB002 + 4) & 0xFFFFFFFF), "requires a graphics mode"),
        (b"", "is empty"),
    ],
)
def test_refused(tmp_path: Path, blob: bytes, title: str) -> None:
    with pytest.raises(GuestImageError) as caught:
        load_image(put(tmp_path, blob))
    assert title in caught.value.title
    assert "x.flat" in f"{caught.value.title} {caught.value.detail}"


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load_image(tmp_path / "missing.flat")
    with pytest.raises(GuestImageError, match="not a file"):
        load_image(tmp_path)


SAMPLE = elf((Segment(0x400000, CODE), Segment(0x500000, b"data", 0x1000, 6)), symbols=(("main", 0x400000, 0x12, 1),))


@pytest.mark.parametrize("length", range(len(SAMPLE)))
def test_every_truncation_is_refused(length: int) -> None:
    # The section headers stand last, so that nothing can be missing unnoticed.
    with pytest.raises(GuestImageError):
        read_elf(SAMPLE[:length], "x")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=8), st.booleans())
def test_damage_never_ends_in_another_error(changes: list[tuple[int, int]], header_only: bool) -> None:
    blob = bytearray(SAMPLE)
    for at, value in changes:
        blob[at % 180 if header_only else at] = value
    with suppress(GuestImageError):
        found = read_elf(bytes(blob), "x")
        assert all(len(segment.data) <= len(SAMPLE) for segment in found.segments)


def linear_symbol_at(image: Image, address: int) -> tuple[str, int] | None:
    found = [(value, name) for name, value in image.symbols.items() if value <= address < value + 4096]
    if not found:
        return None
    best = max(value for value, _ in found)
    return min(name for value, name in found if value == best), address - best


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 10_000), max_size=12),
    st.integers(-5, 16_000),
)
def test_symbol_at_is_the_nearest_below(symbols: dict[str, int], address: int) -> None:
    image = Image((), symbols)
    assert image.symbol_at(address) == linear_symbol_at(image, address)


def test_a_long_function_is_named_to_its_end() -> None:
    image = Image((), {"long": 0x1000}, sizes={"long": 0x3000})
    assert image.symbol_at(0x3FFF) == ("long", 0x2FFF)
    assert image.symbol_at(0x4000) is None


def test_what_has_a_size_ends_there() -> None:
    image = Image((), {"table": 0x1000, "end": 0x2000, "start": 0x2000}, sizes={"table": 0x20, "end": 4})
    assert image.symbol_at(0x101F) == ("table", 0x1F)
    assert image.symbol_at(0x1020) is None
    assert image.symbol_at(0x2003) == ("end", 3)
    assert image.symbol_at(0x2004) == ("start", 4)
