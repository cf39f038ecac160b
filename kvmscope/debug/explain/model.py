"""What an explanation is, and the guest as the explaining functions read it: one frozen state, memory, source.

Nothing here changes the guest: reads go through the tables as they stand, set no accessed bits and touch no device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmscope.asm.image import Image
from kvmscope.vmm.snapshot import GuestMemory, Snapshot
from kvmscope.x86.paging import translate
from kvmscope.x86.profiles import Profile, resolve
from kvmscope.x86.state import GPR_NAMES, CpuState, Seg

__all__ = ["SEGMENTS", "Explanation", "Guest", "hexbytes", "plural"]

SEGMENTS: Final = ("ES", "CS", "SS", "DS", "FS", "GS")

_MAX_INSTRUCTION: Final = 15


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why something happened: one line of ``title``, then plain ``lines``, then where the manuals say so."""

    title: str
    lines: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    def __str__(self) -> str:
        out = [self.title, *(f"  {line}" for line in self.lines)]
        if self.references:
            out.append("  " + "; ".join(self.references))
        return "\n".join(out)


@dataclass(frozen=True, slots=True)
class Guest:
    """A processor state with the memory and the program around it."""

    cpu: CpuState
    memory: GuestMemory
    image: Image | None = None
    profile: Profile | None = None
    """The CPU's features, where known: what MSRs and control-register bits it has."""

    @classmethod
    def of(cls, snapshot: Snapshot, image: Image | None = None, cpu: CpuState | None = None) -> Guest:
        """The guest of a snapshot, or with an earlier state ``cpu`` of the same memory."""
        return cls(cpu or snapshot.cpu, snapshot.memory, image, resolve(snapshot.profile) if snapshot.profile else None)

    @property
    def bits(self) -> int:
        """Code size: 16, 32 or 64."""
        return self.cpu.mode

    @property
    def protected(self) -> bool:
        """Protected or IA-32e mode, virtual-8086 mode excluded: selectors name descriptors."""
        return bool(self.cpu.cr0 & 1) and not self.cpu.rflags >> 17 & 1

    @property
    def long_mode(self) -> bool:
        """IA-32e mode is active (EFER.LMA), compatibility mode included."""
        return bool(self.cpu.efer >> 10 & 1)

    @property
    def canonical_bits(self) -> int:
        """Width of linear addresses: 57 with CR4.LA57, else 48."""
        return 57 if self.cpu.cr4 >> 12 & 1 else 48

    def canonical(self, address: int) -> bool:
        """True for an address that can be used in 64-bit mode (SDM vol. 1 section 3.3.7.1)."""
        top = address >> self.canonical_bits - 1
        return top == 0 or top == (1 << 65 - self.canonical_bits) - 1

    def translate(self, linear: int) -> int | None:
        """Physical address of ``linear``, rights aside."""
        cpu = self.cpu
        return translate(self.memory, cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer, linear)

    def read(self, linear: int, size: int) -> bytes | None:
        """``size`` bytes at a linear address; None when any of them is not mapped or not backed."""
        parts: list[bytes] = []
        mask = (1 << 64) - 1 if self.long_mode else 0xFFFFFFFF
        while size > 0:
            linear &= mask
            chunk = min(size, 4096 - (linear & 0xFFF))
            physical = self.translate(linear)
            data = self.memory.read(physical, chunk) if physical is not None else None
            if data is None:
                return None
            parts.append(data)
            linear += chunk
            size -= chunk
        return b"".join(parts)

    def word(self, linear: int, size: int) -> int | None:
        """A little-endian integer of ``size`` bytes at a linear address."""
        data = self.read(linear, size)
        return None if data is None else int.from_bytes(data, "little")

    def code(self) -> bytes:
        """Instruction bytes at RIP, up to 15: fewer where the next page is not there."""
        first = 4096 - (self.cpu.pc & 0xFFF)
        if first >= _MAX_INSTRUCTION:
            return self.read(self.cpu.pc, _MAX_INSTRUCTION) or b""
        head = self.read(self.cpu.pc, first)
        if head is None:
            return b""
        return head + (self.read(self.cpu.pc + first, _MAX_INSTRUCTION - first) or b"")

    def place(self, address: int | None = None) -> str:
        """``0x401000 <label+4>, line 12`` for a linear code address (default: that of RIP)."""
        where = self.cpu.pc if address is None else address
        text = f"{where:#x}"
        if self.image is None:
            return text
        found = self.image.symbol_at(where)
        if found:
            name, offset = found
            text += f" <{name}{f'+{offset:#x}' if offset else ''}>"
        place = self.image.place_at(where)
        if place is not None:
            return f"{text}, {place}"
        line = self.image.line_at(where)
        return text + (f", line {line}" if line is not None else "")

    def gpr(self, name: str) -> int:
        """A 64-bit general register by name."""
        return self.cpu.gpr[GPR_NAMES.index(name)]

    def segment_base(self, segment: int) -> int:
        """Base that an access through ``segment`` adds: 0 in 64-bit mode but for FS and GS."""
        if self.bits == 64 and segment not in (Seg.FS, Seg.GS):
            return 0
        return self.cpu.segments[segment].base


def hexbytes(data: bytes) -> str:
    """``0f 0b``."""
    return data.hex(" ")


def plural(count: int, word: str) -> str:
    """``1 byte``, ``2 bytes``."""
    return f"{count} {word}{'' if count == 1 else 's'}"
