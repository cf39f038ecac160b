from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kvmscope.errors import ExportError
from kvmscope.export import export
from kvmscope.export.kut.tree import cfg_edit, makefile_edit
from kvmscope.export.writing import place
from kvmscope.reproducer import parse
from tests.export.kut_headers import HEADERS

TREE = os.environ.get("KVMSCOPE_KUT_TREE", "")
QEMU = [
    "qemu-system-x86_64",
    "-nodefaults",
    "-device",
    "pc-testdev",
    "-device",
    "isa-debug-exit,iobase=0xf4,iosize=0x4",
    "-vnc",
    "none",
    "-serial",
    "stdio",
    "-accel",
    "tcg",
    "-cpu",
    "max",
    "-kernel",
]

PAGE_FAULT = """\
; /// kvmscope
; title = "A write to a read-only page"
; link = "https://example.org/thread"
; expect = [
;   "exception == '#PF'", "error_code == 3", "fault_address == 0x200008", "rip == store", "cr0.wp == 1",
;   "u64(0x200010) == 0x1122334455667788", "al == 5", "stop == 'exception'",
; ]
; [registers]
; rdi = 0x200008
; [[page]]
; linear = 0x200000
; physical = 0x200000
; flags = "P"
; [[memory]]
; address = 0x200010
; u64 = [0x1122334455667788]
; ///
        mov     al, 5           ; with a "comment"
store:  mov     [rdi], rbx
        hlt
"""

RING3 = """\
# /// kvmscope
# ring = 3
# io_permission = [[0xe0, 0xe1]]
# expect = ["exception == '#GP'", "rip == wide", "cpl == 3", "al == 0x3c"]
# ///
        mov     $0x3c, %al
        out     %al, $0xe0
        xor     %eax, %eax
        in      $0xe0, %al
wide:   in      $0xe0, %eax
        ud2
"""

HANDLED = """\
; /// kvmscope
; expect = ["count('#UD') == 2", "exceptions == 2", "exception == '#UD'", "error_code == -1", "fault_rip == report", "debug_exit == 7"]
; [handlers]
; "#UD" = "main"
; ///
        ud2
report: ud2
        mov     eax, 7
        mov     dx, 0xf4
        out     dx, al
        hlt
main:   add     qword ptr [rsp], 2
        iretq
"""

PLAIN = "        xor eax, eax\n        out 0xf4, al\n        hlt\n"

MSRS = """\
; /// kvmscope
; expect = ["r8 == 0x1234", "msr('IA32_LSTAR') == entry", "msr(0xc0000102) == 0x5678", "debug_exit == 0", "stop == 'debug-exit'"]
; [msrs]
; 0xc0000102 = 0x1234
; ///
        mov     ecx, 0xc0000102
        rdmsr
        mov     r8, rax
        mov     eax, 0x5678
        xor     edx, edx
        wrmsr
        mov     ecx, 0xc0000082
        lea     rax, [rip + entry]
        mov     rdx, rax
        shr     rdx, 32
        wrmsr
        xor     eax, eax
        out     0xf4, eax
entry:  hlt
"""

PAGES = """\
; /// kvmscope
; memory_size = "64M"
; expect = ["eax == 0x55", "ebx == 0x66", "exception == '#PF'", "error_code == 0", "u8(0xffff800000001000) == 0x77", "count(14) == 1"]
; [[page]]
; linear = 0x100000000
; physical = 0x200000
; count = 2
; [[page]]
; linear = 0xffff800000000000
; physical = 0x2000000
; flags = "P RW US G"
; count = 2
; [[memory]]
; address = 0x201000
; u8 = [0x55]
; [[memory]]
; address = 0x2000000
; fill = { value = 0x66, count = 32 }
; [[memory]]
; address = "data"
; u64 = ["data", 1]
; ///
        mov     rcx, 0x100001000
        movzx   eax, byte ptr [rcx]
        movabs  rcx, 0xffff800000000000
        movzx   ebx, byte ptr [rcx + 31]
        mov     byte ptr [rcx + 0x1000], 0x77
        mov     rdx, [rip + data]
        lea     rsi, [rip + data]
        cmp     rdx, rsi
        jne     bad
        mov     rdx, [rcx + 0x2000]
bad:    ud2
data:   .quad   0, 0
"""

