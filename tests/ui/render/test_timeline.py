from __future__ import annotations

from dataclasses import replace

import pytest

from kvmscope.asm.image import Image
from kvmscope.ui.line_panel import Key, Kind, plain
from kvmscope.ui.render.event_index import EventIndex
from kvmscope.ui.render.event_text import EventKind, describe
from kvmscope.ui.render.reader import Symbols
from kvmscope.ui.render.timeline import bar_rows, event_rows, filter_words, follow_first
from kvmscope.vmm.events import (
    ControlRegisterEvent,
    Event,
    ExceptionEvent,
    ExceptionSource,
    MmioEvent,
    ModeEvent,
    MsrEvent,
    PortEvent,
)
from tests.ui.render.fake import CODE, Guest, events, image, long_state, page_fault, vcpus

STATE = long_state()


def port(tick, number=0x3F8):
    return PortEvent(tick, 0x401000, 0, number, 1, 65, True, "uart")


def guest(found, tick=9, last=9):
    return Guest(events=found, tick=tick, last_tick=last)


def indexed(a_guest, index=None):
    index = index or EventIndex()
    index.update(a_guest.view().snapshot)
    return index


def text(a_guest, width=70, height=20, kinds=frozenset()):
    index = indexed(a_guest)
    rows = event_rows(a_guest.view(), index, index.positions(kinds), width, height, 0)
    return [line.rstrip() for line in plain(rows)]


def test_one_row_an_event():
    assert text(guest(events(STATE)), 80) == [
        "     0   7c00            mode     16 -> 32",
        "     1   7c10            cr0      11 → 80000011 +PG",
        "     2   7c20            wrmsr    IA32_EFER ← 500",
        "     4 401000 <start>    out8     port 3f8 ← 48 'H'  uart",
        "     6 401000 <start>    #PF(3)   write 7000, supervisor, protection violation…",
        "     9 40100e <done>     out32    port f4 ← 0000002a  debug-exit",
        "▶    9 40100e <done>     in8      port 61 = ff  unclaimed",
    ]


@pytest.mark.parametrize(
    ("event", "verb", "words"),
    [
        (page_fault(1, STATE), "#PF(3)", "write 7000, supervisor, protection violation → 401010 <done+2>"),
        (
            ExceptionEvent(1, 0, 0, 13, ExceptionSource.FAULT, 0x28, None, None, STATE, delivered=False),
            "#GP(28)",
            "selector 0x28 (GDT[5]) ✗ not delivered",
        ),
        (
            ExceptionEvent(1, 0, 0, 8, ExceptionSource.FAULT, 0, None, None, STATE, parent=13, handler=0x401000),
            "#DF(0)",
            "while delivering #GP → 401000 <start>",
        ),
        (
            ExceptionEvent(1, 0, 0, 0x80, ExceptionSource.SOFTWARE, None, None, None, STATE, handler=0x99),
            "INT 0x80",
            "software interrupt → 99",
        ),
        (
            ExceptionEvent(1, 0, 0, 1, ExceptionSource.FAULT, None, None, 0x4000, STATE, handler=0x99),
            "#DB",
            "DR6 4000 → 99",
        ),
        (
            ExceptionEvent(1, 0, 0, 0x20, ExceptionSource.EXTERNAL, None, None, None, STATE, handler=0x401000),
            "IRQ 0x20",
            "→ 401000 <start>",
        ),
        (ExceptionEvent(1, 0, 0, 2, ExceptionSource.EXTERNAL, None, None, None, STATE, handler=0x99), "NMI", "→ 99"),
        (
            ExceptionEvent(1, 0, 0, 14, ExceptionSource.EXTERNAL, None, None, None, STATE, handler=0x99),
            "IRQ 0xe",
            "→ 99",
        ),
        (PortEvent(1, 0, 0, 0x71, 2, 0x1234, False, ""), "in16", "port 71 = 1234  unclaimed"),
        (MmioEvent(1, 0, 0, 0xFEE00020, 4, 1, True, "lapic 1"), "out32", "mmio fee00020 ← 00000001  lapic 1 ID"),
        (MmioEvent(1, 0, 0, 0xFEE00024, 4, 1, True, "lapic 1"), "out32", "mmio fee00024 ← 00000001  lapic 1"),
        (MmioEvent(1, 0, 0, 0xFEC00010, 4, 1, False, "ioapic"), "in32", "mmio fec00010 = 00000001  ioapic IOWIN"),
        (MsrEvent(1, 0, 0, 0x830, 0x100004500, True), "wrmsr", "x2APIC ICR ← 100004500"),
        (MsrEvent(1, 0, 0, 0x8FF, 1, True), "wrmsr", "0x8ff ← 1"),
        (MsrEvent(1, 0, 0, 0x12345, 7, False), "rdmsr", "0x12345 = 7"),
        (ControlRegisterEvent(1, 0, 0, "cr3", 0x1000, 0x2000), "cr3", "1000 → 2000"),
        (ControlRegisterEvent(1, 0, 0, "cr4", 0x21, 0x20), "cr4", "21 → 20 -VME"),
        (ControlRegisterEvent(1, 0, 0, "dr0", 0, 0x20), "dr0", "0 → 20"),
        (ModeEvent(1, 0, 0, "CPL 0 -> 3"), "mode", "CPL 0 -> 3"),
        (Event(1, 0, 0), "", ""),
    ],
)
def test_events_in_words(event, verb, words):
    found = describe(event, Symbols(image()))
    assert (found.verb, "".join(span.text for span in found.spans)) == (verb, words)


