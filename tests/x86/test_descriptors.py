"""Descriptors as the manual draws them, decoded, described and encoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscope.x86.descriptors import (
    Selector,
    SelectorErrorCode,
    attributes_of,
    decode,
    decode_gate64,
    descriptor_of,
    iter_table,
    segment_of,
)
from kvmscope.x86.encode import FIELDS, encode

DECODED = [
    # value, size, long, description
    (0x00CF9B000000FFFF, 8, False, "code 32-bit DPL 0 present execute/read accessed base 0x0 limit 0xffffffff"),
    (0x00AF9B000000FFFF, 8, True, "code 64-bit DPL 0 present execute/read accessed base 0x0 limit 0xffffffff"),
    (0x00CFF2000000FFFF, 8, False, "data 32-bit DPL 3 present read/write base 0x0 limit 0xffffffff"),
    (0x0040950000000FFF, 8, False, "data 32-bit DPL 0 present read-only expand-down accessed base 0x0 limit 0xfff"),
    (0x12009E345678FFFF, 8, False, "code 16-bit DPL 0 present execute/read conforming base 0x12345678 limit 0xffff"),
    (0x0000890040000067, 8, False, "tss 32-bit DPL 0 present available base 0x4000 limit 0x67"),
    (0x00008B0040000067, 16, True, "tss 64-bit DPL 0 present busy base 0x4000 limit 0x67"),
    (0x000083004000002B, 8, False, "tss 16-bit DPL 0 present busy base 0x4000 limit 0x2b"),
    (0x000082640000FFFF, 8, False, "ldt DPL 0 present base 0x640000 limit 0xffff"),
    (0x0040EC0300081234, 8, False, "call-gate 32-bit DPL 3 present -> 0x8:0x401234 count 3"),
    (0x00008E0200081234, 16, True, "interrupt-gate 64-bit DPL 0 present -> 0x8:0x1234 IST 2"),
    (0x0040EF0000081234, 8, False, "trap-gate 32-bit DPL 3 present -> 0x8:0x401234"),
    (0x0000850000580000, 8, False, "task-gate DPL 0 present TSS 0x58 (GDT[11], RPL 0)"),
    (0x0000000000000000, 8, False, "null"),
    (0x0000010000000001, 8, True, "reserved type 0x1 DPL 0 not present"),
]


@pytest.mark.parametrize(("value", "size", "long", "text"), DECODED)
def test_decode(value: int, size: int, long: bool, text: str) -> None:
    found = decode(value.to_bytes(16, "little"), long=long)
    assert found.size == size
    assert found.describe() == text


def test_16_byte_forms() -> None:
    tss = decode(bytes.fromhex("6720bc9a788900563412000000000000"), long=True)
    assert tss.base == 0x123456789ABC
    assert tss.limit == 0x2067
    gate = decode_gate64(bytes.fromhex("88770800038e66554433221100000000"))
    assert (gate.offset, gate.selector, gate.ist) == (0x1122334455667788, 8, 3)
    assert decode(bytes.fromhex("6720bc9a78890056"), long=True).problems() == ("upper 8 bytes are beyond the table",)


@pytest.mark.parametrize(
    ("data", "long", "problems"),
    [
        (encode("code", {"present": 0}), False, ("not present",)),
        (encode("code", {"l": 1, "d": 1}), True, ("L = 1 and D = 1",)),
        (encode("code", {"l": 1, "d": 1}), False, ()),
        (encode("task-gate", {"selector": 0x58}), True, ("type 0x5 is reserved in IA-32e mode",)),
        (encode("call-gate", long=True)[:13] + b"\x0c\0\0", True, ("upper type field (bits 108:104) is not 0",)),
        (bytes(8), True, ()),
    ],
)
def test_problems(data: bytes, long: bool, problems: tuple[str, ...]) -> None:
    assert decode(data, long=long).problems() == problems


def test_tables() -> None:
    gdt = bytes(8) + encode("code", long=True) + encode("tss", {"base": 0x4000}, long=True) + encode("data")
    assert [(i, d.kind) for i, d in iter_table(gdt, long=True)] == [(0, "null"), (1, "code"), (2, "tss"), (4, "data")]
    assert [i for i, _ in iter_table(gdt[:-1], long=True)] == [0, 1, 2]
    idt = encode("trap-gate", {"offset": 5}, long=True) * 3
    assert [(i, d.offset) for i, d in iter_table(idt, long=True, idt=True)] == [(0, 5), (1, 5), (2, 5)]
    idt = encode("trap-gate", {"offset": 5}) * 3
    assert [(i, d.offset) for i, d in iter_table(idt, idt=True)] == [(0, 5), (1, 5), (2, 5)]


def test_segment_register_round_trip() -> None:
    raw = 0x12CF9A345678ABCD
    segment = segment_of(0x2B, decode(raw.to_bytes(8, "little")))
    assert (segment.base, segment.limit, segment.rpl) == (0x12345678, 0xFABCDFFF, 3)
    assert segment.attributes == 0xC09A == attributes_of(raw >> 32)
    assert descriptor_of(segment) == raw


@given(st.integers(0, (1 << 64) - 1))
def test_any_8_bytes_survive_the_segment_register(raw: int) -> None:
    assert descriptor_of(segment_of(0, decode(raw.to_bytes(8, "little")))) == raw


@given(st.binary(max_size=64), st.booleans(), st.booleans())
def test_any_bytes_can_be_described(data: bytes, long: bool, idt: bool) -> None:
    for _, found in iter_table(data, long=long, idt=idt):
        assert found.describe()
        found.problems()
    decode(data, long=long).describe()


@given(
    st.sampled_from(["call-gate", "interrupt-gate", "trap-gate"]),
    st.sampled_from([16, 32, 64]),
    st.integers(0, 0xFFFF),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 3),
    st.integers(0, 1),
)
def test_gates_round_trip(kind: str, bits: int, selector: int, offset: int, dpl: int, present: int) -> None:
    offset &= (1 << bits) - 1
    fields = {"selector": selector, "offset": offset, "dpl": dpl, "present": present, "bits": bits}
    found = decode(encode(kind, fields), long=bits == 64)
    if bits == 64 and kind != "call-gate":
        found = decode_gate64(encode(kind, fields))
    assert (found.kind, found.bits, found.selector, found.offset, found.dpl, found.present) == (
        kind,
        bits,
        selector,
        offset,
        dpl,
        bool(present),
    )


@given(st.integers(0, (1 << 32) - 1), st.integers(0, 0xFFFFF), st.booleans(), st.integers(0, 3))
def test_segments_round_trip(base: int, limit: int, granular: bool, dpl: int) -> None:
    if granular:
        limit = limit << 12 | 0xFFF
    for kind in ("code", "data", "ldt", "tss"):
        found = decode(encode(kind, {"base": base, "limit": limit, "g": int(granular), "dpl": dpl}))
        assert (found.kind, found.base, found.limit, found.dpl) == (kind, base, limit, dpl)


@pytest.mark.parametrize(
    ("kind", "fields", "word"),
    [
        ("segment", {}, "unknown kind"),
        ("code", {"bass": 1}, "no field 'bass'"),
        ("code", {"dpl": 4}, "dpl"),
        ("code", {"present": 2}, "present"),
        ("code", {"base": 1 << 32}, "base"),
        ("code", {"limit": 0x100000}, "4 KiB units"),
        ("code", {"limit": 0x100000, "g": 0}, "needs G = 1"),
        ("code", {"limit": 1 << 32}, "limit"),
        ("code", {"bits": 8}, "bits"),
        ("data", {"base": -1}, "base"),
        ("ldt", {"bits": 16}, "does not exist"),
        ("interrupt-gate", {"offset": 1 << 32}, "offset"),
        ("interrupt-gate", {"ist": 1}, "64-bit gate"),
        ("call-gate", {"count": 1, "bits": 64}, "count"),
        ("call-gate", {"selector": 0x10000}, "selector"),
        ("task-gate", {"offset": 1}, "no field"),
    ],
)
def test_encode_names_what_does_not_fit(kind: str, fields: dict[str, int], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        encode(kind, fields)


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("long", [False, True])
def test_defaults_give_the_kind(kind: str, long: bool) -> None:
    if long and kind in ("task-gate", "tss16"):
        return
    data = encode(kind, long=long)
    found = decode_gate64(data) if long and kind in ("interrupt-gate", "trap-gate") else decode(data, long=long)
    assert found.kind == kind.removesuffix("16")
    assert found.present


def test_selectors() -> None:
    assert str(Selector(0x2B)) == "0x2b (GDT[5], RPL 3)"
    assert str(Selector(0x0F)) == "0xf (LDT[1], RPL 3)"
    assert str(Selector(3)) == "0x3 (null, RPL 3)"
    assert Selector(0x2B).offset == 0x28


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "no selector"),
        (1, "no selector, EXT"),
        (0x28, "selector 0x28 (GDT[5])"),
        (0x2C, "selector 0x2c (LDT[5])"),
        (0x82, "IDT vector 0x10"),
        (0x402, "IDT vector 0x80"),
        (0x403, "IDT vector 0x80, EXT"),
    ],
)
def test_selector_error_codes(code: int, text: str) -> None:
    assert str(SelectorErrorCode(code)) == text
