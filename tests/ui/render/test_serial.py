from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from kvmscope.ui.line_panel import plain
from kvmscope.ui.render.serial import serial_rows, visible_lines, visible_text
from tests.ui.render.fake import Guest


def text(guest, width=40, height=10, back=0):
    return [line.rstrip() for line in plain(serial_rows(guest.view(), width, height, back))]


def test_control_characters_are_shown_not_obeyed():
    assert text(Guest(serial=b"a\x1b[2Jb\x07\x9bc\x7f\r\nd\te\rf\n")) == [" a␛[2Jb␇\\x9bc␡", " d␉      e␍f"]


@given(st.binary(max_size=300), st.integers(20, 120), st.integers(1, 50))
def test_no_byte_reaches_the_terminal_as_it_is(data, width, height):
    rows = text(Guest(serial=data), width, height)
    assert len(rows) <= height
    for row in rows:
        assert cell_len(row) <= width
        assert all(char.isprintable() for char in row)


@given(st.binary(max_size=120))
def test_nothing_is_lost(data):
    lines = visible_lines(data, 400, 1000)
    shown = "\n".join("".join(piece for piece, _ in line.pieces) for line in lines)
    expected = visible_text(data.replace(b"\t", b" ").replace(b"\r\n", b"\n"))
    if b"\t" not in data and not data.endswith(b"\r"):
        assert shown == expected.removesuffix("\n")


def test_the_end_is_shown_and_scrolling_goes_back():
    data = b"".join(b"line %d\n" % i for i in range(100))
    guest = Guest(serial=data)
    assert text(guest, 40, 3) == [" line 97", " line 98", " line 99"]
    assert text(guest, 40, 3, 10) == [" line 87", " line 88", " line 89"]
    assert text(guest, 40, 3, 97) == [" line 0", " line 1", " line 2"]


def test_long_lines_are_folded():
    assert text(Guest(serial=b"x" * 50 + b"\nend"), 21, 5) == [" " + "x" * 20, " " + "x" * 20, " " + "x" * 10, " end"]


def test_new_output_is_marked():
    guest = Guest(serial=b"one\ntwo\nthree\n", new_serial=b"three\n")
    assert text(guest) == [" one", " two", "▸three"]
    guest.new_serial = b"wo\nthree\n"
    assert text(guest) == [" one", "▸two", "▸three"]


def test_debug_console_has_a_part_of_its_own():
    rows = text(Guest(serial=b"one\n", debugcon=b"two\n"), 20, 6)
    assert rows == [" one", " ─ debugcon ───────", " two"]
    assert text(Guest(debugcon=b"two\n"), 20, 6) == [" ─ debugcon ───────", " two"]
    assert text(Guest()) == [" no output yet"]


def test_a_megabyte_costs_only_what_is_shown():
    data = b"\x1b" * (1 << 20)
    assert len(visible_lines(data, 80, 50)) == 50
    data = b"\n" * (1 << 20)
    assert len(visible_lines(data, 80, 50)) == 50
