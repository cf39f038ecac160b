"""Small trees as kvm-unit-tests has them: guests assembled here, and a configuration."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

LIBRARY = """
        .section .multiboot, "a"
        .long 0x1badb002, 0, -0x1badb002
        .text
        .globl start, report, quit
start:  mov $stack, %esp
        call main
quit:   out %eax, $0xf4
1:      hlt
        jmp 1b
# %esi: the line
report: mov $0x3f8, %edx
1:      lodsb
        test %al, %al
        jz 2f
        out %al, %dx
        jmp 1b
2:      ret
        .bss
        .space 4096
stack:
        .text
"""


def line(text: str, function: str = "report") -> str:
    """Code that has the library print ``text``."""
    return f'        .section .rodata\n7:      .asciz "{text}\\n"\n        .text\n        mov $7b, %esi\n        call {function}\n'


GUESTS = {
    "good": "main:\n" + line("PASS: one") + line("PASS: two") + line("SUMMARY: 2 tests") + "xor %eax, %eax\nret\n",
    "bad": "main:\n"
    + line("enabling apic")
    + line("PASS: one")
    + "        mov $100, %ecx\n1:      loop 1b\n"
    + "failing:\n"
    + line("FAIL: two: it is # broken")
    + line("SKIP: three")
    + line("SUMMARY: 3 tests, 1 unexpected failures, 1 skipped")
    + "mov $1, %eax\nret\n",
    "skipping": "main:\n" + line("SKIP: all") + line("SUMMARY: 1 tests, 1 skipped") + "mov $38, %eax\nret\n",
    "aborting": "main:\n" + line("ABORT: no") + "mov $63, %eax\nret\n",
    "looping": "main:\n" + line("PASS: before") + "1: jmp 1b\n",
    "faulting": "main:\n" + line("PASS: before") + "lidt none\nud2\nnone: .long 0, 0\n",
    "silent": "main:\n        xor %eax, %eax\nret\n",
    "tail": "main:\n" + line("FAIL: by a jump", "fail") + "mov $1, %eax\nret\nfail:   nop\n        jmp report\n",
}

CONFIG = """\
[good]
file = good.flat
[bad]
file = bad.flat
[skipping]
file = skipping.flat
[aborting]
file = aborting.flat
[looping]
file = looping.flat
timeout = 1
[faulting]
file = faulting.flat
qemu_params = -device hyperv-testdev
[elsewhere]
file = good.flat
arch = i386
"""


def build(source: str, path: Path) -> None:
    """Assemble and link one guest; skips where the tools are not there."""
    for tool in ("as", "ld"):
        if shutil.which(tool) is None:
            pytest.skip(f"GNU {tool} is not installed")
    object_file = path.with_suffix(".o")
    subprocess.run(["as", "--32", "-o", object_file, "-"], input=(LIBRARY + source).encode(), check=True)
    subprocess.run(
        ["ld", "-m", "elf_i386", "-n", "-e", "start", "-Ttext", "0x400000", "--section-start=.multiboot=0x3ff000",
         "-z", "max-page-size=16", "-o", path, object_file],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def build_tree(root: Path, names: tuple[str, ...] = tuple(GUESTS), config: str = CONFIG) -> Path:
    """A tree with these guests."""
    directory = root / "x86"
    directory.mkdir()
    (directory / "unittests.cfg").write_text(config)
    (root / "config.mak").write_text("ARCH=x86_64\n")
    for name in names:
        build(GUESTS[name], directory / f"{name}.flat")
    return root
