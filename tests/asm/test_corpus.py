"""No silent mis-assembly: thousands of instruction forms, every one right or refused.

The bytes are those of GNU as 2.40; where `as` is installed they are compared with it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from kvmscope.asm import Severity, Syntax, assemble, keystone_client
from kvmscope.asm.fixed import fixed_bytes, fixed_names
from kvmscope.asm.gas import find_gas
from kvmscope.asm.image import Assembly
from kvmscope.asm.native import assemble_native
from kvmscope.asm.source import clean

MODES = [(bits, syntax) for bits in (16, 32, 64) for syntax in Syntax]
needs_gas = pytest.mark.skipif(find_gas() is None, reason="no GNU as for x86 on the PATH")
needs_keystone = pytest.mark.skipif(not keystone_client.keystone_version(), reason="keystone-engine is not installed")
CHUNK = 400
"""Forms in one program, so that 16-bit addresses suffice."""


@lru_cache
def corpus(bits: int, syntax: Syntax) -> list[tuple[str, str]]:
    """(text, bytes as hex or "-") of one mode and syntax."""
    rows = [line.split("\t") for line in Path(__file__).with_name("corpus.txt").read_text().splitlines()[1:]]
    return [(text, data) for mode, name, data, text in rows if int(mode) == bits and name == syntax]


def in_chunks(rows: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    for at in range(0, len(rows), CHUNK):
        yield rows[at : at + CHUNK]


def outcome(texts: list[str], bits: int, syntax: Syntax) -> dict[str, str]:
    """Text -> hex of what the built-in assembler makes of it, for what it does not refuse."""
    kept = texts
    while True:
        result = assemble_native(clean("\n".join(kept)), bits, syntax, 0, keystone_client.encode)
        if result.image is not None:
            return {kept[entry.line - 1]: entry.data.hex() for entry in result.image.lines}
        rejected = {found.line for found in result.diagnostics}
        assert rejected
        kept = [text for line, text in enumerate(kept, 1) if line not in rejected]


def errors(result: Assembly) -> list[str]:
    return [f"{found.line}: {found.message}" for found in result.diagnostics if found.severity is Severity.ERROR]


@needs_keystone
@pytest.mark.parametrize(("bits", "syntax"), MODES)
def test_built_in_assembler_is_right_or_refuses(bits: int, syntax: Syntax) -> None:
    wrong, right = [], 0
    accepted = [row for row in corpus(bits, syntax) if row[1] != "-"]
    for rows in in_chunks(corpus(bits, syntax)):
        made = outcome([text for text, _ in rows], bits, syntax)
        for text, data in rows:
            fixed = fixed_bytes(text, bits, syntax)
            if made.get(text, data) != data and (fixed is None or fixed.hex() != made[text]):
                wrong.append((text, "GNU as", data, "built-in", made[text]))
            right += made.get(text) == data
    assert wrong == []
    # A guard that refused everything would pass the above.
    assert right > 0.6 * len(accepted)


@needs_gas
@pytest.mark.parametrize(("bits", "syntax"), MODES)
def test_nothing_that_gas_accepts_is_refused(bits: int, syntax: Syntax) -> None:
    for rows in in_chunks([row for row in corpus(bits, syntax) if row[1] != "-"]):
        result = assemble("\n".join(text for text, _ in rows), bits=bits, syntax=syntax)
        assert errors(result) == []
        assert result.image is not None
        made = {entry.line: entry.data.hex() for entry in result.image.lines}
        assert [(text, data) for text, data in rows] == [(text, made[line]) for line, (text, _) in enumerate(rows, 1)]


@needs_gas
@pytest.mark.parametrize(("bits", "syntax"), MODES)
def test_table_of_fixed_opcodes_is_that_of_gas(bits: int, syntax: Syntax) -> None:
    names = fixed_names(bits, syntax)
    result = assemble("\n".join(names), bits=bits, syntax=syntax, backend="gas")
    assert result.image is not None, errors(result)
    made = {names[entry.line - 1]: entry.data for entry in result.image.lines}
    assert made == {name: fixed_bytes(name, bits, syntax) for name in names}


NEWER = [
    ("erets", 64, "f20f01ca"),
    ("eretu", 64, "f30f01ca"),
    ("pbndkb", 64, "0f01c7"),
    ("icebp", 16, "f1"),
    ("salc", 32, "d6"),
]


@pytest.mark.parametrize(("name", "bits", "data"), NEWER)
@pytest.mark.parametrize("backend", ["keystone", "gas"])
def test_instructions_younger_than_gas(name: str, bits: int, data: str, backend: str) -> None:
    if backend == "gas" and find_gas() is None:
        pytest.skip("no GNU as for x86 on the PATH")
    result = assemble(f"nop\nx: {name}\nnop", bits=bits, backend=backend)
    assert result.image is not None, errors(result)
    assert result.image.sections[0].data.hex() == f"90{data}90"


LIES = [
    # (bits, syntax, text, the right bytes): classes in which Keystone gives other bytes without a word.
    (32, "intel", "mov eax, 10", "b80a000000"),
    (32, "att", "mov $10, %eax", "b80a000000"),
    (32, "att", ".byte 10", "0a"),
    (32, "att", ".rept 10\nnop\n.endr", "90" * 10),
    (64, "intel", "vmovups zmm0, [rax+0x40]", "62f17c48104001"),
    (16, "intel", "push 5", "6a05"),
    (16, "intel", "push 0x1234", "683412"),
    (16, "intel", "push fs", "0fa0"),
    (16, "intel", "pop gs", "0fa9"),
    (16, "intel", "pop ds", "1f"),
    (16, "intel", "ret", "c3"),
    (16, "intel", "retf", "cb"),
    (16, "intel", "call .+3", "e80000"),
    (16, "intel", "jmp dword ptr [bx]", "ff2f"),
    (16, "intel", "push dword ptr 0x10", "666a10"),
    (32, "intel", "iret", "cf"),
    (64, "intel", "iretq", "48cf"),
    (32, "intel", "pushf", "9c"),
    (64, "intel", "popf", "9d"),
    (32, "intel", "push ds", "1e"),
    (32, "intel", "pop es", "07"),
    (32, "intel", "ljmp 8, 0x1234", "ea341200000800"),
    (32, "intel", "jmp 8:0x1234", "ea341200000800"),
    (64, "att", "sysretl", "0f07"),
    (64, "att", "sysretq", "480f07"),
    (32, "intel", "push 0x80000000", "6800000080"),
    (16, "att", "ljmpl $8, $0x12345678", "66ea785634120800"),
    (32, "att", "bound %eax, (%ebx)", "6203"),
    (64, "att", "monitor %rax, %ecx, %edx", "0f01c8"),
    (64, "att", "mwait %eax, %ecx", "0f01c9"),
    (32, "att", "pushfl", "9c"),
    (64, "att", "kmovq %rax, %k1", "c4e1fb92c8"),
    (64, "intel", "rdpid rax", "f30fc7f8"),
    (64, "intel", "serialize", "0f01e8"),
    (64, "intel", "wbnoinvd", "f30f09"),
    (64, "intel", "tlbsync", "0f01ff"),
    (64, "intel", "psmash", "f30f01ff"),
    (64, "intel", "vmgexit", "f30f01d9"),
    (64, "intel", "vmrun", "0f01d8"),
    (64, "intel", "vmrun rax", "0f01d8"),
    (64, "intel", "invlpga rax, ecx", "0f01df"),
    (64, "intel", "setssbsy", "f30f01e8"),
    (64, "intel", "clui", "f30f01ee"),
    (64, "intel", "stui", "f30f01ef"),
    (64, "intel", "seamcall", "660f01cf"),
    (64, "intel", "mcommit", "f30f01fa"),
    (64, "intel", "mov eax, 1 # tail", "b801000000"),
    (64, "intel", "mov eax, 1 // tail", "b801000000"),
    (64, "intel", "mov eax, 1 ; tail", "b801000000"),
    (64, "intel", "1: jmp 1b", "ebfe"),
    (64, "intel", "jmp 1f\n1:", "eb00"),
    (64, "intel", 'ud2; .ascii "kvm"', "0f0b6b766d"),
    (64, "intel", "mov rax, offset x\nx:", "48c7c007000000"),
]


@pytest.mark.parametrize(("bits", "syntax", "text", "data"), LIES)
def test_where_keystone_lies_the_answer_is_right_or_a_refusal(bits: int, syntax: str, text: str, data: str) -> None:
    ours = assemble(text, bits=bits, syntax=Syntax(syntax), backend="keystone", cross_check=False)
    if ours.image is not None:
        assert ours.image.sections[0].data.hex() == data
    else:
        assert errors(ours)
    if find_gas() is not None:
        best = assemble(text, bits=bits, syntax=Syntax(syntax))
        assert best.image is not None, errors(best)
        assert best.image.sections[0].data.hex() == data


REFUSED_BY_ALL = [
    (64, "lea rax,["),
    (64, "mov eax, 1.5"),
    (64, "mov eax, [rax+0x123456789]"),
    (64, "push 0x80000000"),
    (64, "sysret"),
    (32, "mov eax, rax"),
    (32, "int 0x180"),
    (64, "mov [rax], 1"),
    (64, ".byte \\x"),
    (64, '.ascii "abc'),
    (64, ".bogus 1"),
]


@pytest.mark.parametrize(("bits", "text"), REFUSED_BY_ALL)
@pytest.mark.parametrize("backend", ["auto", "keystone"])
def test_nonsense_is_an_error_in_its_line(bits: int, text: str, backend: str) -> None:
    result = assemble(f"nop\n{text}\nnop", bits=bits, backend=backend)
    assert result.image is None
    assert [found.line for found in result.diagnostics if found.severity is Severity.ERROR][:1] == [2]
