from __future__ import annotations

from dataclasses import replace

import pytest

from kvmscope.ui.line_panel import Kind, plain
from kvmscope.ui.render.branches import branch_target, taken
from kvmscope.ui.render.disassembly import disassembly_rows, place_window, scroll_window
from kvmscope.ui.view import Focus
from kvmscope.vmm.snapshot import MemoryChange
from kvmscope.x86.state import SegmentRegister
from tests.ui.render.fake import CODE, PROGRAM, FakeMemory, Guest, image, legacy_state, long_state, stepped


def text(guest, width, height, anchor=None):
    view = guest.view()
    at = place_window(view, anchor, height)
    return [line.rstrip() for line in plain(disassembly_rows(view, width, height, at))]


def at(rip, **changes):
    return Guest(long_state(rip=rip, **changes))


def test_narrow():
    guest = stepped()
    guest.breakpoints = frozenset({CODE + 8})
    assert text(guest, 44, 8)[:7] == [
        "   start:",
        "   401000 mov    rax, qword ptr [rbx + 8] :3",
        "  ▶401004 add    rax, 1                   :4",
        "●  401008 cmp    rax, 5                   :5",
        "   40100c jne    0x401000 <start> ↑       :6",
        "   done:",
        "   40100e out    0xf4, al                 :7",
    ]


def test_wide_has_labels_and_bytes():
    row = text(stepped(), 100, 8)[2]
    assert row.startswith("  ▶401004 <start+4>       48 83 c0 01")
    assert row.endswith(":4")
    assert len(row) == 100


@pytest.mark.parametrize(
    ("flags", "foretold", "arrow"),
    [(0x2, " next ✓ taken  → 401000 <start>", "accent"), (0x42, " next ✗ not taken", "rule")],
)
def test_the_branch_about_to_execute(flags, foretold, arrow):
    view = at(CODE + 12, rflags=flags).view()
    rows = disassembly_rows(view, 80, 10, place_window(view, None, 10))
    lines = [line.rstrip() for line in plain(rows)]
    assert lines[-1] == foretold
    assert [line[:3] for line in lines[:5]] == ["   ", " ╭→", " │ ", " │ ", " ╰▶"]
    assert {row.spans[1].style for row in rows[1:5]} == {arrow}


def test_memory_operand_with_its_value():
    assert text(at(CODE), 80, 10)[-1].strip() == ("next [rbx + 8] 402008 <table+8> = 67202c6f6c6c6548  rax = 29")


def test_unmapped_operand_says_so():
    guest = at(CODE)
    guest.cpu = replace(guest.cpu, gpr=(0, 0, 0, 0x8000 - 8, *guest.cpu.gpr[4:]))
    assert text(guest, 80, 10)[-1] == " next [rbx + 8] 8000 = not mapped  rax = 0"


def test_device_memory_is_not_read():
    guest = at(CODE)
    guest.cpu = replace(guest.cpu, gpr=(0, 0, 0, 0x500000 - 8, *guest.cpu.gpr[4:]))
    assert text(guest, 80, 10)[-1] == " next [rbx + 8] 500000 = not RAM: not read  rax = 0"


@pytest.mark.parametrize(
    ("code", "stack", "foretold"),
    [
        ("c3", [0x401004], "[rsp] 7ffe0 = → 401004 <start+4>"),
        ("48cf", [0x401004, 8, 2, 0x80000, 0], "[rsp] 7ffe0 = → 0008:401004 <start+4>"),
        ("50", [0x55], "[rsp - 0x8] 7ffd8 ← now 0000000000000000  rax = 29"),
        ("0f20d8", [0], "rax = 29  cr3 = 90000"),
        ("48a5", [0], "[rdi] 0 ← now 0000000000000000  [rsi] 402008 <table+8> = 67202c6f6c6c6548"),
    ],
)
def test_what_the_next_instruction_touches(code, stack, foretold):
    guest = at(CODE)
    guest.memory.write(0x201000, bytes.fromhex(code))
    for i, value in enumerate(stack):
        guest.memory.word(0x7FFE0 + 8 * i, value)
    assert text(guest, 120, 10)[-1].strip() == f"next {foretold}"


def test_interrupt_return_in_real_mode():
    state = legacy_state(16)
    memory = FakeMemory()
    memory.write(0x7C00, b"\xcf")
    memory.write(0x7B00, bytes.fromhex("123400100200"))
    state = replace(state, gpr=(*state.gpr[:4], 0x7B00, *state.gpr[5:]))
    guest = Guest(state, memory=memory, image=image(0x400000, 16))
    assert text(guest, 80, 10)[-1].strip() == "next [sp] 7b00 = → 1000:3412"


def test_window_stays_while_the_current_instruction_is_inside():
    first = place_window(at(CODE).view(), None, 12)
    assert first == CODE
    assert [place_window(at(CODE + n).view(), first, 12) for n in (4, 8, 12, 14)] == [first] * 4
    assert place_window(at(0x402000).view(), first, 12) != first


def test_exactly_as_many_rows_as_lines():
    for height in range(1, 30):
        assert len(text(stepped(), 60, height)) == height


def test_current_instruction_is_always_shown():
    for height in range(1, 30):
        for rip in (CODE, CODE + 12, CODE + 16, 0x402003, 0x300000):
            lines = text(at(rip), 60, height)
            assert [line for line in lines if "▶" in line], (height, hex(rip))


