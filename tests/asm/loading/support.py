"""Images for the tests: ELF files made byte by byte, and small guests made by GNU as and ld."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MULTIBOOT = struct.pack("<III", 0x1BADB002, 0, -0x1BADB002 & 0xFFFFFFFF)


@dataclass(frozen=True)
class Segment:
    address: int
    data: bytes
    size: int = 0
    flags: int = 5
    virtual: int | None = None
    kind: int = 1


def elf(
    segments: tuple[Segment, ...],
    *,
    entry: int | None = None,
    symbols: tuple[tuple[str, int, int, int], ...] = (),
    wide: bool = False,
    machine: int | None = None,
    kind: int = 2,
) -> bytes:
    """An executable; ``symbols`` are (name, value, info, section)."""
    header, program = (64, 56) if wide else (52, 32)
    offset = header + program * len(segments)
    rows, body = b"", b""
    for segment in segments:
        virtual = segment.address if segment.virtual is None else segment.virtual
        size = max(segment.size, len(segment.data))
        where = offset + len(body)
        if wide:
            rows += struct.pack(
                "<IIQQQQQQ", segment.kind, segment.flags, where, virtual, segment.address, len(segment.data), size, 4
            )
        else:
            rows += struct.pack(
                "<IIIIIIII", segment.kind, where, virtual, segment.address, len(segment.data), size, segment.flags, 4
            )
        body += segment.data
    strings = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in symbols)
    table = b"\0" * (24 if wide else 16)
    at = 1
    for name, value, info, section in symbols:
        if wide:
            table += struct.pack("<IBBHQQ", at, info, 0, section, value, 0)
        else:
            table += struct.pack("<IIIBBH", at, value, 0, info, 0, section)
        at += len(name) + 1
    names = b"\0.symtab\0.strtab\0.shstrtab\0"
    symtab = offset + len(body)
    strtab = symtab + len(table)
    shstrtab = strtab + len(strings)
    sections = shstrtab + len(names)
    layout = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
    headers = struct.pack(layout, *(0,) * 10)
    headers += struct.pack(layout, 1, 2, 0, 0, symtab, len(table), 2, 1, 4, 24 if wide else 16)
    headers += struct.pack(layout, 9, 3, 0, 0, strtab, len(strings), 0, 0, 1, 0)
    headers += struct.pack(layout, 17, 3, 0, 0, shstrtab, len(names), 0, 0, 1, 0)
    start = segments[0].address if entry is None and segments else entry or 0
    front = struct.pack("<4sBBBB8x", b"\x7fELF", 2 if wide else 1, 1, 1, 0)
    front += struct.pack(
        "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH",
        kind, machine if machine is not None else 62 if wide else 3, 1, start, header, sections, 0,
        header, program, len(segments), 64 if wide else 40, 4, 3,
    )  # fmt: skip
    return front + rows + body + table + strings + names + headers


def link(directory: Path, source: str, *, name: str = "guest", at: int = 0x400000, flags: str = "-g") -> Path:
    """A guest of 64-bit code linked at ``at``, as NAME.elf (ELF64) and NAME.flat (ELF32) as kvm-unit-tests do.

    Skips the test where GNU as, ld or objcopy are missing.  Returns the path of NAME.flat.
    """
    for tool in ("as", "ld", "objcopy"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    text = directory / f"{name}.s"
    text.write_text(source)
    run(directory, "as", "--64", *flags.split(), f"{name}.s", "-o", f"{name}.o")
    # -N: text, data and bss in one segment, the header's bytes left out.
    run(directory, "ld", "-N", "-m", "elf_x86_64", f"-Ttext={at:#x}", "-e", "start", f"{name}.o", "-o", f"{name}.elf")
    run(directory, "objcopy", "-O", "elf32-i386", f"{name}.elf", f"{name}.flat")
    return directory / f"{name}.flat"


def run(directory: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=30)
    if done.returncode:
        if "unrecognized" in done.stderr or "unknown" in done.stderr.lower() or "not supported" in done.stderr:
            pytest.skip(f"{command[0]} here does not make x86 images: {done.stderr.strip()}")
        raise AssertionError(done.stderr)


GUEST = """\
        .text
        .code32
        .globl  start
        .long   0x1badb002, 0, -0x1badb002
