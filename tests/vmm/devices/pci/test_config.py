"""Configuration mechanism #1, headers, base addresses and routing."""

from __future__ import annotations

import pytest

from kvmscope.vmm.devices.pci import devfn
from tests.vmm.devices.pci.machine import EDU, TESTDEV, PciMachine

PC = {0x00: 0x12378086, 0x08: 0x70008086, 0x0B: 0x71138086, EDU: 0x11E81234, TESTDEV: 0x00051B36}
Q35 = {0x00: 0x29C08086, 0xF8: 0x29188086, EDU: 0x11E81234, TESTDEV: 0x00051B36}


@pytest.mark.parametrize(("q35", "expected"), [(False, PC), (True, Q35)])
def test_enumeration(q35: bool, expected: dict[int, int]) -> None:
    machine = PciMachine(q35)
    assert {f: found for f in range(256) if (found := machine.read(f, 0)) != 0xFFFFFFFF} == expected


def test_address_register_is_a_dword() -> None:
    bus = PciMachine().bus
    bus.port_write(0xCF8, 4, 0xFFFFFFFF)
    assert bus.port_read(0xCF8, 4)[0] == 0x80FFFFFF
    for size in (1, 2):
        bus.port_write(0xCF8, size, 0)
        assert bus.port_read(0xCF8, size)[0] == (1 << 8 * size) - 1
    assert bus.port_read(0xCF8, 4)[0] == 0x80FFFFFF


@pytest.mark.parametrize("address", [0x00000000, 0x80010000, 0x8000F800])
def test_nobody_answers(address: int) -> None:
    bus = PciMachine().bus
    bus.port_write(0xCF8, 4, address)
    bus.port_write(0xCFC, 4, 0)
    assert [bus.port_read(0xCFC, size)[0] for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]


@pytest.mark.parametrize(("register", "size", "value"), [(0, 2, 0x1234), (2, 2, 0x11E8), (1, 1, 0x12), (3, 1, 0x11)])
def test_bytes_and_words_by_either_way_of_addressing(register: int, size: int, value: int) -> None:
    machine = PciMachine()
    assert machine.read(EDU, register, size) == value
    machine.bus.port_write(0xCF8, 4, 0x80000000 | EDU << 8 | register)
    assert machine.bus.port_read(0xCFC, size)[0] == value, "low bits in the address register"


def test_headers() -> None:
    machine = PciMachine()
    assert machine.read(devfn(0), 0x08) == 0x06000002
    assert machine.read(devfn(1), 0x0E, 1) == 0x80
    assert machine.read(devfn(1), 0x08) == 0x06010000
    assert machine.read(EDU, 0x08) == 0x00FF0010
    assert machine.read(EDU, 0x3D, 1) == 1
    assert machine.read(EDU, 0x2C) == 0x11001AF4
    machine.write(EDU, 0, 0)
    assert machine.read(EDU, 0) == 0x11E81234


def test_capability_list_leads_to_msi() -> None:
    machine = PciMachine()
    assert machine.read(EDU, 0x06, 2) & 0x10
    at = machine.read(EDU, 0x34, 1)
    assert machine.read(EDU, at) == 0x00800005
    assert machine.read(TESTDEV, 0x06, 2) & 0x10 == 0
    assert machine.read(TESTDEV, 0x34, 1) == 0


@pytest.mark.parametrize(("source", "number", "size"), [(EDU, 0, 1 << 20), (TESTDEV, 0, 4096), (TESTDEV, 1, 256)])
def test_sizing(source: int, number: int, size: int) -> None:
    machine = PciMachine()
    register = 0x10 + 4 * number
    before = machine.read(source, register)
    machine.write(source, register, 0xFFFFFFFF)
    kind = before & 1
    assert machine.read(source, register) == 0x100000000 - size | kind
    machine.write(source, register, before)
    assert machine.read(source, register) == before
    assert before & ~0xF


def test_no_base_address_where_there_is_none() -> None:
    machine = PciMachine()
    machine.write(EDU, 0x14, 0xFFFFFFFF)
    machine.write(EDU, 0x30, 0xFFFFFFFF)
    assert machine.read(EDU, 0x14) == 0
    assert machine.read(EDU, 0x30) == 0


def test_firmware_gave_every_window_a_place_of_its_own() -> None:
    machine = PciMachine()
    places = [machine.bar(EDU, 0), machine.bar(TESTDEV, 0), machine.bar(TESTDEV, 1)]
    assert len(set(places)) == 3
    assert machine.bus.memory_read(places[0], 4) == (0x010000ED, "edu")
    assert machine.bus.memory_read(places[1], 1) == (0, "pci-testdev")
    assert machine.bus.port_read(places[2], 1) == (0, "pci-testdev")
    assert machine.read(EDU, 4, 2) == 0x0102
    assert machine.read(TESTDEV, 4, 2) == 0x0103


def test_moving_a_base_address_moves_the_registers() -> None:
    machine = PciMachine()
    old = machine.bar(EDU, 0)
    machine.write(EDU, 0x10, 0xE0012345)
    assert machine.bar(EDU, 0) == 0xE0000000, "aligned to its size"
    assert machine.bus.memory_read(0xE0000000, 4) == (0x010000ED, "edu")
    assert machine.bus.memory_read(old, 4) == (0xFFFFFFFF, "")
    machine.write(TESTDEV, 0x14, 0x5000)
    assert machine.bus.port_read(0x5000, 1) == (0, "pci-testdev")