def test_hostile_port_bytes_are_no_text():
    found = describe(PortEvent(1, 0, 0, 0x3F8, 1, 0x1B, True, "uart"), Symbols(Image((), {})))
    assert "".join(span.text for span in found.spans) == "port 3f8 ← 1b  uart"


def test_rows_lead_to_their_tick():
    a_guest = guest(events(STATE))
    index = indexed(a_guest)
    rows = event_rows(a_guest.view(), index, index.positions(frozenset()), 80, 20, 0)
    assert rows[4].key == Key(Kind.TICK, 6, "6", STATE.rip)


def test_filter():
    lines = text(guest(events(STATE)), 80, kinds=frozenset({EventKind.EXCEPTION, EventKind.MSR}))
    assert [line[25:31] for line in lines] == ["wrmsr ", "#PF(3)"]
    index = indexed(guest(events(STATE)))
    assert filter_words(index, frozenset()) == "7 events"
    assert filter_words(index, frozenset({EventKind.IO})) == "I/O: 3 of 7"


def test_the_future_stays_while_history_holds_it():
    every = events(STATE)
    index = indexed(guest(every))
    back = guest(every[:3], tick=2, last=9)
    indexed(back, index)
    rows = [line.rstrip() for line in plain(event_rows(back.view(), index, range(7), 80, 20, 0))]
    assert [row[:2] for row in rows] == ["  ", "  ", "▶", " ·", " ·", " ·", " ·"] or rows[2].startswith("▶")
    assert [row[1] for row in rows[3:]] == ["·"] * 4
    # An edit in the past cuts the future.
    indexed(guest(every[:3], tick=2, last=2), index)
    assert len(index.events) == 3


def test_another_history_is_not_mixed_with_the_old_one():
    index = indexed(guest([port(1), port(2), port(3)]))
    indexed(guest([port(1), port(2, 0x80)], tick=2, last=2), index)
    assert [event.port for event in index.events] == [0x3F8, 0x80]
    # As long as before and ending alike: only the records themselves tell.
    index = indexed(guest([port(1), port(2), port(3)]))
    indexed(guest([port(1, 0x80), port(2), port(3)]), index)
    assert [event.port for event in index.events] == [0x80, 0x3F8, 0x3F8]