start:  mov     $stack, %esp
        movl    $4f, message_at
        call    say
        movl    (%ebx), %eax
        xor     %eax, %eax
        out     %eax, $0xf4
1:      hlt
        jmp     1b
say:    mov     message_at, %esi
        mov     $0x3f8, %edx
2:      lodsb
        test    %al, %al
        jz      3f
        out     %al, %dx
        jmp     2b
3:      ret
4:      .asciz  "PASS: first\\nPASS: second: with prefix\\nSKIP: third\\nSUMMARY: 3 tests, 1 skipped\\n"
        .data
message_at: .long 0
        .bss
        .space  0x200000
stack:
"""
"""Reports three checks and exits with 0."""


def assembled(directory: Path, source: str, *, name: str = "guest.flat", bss: int = 0x1000) -> Path:
    """A multiboot ELF image of 32-bit code (Intel syntax) at 4 MiB; it starts at ``start``.  Needs no tools."""
    from kvmscope.asm import assemble

    header = f"        .long 0x1badb002, 0, {-0x1BADB002 & 0xFFFFFFFF:#x}\n"
    assembly = assemble(header + source, bits=32, origin=0x400000, cross_check=False)
    assert assembly.image is not None, assembly.diagnostics
    (section,) = assembly.image.sections
    symbols = tuple((symbol, value, 0x12, 1) for symbol, value in assembly.image.symbols.items())
    size = len(section.data) + bss
    path = directory / name
    path.write_bytes(
        elf((Segment(0x400000, section.data, size, 7),), entry=assembly.image.symbols["start"], symbols=symbols)
    )
    return path


def says(text: str, code: int = 0) -> str:
    """A guest that prints ``text`` and writes ``code`` to the debug-exit port."""
    data = ", ".join(str(byte) for byte in text.encode())
    return f"""
start:  mov     esi, offset text
        mov     edx, 0x3f8
        mov     ecx, {len(text)}
        rep     outsb
        mov     eax, {code}
        out     0xf4, eax
        hlt
text:   .byte   {data or 0}
"""


C_START = """\
        .code32
        .long   0x1badb002, 0, -0x1badb002
        .globl  start, silent
start:  mov     $stack, %esp
        call    main
        out     %eax, $0xf4
        hlt
silent: nop
        nop
        ret
        .bss
        .space  4096
stack:
"""

C_CODE = """\
extern void silent(void);

static int twice(int x)
{
	int y = x + x;
	return y;
}

static int down(int n) { return n ? down(n - 1) : 0; }

int main(void)
{
	int sum = 0;
	for (int i = 0; i < 2; i++)
		sum += twice(i);
	silent();
	sum += down(2);
	return sum - 2;
}
"""
"""A guest with two functions that have lines and one, ``silent``, that has none."""


def compiled(directory: Path) -> Path:
    """`C_CODE` as a multiboot image with a line table.  Skips the test without gcc."""
    for tool in ("gcc", "as", "ld"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    (directory / "start.s").write_text(C_START)
    (directory / "code.c").write_text(C_CODE)
    run(directory, "as", "--32", "start.s", "-o", "start.o")
    flags = ("-m32", "-O0", "-g", "-ffreestanding", "-fno-pic", "-fcf-protection=none", "-fno-stack-protector")
    run(directory, "gcc", *flags, "-c", "code.c", "-o", "code.o")
    run(
        directory, "ld", "-N", "-m", "elf_i386", "-Ttext=0x400000", "-e", "start", "start.o", "code.o", "-o", "code.elf"
    )
    return directory / "code.elf"
