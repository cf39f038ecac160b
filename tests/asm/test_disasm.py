"""Disassembly: the rows capstone gets wrong, both syntaxes, and objdump as an oracle."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscope.asm import disasm
from kvmscope.asm.disasm import Instruction, disassemble, length_at
from kvmscope.asm.disasm_overlay import ROWS, Row
from kvmscope.asm.image import Syntax

INTEL_ROWS = [
    # bytes, bits, Intel, AT&T
    ("90", 64, "nop", "nop"),
    ("4889c3", 64, "mov rbx, rax", "movq %rax, %rbx"),
    ("b8efbeadde", 32, "mov eax, 0xdeadbeef", "movl $0xdeadbeef, %eax"),
    ("8b4708", 16, "mov ax, word ptr [bx + 8]", "movw 8(%bx), %ax"),
    ("f3a4", 64, "rep movsb byte ptr [rdi], byte ptr [rsi]", "rep movsb (%rsi), (%rdi)"),
    ("f0480fc10b", 64, "lock xadd qword ptr [rbx], rcx", "lock xaddq %rcx, (%rbx)"),
    # FRED
    ("f20f01ca", 64, "erets", "erets"),
    ("f30f01ca", 64, "eretu", "eretu"),
    ("0f01ca", 64, "clac", "clac"),
    ("f20f00f2", 64, "lkgs dx", "lkgs %dx"),
    ("f2440f003411", 64, "lkgs [rcx + rdx]", "lkgs (%rcx, %rdx)"),
    # TDX, UINTR
    ("660f01cf", 64, "seamcall", "seamcall"),
    ("0f01cf", 64, "encls", "encls"),
    ("f30f01ee", 64, "clui", "clui"),
    ("0f01ee", 64, "rdpkru", "rdpkru"),
    ("f3410fc7f3", 64, "senduipi r11", "senduipi %r11"),
    # SEV, RDPRU
    ("f30f01d9", 64, "vmgexit", "vmgexit"),
    ("f20f01d9", 32, "vmgexit", "vmgexit"),
    ("0f01d9", 64, "vmmcall", "vmmcall"),
    ("f30f01fa", 64, "mcommit", "mcommit"),
    ("0f01fa", 64, "monitorx", "monitorx"),
    ("0f01fd", 64, "rdpru", "rdpru"),
    ("f20f01ff", 32, "pvalidate", "pvalidate"),
    # Serialisation and MSRs
    ("0f01e8", 16, "serialize", "serialize"),
    ("0f01c6", 64, "wrmsrns", "wrmsrns"),
    ("f20f01c6", 64, "rdmsrlist", "rdmsrlist"),
    ("c4e77bf6c0800000c0", 64, "rdmsr rax, 0xc0000080", "rdmsr $0xc0000080, %rax"),
    ("f30f3af0c005", 64, "hreset 0x5", "hreset $0x5"),
    # ModRM and all it brings along
    ("64f3440f38f8442410", 64, "enqcmds r8, fs:[rsp + 0x10]", "enqcmds %fs:0x10(%rsp), %r8"),
    ("67f20f38f80a", 64, "enqcmd ecx, [edx]", "enqcmd (%edx), %ecx"),
    ("f20f38f80c", 16, "enqcmd cx, [si]", "enqcmd (%si), %cx"),
    ("f20f38f80d10000000", 64, "enqcmd rcx, [rip + 0x10]", "enqcmd 0x10(%rip), %rcx"),
    ("0fff8011223344", 64, "ud0 eax, [rax + 0x44332211]", "ud0 0x44332211(%rax), %eax"),
    ("660fb9ca", 64, "ud1 cx, dx", "ud1 %dx, %cx"),
    ("c4e27b4b0c0a", 64, "tileloadd tmm1, [rdx + rcx]", "tileloadd (%rdx, %rcx), %tmm1"),
    # 16-bit code
    ("98", 16, "cbw", "cbtw"),
    ("99", 16, "cwd", "cwtd"),
    ("6698", 16, "cwde", "cwtl"),
    ("98", 32, "cwde", "cwtl"),
    ("6699", 32, "cwd", "cwtd"),
    ("660fc737", 16, "vmclear [bx]", "vmclear (%bx)"),
    ("0fc737", 16, "vmptrld qword ptr [bx]", "vmptrld (%bx)"),
    ("660fefc1", 16, "pxor xmm0, xmm1", "pxor %xmm1, %xmm0"),
    ("660f6f07", 16, "movdqa xmm0, xmmword ptr [bx]", "movdqa (%bx), %xmm0"),
    ("67660f6f00", 16, "movdqa xmm0, xmmword ptr [eax]", "movdqa (%eax), %xmm0"),
    ("66b878563412", 16, "mov eax, 0x12345678", "movl $0x12345678, %eax"),
    # Far pointers in memory
    ("ff28", 64, "ljmp fword ptr [rax]", "ljmpl *(%rax)"),
    ("48ff28", 64, "ljmp tbyte ptr [rax]", "ljmpq *(%rax)"),
    ("66ff18", 64, "lcall dword ptr [rax]", "lcallw *(%rax)"),
    ("ff28", 16, "ljmp dword ptr [bx + si]", "ljmpw *(%bx, %si)"),
    ("66ff28", 16, "ljmp fword ptr [bx + si]", "ljmpl *(%bx, %si)"),
    ("ff20", 64, "jmp qword ptr [rax]", "jmpq *(%rax)"),
    # Reserved NOPs, MOVSXD without REX.W
    ("0f18c0", 64, "nop eax", "nop %eax"),
    ("f30f1efa", 16, "endbr64", "endbr64"),
    ("f30f1efa", 64, "endbr64", "endbr64"),
    ("63c1", 64, "movsxd eax, ecx", "movslq %ecx, %eax"),
    # Not an instruction
    ("06", 64, "(bad)", "(bad)"),
    ("d508", 64, "(bad)", "(bad)"),
]


@pytest.mark.parametrize(("code", "bits", "intel", "att"), INTEL_ROWS)
def test_text(code: str, bits: int, intel: str, att: str) -> None:
    for syntax, text in ((Syntax.INTEL, intel), (Syntax.ATT, att)):
        found = disassemble(bytes.fromhex(code), 0x1000, bits, syntax=syntax)[0]
        assert found.text == text
        assert found.known == (text != "(bad)")
        assert found.size == (len(code) // 2 if found.known else 1)


def test_forced_emulation_prefix() -> None:
    found = disassemble(bytes.fromhex("0f0b6b766d0fa20f0b"), 0, 64)
    assert [(i.text, i.size) for i in found] == [("kvm_fep", 5), ("cpuid", 2), ("ud2", 2)]


@pytest.mark.parametrize(
    ("code", "address", "bits", "base", "target"),
    [
        ("ebfe", 0x7C00, 16, None, 0x7C00),
        ("e9f0ff", 0, 16, None, 0xFFF3),
        ("e9f0ff", 0x10000, 16, 0x10000, 0x1FFF3),
        ("e9f0ff", 0x10000, 16, 0, 0xFFF3),
        ("e9f0ff", 0x1FFF8, 16, None, 0x1FFEB),
        ("eb10", 0xFFFE, 16, None, 0x0010),
        ("0f84f0ff", 0x100, 16, None, 0xF4),
        ("66e8f0ffffff", 0, 16, None, 0xFFFFFFF6),
        ("e8f0ffffff", 0, 32, None, 0xFFFFFFF5),
        ("66e9f0ff", 0x400000, 32, None, 0xFFF4),
        ("e2fe", 0x7C00, 16, None, 0x7C00),
        ("e800000000", 0xFFFFFFFFFFFFFFF0, 64, None, 0xFFFFFFFFFFFFFFF5),
        ("7402", 0x1000, 64, None, 0x1004),
        ("eb01", 0, 64, None, 3),
        ("ffe0", 0, 64, None, None),
        ("ff20", 0, 64, None, None),
        ("ea34120800", 0, 16, None, None),
        ("6a05", 0, 64, None, None),
    ],
)
def test_branch_targets(code: str, address: int, bits: int, base: int | None, target: int | None) -> None:
    for syntax in Syntax:
        found = disassemble(bytes.fromhex(code), address, bits, syntax=syntax, code_base=base)[0]
        assert disasm.branch_target(found) == target


KINDS = [
    # bytes, bits, the predicates that hold
    ("e800000000", 64, {"is_call"}),
    ("ffd0", 64, {"is_call"}),
    ("ff18", 64, {"is_call"}),
    ("9a341200000800", 32, {"is_call"}),
    ("c3", 64, {"is_ret"}),
    ("c20800", 64, {"is_ret"}),
    ("f3c3", 64, {"is_ret"}),
    ("cb", 64, {"is_ret"}),
    ("48cf", 64, {"is_ret"}),
    ("cf", 16, {"is_ret"}),
    ("0f07", 64, {"is_ret"}),
    ("480f07", 64, {"is_ret"}),
    ("0f35", 64, {"is_ret"}),
    ("f20f01ca", 64, {"is_ret"}),
    ("ebfe", 64, {"is_branch"}),
    ("7400", 64, {"is_branch", "is_conditional"}),
    ("e2fe", 64, {"is_branch", "is_conditional"}),
    ("e3fe", 64, {"is_branch", "is_conditional"}),
    ("ffe0", 64, {"is_branch"}),
    ("ff28", 64, {"is_branch"}),
    ("f3a4", 64, {"is_rep"}),
    ("f2ae", 64, {"is_rep"}),
    ("f36c", 64, {"is_rep"}),
    ("a4", 64, set()),
    ("cd80", 64, {"is_software_interrupt"}),
    ("cc", 64, {"is_software_interrupt"}),
    ("ce", 32, {"is_software_interrupt"}),
    ("f1", 64, {"is_software_interrupt"}),
    ("f390", 64, set()),
    ("f30f1efa", 64, set()),
    ("0f05", 64, set()),
]


@pytest.mark.parametrize(("code", "bits", "expected"), KINDS)
@pytest.mark.parametrize("syntax", Syntax)
def test_kinds(code: str, bits: int, expected: set[str], syntax: Syntax) -> None:
    found = disassemble(bytes.fromhex(code), 0, bits, syntax=syntax)[0]
    names = ("is_call", "is_ret", "is_branch", "is_conditional", "is_rep", "is_software_interrupt")
    assert {name for name in names if getattr(disasm, name)(found)} == expected, found.text


def test_count_and_length() -> None:
    code = bytes.fromhex("90" * 5 + "0f01e8" + "90")
    assert len(disassemble(code, 0, 64, count=3)) == 3
    assert len(disassemble(code, 0, 64, count=7)) == 7
    assert disassemble(b"", 0, 64) == []
    assert length_at(code[5:], 0, 64) == 3
    assert length_at(b"\x06", 0, 64) is None
    assert length_at(b"", 0, 64) is None
    assert length_at(b"\x0f", 0, 64) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.sampled_from([16, 32, 64]), st.sampled_from(Syntax), st.integers(0, (1 << 64) - 1))
def test_any_bytes(code: bytes, bits: int, syntax: Syntax, address: int) -> None:
    found = disassemble(code, address, bits, syntax=syntax)
    assert b"".join(i.data for i in found) == code
    at = address
    for instruction in found:
        assert instruction.address == at
        assert instruction.mnemonic
        assert instruction.known or (instruction.mnemonic, instruction.size) == ("(bad)", 1)
        disasm.branch_target(instruction)
        at += instruction.size


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["f20f38f8", "0fff", "0fb9", "f30f38d8", "66 0f", "c4e27b4b", "ff28", "f20f00"]),
    st.binary(max_size=10),
)
def test_the_table_with_any_tail(head: str, tail: bytes) -> None:
    code = bytes.fromhex(head) + tail
    for bits in (16, 32, 64):
        for syntax in Syntax:
            assert b"".join(i.data for i in disassemble(code, 0, bits, syntax=syntax)) == code


def test_importing_is_cheap() -> None:
    script = "import sys, kvmscope.asm.disasm; sys.exit('capstone' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# objdump as an oracle


def sample(row: Row, bits: int) -> bytes:
    """One instruction of ``row``: registers 1 and 2, memory [rdx + rcx] or [si]."""
    modrm = ""
    if row.modrm.startswith("/"):
        register = 1 if row.modrm[1] == "r" else int(row.modrm[1])
        memory = row.modrm.endswith("m")
        modrm = f"{register << 3 | (0x04 if memory else 0xC2):02x}" + ("0a" if memory and bits != 16 else "")
    elif row.modrm != "none":
        modrm = row.modrm
    immediate = "".join("78563412"[: int(kind[3:]) // 4] for kind in row.operands if kind.startswith("imm"))
    head = "" if row.prefix in "-*" else row.prefix
    if row.vex:
        field = {"38": 2, "7": 7}[row.vex]
        prefix = ["-", "66", "f3", "f2"].index(row.prefix)
        # VEX.vvvv 3 for the third tile; 1111 where it must not be used.
        head = f"c4{0xE0 | field:02x}{(0x60 if 'tvex' in row.operands else 0x78) | prefix:02x}"
    return bytes.fromhex(head + row.opcode + modrm + immediate)


def objdump(code: bytes, bits: int, syntax: Syntax, tmp_path: Path) -> str:
    """First instruction as objdump prints it, in capstone's spacing; empty when it does not know it."""
    file = tmp_path / "code"
    file.write_bytes(code)
    machine = {16: "i8086", 32: "i386", 64: "i386:x86-64"}[bits]
    command = ["objdump", "-D", "-b", "binary", "-m", machine, "-M", syntax.value, "--insn-width=16", str(file)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"^\s*0:\t((?:[0-9a-f]{2} )+)\s*\t(.*)$", out, re.M)
    if match is None or len(match[1].split()) != len(code) or "(bad)" in match[2] or match[2].startswith("rep"):
        return ""
    text = re.sub(r"\s+", " ", match[2].strip()).replace("*1", "").replace(",1)", ")")
    return re.sub(r"\b[A-Z]+ PTR ", "", text).replace(" ", "")


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
@pytest.mark.parametrize("syntax", Syntax)
def test_table_against_objdump(syntax: Syntax, tmp_path: Path) -> None:
    agreed = 0
    for row in ROWS:
        bits = row.bits[-1]
        code = sample(row, bits)
        theirs = objdump(code, bits, syntax, tmp_path)
        found = disassemble(code, 0, bits, syntax=syntax)
        assert found[0].known, row
        assert found[0].size == len(code), row
        if theirs:
            ours = re.sub(r"\b[a-z]+ ptr ", "", found[0].text).replace(" ", "")
            # Names of one encoding: NOP with or without a size, MOVSXD and MOVSLQ.
            ours, theirs = (re.sub(r"^(nop|movs)(?:[lw]\b|[lx][qd]\b)", r"\1", text) for text in (ours, theirs))
            assert ours == theirs, row
            agreed += 1
    # Known to binutils 2.40; older ones know fewer, and then the rows above still name every instruction.
    assert agreed > 10


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.mnemonic}-{r.prefix}-{r.modrm}".replace("/", ""))
def test_capstone_never_wins_over_the_table(row: Row) -> None:
    for bits in row.bits:
        found: Instruction = disassemble(sample(row, bits), 0, bits)[0]
        assert found.mnemonic == row.mnemonic
