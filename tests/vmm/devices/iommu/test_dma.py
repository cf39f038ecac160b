"""DMA remapping of edu's transfers: tables, faults and what is recorded."""

from __future__ import annotations

import pytest

from tests.vmm.devices.iommu.machine import (
    BUFFER,
    CONTEXT,
    FRCD,
    FSTS,
    PAGES,
    ROOT,
    RTADDR,
    SRTP,
    TE,
    TO_DEVICE,
    TO_MEMORY,
    IommuMachine,
)
from tests.vmm.devices.pci.machine import EDU

WORD = 0x12345678


def test_without_translation_nothing_changes() -> None:
    machine = IommuMachine()
    machine.ram.put(0x3000, WORD, size=4)
    machine.edu_dma(0x3000, BUFFER, 4, TO_DEVICE)
    machine.edu_dma(BUFFER, 0x3004, 4, TO_MEMORY)
    assert machine.ram.get(0x3004, 4) == WORD


@pytest.mark.parametrize(("width", "levels"), [(1, 3), (2, 4)])
def test_a_page_is_mapped(width: int, levels: int) -> None:
    machine = IommuMachine()
    machine.translate_edu(width)
    machine.map(0x5000, 0x30000 | 3, levels)
    machine.ram.put(0x30008, WORD, size=4)
    machine.edu_dma(0x5008, BUFFER, 4, TO_DEVICE)
    machine.edu_dma(BUFFER, 0x5FFC, 4, TO_MEMORY)
    assert machine.ram.get(0x30FFC, 4) == WORD
    assert machine.get(FSTS) == 0


def test_a_transfer_across_pages_goes_to_both() -> None:
    machine = IommuMachine()
    machine.translate_edu()
    machine.map(0x5000, 0x30000 | 3)
    machine.map(0x6000, 0x40000 | 3)
    machine.ram.write(0x30FFE, b"ab")
    machine.ram.write(0x40000, b"cd")
    machine.edu_dma(0x5FFE, BUFFER, 4, TO_DEVICE)
    machine.edu_dma(BUFFER, 0x5000, 4, TO_MEMORY)
    assert machine.ram.read(0x30000, 4) == b"abcd"


@pytest.mark.parametrize(("level", "page"), [(2, 0x0), (3, 0x0)])
def test_large_pages(level: int, page: int) -> None:
    machine = IommuMachine()
    machine.translate_edu()
    machine.map(0x0, page | 0x83, level=level)
    machine.ram.put(0x34567, WORD, size=4)
    machine.edu_dma(0x34567, BUFFER, 4, TO_DEVICE)
    machine.edu_dma(BUFFER, 0x35000, 4, TO_MEMORY)
    assert machine.ram.get(0x35000, 4) == WORD


def test_pass_through() -> None:
    machine = IommuMachine()
    machine.translate_edu(kind=2)
    machine.ram.put(0x3000, WORD, size=4)
    machine.edu_dma(0x3000, BUFFER, 4, TO_DEVICE)
    machine.edu_dma(BUFFER, 0x3004, 4, TO_MEMORY)
    assert machine.ram.get(0x3004, 4) == WORD
    assert machine.get(FSTS) == 0


# (entry of the page, what is done to the tables, reason of a write, reason of a read); 0: it goes through
FAULTS = [
    ("page", 0x30000, 0x05, 0x06),
    ("page", 0x30001, 0x05, 0),
    ("page", 0x30002, 0, 0x06),
    ("page", 0x30003 | 1 << 39, 0x0C, 0x0C),
    ("page", 0x30003 | 1 << 11, 0x0C, 0x0C),
    ("page", 0x30003 | 1 << 62, 0x0C, 0x0C),
    ("page", 0x30003 | 1 << 63, 0, 0),
    ("directory", 0x13001, 0x05, 0),
    ("directory", 0x13000, 0x05, 0x06),
    ("directory", 0x13083, 0x0C, 0x0C),
    ("root", 0, 0x01, 0x01),
    ("root", CONTEXT | 3, 0x0A, 0x0A),
    ("root", CONTEXT | 1 | 1 << 39, 0x0A, 0x0A),
    ("root high", 1, 0x0A, 0x0A),
    ("context", PAGES, 0x02, 0x02),
    ("context", PAGES | 0x11, 0x0B, 0x0B),
    ("context", PAGES | 0x5, 0x03, 0x03),
    ("context", PAGES | 0xD, 0x03, 0x03),
    ("context high", 0, 0x03, 0x03),
    ("context high", 3, 0x03, 0x03),
    ("context high", 0x81, 0x0B, 0x0B),
    ("context high", 1 | 1 << 24, 0x0B, 0x0B),
    ("context high", 0x79, 0, 0),
]
PLACES = {"page": 0x14000 + 8 * 5, "directory": PAGES, "root": ROOT, "root high": ROOT + 8} | {
    "context": CONTEXT + 16 * EDU,
    "context high": CONTEXT + 16 * EDU + 8,
}


