"""No row is ever wider than its panel, whatever the guest does; every style is one that the theme knows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from kvmscope.ui.line_panel import plain
from kvmscope.ui.render import (
    devices,
    disassembly,
    explanation,
    memory,
    paging_tree,
    paging_walk,
    registers,
    serial,
    tables,
    telescope,
    timeline,
)
from kvmscope.ui.render.event_index import EventIndex
from kvmscope.ui.render.reader import Reader
from kvmscope.ui.theme import STYLE_NAMES
from kvmscope.ui.view import Focus
from kvmscope.vmm.snapshot import DeviceField, DeviceView, MemoryChange
from tests.ui.render.fake import Words, events, legacy_state, long_state, stepped


def every_row(guest, width, height=24):
    """The rows of all panels for one guest."""
    return every_row_of(guest.view(), width, height)


def every_row_of(view, width, height=24):
    """The rows of all panels for one view."""
    index = EventIndex()
    index.update(view.snapshot)
    target = memory.memory_target(view)
    reader = Reader(view)
    walked = paging_walk.walk_target(view)
    opened = frozenset(paging_tree.path_of(paging_walk.walk_of(reader, walked.linear)))
    positions = index.positions(frozenset())
    return {
        "registers": registers.register_rows(view, width, frozenset()),
        "disassembly": disassembly.disassembly_rows(view, width, height, disassembly.place_window(view, None, height)),
        "memory": memory.memory_rows(view, width, height, target.address & ~0xF, target),
        "telescope": telescope.telescope_rows(view, width, height, target.address, target),
        "walk": paging_walk.walk_rows(reader, width, walked),
        "tree": paging_tree.tree_rows(reader, width, opened),
        "descriptors": tables.descriptor_rows(view, width, frozenset()),
        "serial": serial.serial_rows(view, width, height),
        "devices": devices.device_rows(view, index, width, devices.DeviceLook()),
        "bar": timeline.bar_rows(view, index, width),
        "timeline": timeline.event_rows(view, index, positions, width, height, 0),
        "explanation": explanation.explanation_rows(view, width),
    }


def check(guest, width):
    for name, rows in every_row(guest, width).items():
        for row, text in zip(rows, plain(rows), strict=True):
            assert cell_len(text) <= width, (name, width, text)
            assert {span.style for span in row.spans} <= set(STYLE_NAMES), (name, text)
            assert row.overlay in ("", "current", "selection")


def rich_guest(**changes):
    guest = stepped()
    guest.events = events(guest.cpu)
    guest.serial, guest.debugcon = b"hello\x1b[2J\xff" * 30 + b"\n", b"x\n"
    guest.explanation = Words("#PF at 0x401000 " + "word " * 20, ("line " * 30,), ("SDM",))
    guest.devices = (DeviceView("名前" * 20, "0x1", (DeviceField("n" * 50, "v" * 50, "m" * 50),)),)
    for name, value in changes.items():
        setattr(guest, name, value)
    return guest


@pytest.mark.parametrize("width", range(20, 121))
def test_every_width(width):
    check(rich_guest(), width)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("width", [20, 44, 62, 100])
def test_every_mode(bits, width):
    check(rich_guest(cpu=legacy_state(bits), before=long_state()), width)


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(20, 120),
    gpr=st.lists(st.integers(0, (1 << 64) - 1), min_size=16, max_size=16),
    rip=st.integers(0, (1 << 64) - 1),
    flags=st.integers(0, (1 << 64) - 1),
    control=st.tuples(*[st.integers(0, (1 << 64) - 1)] * 4),
    code=st.binary(min_size=1, max_size=200),
    walk=st.integers(0, (1 << 64) - 1),
)
def test_any_state_fits(width, gpr, rip, flags, control, code, walk):
    guest = rich_guest(serial=code, focus=Focus(walk=walk, memory=rip))
    guest.memory.write(0x201000, code)
    guest.memory.write(0x90000, code)
    guest.changes = (MemoryChange(0x201000, bytes(len(code)), code),)
    cr0, cr3, cr4, efer = control
    guest.before = guest.cpu
    guest.cpu = replace(
        guest.cpu, gpr=tuple(gpr), rip=rip, rflags=flags, cr0=cr0, cr3=cr3, cr4=cr4, efer=efer, cr2=walk
    )
    check(guest, width)


def test_every_change_is_told_without_colour():
    """A row with a marked digit has the glyph as well: in front of it, or of the column that it stands in."""
    guest = rich_guest()
    guest.before = long_state()
    guest.cpu = replace(
        long_state(), gpr=tuple(range(1, 17)), rip=0x401004, rflags=0x93, cr0=0x80010031, cr4=0x660, efer=0x501,
        xmm=tuple(range(16)), mxcsr=0x1F81, dr=(1, 2, 3, 4, 0, 0, 0xFFFF0FF1, 0x401),
    )  # fmt: skip
    for name, rows in every_row(guest, 62).items():
        for row, text in zip(rows, plain(rows), strict=True):
            if any(span.style == "changed" for span in row.spans) and not text.startswith("   "):
                assert "▸" in text, (name, text)
