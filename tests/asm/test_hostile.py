"""A source may do anything; it costs bounded time and memory and ends in a message."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from kvmscope.asm import Severity, Syntax, assemble, keystone_client
from kvmscope.asm.gas import find_gas

BACKENDS = [
    pytest.param("keystone", marks=pytest.mark.skipif(not keystone_client.keystone_version(), reason="no keystone")),
    pytest.param("gas", marks=pytest.mark.skipif(find_gas() is None, reason="no GNU as for x86 on the PATH")),
]

HOSTILE = [
    ".space 0x7fffffff",
    ".fill 0x7fffffff, 8, 1",
    ".rept 0x7fffffff\nnop\n.endr",
    ".macro m\nm\n.endm\nm",
    ".macro m\nm\nm\n.endm\nm",
    ".rept 1000\n.rept 1000\n.rept 1000\nnop\n.endr\n.endr\n.endr",
    ".org 0x7fffffffffff",
    ".balign 0x40000000\nnop\n.balign 0x40000000",
    "x = x + 1\n.long x",
    ".equ a, b\n.equ b, a\n.long a",
    ".long " + "(" * 5000 + "1" + ")" * 5000,
    "mov eax, " + "-" * 20000 + "1",
    "[" * 3000,
    "mov eax, [" + "a-" * 20000 + "1]",
    "mov eax, " + "a+" * 20000 + "1",
    "movl " + "(" * 20000,
    "x: " * 20000,
    ".if 1\n" * 3000,
    "\\",
    "%",
    ".byte \\x",
    "$$$$",
    "\x00\x01\x02",
    "nop\x00nop",
    "mov eax, \N{SNOWMAN}",
    '.ascii "' + "a" * 100,
    "a" * 100_000,
    ".macro",
    ".irp",
    ".set",
    ".section",
    '.section "", 5',
    ".popsection",
    ".p2align 1000000",
    ".byte 1 << 100",
    ".byte 1/0",
    "/*",
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_source_ends_in_a_message(text: str, backend: str) -> None:
    result = assemble(f"nop\n{text}\n", bits=64, backend=backend, cross_check=False)
    if result.image is None:
        first = next(found for found in result.diagnostics if found.severity is Severity.ERROR)
        assert first.message
        assert 1 <= first.line <= text.count("\n") + 3
        assert first.column >= 1
    # Whatever it was, the next source is assembled as if nothing had been.
    assert assemble("mov eax, 1", bits=64, backend=backend, cross_check=False).ok


@pytest.mark.parametrize(
    "text", [".space 0x7fffffff", ".rept 0x7fffffff\nnop\n.endr", ".macro m\nm\nm\n.endm\nm", ".org 0x7fffffffffff"]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_too_much_is_refused(text: str, backend: str) -> None:
    result = assemble(text, bits=64, backend=backend, cross_check=False)
    assert result.image is None
    assert len([found for found in result.diagnostics if found.severity is Severity.ERROR]) <= 3


def test_a_source_of_more_than_four_mebibytes_is_refused() -> None:
    result = assemble("nop\n" * (1 << 20) + "nop", bits=64)
    assert result.image is None
    assert "characters" in result.diagnostics[0].message


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_outside_of_the_source_is_read(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.s").write_text(".byte 0x42\n")
    monkeypatch.chdir(tmp_path)
    for text in (
        '.include "secret.s"',
        f'.incbin "{tmp_path}/secret.s"',
        f'.INCBIN "{tmp_path}/secret.s"',
        f'x: .include "{tmp_path}/secret.s"',
        f'.macro m w\n.in\\w "{tmp_path}/secret.s"\n.endm\nm cbin',
        f'.macro m w\n.in\\w "{tmp_path}/secret.s"\n.endm\nm clude',
    ):
        result = assemble(text, bits=64, backend=backend, cross_check=False)
        assert result.image is None, text
        assert not any("0x42" in found.message for found in result.diagnostics)
    assert os.listdir(tmp_path) == ["secret.s"]


CHARACTERS = " \t\n.:,;#/*\\\"'$%()[]+-<>=&|^~!@?{}0123456789abcdefxlmovjpadreptsicnwy"


@pytest.mark.parametrize("seed", range(8))
def test_random_text_never_raises(seed: int) -> None:
    rnd = random.Random(seed)
    words = [
        "mov",
        "eax",
        "[",
        "]",
        "jmp",
        "1f",
        "1:",
        ".byte",
        ".macro",
        ".endm",
        ".rept 2",
        ".endr",
        "\\x",
        "%rax",
        "$1",
    ]
    words += [
        ".if",
        ".endif",
        "offset",
        "x",
        "x:",
        ",",
        "(",
        ")",
        "0x10",
        "dword ptr",
        ".section",
        ".org",
        "\n",
        '"',
        "'",
    ]
    for _ in range(25):
        noise = "".join(rnd.choice(CHARACTERS) for _ in range(rnd.randint(1, 80)))
        text = " ".join(rnd.choice(words) for _ in range(rnd.randint(1, 30))) + rnd.choice(["", noise])
        assemble(text, bits=rnd.choice([16, 32, 64]), syntax=rnd.choice(list(Syntax)))


@pytest.mark.skipif(not keystone_client.keystone_version(), reason="no keystone")
def test_the_keystone_process_is_replaced_when_it_dies_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystone_client, "_SECONDS", 1.0)
    # `.float` hangs Keystone and `.space` kills it: neither can come from our front, both must be survived.
    answers = keystone_client.encode(64, ["mov ecx, 0x123401", ".space 0x7fffffff", ".float 1.5", "mov ecx, 0x123402"])
    assert (answers[0], answers[3]) == (bytes.fromhex("b901341200"), bytes.fromhex("b902341200"))
    assert answers[1] is None
