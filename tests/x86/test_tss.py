"""TSS layouts and the I/O permission bitmap."""

from __future__ import annotations

import pytest

from kvmscope.x86.tss import TSS16, TSS32, TSS64, TSS_LAYOUTS, decode_tss, port_allowed


@pytest.mark.parametrize(
    ("layout", "name", "offset", "size"),
    [
        (TSS16, "sp0", 2, 2),
        (TSS16, "ip", 14, 2),
        (TSS16, "ldt", 42, 2),
        (TSS32, "esp0", 4, 4),
        (TSS32, "ss2", 24, 2),
        (TSS32, "cr3", 28, 4),
        (TSS32, "eip", 32, 4),
        (TSS32, "edi", 68, 4),
        (TSS32, "gs", 92, 2),
        (TSS32, "ldt", 96, 2),
        (TSS32, "trap", 100, 2),
        (TSS32, "iomap", 102, 2),
        (TSS64, "rsp0", 4, 8),
        (TSS64, "rsp2", 20, 8),
        (TSS64, "ist1", 36, 8),
        (TSS64, "ist7", 84, 8),
        (TSS64, "iomap", 102, 2),
    ],
)
def test_layout(layout: object, name: str, offset: int, size: int) -> None:
    field = layout.field(name)  # type: ignore[attr-defined]
    assert (field.offset, field.size) == (offset, size)


def test_fields_do_not_overlap() -> None:
    for layout in TSS_LAYOUTS.values():
        end = 0
        for field in layout.fields:
            assert field.offset >= end
            end = field.offset + field.size
        assert end <= layout.size
    assert (TSS16.minimum_limit, TSS64.minimum_limit) == (0x2B, 0x67)
    with pytest.raises(KeyError):
        TSS64.field("cr3")


def test_decode_stops_at_the_limit() -> None:
    data = bytes(range(104))
    assert decode_tss(data, 64)["rsp0"] == 0x0B0A090807060504
    assert "iomap" not in decode_tss(data[:103], 64)


@pytest.mark.parametrize(
    ("port", "size", "allowed"),
    [
        (0x10, 1, True),
        (0x11, 1, False),
        (0x10, 2, False),
        (0x12, 4, True),
        (0x0F, 2, True),
        (0x0E, 4, False),
        (0x18, 1, False),
        # The map has 4 bytes: the second byte read for ports 0x18 up lies beyond the limit.
        (0x17, 1, True),
        (0x20, 1, False),
    ],
)
def test_io_bitmap(port: int, size: int, allowed: bool) -> None:
    bitmap = bytearray(4)
    bitmap[2] = 0b10
    data = bytearray(104)
    data[102:104] = (104).to_bytes(2, "little")
    assert port_allowed(bytes(data + bitmap), port, size) is allowed


def test_no_io_bitmap() -> None:
    data = bytearray(104)
    data[102:104] = (104).to_bytes(2, "little")
    assert not port_allowed(bytes(data), 0, 1)
    assert not port_allowed(bytes(50), 0, 1)
