from __future__ import annotations

from dataclasses import replace

from kvmscope.ui.line_panel import plain
from kvmscope.ui.render.tables import PARTS, descriptor_rows
from kvmscope.vmm.snapshot import MemoryChange
from kvmscope.x86.state import DescriptorTable, Seg, SegmentRegister
from tests.ui.render.fake import Guest, legacy_state, stepped


def text(guest, width=80, folded=frozenset()):
    return [line.rstrip() for line in plain(descriptor_rows(guest.view(), width, folded))]


def test_gdt_with_selectors_and_reasons():
    lines = text(stepped())
    assert lines[0].startswith(" − GDT 1000 limit 7f ──")
    assert lines[1:4] == [
        " 0000       null",
        " 0008 00af9b000000ffff ◂cs             code64 dpl0 xr base 0 limit ffffffff",
        " 0010 00cf93000000ffff ◂es,ss,ds,fs,gs data32 dpl0 rw base 0 limit ffffffff",
    ]
    assert " 0050 00008b0040002068 ◂tr             tss64 dpl0 busy base 4000 limit 2068" in lines
    assert any(line.startswith(" 0078 00ef9b000000ffff") and "✗ L = 1 and D = 1:" in line for line in lines)


def test_boot_stubs_share_a_row():
    lines = text(stepped())
    at = next(i for i, line in enumerate(lines) if line.startswith(" − IDT"))
    assert lines[at + 1 : at + 6] == [
        " 00-0d      boot stubs: the machine stops",
        " 0e #PF      interrupt64 0008:00401010 ist1 <done+2>",
        " 0f-7f      boot stubs: the machine stops",
        " 80 INT 0x80 trap64 0008:00401000 dpl3 <start>",
        " 81-ff      boot stubs: the machine stops",
    ]


def test_narrow_keeps_what_matters():
    lines = text(stepped(), 44)
    assert " 0018 code32 dpl3 xr base 0 limit ffffffff" in lines
    assert any(line.startswith(" 0e #PF      interrupt64 0008:00401010 ist1") for line in lines)


def test_a_gate_that_cannot_be_used_says_why():
    guest = stepped()
    guest.memory.word(0x2000 + 16 * 13, 0x1000 | 8 << 16 | 0x0E << 40 | 0x40 << 48)
    guest.memory.word(0x2000 + 16 * 12, 0x1000 | 8 << 16 | 0x92 << 40 | 0x40 << 48)
    lines = text(guest)
    assert any(line.startswith(" 0d #GP      ✗ not present") for line in lines)
    assert any(line.startswith(" 0c #SS      ✗ ") and "no gate" in line for line in lines)


def test_changed_descriptor_and_field_are_marked():
    guest = stepped()
    raw = (0x00CFF3000000FFFF).to_bytes(8, "little")
    guest.changes = (MemoryChange(0x1030, bytes(8), raw), MemoryChange(0x4005, b"\x00", b"\x80"))
    lines = text(guest)
    assert [line[:6] for line in lines if line.startswith("▸")] == ["▸− GDT", "▸0030 ", "▸− TSS", "▸rsp0 "]


def test_tss_by_format():
    assert any(line.startswith(" − TSS64 4000 limit 2068 selector 50") for line in text(stepped()))
    assert " ist1  000000000008a000  ist2  0000000000000000  ist3  0000000000000000" in text(stepped())
    state = replace(legacy_state(32), idtr=DescriptorTable(0x2000, 0x7FF))
    for attributes, name, field in ((0x8B, "TSS32", "esp0"), (0x83, "TSS16", "sp0")):
        segments = (*state.segments[:7], SegmentRegister(0x50, 0x4000, 0x67, attributes))
        lines = text(Guest(replace(state, segments=segments)))
        assert any(line.startswith(f" − {name}") for line in lines)
        assert any(f" {field} " in line for line in lines)


def test_a_short_tss_is_flagged():
    guest = stepped()
    segments = list(guest.cpu.segments)
    segments[Seg.TR] = replace(segments[Seg.TR], limit=0x20)
    guest.cpu = replace(guest.cpu, segments=tuple(segments))
    assert any("✗ limit below 67" in line for line in text(guest))


def test_real_mode_has_an_ivt_and_nothing_else():
    guest = Guest(legacy_state(16))
    guest.memory.write(0, bytes(1024))
    for vector in range(256):
        guest.memory.word(4 * vector, 0x3000 + 16 * vector, 4)
    guest.memory.word(4 * 0x21, 0x1000_0010, 4)
    lines = text(guest)
    assert lines[0].startswith(" − IVT 0 limit 3ff")
    assert lines[1:4] == [
        " 00-20      boot stubs: the machine stops", " 21 INT 0x21 1000:0010", " 22-ff      boot stubs: the machine stops",
    ]  # fmt: skip
    assert len(lines) == 5


def test_tables_outside_of_memory():
    guest = stepped()
    guest.cpu = replace(guest.cpu, gdtr=DescriptorTable(0x8000, 0xFFFF), idtr=DescriptorTable(1 << 47, 0xFFF))
    assert sum("✗ not mapped, or not RAM" in line for line in text(guest)) == 2


def test_a_gdt_of_the_greatest_size():
    guest = stepped()
    guest.cpu = replace(guest.cpu, gdtr=DescriptorTable(0x10000, 0xFFFF))
    for i in range(8192):
        guest.memory.word(0x10000 + 8 * i, 0x00CF93000000FFFF | i << 16)
    lines = text(guest, folded=frozenset({"idt", "tss", "ldt"}))
    assert len(lines) == 8192 + 4


def test_folded():
    assert [line[:5] for line in text(stepped(), folded=frozenset(PARTS))] == [" + GD", " + ID", " + TS", " + LD"]
