"""Highlighting spans, line by line."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscope.asm.image import Syntax
from kvmscope.asm.lexer import State, spans


def shown(line: str, syntax: Syntax = Syntax.INTEL, state: State | None = None) -> str:
    """Spans as ``kind:text`` joined by blanks."""
    found, _ = spans(line, syntax, state)
    return " ".join(f"{s.kind[:3]}:{line[s.start : s.end]}" for s in found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mov rax, 0x10", "mne:mov reg:rax ope:, num:0x10"),
        ("  MOV RAX,CR0", "mne:MOV reg:RAX ope:, reg:CR0"),
        ("start: hlt ; stop", "lab:start: mne:hlt com:; stop"),
        ("a: b: nop", "lab:a: lab:b: mne:nop"),
        ("1: jmp 1b", "lab:1: mne:jmp lab:1b"),
        (
            "lock add dword ptr [rbx+rcx*8-0x10], 0b101",
            "mne:lock mne:add ope:dword ope:ptr ope:[ reg:rbx ope:+ reg:rcx ope:* num:8 ope:- num:0x10 ope:] ope:, num:0b101",
        ),
        ("rep movsb", "mne:rep mne:movsb"),
        (".byte 1, 'a', \"x;y\"", "dir:.byte num:1 ope:, str:'a' ope:, str:\"x;y\""),
        ("value = 5", "lab:value ope:= num:5"),
        ('ud2; .ascii "kvm"; cpuid', 'mne:ud2 ope:; dir:.ascii str:"kvm" com:; cpuid'),
        ("cli; hlt", "mne:cli com:; hlt"),
        ("mov eax, [table] # load", "mne:mov reg:eax ope:, ope:[ ope:] com:# load"),
        ("mov eax, 1 // one", "mne:mov reg:eax ope:, num:1 com:// one"),
        ("/* a */ mov /* b */ eax, 1", "com:/* a */ mne:mov com:/* b */ reg:eax ope:, num:1"),
        ("mov ax, 0ffh", "mne:mov reg:ax ope:, num:0ffh"),
        ("mov eax, end - start", "mne:mov reg:eax ope:, ope:-"),
        ("mov rax, offset msg", "mne:mov reg:rax ope:, ope:offset"),
        ('.ascii "unterminated', 'dir:.ascii str:"unterminated'),
        (".macro m x", "dir:.macro"),
        ("", ""),
        ("   ", ""),
        ("# only a comment", "com:# only a comment"),
    ],
)
def test_intel(line: str, expected: str) -> None:
    assert shown(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("movq $0x10, %rax", "mne:movq num:$0x10 ope:, reg:%rax"),
        (
            "mov %fs:8(%rbx,%rcx,4), %eax",
            "mne:mov reg:%fs ope:: num:8 ope:( reg:%rbx ope:, reg:%rcx ope:, num:4 ope:) ope:, reg:%eax",
        ),
        ("lea rax(%rip), %rdx", "mne:lea ope:( reg:%rip ope:) ope:, reg:%rdx"),
        ("mov $start, %rax # c", "mne:mov ope:$ ope:, reg:%rax com:# c"),
        ("jmp *%rax", "mne:jmp ope:* reg:%rax"),
    ],
)
def test_att(line: str, expected: str) -> None:
    assert shown(line, Syntax.ATT) == expected


def run(lines: list[str]) -> list[str]:
    state: State | None = None
    out = []
    for line in lines:
        found, state = spans(line, Syntax.INTEL, state)
        out.append(" ".join(f"{s.kind[:3]}:{line[s.start : s.end]}" for s in found))
    return out


def test_block_comments_over_lines() -> None:
    assert run(["nop /* one", "two", "", "three */ hlt", "nop"]) == [
        "mne:nop com:/* one",
        "com:two",
        "",
        "com:three */ mne:hlt",
        "mne:nop",
    ]


@pytest.mark.parametrize("leader", ["#", ";", "//"])
def test_header(leader: str) -> None:
    lines = [f"{leader} /// kvmscope", f'{leader} mode = "long64"', leader, f"{leader} ///", f"{leader} after", "hlt"]
    assert run(lines) == [*(f"hea:{line}" for line in lines[:4]), f"com:{lines[4]}", "mne:hlt"]


def test_an_open_header_ends_with_its_comments() -> None:
    assert run(["; /// kvmscope", "; a = 1", "mov eax, 1", "; x"])[2:] == ["mne:mov reg:eax ope:, num:1", "com:; x"]


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=60), max_size=4),
    st.sampled_from(Syntax),
)
def test_any_text(lines: list[str], syntax: Syntax) -> None:
    state: State | None = None
    for line in lines:
        found, state = spans(line, syntax, state)
        end = 0
        for span in found:
            assert end <= span.start < span.end <= len(line)
            end = span.end


@given(st.text("abr x01\"'/*;#.:%$[]=,\\", max_size=40))
def test_any_assembly_like_text(line: str) -> None:
    found, _ = spans(line)
    assert all(a.end <= b.start for a, b in pairwise(found))


def test_importing_is_cheap() -> None:
    script = "import sys, kvmscope.asm.lexer; sys.exit('capstone' in sys.modules or 'pygments' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
