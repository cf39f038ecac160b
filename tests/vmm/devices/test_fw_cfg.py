"""The firmware configuration device by ports and by DMA (QEMU docs/specs/fw_cfg)."""

from __future__ import annotations

import struct

import pytest

from kvmscope.vmm.devices import Bus
from kvmscope.vmm.devices.fw_cfg import FwCfg
from tests.vmm.devices.board_parts import Memory

FILES = {"etc/second": b"two", "etc/first": bytes(range(200))}


class Box:
    def __init__(self) -> None:
        self.ram = Memory()
        self.bus = Bus((FwCfg(self.ram, 128 << 20, 4, FILES),))

    def read(self, key: int, size: int) -> bytes:
        self.bus.port_write(0x510, 2, key)
        return bytes(self.bus.port_read(0x511, 1)[0] for _ in range(size))

    def dma(self, control: int, length: int, address: int, at: int = 0x100) -> int:
        self.ram.write(at, struct.pack(">IIQ", control, length, address))
        self.bus.port_write(0x518, 4, int.from_bytes(struct.pack(">I", at), "little"))
        return struct.unpack(">I", self.ram.read(at, 4))[0]


@pytest.mark.parametrize(
    ("key", "content"),
    [
        (0x00, b"QEMU"),
        (0x01, b"\3\0\0\0"),
        (0x03, (128 << 20).to_bytes(8, "little")),
        (0x05, b"\4\0"),
        (0x0F, b"\4\0"),
        (0x11, bytes(8)),
        (0x8003, bytes(4)),
        (0xFFFF, bytes(4)),
    ],
)
def test_items(key: int, content: bytes) -> None:
    # Behind its end an item reads as zeros.
    assert Box().read(key, len(content) + 3) == content + bytes(3)


def test_selecting_starts_anew() -> None:
    box = Box()
    assert box.read(0, 2) == b"QE"
    assert box.bus.port_read(0x511, 1)[0] == ord("M")
    assert box.read(0, 4) == b"QEMU"


def test_file_directory() -> None:
    box = Box()
    (count,) = struct.unpack(">I", box.read(0x19, 4))
    assert count == 2
    entries = [struct.unpack(">IHH56s", bytes(box.bus.port_read(0x511, 1)[0] for _ in range(64))) for _ in range(count)]
    found = {name.rstrip(b"\0").decode(): (size, key) for size, key, _, name in entries}
    assert {name: box.read(key, size) for name, (size, key) in found.items()} == FILES


def test_data_port_takes_no_writes_and_only_bytes() -> None:
    box = Box()
    box.bus.port_write(0x511, 1, 0x55)
    assert box.read(0, 4) == b"QEMU"
    box.bus.port_write(0x510, 2, 0)
    assert box.bus.port_read(0x510, 2)[0] == 0xFFFF
    assert box.bus.port_read(0x510, 1)[0] == ord("Q")


def test_dma_signature() -> None:
    bus = Box().bus
    assert bus.port_read(0x514, 4)[0].to_bytes(4, "little") == b"QEMU"
    assert bus.port_read(0x518, 4)[0].to_bytes(4, "little") == b" CFG"


def test_dma_selects_skips_and_reads() -> None:
    box = Box()
    box.ram.write(0x800, b"\xaa" * 8)
    assert box.dma(0x20 << 16 | 0x8 | 0x4, 196, 0) == 0
    assert box.dma(0x2, 8, 0x800) == 0
    assert box.ram.read(0x800, 8) == bytes((196, 197, 198, 199, 0, 0, 0, 0))


def test_dma_write_is_refused() -> None:
    box = Box()
    assert box.dma(0x20 << 16 | 0x8 | 0x10, 4, 0x800) == 1
    assert box.read(0x20, 4) == bytes(range(4))


def test_dma_with_a_high_address_goes_there() -> None:
    box = Box()
    box.ram.write(0x100, struct.pack(">IIQ", 0x8 | 0x2, 4, 0x800))
    box.bus.port_write(0x514, 4, 0x01000000)  # big-endian 1
    box.bus.port_write(0x518, 4, 0x00010000)  # big-endian 0x100
    # 0x1_0000_0100 is no RAM: nothing was done, and the high half is used up.
    assert box.ram.read(0x100, 4) == struct.pack(">I", 0x8 | 0x2)
    box.bus.port_write(0x518, 4, 0x00010000)
    assert box.ram.read(0x800, 4) == b"QEMU"


def test_save_and_restore() -> None:
    box = Box()
    box.read(3, 2)
    saved = box.bus.save()
    rest = [box.bus.port_read(0x511, 1)[0] for _ in range(6)]
    box.read(5, 1)
    box.bus.restore(saved)
    assert [box.bus.port_read(0x511, 1)[0] for _ in range(6)] == rest


def test_a_name_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="name"):
        FwCfg(Memory(), 1 << 20, 1, {"x" * 56: b""})
