"""Every error has its line, its column, the text it is about, and a way out."""

from __future__ import annotations

import pytest

from kvmscope.asm import Diagnostic, Severity, Syntax, assemble, keystone_client
from kvmscope.asm.gas import find_gas

BACKENDS = [
    pytest.param("keystone", marks=pytest.mark.skipif(not keystone_client.keystone_version(), reason="no keystone")),
    pytest.param("gas", marks=pytest.mark.skipif(find_gas() is None, reason="no GNU as for x86 on the PATH")),
]
INTEL, ATT = Syntax.INTEL, Syntax.ATT


def errors(text: str, bits: int, syntax: Syntax, backend: str) -> list[Diagnostic]:
    result = assemble(text, bits=bits, syntax=syntax, backend=backend, cross_check=False)
    assert result.image is None
    return [found for found in result.diagnostics if found.severity is Severity.ERROR]


ROWS = [
    # (bits, syntax, source, line, column, token, part of the hint)
    (64, INTEL, "nop\n  mvo eax, 1", 2, 3, "mvo", "'mov'"),
    (64, INTEL, "lgtd [rax]", 1, 1, "lgtd", "'lgdt'"),
    (64, INTEL, "wmrsr", 1, 1, "wmrsr", "'wrmsr'"),
    (64, INTEL, "iretqq", 1, 1, "iretqq", "'iretq'"),
    (64, ATT, "mvol $1, %eax", 1, 1, "mvol", "'movl'"),
    (64, INTEL, "movl eax, 1", 1, 1, "movl", "AT&T"),
    (64, INTEL, "mov eax, $1", 1, 10, "$1", "Intel|AT&T"),
    (64, INTEL, "x: mov [rbx], 1", 1, 4, "mov", "dword ptr"),
    (64, ATT, "push eax", 1, 6, "eax", "%eax"),
    (64, ATT, "movl 1, %xax", 1, 9, "%xax", "%ax|%eax"),
    (64, INTEL, "mov eax, [nowhere]", 1, 11, "nowhere", "label"),
    (64, INTEL, "jmp lopo\nloop1: nop", 1, 5, "lopo", "'loop1'"),
    (64, INTEL, "a: nop\n a: nop", 2, 2, "a", "local label"),
    (32, INTEL, "db 5", 1, 1, "db", ".byte"),
    (32, INTEL, "dq 5", 1, 1, "dq", ".quad"),
    (32, INTEL, "bits 64", 1, 1, "bits", ".code64"),
    (32, INTEL, "org 0x7c00", 1, 1, "org", ".org"),
    (32, INTEL, "resb 5", 1, 1, "resb", ".space"),
    (32, INTEL, "times 3 nop", 1, 1, "times", ".rept"),
    (32, INTEL, "section .data", 1, 1, "section", ".section"),
    (64, INTEL, ".bite 5", 1, 1, ".bite", ".byte"),
    (32, INTEL, "swapgs", 1, 1, "swapgs", ""),
    (64, INTEL, "sysret", 1, 1, "sysret", "sysretq"),
    (64, INTEL, "mov eax, [eax+rbx]", 1, 10, "[eax+rbx]", ""),
    (64, INTEL, ".org 0x10\n.org 0x5", 2, 1, ".org", "ahead"),
    (64, INTEL, 'nop\n.include "x"', 2, 1, ".include", "paste"),
    (64, INTEL, '.incbin "/etc/passwd"', 1, 1, ".incbin", "paste"),
    (64, INTEL, "nop\n /* no end", 2, 2, "/*", "*/"),
    (64, INTEL, '.ascii "abc', 1, 8, '"', ""),
    (16, INTEL, "x: .fill 300\nloop x", 2, 1, "", "too far"),
    (64, INTEL, "jmp 8:0x1000", 1, 1, "jmp", ""),
    (64, INTEL, ".section .a, 0x400000\nnop\n.text\nnop", 1, 1, "", "another address"),
    (32, INTEL, ".section .a\n.org 0x500", 2, 6, "0x500", ".section .a, ADDRESS"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("bits", "syntax", "text", "line", "column", "token", "hint"), ROWS)
def test_place_and_hint(
    bits: int, syntax: Syntax, text: str, line: int, column: int, token: str, hint: str, backend: str
) -> None:
    result = assemble(text, bits=bits, syntax=syntax, backend=backend, origin=0x400000 if ".a, 0x4" in text else 0)
    found = next(one for one in result.diagnostics if one.severity is Severity.ERROR)
    assert found.line == line
    if token:
        assert (found.column, found.token, found.length) == (column, token, len(token))
    assert not hint or any(part in found.hint for part in hint.split("|")), found


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_error_is_reported(backend: str) -> None:
    text = "mvo eax, 1\nnop\nbogus\njmp nowhere1\n.bite\nret"
    found = errors(text, 64, INTEL, backend)
    assert {one.line for one in found} >= {1, 3, 5}
    assert {one.line for one in errors("jmp nowhere1\nnop\njmp nowhere2", 64, INTEL, backend)} == {1, 3}


def test_an_error_in_a_macro_stands_where_it_is_called_or_written() -> None:
    text = ".macro m x\n mov \\x, 1\n bogus \\x\n.endm\nnop\nm eax"
    assert {one.line for one in errors(text, 64, INTEL, "keystone")} == {6}
    if find_gas() is not None:
        result = assemble(text, bits=64)
        assert [(one.line, one.severity) for one in result.diagnostics] == [(3, Severity.ERROR), (6, Severity.NOTE)]


@pytest.mark.parametrize(
    ("text", "column", "token"),
    [("cli; hlt", 6, "hlt"), ("mov eax, 1 ; mov ebx, 2", 14, "mov"), ("cli ; lock add dword ptr [rax], 1", 12, "add")],
)
def test_an_instruction_after_a_semicolon_is_not_dropped_silently(text: str, column: int, token: str) -> None:
    result = assemble(text, bits=64)
    assert result.ok
    assert [(one.severity, one.column, one.token) for one in result.diagnostics] == [(Severity.WARNING, column, token)]


@pytest.mark.parametrize("text", ["nop ; add one", "nop ; call the handler", "; hlt", "# cli; hlt", "nop ; in ring 3"])
def test_an_ordinary_comment_is_no_warning(text: str) -> None:
    assert assemble(text, bits=64).diagnostics == ()


def test_the_preprocessor_is_not_run_and_says_so() -> None:
    result = assemble("#include <asm/msr.h>\nnop", bits=64)
    assert result.ok
    assert [(one.line, one.severity) for one in result.diagnostics] == [(1, Severity.WARNING)]


@pytest.mark.skipif(find_gas() is None, reason="no GNU as for x86 on the PATH")
def test_warnings_of_gas_are_kept() -> None:
    result = assemble("mov al, 300", bits=64)
    assert result.ok
    assert [(one.severity, one.line) for one in result.diagnostics] == [(Severity.WARNING, 1)]


def test_a_label_named_like_a_register_or_operator_is_a_warning() -> None:
    result = assemble("nop\ncx: nop\nand: nop\nok: nop", bits=16, backend="keystone", cross_check=False)
    assert [(one.line, one.severity, one.token) for one in result.diagnostics] == [
        (2, Severity.WARNING, "cx"),
        (3, Severity.WARNING, "and"),
    ]
    assert assemble("cx: nop", bits=16, syntax=ATT).diagnostics == ()


def test_lines_may_end_like_those_of_windows() -> None:
    result = assemble("nop\r\n\tmvo eax, 1\r\n", bits=64)
    assert [(one.line, one.column) for one in result.diagnostics] == [(2, 2)]
    assert assemble("nop # x\r\nret\r\n", bits=64).ok
