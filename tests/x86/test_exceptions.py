"""The exception table and the double-fault rule."""

from __future__ import annotations

import pytest

from kvmscope.x86.exceptions import (
    EXCEPTIONS,
    ExceptionType,
    Outcome,
    decode_error_code,
    double_fault,
    exception,
    has_error_code,
    mnemonic,
    vector_of,
)

DE, DB, NMI, BP, UD, NM, DF, TS, NP, SS, GP, PF, AC, MC, VE, CP = (
    0,
    1,
    2,
    3,
    6,
    7,
    8,
    10,
    11,
    12,
    13,
    14,
    17,
    18,
    20,
    21,
)
S, D, T = Outcome.SERIAL, Outcome.DOUBLE_FAULT, Outcome.TRIPLE_FAULT


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        # SDM vol. 3A table 6-5
        (UD, GP, S),
        (UD, PF, S),
        (UD, DB, S),
        (0x20, GP, S),
        (0x80, NP, S),
        (GP, UD, S),
        (GP, GP, D),
        (GP, PF, S),
        (DE, NP, D),
        (TS, SS, D),
        (CP, GP, D),
        (PF, UD, S),
        (PF, GP, D),
        (PF, PF, D),
        (VE, PF, D),
        (DF, UD, S),
        (DF, GP, T),
        (DF, PF, T),
        (DF, NP, T),
        (AC, GP, S),
        (MC, PF, S),
        (NMI, PF, S),
    ],
)
def test_double_fault(first: int, second: int, outcome: Outcome) -> None:
    assert double_fault(first, second) is outcome


def test_error_codes_exist_where_the_manual_says() -> None:
    assert [e.vector for e in EXCEPTIONS if e.error_code] == [8, 10, 11, 12, 13, 14, 17, 21, 29, 30]
    assert not has_error_code(0x80)
    assert has_error_code(PF)


def test_names() -> None:
    assert mnemonic(14) == "#PF"
    assert mnemonic(2) == "NMI"
    assert mnemonic(0x80) == "INT 0x80"
    for text in ("#PF", "pf", "PF", " #pf "):
        assert vector_of(text) == 14
    assert vector_of("nmi") == 2
    assert vector_of("#XX") is None
    for entry in EXCEPTIONS:
        assert vector_of(entry.mnemonic) == entry.vector


def test_types() -> None:
    found = exception(DB)
    assert found is not None
    assert found.type is ExceptionType.FAULT_OR_TRAP
    assert exception(BP).type is ExceptionType.TRAP  # type: ignore[union-attr]
    assert exception(DF).type is ExceptionType.ABORT  # type: ignore[union-attr]
    assert exception(15) is None


@pytest.mark.parametrize(
    ("vector", "code", "words"),
    [
        (PF, 0, ("not present", "read", "supervisor")),
        (PF, 7, ("protection violation", "write", "user")),
        (PF, 0x19, ("protection violation", "read", "supervisor", "reserved bit set", "instruction fetch")),
        (PF, 0x25, ("protection violation", "read", "user", "protection key")),
        (PF, 0x8041, ("protection violation", "read", "supervisor", "shadow stack", "SGX access control")),
        (GP, 0, ("no selector",)),
        (GP, 0x28, ("selector 0x28 (GDT[5])",)),
        (NP, 0x402, ("IDT vector 0x80",)),
        (DF, 0, ("always 0",)),
        (CP, 3, ("missing ENDBRANCH",)),
        (UD, 0, ()),
    ],
)
def test_error_code_words(vector: int, code: int, words: tuple[str, ...]) -> None:
    assert decode_error_code(vector, code) == words
