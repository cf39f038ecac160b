from __future__ import annotations

from dataclasses import replace

from kvmscope.ui.line_panel import Key, Kind, plain
from kvmscope.ui.render.devices import QUIET, REST, DeviceLook, device_rows, sections
from kvmscope.ui.render.event_index import EventIndex
from kvmscope.vmm.events import MmioEvent, PortEvent
from kvmscope.vmm.snapshot import DeviceField, DeviceView
from tests.ui.render.fake import Guest, events, long_state, vcpus

UART = DeviceView("uart", "0x3f8-0x3ff", (DeviceField("IER", "0x00", "no interrupts"), DeviceField("LCR", "0x03")))
PIT = DeviceView("pit", "0x40-0x43", (DeviceField("count 0", "0"),))
RTC = DeviceView("rtc", "0x70-0x71", (DeviceField("A", "0x26", "32.768 kHz"), DeviceField("B", "0x02")))
APICS = tuple(
    DeviceView(f"lapic {i}", "xAPIC", (DeviceField("SVR", "0xff"), DeviceField("TPR", "0x00"))) for i in range(2)
)
BOOT = (UART, PIT, RTC, *APICS)
EVENTS = [PortEvent(4, 0x401000, 0, 0x3F8, 1, 0x48, True, "uart")]


def changed(device, name, value):
    fields = tuple(replace(field, value=value) if field.name == name else field for field in device.fields)
    return replace(device, fields=fields)


def drawn(guest, look=None, width=60):
    index = EventIndex()
    view = guest.view()
    index.update(view.snapshot)
    rows = device_rows(view, index, width, look or DeviceLook(boot=BOOT))
    return [line.rstrip(" ─") for line in plain(rows)]


def order(guest, look=None):
    index = EventIndex()
    view = guest.view()
    index.update(view.snapshot)
    return [
        (item.device.name, item.quiet, item.opened) for item in sections(view, index, look or DeviceLook(boot=BOOT))
    ]


def test_registers_and_accesses():
    before = (changed(UART, "IER", "0x01"),)
    lines = drawn(Guest(events=events(long_state())), DeviceLook(before=before))
    assert lines == [
        "▸− uart 0x3f8-0x3ff",
        "▸IER 0x00  no interrupts",
        " LCR 0x03",
        " − accesses (3)",
        "     9 40100e <done>     in8      port 61 = ff  unclaimed",
        "     9 40100e <done>     out32    port f4 ← 0000002a  debug…",
        "     4 401000 <start>    out8     port 3f8 ← 48 'H'  uart",
    ]


def test_untouched_devices_share_a_line():
    guest = Guest(events=EVENTS, devices=BOOT)
    assert drawn(guest) == [
        " − uart 0x3f8-0x3ff",
        "  + 2 as at boot",
        " + untouched (4): lapic0 pit rtc lapic1".replace(":", ""),
        " − accesses (1)",
        "     4 401000 <start>    out8     port 3f8 ← 48 'H'  uart",
    ]


def test_only_what_is_not_as_at_boot_is_shown():
    guest = Guest(events=EVENTS, devices=(changed(UART, "LCR", "0x80"), *BOOT[1:]))
    lines = drawn(guest)
    assert lines[1:3] == [" LCR 0x80", "  + 1 more as at boot"]
    lines = drawn(guest, DeviceLook(boot=BOOT, choices={"uart" + REST: True}))
    assert lines[1:4] == [" IER 0x00  no interrupts", " LCR 0x80", "  − only what is not as at boot"]


def test_the_rest_of_a_device_opens_by_its_key():
    guest = Guest(events=EVENTS, devices=BOOT)
    index = EventIndex()
    index.update(guest.view().snapshot)
    rows = device_rows(guest.view(), index, 60, DeviceLook(boot=BOOT))
    assert rows[1].key == Key(Kind.FOLD, "uart" + REST)
    assert rows[2].key == Key(Kind.FOLD, QUIET)