def test_self_modified_code_is_marked():
    guest = at(CODE)
    guest.changes = (MemoryChange(0x201000 + 5, b"\x90", PROGRAM[5:6]),)
    view = guest.view()
    rows = disassembly_rows(view, 80, 10, place_window(view, None, 10))
    row = next(r for r in rows if r.key is not None and r.key.value == CODE + 4 and "add" in plain([r])[0])
    assert row.spans[1].text == "▸"
    assert [span.text for span in row.spans if span.style == "changed"] == ["83"]


def test_data_is_shown_as_data_until_it_is_executed():
    guest = at(CODE)
    guest.focus = Focus(code=0x402000)
    assert any(".byte  2a 00 00 00 00 00 00 00" in line for line in text(guest, 70, 6))
    assert not any(".byte" in line and "▶" in line for line in text(at(0x402000), 70, 6))


def test_code_that_cannot_be_read():
    lines = text(at(0x8000), 44, 9)
    assert any(line.startswith("  ▶") and "not mapped" in line for line in lines)


def test_memory_that_nobody_wrote_takes_one_row():
    lines = text(at(CODE), 60, 24)
    assert [line.split()[0] for line in lines if "× " in line] == ["401011", "402015"]
    assert next(line for line in lines if "401011" in line).endswith("00 × 4079")


def test_execution_inside_of_it_is_code():
    lines = text(at(0x403010), 60, 10)
    assert any(line.startswith("  ▶403010 00 00") and "add" in line for line in lines)


def test_scrolling_moves_by_instructions():
    view = at(CODE).view()
    assert [scroll_window(view, CODE, n) for n in (1, 2, 3)] == [CODE + 4, CODE + 8, CODE + 12]
    assert scroll_window(view, CODE + 12, -2) == CODE + 4


def test_real_mode_decodes_offsets_of_the_segment():
    state = legacy_state(16)
    segments = (state.segments[0], SegmentRegister(0x1000, 0x10000, 0xFFFF, 0x9B), *state.segments[2:])
    memory = FakeMemory()
    memory.write(0x10100, bytes.fromhex("ebfe"))
    guest = Guest(replace(state, segments=segments, rip=0x100), memory=memory, image=image(0x400000, 16))
    lines = text(guest, 60, 4)
    assert any(line.startswith("  ▶10100 eb fe") and "0x100 ↑" in line for line in lines)


def test_keys():
    view = stepped().view()
    rows = disassembly_rows(view, 60, 10, CODE)
    assert [(row.key.kind, row.key.value) for row in rows[:3]] == [
        (Kind.CODE, CODE), (Kind.CODE, CODE), (Kind.CODE, CODE + 4),
    ]  # fmt: skip
    assert rows[2].overlay == "current"


CF, PF, ZF, SF, OF = 1, 4, 0x40, 0x80, 0x800


@pytest.mark.parametrize(
    ("mnemonic", "flags", "expected"),
    [
        ("jo", OF, True), ("jno", OF, False), ("jb", CF, True), ("jae", CF, False), ("je", ZF, True), ("jne", ZF, False),
        ("jbe", CF, True), ("jbe", ZF, True), ("ja", 0, True), ("ja", ZF, False), ("js", SF, True), ("jns", SF, False),
        ("jp", PF, True), ("jnp", PF, False), ("jl", SF, True), ("jl", SF | OF, False), ("jge", SF | OF, True),
        ("jle", ZF, True), ("jg", 0, True), ("jg", OF, False), ("jmp", 0, None), ("call", 0, None), ("mov", 0, None),
    ],
)  # fmt: skip
def test_conditions(mnemonic, flags, expected):
    assert taken(mnemonic, long_state(rflags=flags | 2)) is expected


@pytest.mark.parametrize(
    ("mnemonic", "rcx", "flags", "data", "expected"),
    [
        ("loop", 2, 0, b"\xe2\x00", True), ("loop", 1, 0, b"\xe2\x00", False), ("loop", 0, 0, b"\xe2\x00", True),
        ("loope", 2, ZF, b"\xe1\x00", True), ("loope", 2, 0, b"\xe1\x00", False), ("loopne", 2, 0, b"\xe0\x00", True),
        ("loopne", 2, ZF, b"\xe0\x00", False), ("jrcxz", 0, 0, b"\xe3\x00", True), ("jrcxz", 1, 0, b"\xe3\x00", False),
        ("jecxz", 1 << 32, 0, b"\x67\xe3\x00", True), ("jrcxz", 1 << 32, 0, b"\xe3\x00", False),
    ],
)  # fmt: skip
def test_counted_branches(mnemonic, rcx, flags, data, expected):
    state = long_state(rflags=flags | 2)
    assert taken(mnemonic, replace(state, gpr=(0, rcx, *state.gpr[2:])), data) is expected


@pytest.mark.parametrize(
    ("mnemonic", "operands", "target"),
    [("jmp", "0x1000", 0x1000), ("call", "rax", None), ("jne", "0x20", 0x20), ("mov", "0x1000", None), ("jmp", "8", 8)],
)
def test_branch_targets(mnemonic, operands, target):
    assert branch_target(mnemonic, operands) == target
