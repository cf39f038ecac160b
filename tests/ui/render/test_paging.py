from __future__ import annotations

from dataclasses import replace

import pytest

from kvmscope.ui.line_panel import Kind, plain
from kvmscope.ui.render.paging_tree import path_of, tree_rows
from kvmscope.ui.render.paging_walk import walk_of, walk_rows, walk_target
from kvmscope.ui.render.reader import Reader
from kvmscope.ui.view import Focus
from kvmscope.vmm.engine import Stop, StopReason
from kvmscope.vmm.snapshot import MemoryChange
from tests.ui.render.fake import Guest, events, legacy_state, long_state, page_fault, stepped


def walk_text(guest, width=62):
    view = guest.view()
    return [line.rstrip() for line in plain(walk_rows(Reader(view), width, walk_target(view)))]


def tree_text(guest, opened, width=62):
    return [line.rstrip() for line in plain(tree_rows(Reader(guest.view()), width, frozenset(opened)))]


def looking(linear):
    guest = stepped()
    guest.focus = Focus(walk=linear)
    return guest


def test_the_last_page_fault_is_walked():
    guest = stepped()
    guest.events = events(guest.cpu)
    assert walk_text(guest) == [
        " walk of 00007000  #PF at tick 6",
        " PML4E 000 @90000  0000000000091007 P RW US → 91000",
        " PDPTE 000 @91000  0000000000092007 P RW US → 92000",
        " PDE   000 @92000  0000000000093007 P RW US → 93000",
        " PTE   007 @93038  0000000000007021 P rw us A → 7000",
        " → physical 00007000  4K page r-x- a d",
        "             read    write   fetch   error code",
        " supervisor  ✓      [✗]3     ✓",
        " user        ✗ 5     ✗ 7     ✗ 15",
        " ✗ supervisor write: PTE at 0x93038 = 0x7021: R/W = 0, CR0.WP",
        "   = 1",
        " ✗ user read, user fetch: PTE at 0x93038 = 0x7021: U/S = 0",
        " ✗ user write: PTE at 0x93038 = 0x7021: U/S = 0; PTE at",
        "   0x93038 = 0x7021: R/W = 0",
    ]


@pytest.mark.parametrize(
    ("guest", "linear", "why"),
    [
        (looking(0x1234), 0x1234, "chosen"),
        (Guest(long_state(cr2=0x5000)), 0x5000, "CR2"),
        (Guest(long_state()), 0x401000, "RIP"),
        (
            Guest(stop=Stop(StopReason.EXCEPTION, 3, exception=page_fault(3, long_state(), 0x9000))),
            0x9000,
            "#PF at tick 3",
        ),
    ],
)
def test_what_is_walked(guest, linear, why):
    assert walk_target(guest.view())[:2] == (linear, why)


@pytest.mark.parametrize(
    ("linear", "expected"),
    [
        (0x8000, " ✗ any access: PTE at 0x93040 = 0x0: P = 0"),
        (0x9000, " ✗ any access: PTE at 0x93048 = 0x8000000009003: reserved bit 51 set"),
        (1 << 47, " ✗ any access: 0x800000000000 is not canonical: bits 63:48"),
        (0x402000, " ✗ supervisor fetch, user fetch: PTE at 0x94010 ="),
        (0x200000, " ✗ user access: PDE at 0x92008 = 0x200083: U/S = 0"),
    ],
)
def test_why_an_access_would_fault(linear, expected):
    assert any(line.startswith(expected[:60]) for line in walk_text(looking(linear), 80))


def test_smap_and_write_protection_show_in_the_matrix():
    guest = looking(0x402000)
    guest.cpu = replace(guest.cpu, cr4=guest.cpu.cr4 | 1 << 21)
    lines = walk_text(guest)
    assert " supervisor  ✗ 1     ✗ 3     ✗ 11" in lines
    guest = looking(0x7000)
    guest.cpu = replace(guest.cpu, cr0=guest.cpu.cr0 & ~(1 << 16))
    assert " supervisor  ✓       ✓       ✓" in walk_text(guest)


def test_a_table_outside_of_ram_is_unknown_not_faulting():
    guest = looking(0x7000)
    guest.memory.word(0x91000, 0x40000000 | 7)
    lines = walk_text(guest)
    assert any("outside of RAM" in line for line in lines)
    assert any(line.startswith(" ✗ unknown:") for line in lines)


def test_paging_off():
    guest = Guest(legacy_state(32))
    assert walk_text(guest)[1] == " → physical 00007c00  paging off rwxu A D"
    assert tree_text(guest, ()) == [" paging is off: linear addresses are physical ones"]


def test_tree_joins_what_runs_on():
    path = path_of(walk_of(Reader(looking(0x7000).view()), 0x7000))
    assert path == ("/0", "/0/0", "/0/0/0")
    assert tree_text(stepped(), path) == [
        " − PML4E 000     0-7fffffffff ⇒ 91000 rwxu",
        "  − PDPTE 000     0-3fffffff ⇒ 92000 rwxu",
        "   − PDE   000     0-1fffff ⇒ 93000 rwxu",
        "    + PTE   000-006 0-6fff → 0 rwx- 4K×7",
        "      PTE   007     7000-7fff → 7000 r-x- 4K A",
        "      PTE   009     9000-9fff ✗ reserved bit 51",
        "    + PTE   00a-1ff a000-1fffff → a000 rwx- 4K×502",
        "     PDE   001     200000-3fffff → 200000 rwx- 2M",
        "   + PDE   002     400000-5fffff ⇒ 94000 rwxu",
    ]


def test_a_run_opens_into_its_entries():
    lines = tree_text(stepped(), ("/0", "/0/0", "/0/0/0", "/0/0/0/0-6"))
    assert lines[3:6] == [
        "    − PTE   000-006 0-6fff → 0 rwx- 4K×7",
        "       PTE   000     0-fff → 0 rwx- 4K",
        "       PTE   001     1000-1fff → 1000 rwx- 4K",
    ]


def test_a_changed_entry_is_marked():
    guest = stepped()
    guest.changes = (MemoryChange(0x93038, b"\x01", b"\x21"),)
    assert [line[0] for line in tree_text(guest, ("/0", "/0/0", "/0/0/0"))] == list("    ▸    ")
    guest.focus = Focus(walk=0x7000)
    row = walk_rows(Reader(guest.view()), 62, walk_target(guest.view()))[4]
    assert row.spans[0].text == "▸"
    assert [span.text for span in row.spans if span.style == "changed"] == ["2"]


def test_tables_that_point_to_themselves_stay_bounded():
    guest = stepped()
    for i in range(512):
        guest.memory.word(0x90000 + 8 * i, 0x90003 | i << 52)
    opened = [f"/{a}" for a in range(512)] + [f"/{a}/{b}" for a in range(512) for b in range(8)]
    lines = tree_text(guest, opened)
    assert len(lines) <= 2000
    assert lines[-1].endswith("close some tables")


def test_keys_fold_and_walk():
    rows = tree_rows(Reader(stepped().view()), 62, frozenset({"/0", "/0/0"}))
    assert [row.key.kind for row in rows if row.key] == [Kind.FOLD, Kind.FOLD, Kind.FOLD, Kind.WALK, Kind.FOLD]
    assert rows[3].key.value == 0x200000