def test_untouched_devices_open_one_by_one_and_whole():
    guest = Guest(events=EVENTS, devices=BOOT)
    lines = drawn(guest, DeviceLook(boot=BOOT, choices={QUIET: True, "rtc": True}))
    assert " + pit 0x40-0x43" in lines
    at = lines.index(" − rtc 0x70-0x71")
    assert lines[at + 1 : at + 3] == [" A 0x26  32.768 kHz", " B 0x02"]


def test_a_device_is_untouched_before_its_first_access():
    # The future is known: the access lies behind the present.
    index = EventIndex()
    index.update(Guest(events=EVENTS, devices=BOOT).view().snapshot)
    past = Guest(events=[], devices=BOOT, tick=2, last_tick=9).view()
    index.update(past.snapshot)
    assert all(item.quiet for item in sections(past, index, DeviceLook(boot=BOOT)))


def test_accesses_that_are_no_longer_kept_count():
    index = EventIndex()
    index.update(Guest(events=EVENTS, devices=BOOT).view().snapshot)
    later = replace(Guest(events=[], devices=BOOT).view().snapshot, events_dropped=1)
    index.update(later)
    assert index.first_access("uart") == -1
    # A new machine has dropped nothing.
    index.update(Guest(events=[], devices=BOOT).view().snapshot)
    assert index.first_access("uart") == 0


def test_the_local_apic_of_the_vcpu_that_is_looked_at_comes_first():
    # Interrupts of others change a local APIC that its own vCPU never accessed.
    devices = (*BOOT[:3], changed(APICS[0], "SVR", "0x1ff"), changed(APICS[1], "TPR", "0x20"))
    guest = Guest(events=EVENTS, devices=devices, vcpus=vcpus(2))
    assert order(guest)[:3] == [("lapic 0", False, True), ("uart", False, True), ("lapic 1", False, False)]
    guest.vcpu = 1
    assert order(guest)[:3] == [("lapic 1", False, True), ("uart", False, True), ("lapic 0", False, False)]


def test_a_word_chooses_devices_and_registers():
    found = [*EVENTS, MmioEvent(5, 0x401000, 0, 0xFEE000F0, 4, 0x1FF, True, "lapic 0")]
    guest = Guest(events=found, devices=BOOT)
    lines = drawn(guest, DeviceLook(boot=BOOT, wanted="LAPIC 0"))
    assert lines[:3] == [" − lapic 0 xAPIC", " SVR 0xff", " TPR 0x00"]
    assert len(lines) == 5
    assert "mmio fee000f0" in lines[4]
    lines = drawn(guest, DeviceLook(boot=BOOT, wanted="tpr"))
    assert lines[:4] == [" − lapic 0 xAPIC", " TPR 0x00", " − lapic 1 xAPIC", " TPR 0x00"]
    assert drawn(guest, DeviceLook(boot=BOOT, wanted="nix"))[0] == " no device or register named 'nix'"


def test_everything_at_once():
    lines = drawn(Guest(events=EVENTS, devices=BOOT), DeviceLook(boot=BOOT, every=True))
    assert [line for line in lines if line.startswith(" − ")] == [
        " − uart 0x3f8-0x3ff",
        " − lapic 0 xAPIC",
        " − pit 0x40-0x43",
        " − rtc 0x70-0x71",
        " − lapic 1 xAPIC",
        " − accesses (1)",
    ]
    assert "  − only what is not as at boot" not in lines


def test_a_register_that_appears_is_a_change():
    grown = replace(PIT, fields=(*PIT.fields, DeviceField("count 1", "7")))
    found = [PortEvent(4, 0x401000, 0, 0x40, 1, 1, True, "pit")]
    guest = Guest(events=found, devices=(grown,))
    assert drawn(guest, DeviceLook(before=(PIT,), boot=(PIT,)))[:2] == ["▸− pit 0x40-0x43", "▸count 1 7"]