@pytest.mark.parametrize(("where", "value", "write", "read"), FAULTS)
def test_blocked_requests_are_recorded(where: str, value: int, write: int, read: int) -> None:
    machine = IommuMachine()
    machine.translate_edu()
    machine.map(0x5000, 0x30003)
    machine.ram.put(PLACES[where], value)
    machine.ram.put(0x30010, WORD, size=4)
    machine.edu_dma(BUFFER, 0x5010, 4, TO_MEMORY)
    assert machine.fault() == ((write, EDU, 0x5000, False) if write else None)
    assert machine.ram.get(0x30010, 4) == (WORD if write else 0)
    machine.edu_dma(0x5010, BUFFER, 4, TO_DEVICE)
    assert machine.fault() == ((read, EDU, 0x5000, True) if read else None)
    assert machine.get(FSTS) == 0


def test_a_blocked_read_gives_ones() -> None:
    machine = IommuMachine()
    machine.translate_edu()
    machine.edu_dma(0x5000, BUFFER, 4, TO_DEVICE)
    machine.map(0x6000, 0x30003)
    machine.edu_dma(BUFFER, 0x6000, 4, TO_MEMORY)
    assert machine.ram.get(0x30000, 4) == 0xFFFFFFFF


@pytest.mark.parametrize(("width", "address", "reason"), [(1, 1 << 39, 0x04), (2, 1 << 39, 0x06), (2, 1 << 48, 0x04)])
def test_addresses_beyond_the_width(width: int, address: int, reason: int) -> None:
    machine = IommuMachine()
    machine.translate_edu(width)
    assert machine.unit.translate(EDU, address, False) is None
    assert machine.fault() == (reason, EDU, address, True)


@pytest.mark.parametrize(
    ("where", "value", "silent"),
    [
        ("page", 0, True),
        ("context", PAGES | 2, True),
        ("context", PAGES | 0x13, True),
        ("root", 0, False),
        ("root high", 1, False),
    ],
)
def test_fault_processing_disable(where: str, value: int, silent: bool) -> None:
    machine = IommuMachine()
    machine.translate_edu(fpd=True)
    machine.map(0x5000, 0x30003)
    machine.ram.put(PLACES[where], value)
    machine.edu_dma(BUFFER, 0x5000, 4, TO_MEMORY)
    assert (machine.fault() is None) == silent


def test_other_functions_have_their_own_context() -> None:
    machine = IommuMachine()
    machine.translate_edu()
    machine.map(0x5000, 0x30003)
    assert machine.unit.translate(EDU, 0x5123, True) == 0x30123
    assert machine.unit.translate(EDU + 1, 0x5123, True) is None
    assert machine.fault() == (0x02, EDU + 1, 0x5000, False)
    assert machine.unit.translate(0x100 | EDU, 0x5123, True) is None
    assert machine.fault() == (0x01, 0x100 | EDU, 0x5000, False)


def test_the_root_table_is_the_one_latched() -> None:
    machine = IommuMachine()
    machine.translate_edu()
    machine.map(0x5000, 0x30003)
    machine.set(RTADDR, 0x70000, 8)
    assert machine.unit.translate(EDU, 0x5000, True) == 0x30000
    machine.command(SRTP)
    assert machine.unit.translate(EDU, 0x5000, True) is None
    machine.set(0x18, machine.get(0x1C) & ~(TE | SRTP))
    assert machine.unit.translate(EDU, 0x5000, True) == 0x5000


def test_a_second_fault_overflows() -> None:
    machine = IommuMachine()
    machine.translate_edu()
    machine.unit.translate(EDU, 0x5000, True)
    assert machine.get(FSTS) == 0x2
    machine.unit.translate(EDU, 0x6000, False)
    assert machine.get(FSTS) == 0x3
    assert machine.fault() == (0x05, EDU, 0x5000, False)
    assert machine.get(FSTS) == 0x1
    machine.unit.translate(EDU, 0x7000, True)
    assert machine.fault() is None, "nothing is recorded until software has seen the overflow"
    machine.set(FSTS, 0x1)
    machine.unit.translate(EDU, 0x7000, True)
    assert machine.fault() == (0x05, EDU, 0x7000, False)
    assert machine.get(FRCD + 8, 8) >> 63 == 0


def test_512_gib_pages_do_not_exist() -> None:
    machine = IommuMachine()
    machine.translate_edu(2)
    machine.map(0x0, 0x83, levels=4, level=4)
    assert machine.unit.translate(EDU, 0x5000, True) is None
    assert machine.fault() == (0x0C, EDU, 0x5000, False)
