"""The panels in a terminal: what their keys do, and that the present stays on screen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from textual.app import App, ComposeResult

from kvmscope.ui.line_panel import Key, Kind, LinePanel, PanelActivated
from kvmscope.ui.panels import (
    DescriptorsPanel,
    DevicesPanel,
    DisassemblyPanel,
    ExplanationPanel,
    MemoryPanel,
    PagingPanel,
    RegistersPanel,
    SerialPanel,
    TimelinePanel,
)
from kvmscope.ui.render.event_text import EventKind
from kvmscope.ui.view import Focus, View
from kvmscope.vmm.events import PortEvent
from tests.ui.render.fake import CODE, Guest, Words, events, long_state, stepped

ALL = (
    DescriptorsPanel,
    DevicesPanel,
    DisassemblyPanel,
    ExplanationPanel,
    MemoryPanel,
    PagingPanel,
    RegistersPanel,
    SerialPanel,
    TimelinePanel,
)


class Bench(App[None]):
    """One panel alone on the screen."""

    def __init__(self, panel: LinePanel, view: View | None) -> None:
        super().__init__()
        self.panel = panel
        self.first = view
        self.activated: list[Key] = []

    def compose(self) -> ComposeResult:
        yield self.panel

    def on_mount(self) -> None:
        if self.first is not None:
            self.panel.show(self.first)
        self.panel.focus()

    def on_panel_activated(self, message: PanelActivated) -> None:
        self.activated.append(message.key)


def lines(panel: LinePanel) -> list[str]:
    """What is drawn, the title line included."""
    return [panel.render_line(y).text.rstrip() for y in range(panel.size.height)]


def drive(panel, view, script: Callable[[Bench, object], Awaitable[None]], size=(60, 16)) -> Bench:
    app = Bench(panel, view)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(run())
    return app


def full_guest() -> Guest:
    guest = stepped()
    guest.events = events(guest.cpu)
    guest.serial = b"".join(b"line %d\n" % i for i in range(60))
    guest.explanation = Words("title", ("a line",))
    return guest


@pytest.mark.parametrize("panel", ALL)
@pytest.mark.parametrize("size", [(44, 11), (100, 50), (20, 3)])
def test_every_panel_draws_at_every_size(panel, size):
    seen: list[str] = []

    async def script(app, pilot):
        seen.extend(lines(app.panel))

    drive(panel(), full_guest().view(), script, size)
    assert panel.TITLE in seen[0]
    assert any(line.strip() for line in seen[1:])
    assert panel.HELP
    assert panel.KIND


@pytest.mark.parametrize("panel", ALL)
def test_without_a_machine_a_panel_says_how_to_start(panel):
    async def script(app, pilot):
        assert "Press s" in lines(app.panel)[1]
        await pilot.press("down", "pagedown", "end", "home", "enter", "a", "plus", "minus")

    drive(panel(), None, script)


@pytest.mark.parametrize("panel", ALL)
def test_scrolling_and_moving_anywhere_is_harmless(panel):
    async def script(app, pilot):
        for key in ("down", "pagedown", "pagedown", "end", "up", "pageup", "home", "right", "left", "end", "pagedown"):
            await pilot.press(key)
            assert len(lines(app.panel)) == 16

    drive(panel(), full_guest().view(), script)


def test_a_group_folds_with_enter_and_all_with_minus():
    async def script(app, pilot):
        panel = app.panel
        assert panel.select(Key(Kind.FOLD, "segments"))
        await pilot.press("enter")
        assert "segments" in panel.folded
        assert any(line.startswith(" + segments") for line in lines(panel))
        await pilot.press("plus")
        assert panel.folded == frozenset()
        await pilot.press("minus")
        assert any(line.startswith(" + msrs") for line in lines(panel))
        assert app.activated == []

    drive(RegistersPanel(), full_guest().view(), script, (60, 24))


def test_enter_on_a_register_asks_to_edit_it():
    async def script(app, pilot):
        assert app.panel.select(Key(Kind.REGISTER, "rbx"))
        await pilot.press("enter")

    app = drive(RegistersPanel(), full_guest().view(), script)
    assert app.activated == [Key(Kind.REGISTER, "rbx", "0x402000", 0x402000)]


def test_register_panel_tells_the_mode():
    async def script(app, pilot):
        assert "64-bit CPL 0" in lines(app.panel)[0]

    drive(RegistersPanel(), full_guest().view(), script)


def test_disassembly_scrolls_and_comes_back_with_the_next_step():
    async def script(app, pilot):
        panel = app.panel
        await pilot.press("pagedown", "pagedown", "pagedown")
        assert not any("▶" in line for line in lines(panel))
        guest = full_guest()
        guest.cpu = replace(guest.cpu, rip=CODE + 8)
        panel.show(guest.view())
        await pilot.pause()
        assert any("▶" in line for line in lines(panel))
        await pilot.press("pagedown", "pagedown", "pagedown", "home")
        assert any("▶" in line for line in lines(panel))

    drive(DisassemblyPanel(), full_guest().view(), script)


def test_disassembly_goes_where_the_user_looks():
    async def script(app, pilot):
        panel = app.panel
        panel.show(panel.view.looking_at(Focus(code=0x402000)))
        await pilot.pause()
        assert "table" in lines(panel)[0]
        assert any("table:" in line for line in lines(panel))

    drive(DisassemblyPanel(), full_guest().view(), script)


def test_memory_scrolls_and_returns():
    async def script(app, pilot):
        panel = app.panel
        assert lines(panel)[1].startswith(" 0007ffe0›")
        panel.scroll_lines(-2)
        assert lines(panel)[1].startswith(" 0007ffd0")
        panel.scroll_lines(-1 << 40)
        assert lines(panel)[1].startswith(" 00000000")
        panel.edge_reached(1)
        assert lines(panel)[1].startswith(" 0007ffe0›")

    drive(MemoryPanel(), full_guest().view(), script)


def test_memory_as_pointers():
    async def script(app, pilot):
        await pilot.press("a")
        assert lines(app.panel)[1].rstrip() == " 0007ffe0 +0000 rsp     0000000000401004 <start+4>"
        assert "rsp pointers" in lines(app.panel)[0]

    drive(MemoryPanel(), full_guest().view(), script)


def test_enter_on_a_byte_asks_to_edit_it():
    async def script(app, pilot):
        await pilot.press("right", "enter")

    app = drive(MemoryPanel(), full_guest().view(), script)
    assert app.activated == [Key(Kind.BYTE, 0x7FFE1, "10", 0x7FFE1)]


def test_tables_open_and_close():
    async def script(app, pilot):
        panel = app.panel
        assert "/0/0/0" in panel.opened
        assert panel.select(Key(Kind.FOLD, "/0/0"))
        await pilot.press("enter")
        assert any(line.startswith("  + PDPTE 000") for line in lines(panel))
        await pilot.press("enter")
        assert any(line.startswith("  − PDPTE 000") for line in lines(panel))

    drive(PagingPanel(), full_guest().view(), script, (62, 40))


def test_another_walk_opens_its_own_tables():
    async def script(app, pilot):
        panel = app.panel
        panel.show(panel.view.looking_at(Focus(walk=0x402000)))
        await pilot.pause()
        assert panel.opened == {"/0", "/0/0", "/0/0/2"}
        assert any("walk of 00402000 <table>" in line for line in lines(panel))

    drive(PagingPanel(), full_guest().view(), script, (62, 40))


def test_serial_follows_the_end_until_scrolled():
    async def script(app, pilot):
        panel = app.panel
        assert lines(panel)[-1] == " line 59"
        await pilot.press("pageup")
        assert lines(panel)[-1] == " line 45"
        assert "14 lines below" in lines(panel)[0]
        await pilot.press("home")
        assert lines(panel)[1] == " line 0"
        await pilot.press("end")
        assert lines(panel)[-1] == " line 59"

    drive(SerialPanel(), full_guest().view(), script)


def test_timeline_filters_kind_by_kind():
    async def script(app, pilot):
        panel = app.panel
        assert "7 events" in lines(panel)[0]
        await pilot.press("a")
        assert panel.kinds == {EventKind.EXCEPTION}
        assert sum("#PF" in line for line in lines(panel)) == 1
        assert "exceptions: 1 of 7" in lines(panel)[0]
        for _ in range(4):
            await pilot.press("a")
        await pilot.press("a")
        assert panel.kinds == frozenset()

    drive(TimelinePanel(), full_guest().view(), script)


def test_enter_on_an_event_asks_to_go_there():
    async def script(app, pilot):
        assert app.panel.select(Key(Kind.TICK, 6))
        await pilot.press("enter")

    app = drive(TimelinePanel(), full_guest().view(), script)
    assert [key[:2] for key in app.activated] == [(Kind.TICK, 6)]


def test_timeline_shows_the_present_among_many():
    guest = Guest(events=[PortEvent(i, CODE, 0, 0x80, 1, 1, True, "") for i in range(2000)], tick=999, last_tick=1999)
    full = replace(guest.view().snapshot, tick=1999)

    async def script(app, pilot):
        panel = app.panel
        panel.show(replace(app.first, snapshot=full))
        await pilot.pause()
        guest.events = guest.events[:1000]
        panel.show(guest.view())
        await pilot.pause()
        shown = lines(panel)
        assert any(line.startswith("▶") and " 999 " in line for line in shown)
        assert any(line.startswith(" ·") for line in shown)
        await pilot.press("home")
        assert any(line.split()[:1] == ["0"] for line in lines(panel))

    drive(TimelinePanel(), guest.view(), script)


def test_device_fields_that_changed_are_marked():
    async def script(app, pilot):
        guest = full_guest()
        device = guest.devices[0]
        guest.devices = (replace(device, fields=(replace(device.fields[0], value="0x07"), *device.fields[1:])),)
        app.panel.show(guest.view())
        await pilot.pause()
        assert any(line.startswith("▸IER 0x07") for line in lines(app.panel))

    drive(DevicesPanel(), full_guest().view(), script)


def test_a_step_repaints_few_lines():
    """Between two steps only the rows that differ are drawn again."""
    repainted: list[int] = []

    async def script(app, pilot):
        panel = app.panel
        before = long_state()
        panel.show(Guest(before).view())
        await pilot.pause()
        inner = panel._repaint
        panel._repaint = lambda found: (repainted.append(len(found)), inner(found))
        panel.show(Guest(replace(before, rip=CODE + 4), before).view())
        await pilot.pause()

    drive(RegistersPanel(), Guest().view(), script, (60, 30))
    assert repainted[0] == 1
