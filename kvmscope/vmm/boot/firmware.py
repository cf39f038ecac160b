"""What a PC's firmware leaves in memory below 1 MiB: the real-mode vector table with its handlers, and its data area.

A multiboot image may switch back to real mode (or never load an IDT) and finds them there.  Addresses are those that
every PC BIOS keeps (IBM PC/AT Technical Reference, "BIOS listing"): the dummy handler at F000:FF53, the timer's at
F000:FEA5; the data area's fields by the same book.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmscope.vmm.boot.memory import BootMemory

__all__ = ["EBDA", "FIRMWARE", "LOW_MEMORY_END", "write_firmware"]

LOW_MEMORY_END: Final = 0x9FC00
"""First address above conventional memory: 639 KiB."""
EBDA: Final = LOW_MEMORY_END
"""Extended BIOS data area, 1 KiB."""
FIRMWARE: Final = (0xE0000, 0x100000)
"""Where the firmware's own code and tables stand; reserved in the memory map."""

_SEGMENT: Final = 0xF000
_IRET_AT: Final = 0xFF53
_TIMER_AT: Final = 0xFEA5
_MASTER_AT: Final = 0xFF60
_SLAVE_AT: Final = 0xFF70

_IRET: Final = b"\xcf"
# IRQ 0: count a tick at 0040:006C, set 0040:0070 at midnight (1800B0h ticks), INT 1Ch, EOI.
_TIMER: Final = bytes.fromhex(
    "1e"  # push ds
    "50"  # push ax
    "b84000"  # mov ax, 40h
    "8ed8"  # mov ds, ax
    "66ff066c00"  # inc dword [6Ch]
    "66813e6c00b0001800"  # cmp dword [6Ch], 1800B0h
    "720e"  # jb +14
    "66c7066c0000000000"  # mov dword [6Ch], 0
    "c606700001"  # mov byte [70h], 1
    "cd1c"  # int 1Ch
    "b020"  # mov al, 20h
    "e620"  # out 20h, al
    "58"  # pop ax
    "1f"  # pop ds
    "cf"  # iret
)
# The other interrupts of each controller: acknowledge and forget.
_MASTER: Final = bytes.fromhex("50b020e62058cf")  # push ax; mov al, 20h; out 20h, al; pop ax; iret
_SLAVE: Final = bytes.fromhex("50b020e6a0e62058cf")  # the slave's EOI before the master's
_CODE: Final = ((_IRET_AT, _IRET), (_TIMER_AT, _TIMER), (_MASTER_AT, _MASTER), (_SLAVE_AT, _SLAVE))

_DATA_AREA: Final = 0x400
_EBDA_SEGMENT: Final = 0x0E
_EQUIPMENT: Final = 0x10
_MEMORY_KIB: Final = 0x13
_HANDLERS: Final = {0x08: _TIMER_AT} | dict.fromkeys(range(0x09, 0x10), _MASTER_AT) | dict.fromkeys(
    range(0x70, 0x78), _SLAVE_AT
)  # fmt: skip


def write_firmware(memory: BootMemory) -> None:
    """Put vector table, data areas and handlers in place; an image that lies there overwrites them later."""
    table = b"".join(struct.pack("<HH", _HANDLERS.get(vector, _IRET_AT), _SEGMENT) for vector in range(256))
    memory.write(0, table, "the firmware's vector table")
    data = bytearray(0x100)
    struct.pack_into("<H", data, _EBDA_SEGMENT, EBDA >> 4)
    # Equipment: an x87.
    struct.pack_into("<H", data, _EQUIPMENT, 0x0002)
    struct.pack_into("<H", data, _MEMORY_KIB, LOW_MEMORY_END >> 10)
    memory.write(_DATA_AREA, bytes(data), "the firmware's data area")
    memory.write(EBDA, b"\x01", "the firmware's extended data area")
    for offset, code in _CODE:
        memory.write((_SEGMENT << 4) + offset, code, "the firmware's handlers")
