from __future__ import annotations

from dataclasses import replace

import pytest

from kvmscope.ui.line_panel import Kind, plain
from kvmscope.ui.render.memory import bytes_per_row, memory_rows, memory_target, place_memory
from kvmscope.ui.render.telescope import telescope_rows
from kvmscope.ui.view import Focus, Space
from kvmscope.x86.state import SegmentRegister
from tests.ui.render.fake import Guest, legacy_state, stepped


def rows_of(guest, width, height, anchor=None, draw=memory_rows):
    view = guest.view()
    target = memory_target(view)
    at = target.address - target.address % 16 if anchor is None else anchor
    return draw(view, width, height, at, target)


def text(guest, width, height, anchor=None, draw=memory_rows):
    return [line.rstrip() for line in plain(rows_of(guest, width, height, anchor, draw))]


def test_follows_the_stack_pointer_at_first():
    assert text(stepped(), 44, 3) == [
        " 0007ffe0›04 10 40 00 00 00 00 00  ..@.....",
        " 0007ffe8 00 20 40 00 00 00 00 00  . @.....",
        "▸0007fff0 ff ff 00 00 00 00 00 00  ........",
    ]


def test_sixteen_bytes_where_there_is_room():
    assert text(stepped(), 80, 2) == [
        " 0007ffe0›04 10 40 00 00 00 00 00  00 20 40 00 00 00 00 00  ..@...... @.....",
        "▸0007fff0 ff ff 00 00 00 00 00 00  00 00 00 00 00 00 00 00  ................",
    ]


def test_changed_nibble_is_marked_and_the_other_is_not():
    row = rows_of(stepped(), 80, 2)[1]
    marked = [(span.text, span.style) for span in row.spans if span.key is not None][:3]
    assert marked == [("f", "changed"), ("f", "value"), ("ff", "value")]


def test_bytes_carry_physical_addresses_to_edit():
    guest = stepped()
    guest.focus = Focus(memory=0x402000)
    keys = [span.key for span in rows_of(guest, 80, 1)[0].spans if span.key is not None]
    assert [(key.kind, key.value, key.text, key.address) for key in keys[:2]] == [
        (Kind.BYTE, 0x202000, "2a", 0x402000),
        (Kind.BYTE, 0x202001, "00", 0x402001),
    ]


def test_unmapped_and_device_memory():
    guest = stepped()
    guest.focus = Focus(memory=0x7FF8)
    assert text(guest, 44, 2, 0x7FF8)[1] == " 00008000 ·· ·· ·· ·· ·· ·· ·· ··"
    guest.focus = Focus(memory=0x500000)
    rows = rows_of(guest, 44, 1)
    assert plain(rows)[0].rstrip() == " 00500000 ▒▒ ▒▒ ▒▒ ▒▒ ▒▒ ▒▒ ▒▒ ▒▒"
    assert all(span.key is None for span in rows[0].spans)


def test_physical_space_is_not_translated():
    guest = stepped()
    guest.focus = Focus(memory=0x202000, memory_space=Space.PHYSICAL)
    assert text(guest, 44, 1) == [" 00202000 2a 00 00 00 00 00 00 00  *......."]


@pytest.mark.parametrize(
    ("focus", "address", "space"),
    [
        (Focus(), 0x7FFE0, Space.LINEAR),
        (Focus(memory_register="rbx"), 0x402000, Space.LINEAR),
        (Focus(memory_register="rip"), 0x401004, Space.LINEAR),
        (Focus(memory_register="gdtr"), 0x1000, Space.LINEAR),
        (Focus(memory_register="cr3"), 0x90000, Space.PHYSICAL),
        (Focus(memory=0x1234), 0x1234, Space.LINEAR),
        (Focus(memory_register="nonsense", memory=0x10), 0x10, Space.LINEAR),
    ],
)
def test_target(focus, address, space):
    guest = stepped()
    guest.focus = focus
    target = memory_target(guest.view())
    assert (target.address, target.space) == (address, space)


def test_segment_bases_count_in_real_mode():
    state = legacy_state(16)
    stack = SegmentRegister(0x2000, 0x20000, 0xFFFF, 0x93)
    guest = Guest(replace(state, segments=(*state.segments[:2], stack, *state.segments[3:])))
    assert memory_target(guest.view()).address == 0x27BFE


@pytest.mark.parametrize(("width", "count"), [(20, 2), (44, 8), (62, 8), (76, 16), (80, 16), (200, 32)])
def test_bytes_per_row(width, count):
    assert bytes_per_row(width, 8) == count


def test_the_window_moves_only_when_it_must():
    first = place_memory(0x7FFE0, None, 16, 10)
    assert first == 0x7FFE0
    assert place_memory(0x7FFE0 + 16 * 5, first, 16, 10) == first
    assert place_memory(0x7FFD8, first, 16, 10) == 0x7FFD0
    assert place_memory(0x7FFE0 + 16 * 9, first, 16, 10) == 0x7FFE0 + 16 * 9


def test_telescope_follows_pointers():
    guest = stepped()
    guest.memory.word(0x7FFE8, 0x402008)
    guest.memory.word(0x7FFF8, 0x7FFE8)
    assert text(guest, 80, 4, draw=telescope_rows) == [
        " 0007ffe0 +0000 rsp     0000000000401004 <start+4>",
        ' 0007ffe8 +0008         0000000000402008 <table+8> "Hello, guest"',
        "▸0007fff0 +0010         000000000000ffff → 0",
        ' 0007fff8 +0018         000000000007ffe8 → 402008 <table+8> "Hello, guest"',
    ]


def test_telescope_ends_on_a_loop():
    guest = stepped()
    guest.memory.word(0x7FFE0, 0x7FFE0)
    assert text(guest, 44, 1, draw=telescope_rows) == [" 0007ffe0 › 000000000007ffe0 → 7ffe0"]


def test_telescope_over_memory_that_is_not_there():
    guest = stepped()
    guest.focus = Focus(memory=0x7FF8)
    assert text(guest, 44, 2, 0x7FF8, draw=telescope_rows)[1].endswith("··  not mapped")
    guest.focus = Focus(memory=0x500000)
    assert text(guest, 44, 1, draw=telescope_rows)[0].endswith("▒▒  not RAM: not read")


def test_window_at_the_top_of_the_address_space():
    guest = stepped()
    guest.focus = Focus(memory=(1 << 64) - 16)
    assert len(text(guest, 100, 4)) == 4
