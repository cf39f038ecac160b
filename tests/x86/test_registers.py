"""Every register name reads and writes what the processor would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscope.x86.bitfields import BIT_TABLES
from kvmscope.x86.registers import (
    CR0,
    CR4,
    DR7,
    KNOWN_NAMES,
    RFLAGS,
    decode,
    defined_mask,
    flag_string,
    read_register,
    register_width,
    write_register,
)
from kvmscope.x86.state import CpuState, DescriptorTable, SegmentRegister

VALUE = 0x1122334455667788


def state() -> CpuState:
    return CpuState(
        gpr=(VALUE,) * 16,
        rip=0x7C00,
        rflags=0x3246,
        segments=tuple(SegmentRegister(8 * i | 3, 0x1000 * i, 0xFFFFF, 0xC093) for i in range(8)),
        gdtr=DescriptorTable(0x1000, 0x6F),
        idtr=DescriptorTable(0x2000, 0xFFF),
        cr0=0x80010011,
        cr2=0x7000,
        cr3=0x90000,
        cr4=0x620,
        cr8=5,
        efer=0xD01,
        dr=(1, 2, 3, 4, 0, 0, 0xFFFF0FF0, 0x000D0402),
        xcr0=0x203,
        mxcsr=0x1F80,
        xmm=tuple(range(16)),
        pkru=0xC,
        cpl=3,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rax", VALUE),
        ("eax", 0x55667788),
        ("ax", 0x7788),
        ("al", 0x88),
        ("ah", 0x77),
        ("bh", 0x77),
        ("sil", 0x88),
        ("spl", 0x88),
        ("r8", VALUE),
        ("r9d", 0x55667788),
        ("r10w", 0x7788),
        ("r15b", 0x88),
        ("rip", 0x7C00),
        ("eflags", 0x3246),
        ("zf", 1),
        ("cf", 0),
        ("iopl", 3),
        ("if", 1),
        ("cs", 0xB),
        ("cs.base", 0x1000),
        ("cs.limit", 0xFFFFF),
        ("cs.dpl", 0),
        ("cs.type", 3),
        ("cs.g", 1),
        ("ss.rpl", 3),
        ("tr.selector", 0x3B),
        ("gdtr", 0x1000),
        ("gdtr.limit", 0x6F),
        ("idtr.base", 0x2000),
        ("cr0.wp", 1),
        ("cr0.pg", 1),
        ("cr0.ts", 0),
        ("cr4.pae", 1),
        ("cr8", 5),
        ("cr8.tpl", 5),
        ("efer.lma", 1),
        ("dr0", 1),
        ("dr7.l1", 0),
        ("dr7.g0", 1),
        ("dr7.rw0", 1),
        ("dr7.len0", 3),
        ("xcr0.pkru", 1),
        ("mxcsr.rc", 0),
        ("mxcsr.im", 1),
        ("pkru.ad1", 1),
        ("pkru.wd1", 1),
        ("xmm7", 7),
        ("cpl", 3),
    ],
)
def test_read(name: str, value: int) -> None:
    assert read_register(state(), name) == value


@pytest.mark.parametrize(
    ("name", "value", "whole", "expected"),
    [
        ("al", 0xFF, "rax", 0x11223344556677FF),
        ("ah", 0xFF, "rax", 0x112233445566FF88),
        ("ax", 0, "rax", 0x1122334455660000),
        # A 32-bit write clears the upper half
        ("eax", 1, "rax", 1),
        ("r8d", 0xFFFFFFFF, "r8", 0xFFFFFFFF),
        ("r8w", 1, "r8", 0x1122334455660001),
        ("rax", -1, "rax", 0xFFFFFFFFFFFFFFFF),
        ("al", -1, "al", 0xFF),
        ("cf", 1, "rflags", 0x3247),
        ("iopl", 0, "rflags", 0x0246),
        ("cr0.wp", 0, "cr0", 0x80000011),
        ("cs.dpl", 3, "cs.attributes", 0xC0F3),
        ("gdtr.limit", 0x10, "gdtr.base", 0x1000),
        ("dr7.rw0", 3, "dr7", 0x000F0402),
    ],
)
def test_write(name: str, value: int, whole: str, expected: int) -> None:
    assert read_register(write_register(state(), name, value), whole) == expected


CLEARS_THE_REST = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "ip"} | {
    f"r{i}d" for i in range(8, 16)
}


@given(st.sampled_from(sorted(KNOWN_NAMES)), st.data())
def test_what_is_written_is_read(name: str, data: st.DataObject) -> None:
    width = register_width(name)
    value = data.draw(st.integers(0, (1 << width) - 1))
    before = state()
    after = write_register(before, name, value)
    assert read_register(after, name) == value
    if name not in CLEARS_THE_REST:
        assert write_register(after, name, read_register(before, name)) == before


@pytest.mark.parametrize(
    ("name", "value"), [("al", 0x100), ("al", -0x81), ("cf", 2), ("cs", 0x10000), ("rax", 1 << 64)]
)
def test_values_that_do_not_fit(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        write_register(state(), name, value)


def test_unknown_names() -> None:
    for call in (lambda: read_register(state(), "rxx"), lambda: register_width("rxx")):
        with pytest.raises(KeyError):
            call()


def test_flag_string() -> None:
    assert flag_string(0x246) == "IF ZF PF"
    assert flag_string(0x3002) == "IOPL=3"
    assert flag_string(2) == ""


def test_tables_do_not_overlap() -> None:
    for name, table in BIT_TABLES.items():
        assert sum(bit.mask for bit in table) == defined_mask(table), name
        assert len({bit.name for bit in table}) == len(table), name


def test_masks_against_the_manual() -> None:
    assert defined_mask(RFLAGS) == 0x3F7FD5
    assert defined_mask(CR0) == 0xE005003F
    assert defined_mask(DR7) == 0xFFFF2BFF
    assert defined_mask(CR4) >> 15 & 1 == 0
    assert [(bit.name, value) for bit, value in decode(CR0, 0x80000001) if value] == [("PE", 1), ("PG", 1)]
