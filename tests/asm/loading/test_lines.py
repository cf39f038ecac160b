"""Line tables: against readelf's reading of what GNU as and gcc wrote, and against damage."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscope.asm.loading import load_image
from kvmscope.asm.loading.dwarf_lines import LineRow, LineRows, decode_lines
from kvmscope.asm.loading.elf import read_elf
from kvmscope.asm.source_lines import SourceLines, SourcePlace
from tests.asm.loading.support import GUEST, link, run

C = """\
static inline int twice(int x)
{
	return x * 2;
}

int start(int a)
{
	int sum = 0;

	for (int i = 0; i < a; i++)
		sum += twice(i);
	return sum;
}
"""


def compiled(directory: Path, version: int, optimize: str = "-O1") -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (directory / "sub").mkdir()
    (directory / "sub" / "code.c").write_text(C)
    flags = ("-m64", optimize, f"-gdwarf-{version}", "-ffreestanding", "-fno-pic", "-fno-asynchronous-unwind-tables")
    run(directory, "gcc", *flags, "-c", "sub/code.c", "-o", "code.o")
    run(directory, "ld", "-N", "-m", "elf_x86_64", "-Ttext=0x400000", "-e", "start", "code.o", "-o", "code.elf")
    return directory / "code.elf"


def readelf_rows(path: Path) -> set[tuple[int, int]]:
    """(address, line) of every row, by the other reader."""
    done = subprocess.run(["readelf", "--debug-dump=decodedline", str(path)], capture_output=True, text=True)
    found = re.findall(r"^\S+\s+(\d+)\s+(0x[0-9a-f]+)", done.stdout, re.MULTILINE)
    return {(int(address, 16), int(line)) for line, address in found}


def rows_of(path: Path) -> LineRows:
    elf = read_elf(path.read_bytes(), "x")
    return decode_lines(elf.section(".debug_line"), elf.section(".debug_line_str"), elf.section(".debug_str"))


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_gcc(tmp_path: Path, version: int) -> None:
    path = compiled(tmp_path, version)
    rows = rows_of(path)
    expected = readelf_rows(path)
    assert {(row.start, row.line) for row in rows.rows} == expected
    assert len(expected) > 8
    assert {Path(rows.files[row.file]).name for row in rows.rows} == {"code.c"}


@pytest.mark.parametrize("flags", ["-gdwarf-2", "-gdwarf-4", "-gdwarf-5"])
def test_gas(tmp_path: Path, flags: str) -> None:
    path = link(tmp_path, GUEST, flags=flags)
    # objcopy makes a 32-bit file of it, with addresses of 8 bytes inside.
    assert {(row.start, row.line) for row in rows_of(path).rows} == readelf_rows(path)


def test_steps_of_c_find_their_text(tmp_path: Path) -> None:
    image = load_image(compiled(tmp_path, 5, "-O0")).image
    places = image.places
    assert places is not None
    file = str(tmp_path / "sub" / "code.c")
    assert places.files == [file]
    assert places.text(file) == C
    assert places.find_file("code.c") == places.find_file("sub/code.c") == [file]
    assert places.find_file("other/code.c") == []
    assert image.place_at(image.symbols["start"]) == SourcePlace(file, 7)
    for line in (7, 8, 11, 12):
        for address in places.addresses(file, line):
            assert places.begins_line(address)
            assert places.at(address) == (file, line)
    # A line without code stands for the next one that has some.
    assert places.addresses(file, 9) == places.addresses(file, 10)
    assert places.addresses(file, 100) == ()
    assert places.addresses("nowhere.c", 1) == ()


def test_sources_are_found_beside_a_moved_image(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "x86").mkdir(parents=True)
    (tree / "lib" / "x86").mkdir(parents=True)
    (tree / "x86" / "t.c").write_text("one\n")
    (tree / "lib" / "x86" / "vm.c").write_text("two\n")
    (tree / "lib" / "vm.c").write_text("three\n")
    places = SourceLines(LineRows, tree / "x86" / "t.flat")
    assert places.text("/build/kut/x86/t.c") == "one\n"
    assert places.text("x86/t.c") == "one\n"
    assert places.text("/build/kut/lib/x86/vm.c") == "two\n"
    assert places.text("/build/kut/lib/vm.c") == "three\n"
    assert places.text("/build/kut/lib/missing.c") is None
    assert places.text("/dev/zero") is None
    assert places.text("\0") is None


ROWS = [
    LineRow(0x0, 0x10, 0, 90, True),
    LineRow(0x1000, 0x1004, 0, 5, True),
    LineRow(0x1004, 0x1004, 0, 6, True),
    LineRow(0x1004, 0x1008, 1, 70, True),
    LineRow(0x1008, 0x1010, 0, 6, False),
    LineRow(0x1010, 0x1014, 0, 5, True),
    LineRow(0x1014, 0x1018, 0, 5, True),
    LineRow(0x1020, 0x1024, 0, 8, True),
]


def test_lookup() -> None:
    table = LineRows(["a.c", "h.h"], list(ROWS))
    places = SourceLines(lambda: table, None, [(0x1000, 0x2000)])
    assert places.at(0x1003) == ("a.c", 5)
    assert places.at(0x1004) == ("h.h", 70)
    assert places.at(0x100F) == ("a.c", 6)
    assert places.at(0x1018) is None
    assert places.at(0x5) is None
    # Where the line is entered: not at each of its rows.
    assert places.addresses("a.c", 5) == (0x1000, 0x1010)
    assert places.addresses("a.c", 6) == (0x1004,)
    assert places.addresses("a.c", 7) == (0x1020,)
    assert places.begins_line(0x1010)
    assert not places.begins_line(0x1008)
    assert not places.begins_line(0x1014)
    assert str(places.at(0x1003)) == "a.c:5"


def test_tables_are_read_when_first_asked_for() -> None:
    asked = []
    places = SourceLines(lambda: asked.append(1) or LineRows(["a.c"], list(ROWS)))  # type: ignore[func-returns-value]
    assert asked == []
    places.at(0x1000)
    places.addresses("a.c", 5)
    assert asked == [1]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_survived(tables: tuple[bytes, bytes, bytes], data: st.DataObject) -> None:
    line, line_strings, strings = tables
    blob = bytearray(line)
    for _ in range(data.draw(st.integers(1, 6))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    rows = decode_lines(bytes(blob[: data.draw(st.integers(0, len(blob)))]), line_strings, strings)
    assert len(rows.rows) <= len(blob)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, bytes]:
    elf = read_elf(link(tmp_path_factory.mktemp("lines"), GUEST).read_bytes(), "x")
    return elf.section(".debug_line"), elf.section(".debug_line_str"), elf.section(".debug_str")


def test_entries_without_bytes_cannot_be_repeated_without_end() -> None:
    # Version 5, no formats, 2^63 directories.
    header = b"\x05\0\x08\0" + (20).to_bytes(4, "little") + bytes((1, 1, 1, 0xFB, 14, 1)) + b"\0" + b"\xff" * 9 + b"\0"
    unit = len(header).to_bytes(4, "little") + header
    assert decode_lines(unit, b"", b"").rows == []
