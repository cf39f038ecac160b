from __future__ import annotations

from dataclasses import replace

import pytest

from kvmscope.ui.line_panel import Key, Kind, plain
from kvmscope.ui.render.registers import GROUPS, breakpoint_words, register_rows
from kvmscope.ui.render.text import MARK
from kvmscope.vmm.snapshot import diff_states
from kvmscope.x86.state import DescriptorTable, Seg
from tests.ui.render.fake import CODE, Guest, legacy_state, long_state, stepped


def text(guest, width, folded=frozenset()):
    return [line.rstrip() for line in plain(register_rows(guest.view(), width, folded))]


def test_narrow_form_has_two_columns():
    assert text(stepped(), 44)[:11] == [
        "▸rax 000000000000002a  r8  0000000000000000",
        " rbx 0000000000402000  r9  0000000000000000",
        " rcx 0000000000000000  r10 0000000000000000",
        " rdx 0000000000000000  r11 0000000000000000",
        " rsi 0000000000402008  r12 0000000000000000",
        " rdi 0000000000000000  r13 0000000000000000",
        " rbp 0000000000000000  r14 0000000000000000",
        " rsp 000000000007ffe0  r15 0000000000000000",
        "▸rip 0000000000401004 <start+4> :4",
        "▸rflags 000202 of df IF tf sf zf af pf cf",
        " − segments ───────────────────────────────",
    ]


def test_wider_form_says_what_values_stand_for():
    rows = text(stepped(), 80)
    assert rows[0] == "▸rax 000000000000002a 42                 r8  0000000000000000"
    assert rows[1] == " rbx 0000000000402000 <table>            r9  0000000000000000"


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (16, [" ax 1234 4660          si 0000", " bx 7c00 31744         di 0000", " cx 0000               bp 0000",
              " dx 0000               sp 7bfe", " ip 7c00", " flags 0002 of df if tf sf zf af pf cf"]),
        (32, [" eax 00001234 4660     esi 00000000", " ebx 00007c00 31744    edi 00000000",
              " ecx 00000000          ebp 00000000", " edx 00000000          esp 00007bfe", " eip 00007c00",
              " eflags 000002 of df if tf sf zf af pf cf"]),
    ],
)  # fmt: skip
def test_names_follow_the_mode(bits, expected):
    assert text(Guest(legacy_state(bits)), 44)[:6] == expected


def test_nothing_is_hidden_by_a_narrow_mode():
    state = legacy_state(16)
    assert text(Guest(replace(state, gpr=(0x12345, *state.gpr[1:]))), 44)[0].startswith(" eax 00012345")
    assert text(Guest(replace(state, gpr=(1 << 40, *state.gpr[1:]))), 44)[0].startswith(" rax 0000010000000000")


CHANGES = [
    ({"gpr": (0x2A, *long_state().gpr[1:])}, 0, [("a", "changed")]),
    ({"cr2": 0x7000}, " cr2", [("7", "changed")]),
    ({"mxcsr": 0x1F81}, " mxcsr", [("1", "changed"), ("IE", "changed")]),
    ({"gdtr": DescriptorTable(0x1000, 0x6F)}, " gdtr", [("6", "changed")]),
    ({"cr4": 0x220}, " cr4", [("2", "changed"), ("osxmmexcpt", "changed")]),
    ({"msrs": {**long_state().msrs, 0x10: 6}}, " IA32_TIME", [("6", "changed")]),
]


@pytest.mark.parametrize(("changed", "where", "marked"), CHANGES)
def test_a_change_has_a_glyph_and_marked_digits(changed, where, marked):
    before = long_state()
    rows = register_rows(Guest(replace(before, **changed), before).view(), 100, frozenset())
    row = rows[0] if where == 0 else next(r for r in rows if plain([r])[0][1:].startswith(where[1:]))
    assert row.spans[0].text == MARK
    assert [(s.text, s.style) for s in row.spans[1:] if s.style == "changed"] == marked


def test_every_register_that_differs_is_marked_even_in_a_closed_group():
    before = long_state()
    xmm = (1, *before.xmm[1:])
    rows = plain(register_rows(Guest(replace(before, xmm=xmm), before).view(), 60, frozenset(GROUPS)))
    assert [row for row in rows if row.startswith(MARK)] == [row for row in rows if row.startswith("▸+ sse")] != []