GATES = """\
; /// kvmscope
; expect = [
;   "r8 == 0x10", "count('#NP') == 1", "count(0x81) == 1", "r9 == 0x8c000 - 40", "error_code == 0x78", "ds == 0x70",
;   "debug_exit == 0",
; ]
; [handlers]
; "#NP" = "on_np"
; 0x81 = { entry = "on_81", ist = 2, type = "trap" }
; [[descriptor]]
; table = "gdt"
; index = 14
; value = 0x00cf9300_0000ffff
; [[descriptor]]
; table = "gdt"
; index = 15
; kind = "data"
; fields = { present = 0 }
; [[descriptor]]
; table = "idt"
; index = 0x82
; kind = "interrupt-gate"
; fields = { selector = 8, offset = "on_82" }
; ///
        int     0x81
        int     0x82
        mov     eax, 0x70
        mov     ds, eax
        mov     eax, 0x78
        mov     es, eax
after:  xor     eax, eax
        out     0xf4, eax
on_np:  lea     rax, [rip + after]
        mov     [rsp + 8], rax
        add     rsp, 8
        iretq
on_81:  mov     r9, rsp
        iretq
on_82:  mov     r8, ss
        iretq
"""

FLAGS = """\
; /// kvmscope
; expect = ["df == 1", "cf == 1", "zf == 0", "bl == 0x34", "bh == 0x12", "bx == 0x1234", "ebx == 0x88881234", "r10d == 7", "r10b == 7",
;   "rsp == 0x7fff8", "iopl == 3", "stop == 'hlt'", "cr4.pae == 1", "efer & 0x500 == 0x500", "dr7 == 0x400", "cr2 == 0x1234", "fs.base == 0x5678", "u64(rsp) == here"]
; [registers]
; rflags = 0x3402
; cr2 = 0x1234
; fs.base = 0x5678
; rbx = 0x99999999_88881234
; r10 = 7
; ///
        lea     rax, [rip + here]
        push    rax
        stc
here:   hlt
"""

GOOD = {
    "pages.asm": PAGES,
    "gates.asm": GATES,
    "flags.asm": FLAGS,
    "page_fault.asm": PAGE_FAULT,
    "ring3.S": RING3,
    "handled.asm": HANDLED,
    "plain.asm": PLAIN,
    "msrs.asm": MSRS,
}


def source(name: str, text: str | None = None) -> str:
    """The C file of a program."""
    result = export(parse(GOOD[name] if text is None else text, name), "kvm-unit-tests")
    assert [file.path for file in result.files] == [f"x86/{Path(name).stem}.c"]
    return result.files[0].text


@pytest.mark.parametrize("name", GOOD)
def test_form(name):
    text = source(name)
    assert all(len(line.expandtabs(8)) <= 120 for line in text.splitlines())
    assert not re.search(r"[ \t]+$", text, re.MULTILINE)
    assert not re.search(r"^ {8}", text, re.MULTILINE)
    assert "return report_summary();" in text
    assert text.count("kvmscope") == 1
    assert '#include "libcflat.h"' in text


def test_page_fault_says_everything_of_the_header():
    text = source("page_fault.asm")
    for part in (
        " * A write to a read-only page\n *\n * https://example.org/thread\n",
        "map_page(0x200000, 0x200000, PT_PRESENT_MASK);",
        "*(u64 *)0x200010 = 0x1122334455667788ul;",
        "guest.rdi = 0x200008;",
        "report(last.vector == PF_VECTOR, \"exception == '#PF'\");",
        "report(guest.rip == (ulong)store,",
        "report(stop == STOP_EXCEPTION,",
        '/* with a "comment" */',
        ".intel_syntax noprefix",
    ):
        assert part in text, part
    # Contents are physical: they have to be there before the page is taken away from the identity map.
    assert text.index("*(u64 *)0x200010") < text.index("map_page(0x200000, 0x")


def test_att_stays_att():
    text = source("ring3.S")
    assert "intel_syntax" not in text
    assert "mov $0x3c, %al" in text
    assert "((u8 *)&tss[1])[i / 8] &= ~BIT(i % 8);" in text


