from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kvmscope.ui.vcpu_texts import Since, duration, guest_time, since, vcpu_glyph, vcpu_items
from kvmscope.vmm.engine import Activity
from tests.debug.support import TWO_VCPUS
from tests.ui.render.fake import Guest, vcpus
from tests.ui.support import CALLING, drive

ROOT = Path(__file__).parents[2]
GUEST = f"; /// kvmscope\n; smp = 2\n; ///\n{TWO_VCPUS}"


def words(items):
    return "".join(item.text for item in items)


def snapshot(**changes):
    guest = Guest(vcpus=vcpus(4, v1=Activity.HALTED, v2=Activity.WAIT_FOR_SIPI))
    return replace(guest.view().snapshot, **changes)


def test_the_strip_says_what_each_vcpu_does():
    found = snapshot()
    assert words(vcpu_items(found, 80)) == "vCPU 0/4  0▶ 1H 2W 3▷"
    frozen = (*found.vcpus[:3], replace(found.vcpus[3], frozen=True))
    items = vcpu_items(replace(found, vcpus=frozen, vcpu=3), 80)
    assert words(items) == "vCPU 3/4  0▶ 1H 2W 3❄"
    assert [item.text for item in items if item.style == "bar_run"] == ["3❄"]
    assert [item.action for item in items if item.text[0].isdigit()] == [f"vcpu({i})" for i in range(4)]


def test_without_room_the_strip_goes_and_with_one_vcpu_all_of_it():
    assert words(vcpu_items(snapshot(), 20)) == "vCPU 0/4"
    assert vcpu_items(snapshot(vcpus=()), 80) == []
    assert vcpu_glyph(replace(snapshot().vcpus[1], frozen=True)) == "❄"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1000, "1 µs"), (12_345, "12.345 µs"), (1_500_000, "1.5 ms"), (1_000_001, "1.000001 ms"),
     (61_000_000_000, "61 s")],
)  # fmt: skip
def test_durations_are_exact(nanoseconds, text):
    assert duration(nanoseconds) == text


def test_guest_time_is_shown_where_it_is_not_the_tick():
    assert guest_time(snapshot(tick=9, time=9), Since(), 80) == ""
    assert guest_time(snapshot(tick=9, time=1_009), Since(passed=1_004), 80) == "t=1.009 µs (+1.004 µs)"
    assert guest_time(snapshot(tick=9, time=1_009), Since(passed=1_004), 12) == "t=1.009 µs"
    assert guest_time(snapshot(tick=9, time=1_009), Since(), 8) == ""


def test_what_a_command_did_beside_its_delta():
    before = Guest(tick=5, time=5, vcpus=vcpus(2)).view()
    now = Guest(tick=9, time=1_009, vcpus=vcpus(2), vcpu=1, image=before.image).view()
    assert since(before, now) == Since(0, 1_004)
    assert since(None, now) == Since()
    assert since(now, before) == Since()
    # The user's own choice of another one moves nothing.
    chosen = replace(before, snapshot=replace(before.snapshot, vcpu=1))
    assert since(before, chosen) == Since()


def test_v_looks_at_the_next_vcpu_and_steps_it():
    async def scenario(bench):
        assert "vCPU 0/2  0▶ 1W" in bench.main.header.plain
        await bench.command("until second")
        assert bench.main.view.snapshot.vcpu == 1
        assert "vCPU 1/2" in bench.main.header.plain
        assert "vCPU 1 · 16-bit" in bench.screen_text()
        await bench.press("s")
        assert bench.register(1) & 0xFFFF == 1
        await bench.press("v")
        assert bench.main.view.snapshot.vcpu == 0
        before = bench.register(0)
        await bench.press("s", "s", "s")
        assert bench.register(0) == before + 1
        await bench.press("V")
        assert bench.main.view.snapshot.vcpu == 1

    drive(scenario, GUEST)


def test_capital_l_freezes_the_others_and_lets_them_go():
    async def scenario(bench):
        await bench.command("until second")
        await bench.press("L")
        assert "0❄" in bench.main.header.plain
        assert "Only vCPU 1 gets turns" in bench.main.status.plain
        before = bench.main.view.snapshot.vcpus[0].cpu
        await bench.press("s", "s", "s", "s")
        assert bench.main.view.snapshot.vcpus[0].cpu == before
        await bench.press("L")
        assert "❄" not in bench.main.header.plain

    drive(scenario, GUEST)


def test_a_click_on_the_strip_selects():
    async def scenario(bench):
        await bench.command("until second")
        at = bench.main.header.plain.index("0▷")
        await bench.pilot.click("#header", offset=(at, 0))
        await bench.idle()
        assert bench.main.view.snapshot.vcpu == 0

    drive(scenario, GUEST)


def test_a_breakpoint_of_another_vcpu_selects_it_and_says_so():
    async def scenario(bench):
        await bench.command("break second")
        await bench.press("c")
        assert bench.main.view.snapshot.vcpu == 1
        assert bench.main.status.plain.startswith(" vCPU 0 → vCPU 1: Breakpoint at 0x8001 <second>")
        # It is not the other one's breakpoint.
        await bench.press("v")
        assert "Breakpoint" not in bench.main.status.plain
        await bench.press("v", "c")
        assert bench.main.status.plain.startswith(" vCPU 1: Breakpoint at 0x8001 <second>")

    drive(scenario, GUEST)


def test_with_one_vcpu_nothing_is_different():
    async def scenario(bench):
        assert "vCPU" not in bench.screen_text()
        await bench.press("v")
        assert "This machine has one vCPU" in bench.main.status.plain
        await bench.press("L")
        assert bench.tick == 0

    drive(scenario, CALLING)


def test_devices_fold_open_and_filter():
    async def scenario(bench):
        await bench.command("until second")
        await bench.press("0", "z")
        assert bench.app.focused is bench.main.panels["devices"]
        # vCPU 1 has not touched its own.
        assert "− lapic 0" not in bench.screen_text()
        await bench.press("v")
        assert "− lapic 0" in bench.screen_text()
        assert "SVR 0x000001ff" in bench.screen_text()
        assert "CURRENT_COUNT" not in bench.screen_text()
        await bench.press("a")
        assert "CURRENT_COUNT" in bench.screen_text()
        await bench.press("a", "slash")
        await bench.type("svr")
        await bench.press("enter")
        assert bench.screen_text().count("SVR") == 2
        assert "/svr" in bench.screen_text()
        assert "untouched" not in bench.screen_text()
        await bench.press("slash", "ctrl+u", "enter")
        assert "untouched" in bench.screen_text()

    drive(scenario, GUEST)


def test_an_event_is_looked_at_from_its_own_vcpu():
    async def scenario(bench):
        seen = []
        for _ in range(12):
            await bench.press("]")
            event = bench.main.view.snapshot.events[-1]
            assert event.tick == bench.tick
            seen.append(bench.main.view.snapshot.vcpu)
        assert set(seen) == {0, 1}
        await bench.press("[", "[", "[")
        assert bench.main.view.snapshot.vcpu == seen[8]
        await bench.press("6", "home", "enter")
        assert bench.main.view.snapshot.vcpu == seen[0]

    drive(scenario, (ROOT / "reproducers" / "ipi.asm").read_text())