@pytest.mark.parametrize("where", [0, 0xFFF00000])
def test_places_that_decode_nothing(where: int) -> None:
    machine = PciMachine()
    machine.write(EDU, 0x10, where)
    assert machine.bus.memory_read(where, 4) == (0xFFFFFFFF, "")


def test_command_register_switches_decoding() -> None:
    machine = PciMachine()
    memory, ports = machine.bar(TESTDEV, 0), machine.bar(TESTDEV, 1)
    machine.write(TESTDEV, 4, 0x0001, 2)
    assert machine.bus.memory_read(memory, 1)[1] == ""
    assert machine.bus.port_read(ports, 1)[1] == "pci-testdev"
    machine.write(TESTDEV, 4, 0x0002, 2)
    assert machine.bus.memory_read(memory, 1)[1] == "pci-testdev"
    assert machine.bus.port_read(ports, 1)[1] == ""
    machine.write(EDU, 4, 0xFFFF, 2)
    assert machine.read(EDU, 4, 2) == 0x0546, "no ports, so no bit for them"


def test_status_errors_clear_by_ones() -> None:
    machine = PciMachine()
    machine.edu.set_config(6, 2, 0xF910)
    machine.write(EDU, 6, 0x4800, 2)
    assert machine.read(EDU, 6, 2) == 0xB110


# ISA lines of INTA# as firmware routes them: device 4 -> PIRQD, device 5 -> PIRQA.
def test_piix3_routes_intx() -> None:
    machine = PciMachine()
    assert machine.read(EDU, 0x3C, 1) == 11
    machine.edu.set_intx(True)
    assert machine.lines.high == {11}
    machine.write(devfn(1), 0x63, 0x05, 1)
    assert machine.lines.high == {5}, "the route has moved"
    machine.write(devfn(1), 0x63, 0x80, 1)
    assert machine.lines.high == set()
    machine.write(devfn(1), 0x63, 0x0D, 1)
    assert machine.lines.high == set(), "reserved"
    machine.write(devfn(1), 0x63, 0x0A, 1)
    machine.edu.set_intx(False)
    assert machine.lines.high == set()


def test_ich9_routes_intx_to_both() -> None:
    machine = PciMachine(q35=True)
    line = machine.read(EDU, 0x3C, 1)
    assert line == 10
    machine.edu.set_intx(True)
    assert machine.lines.high == {10, 20}
    machine.write(devfn(31), 0x68, 0x8A, 1)
    assert machine.lines.high == {20}


def test_interrupt_disable_and_status() -> None:
    machine = PciMachine()
    machine.edu.set_intx(True)
    assert machine.read(EDU, 6, 2) & 0x08
    machine.write(EDU, 4, 0x0402, 2)
    assert machine.lines.high == set()
    assert machine.read(EDU, 6, 2) & 0x08, "the status says what it wants"
    machine.write(EDU, 4, 0x0002, 2)
    assert machine.lines.high == {11}


def test_msi_enable_releases_the_pin() -> None:
    machine = PciMachine()
    machine.edu.set_intx(True)
    machine.write(EDU, 0x42, 1, 2)
    assert machine.lines.high == set()


@pytest.mark.parametrize(
    ("q35", "source", "enable", "mask"), [(False, devfn(1, 3), 0x80, 0x1), (True, devfn(31), 0x44, 0x80)]
)
def test_power_management_follows_its_base(q35: bool, source: int, enable: int, mask: int) -> None:
    machine = PciMachine(q35)
    assert machine.read(source, 0x40) == 0x601
    assert machine.bus.port_read(0x604, 2) == (0, "acpi-pm")
    saved = machine.bus.save()
    machine.write(source, 0x40, 0xB001)
    assert machine.bus.port_read(0x604, 2)[1] == ""
    assert machine.bus.port_read(0xB004, 2) == (0, "acpi-pm")
    machine.write(source, enable, 0, 1)
    assert machine.bus.port_read(0xB004, 2)[1] == ""
    machine.write(source, enable, 0xFF, 1)
    assert machine.read(source, enable, 1) == mask
    machine.bus.restore(saved)
    assert machine.bus.port_read(0x604, 2) == (0, "acpi-pm")


def test_restore_moves_back_and_keeps_lines() -> None:
    machine = PciMachine()
    place = machine.bar(EDU, 0)
    machine.edu.set_intx(True)
    saved = machine.bus.save()
    machine.write(EDU, 0x10, 0xE0000000)
    machine.edu.set_intx(False)
    machine.bus.restore(saved)
    assert machine.bus.save() == saved
    assert machine.bus.memory_read(place, 4) == (0x010000ED, "edu")
    assert machine.bus.memory_read(0xE0000000, 4)[1] == ""
    changes = len(machine.lines.changes)
    machine.edu.set_intx(False)
    assert machine.lines.changes[changes:] == [(11, False)]


def test_views_name_function_and_selection() -> None:
    machine = PciMachine()
    machine.select(EDU, 0x10)
    shown = str(machine.bus.views())
    assert "00:04.0 register 0x10, edu" in shown
    assert "PCI 00:04.0 1234:11e8" in shown