def test_labels_that_c_uses_are_renamed():
    text = source("handled.asm")
    assert '"guest_main:\\n"' in text
    assert '"guest_report:\\n"' in text
    assert "jmp guest_main" in text
    assert "(ulong)guest_report" in text


def test_the_debug_exit_is_replaced_whatever_its_form():
    assert "/* out dx, al */" in source("handled.asm")
    assert '"\\tint 18\\n"' in source("plain.asm")
    assert "out 0xf4" not in re.sub(r"/\*.*?\*/", "", source("plain.asm"))


def test_without_expectations_a_good_end_is_asserted():
    assert "(stop == STOP_DEBUG_EXIT && debug_exit == 0) || stop == STOP_HLT" in source("plain.asm")


def test_xfail_becomes_report_xfail():
    text = source("x.asm", "; /// kvmscope\n; expect = ['rax == 1']\n; xfail = 'a known bug'\n; ///\n hlt\n")
    assert "/* Known to fail: a known bug */" in text
    assert 'report_xfail(true, guest.rax == 1, "rax == 1");' in text


def header(lines: str, code: str = "hlt\n") -> str:
    return "".join(f"; {line}\n" for line in ["/// kvmscope", *lines.splitlines(), "///"]) + code


REFUSED = {
    "real mode": (header('mode = "real16"'), ":2: ", "64-bit mode"),
    "5-level": (header('paging = "5level"'), ":2: ", "4 levels"),
    "serial": (header("expect = [\"serial == 'x'\"]"), ":2: ", "cannot be read back"),
    "ticks": (header('expect = ["ticks == 1"]'), ":2: ", "count of instructions"),
    "xmm": (header('expect = ["xmm0 == 0"]'), ":2: ", "SSE"),
    "hidden part": (header('expect = ["cs.base == 0"]'), ":2: ", "hidden part"),
    "tr": (header('expect = ["tr == 0x50"]'), ":2: ", "TR"),
    "page in the image": (header("[[page]]\nlinear = 0x500000"), ":2: ", "test image"),
    "descriptor in use": (header('[[descriptor]]\ntable = "gdt"\nindex = 16\nvalue = 0'), ":2: ", "TSS"),
    "ldt": (header('[[descriptor]]\ntable = "ldt"\nindex = 1\nvalue = 0'), ":2: ", "LDT"),
    "pkey": (header("[[page]]\nlinear = 0x200000\npkey = 3"), ":2: ", "protection keys"),
    "triple fault": (header("", "lidt [rip + x]\nud2\nx: .word 0\n.quad 0\n"), ":", ""),
    "lgdt": (header("", "sgdt [rsp - 16]\nlgdt [rsp - 16]\nhlt\n"), ":", "GDT"),
    "no end": (header("max_instructions = 100", "x: jmp x\n"), ":", "does not end"),
    "absolute": (header("", "mov eax, 0x400000\nhlt\n"), ":3: ", "an address in the program"),
    "scratch in the image": (header("", "mov [0x500000], eax\nhlt\n"), ":3: ", "test image"),
    "register": (header("[registers]\nmxcsr = 0x1f80"), ":3: ", "does not set"),
    "cr3": (header("[registers]\ncr3 = 0x90000"), ":3: ", "does not set"),
    "unknown out": (header("", "jmp x\nout dx, al\nx: hlt\n"), ":4: ", "DX"),
    "section": (header("", "hlt\n.section .data\nx: .byte 1\n"), ":", ""),
    "does not assemble": (header("", "mvo eax, 1\n"), ":3:", ""),
    "count of what nobody sees": (
        header(
            'expect = ["count(\'#PF\') == 1"]\n[handlers]\n"#PF" = "h"\n"#DF" = { entry = "h", ist = 1 }',
            "mov rsp, 0x7000000000\nmov rax, [rsp]\nh: hlt\n",
        ),
        ":2: ",
        "delivery fails",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_test_cannot_say_is_refused_with_its_place(name):
    text, where, why = REFUSED[name]
    with pytest.raises(ExportError) as caught:
        export(parse(text, "bad.asm"), "kvm-unit-tests")
    assert "bad.asm" + where in caught.value.detail, caught.value
    assert why in str(caught.value)


def test_a_number_that_may_be_an_address_is_noted():
    result = export(parse("mov ecx, 0x500000\nhlt\n", "x.asm"), "kvm-unit-tests")
    assert any("0x500000" in note for note in result.notes)


def test_a_run_that_fails_here_is_noted():
    result = export(parse(header('expect = ["rax == 1"]'), "x.asm"), "kvm-unit-tests")
    assert any("FAIL" in note for note in result.notes)


MAKEFILE = """\
ifneq ($(CONFIG_EFI),y)
tests += $(TEST_DIR)/access_test.$(exe)
tests += $(TEST_DIR)/vmx.$(exe)
endif

include $(SRCDIR)/$(TEST_DIR)/Makefile.common
"""


def test_makefile_entry_goes_to_the_tests_that_efi_does_not_build():
    edit = makefile_edit("new")
    changed = edit.apply(MAKEFILE)
    assert changed is not None
    assert "vmx.$(exe)\ntests += $(TEST_DIR)/new.$(exe)\nendif" in changed
    assert edit.apply(changed) is None


def test_makefile_without_such_a_block_gets_one():
    changed = makefile_edit("new").apply("include $(SRCDIR)/$(TEST_DIR)/Makefile.common\n")
    assert changed is not None
    assert changed.startswith("ifneq ($(CONFIG_EFI),y)\ntests += $(TEST_DIR)/new.$(exe)\nendif")


def test_cfg_entry_is_added_once():
    edit = cfg_edit("new")
    changed = edit.apply("[old]\nfile = old.flat\n")
    assert changed == "[old]\nfile = old.flat\n\n[new]\nfile = new.flat\narch = x86_64\nqemu_params = -cpu max\n"
    assert edit.apply(changed) is None


@pytest.mark.parametrize("name", GOOD)
def test_compiles_without_a_warning(tmp_path, name):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    for header_name, text in HEADERS.items():
        (tmp_path / header_name).write_text(text)
    (tmp_path / "test.c").write_text(source(name))
    flags = [
        "-std=gnu99",
        "-O1",
        "-ffreestanding",
        "-mno-red-zone",
        "-mno-sse",
        "-fno-pic",
        "-Wall",
        "-Werror",
        "-Wno-main",
        "-I.",
        "-c",
        "test.c",
    ]
    made = subprocess.run(["gcc", *flags], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of a built kvm-unit-tests tree."""
    if not TREE:
        pytest.skip("KVMSCOPE_KUT_TREE names no built kvm-unit-tests tree")
    for tool in ("gcc", "make", "qemu-system-x86_64"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    copy = tmp_path_factory.mktemp("kut") / "tree"
    shutil.copytree(TREE, copy, symlinks=True)
    subprocess.run(["./configure"], cwd=copy, check=True, capture_output=True)
    return copy


def built_and_run(tree: Path, name: str, text: str) -> tuple[int, str]:
    """Export into the tree, build with make, run: (QEMU's status, output)."""
    result = export(parse(text, name), "kvm-unit-tests", name=f"kvmscope_{Path(name).stem}")
    place(result, tree, force=True)
    flat = result.files[0].path.replace(".c", ".flat")
    made = subprocess.run(["make", flat], cwd=tree, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    run = subprocess.run([*QEMU, flat], cwd=tree, capture_output=True, text=True, timeout=60, check=False)
    return run.returncode, run.stdout


@pytest.mark.parametrize("name", GOOD)
def test_upstream_builds_it_and_it_passes(tree, name):
    status, output = built_and_run(tree, name, GOOD[name])
    assert "FAIL" not in output, output
    assert "PASS" in output
    assert status == 1, output


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("page_fault.asm", "error_code == 3", "error_code == 2"),
        ("page_fault.asm", '0x1122334455667788"', '0x1122334455667789"'),
        ("ring3.S", "cpl == 3", "cpl == 0"),
        ("handled.asm", "count('#UD') == 2", "count('#UD') == 3"),
        ("handled.asm", "debug_exit == 7", "debug_exit == 0"),
        ("msrs.asm", "r8 == 0x1234", "r8 == 0x1235"),
    ],
)
def test_upstream_sees_a_false_expectation_fail(tree, name, right, wrong):
    text = GOOD[name]
    assert right in text
    status, output = built_and_run(tree, name, text.replace(right, wrong))
    assert output.count("\nFAIL: ") + output.startswith("FAIL: ") == 1, output
    assert status == 3, output