def test_a_loaded_segment_is_marked_with_its_words():
    before = long_state()
    segments = list(before.segments)
    segments[Seg.DS] = replace(segments[Seg.DS], selector=0x20 | 3, attributes=0xC0F3)
    rows = register_rows(Guest(replace(before, segments=tuple(segments)), before).view(), 60, frozenset())
    row = next(r for r in rows if plain([r])[0].startswith("▸ds"))
    assert plain([row])[0] == "▸ds   0023 00000000 ffffffff data32 dpl3 rw"
    assert row.spans[-1].style == "changed"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (0x246, " rflags 000246 of df IF tf sf ZF af PF cf"),
        (0x3002, " rflags 003002 of df if tf sf zf af pf cf"),
        (0x10002, " rflags 010002 RF of df if tf sf zf af pf cf"),
    ],
)
def test_flags_in_44_cells(flags, expected):
    rows = text(Guest(long_state(rflags=flags)), 44)
    assert rows[9] == expected
    if flags == 0x3002:
        assert rows[10].strip() == "IOPL=3"


def test_control_registers_name_their_bits():
    rows = text(Guest(), 62)
    assert " cr0   80010033 PG cd nw am WP NE ET ts em MP PE" in rows
    assert " cr4   00000620 OSXMMEXCPT OSFXSR PAE" in rows
    assert " efer  00000d01 NXE LMA LME SCE" in rows


def test_inverted_bits_of_dr6_are_shown_when_they_say_something():
    quiet, loud = long_state(), long_state(dr=(0,) * 6 + (0xFFFE0FF0, 0x400))
    assert " dr6   ffff0ff0 bt bs bd b3 b2 b1 b0" in text(Guest(quiet), 62)
    assert any("RTM=0" in row for row in text(Guest(loud), 62))


@pytest.mark.parametrize(
    ("dr7", "number", "words"),
    [
        (0x400, 0, "off"),
        (0x401, 0, "L execute"),
        (0x402, 0, "G execute"),
        (0x0D0401, 0, "L write 4"),
        (0xB00408 | 0x400, 1, "G read or write 8"),
        (0x20000420, 2, "G execute"),
    ],
)
def test_breakpoint_registers_in_words(dr7, number, words):
    assert breakpoint_words(dr7, number) == words


def test_keys_are_names_that_can_be_written():
    from kvmscope.x86.registers import KNOWN_NAMES

    keys = {s.key for r in register_rows(Guest().view(), 80, frozenset()) for s in r.spans if s.key is not None}
    names = {str(key.value) for key in keys if key.kind is Kind.REGISTER}
    assert {"rax", "rip", "rflags", "cs", "cs.base", "gdtr.limit", "cr0", "xmm15", "dr7"} <= names
    assert names <= KNOWN_NAMES
    assert Key(Kind.MEMORY, 0xFFFF800000001000, "0xffff800000001000", 0xFFFF800000001000) in keys
    assert Key(Kind.REGISTER, "rax", "0x29", 0x29) in keys
    assert Key(Kind.LINE, 3) in keys


def test_folded_groups_keep_their_heads():
    rows = text(Guest(), 44, frozenset(GROUPS))
    assert [row[:12] for row in rows[10:]] == [
        " + segments ",
        " + control ─",
        " + debug ───",
        " + sse ─────",
        " + msrs ────",
    ]


def test_x87_state_is_there_when_the_engine_gives_it():
    image = bytearray(160)
    image[0:2] = b"\x7f\x03"
    image[32:42] = bytes.fromhex("00000000000000c9fd3f")
    before = long_state(fpu=bytes(160))
    rows = text(Guest(replace(before, fpu=bytes(image)), before), 60)
    assert "▸fcw 037f fsw 0000 ftw 00 fop 0000" in rows
    assert "▸st0 3ffdc900000000000000" in rows


def test_delta_names_are_those_of_diff_states():
    before, after = long_state(), long_state(rip=CODE + 1)
    assert set(diff_states(before, after)) == {"rip"}