def test_a_future_that_was_cut_does_not_come_back():
    old = [port(i) for i in range(10)]
    index = indexed(guest(old))
    indexed(guest(old[:4], tick=3, last=3), index)
    new = [*old[:4], port(5, 0x80)]
    indexed(guest(new, tick=9, last=9), index)
    indexed(guest(new[:2], tick=1, last=9), index)
    assert index.events == new
    assert index.here == 2


def test_dropped_events_begin_the_index_anew():
    index = indexed(guest([port(i) for i in range(5)]))
    later = guest([port(i) for i in range(3, 8)])
    snapshot = replace(later.view().snapshot, events_dropped=3)
    index.update(snapshot)
    assert [event.tick for event in index.events] == [3, 4, 5, 6, 7]


def test_index_by_kind_survives_truncation():
    every = events(STATE)
    index = indexed(guest(every))
    indexed(guest(every[:4], tick=4, last=4), index)
    assert index.kinds() == {EventKind.IO: 1, EventKind.MSR: 1, EventKind.CONTROL: 1, EventKind.MODE: 1}
    assert list(index.positions(frozenset({EventKind.IO}))) == [3]


def test_density_over_the_whole_history():
    a_guest = guest([port(0), *[port(50)] * 8, port(99)], tick=99, last=99)
    index = indexed(a_guest)
    assert index.density(10, 99) == "▁   █    ▁"
    rows = plain(bar_rows(a_guest.view(), index, 12))
    assert rows[0] == " ▁   █    ▁"
    assert rows[1].rstrip() == "       99 ▲"


@pytest.mark.parametrize(("tick", "at"), [(0, 1), (49, 5), (55, 6), (99, 10)])
def test_the_mark_stands_under_the_present(tick, at):
    a_guest = guest([port(0)], tick=tick, last=99)
    assert plain(bar_rows(a_guest.view(), indexed(a_guest), 12))[1].index("▲") == at


def test_the_present_is_on_screen():
    found = [port(i) for i in range(1000)]
    index = indexed(guest(found, 999, 999))
    assert follow_first(index, index.positions(frozenset()), 10) == 990
    indexed(guest(found[:500], 499, 999), index)
    first = follow_first(index, index.positions(frozenset()), 10)
    assert first < 500 < first + 10


def test_interrupts_are_a_kind_of_their_own():
    irq = ExceptionEvent(7, CODE, 0, 0x20, ExceptionSource.EXTERNAL, None, None, None, STATE, handler=0x99)
    index = indexed(guest([*events(STATE)[:5], irq]))
    assert index.kinds()[EventKind.INTERRUPT] == 1
    assert list(index.positions(frozenset({EventKind.INTERRUPT}))) == [5]


def test_of_several_vcpus_each_event_has_its_own():
    found = [replace(port(3), vcpu=1), port(4), replace(port(5), vcpu=10)]
    a_guest = guest(found)
    a_guest.vcpus = vcpus(12)
    assert text(a_guest, 62) == [
        "     3 v1  401000 <start>    out8     port 3f8 ← 41 'A'  uart",
        "     4 v0  401000 <start>    out8     port 3f8 ← 41 'A'  uart",
        "     5 v10 401000 <start>    out8     port 3f8 ← 41 'A'  uart",
    ]
    rows = event_rows(a_guest.view(), indexed(a_guest), range(3), 60, 20, 0)
    assert len({row.spans[3].style for row in rows}) == 3


@pytest.mark.parametrize("last", [1, 3, 7, 158, 159, 5000])
def test_the_mark_stands_under_the_event_of_its_tick(last):
    for tick in {1, last // 2 + 1, last}:
        a_guest = guest([port(tick)], tick=tick, last=last)
        bar, mark = plain(bar_rows(a_guest.view(), indexed(a_guest), 160))
        assert mark.index("▲") == bar.index("█")
