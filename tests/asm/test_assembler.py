"""Whole programs: labels, directives, macros, sections, source maps, and agreement of the assemblers."""

from __future__ import annotations

import random
import threading

import pytest

from kvmscope.asm import Image, Severity, Syntax, assemble, backends, keystone_client
from kvmscope.asm.clang import find_clang
from kvmscope.asm.gas import find_gas
from kvmscope.asm.nops import nops

BACKENDS = [
    pytest.param("keystone", marks=pytest.mark.skipif(not keystone_client.keystone_version(), reason="no keystone")),
    pytest.param("gas", marks=pytest.mark.skipif(find_gas() is None, reason="no GNU as for x86 on the PATH")),
]
both = pytest.mark.parametrize("backend", BACKENDS)
needs_clang = pytest.mark.skipif(find_clang() is None, reason="no clang on the PATH and no ziglang")
needs_gas = pytest.mark.skipif(find_gas() is None, reason="no GNU as for x86 on the PATH")


def image_of(text: str, bits: int = 64, **options: object) -> Image:
    result = assemble(text, bits=bits, **options)  # type: ignore[arg-type]
    assert result.image is not None, result.diagnostics
    return result.image


def hex_of(text: str, bits: int = 64, **options: object) -> str:
    return " ".join(section.data.hex() for section in image_of(text, bits, **options).sections)


DATA = [
    (".byte 1, 0x10, 010, 0b11, 'a, '\\n', -1, 255", "01100803610affff"),
    (".word 0x1234, -2\n.long 0x12345678\n.quad -1", "3412feff78563412" + "ff" * 8),
    ('.ascii "a\\n\\0\\101\\x42\\"\\\\"', "610a00414222" + "5c"),
    ('.asciz "ab", "c"\n.string "d"', "616200630064" + "00"),
    (".fill 2, 3, 0x12345678\n.space 2\n.skip 1, 0xcc\n.zero 2", "785634785634" + "0000" + "cc" + "0000"),
    (".byte 1\n.balign 4\n.byte 2\n.p2align 2, 0xcc\n.byte 3", None),
    (".equ A, 5\nB = A * 2 + 1\n.set C, B - A\n.byte A, B, C, (A << 2) | 1", "050b0615"),
    ("a: .byte 1\nb: .byte b - a, c - a\nc:", "010103"),
    (".set X, 1\n.byte X\n.set X, 2\n.byte X", "0102"),
    ('msg: .ascii "abc"\nlen = . - msg\n.byte len', "61626303"),
    (".byte 100/7*3, -7 % 3, 1 << 4, 0xff >> 4, ~0 & 0xf, 5 ^ 3", "2aff100f0f06"),
    (".rept 3\n.byte 7\n.endr", "070707"),
    (".irp x, 1, 2, 3\n.byte \\x, \\x * 2\n.endr", "010202040306"),
    (".macro m a, b=9\n.byte \\a, \\b\n.endm\nm 1\nm 1, 2", "01090102"),
    (".macro m a:req, rest:vararg\n.byte \\a\n.byte \\rest\n.endm\nm 1, 2, 3", "010203"),
    (".macro u\n.Lx\\@: jmp .Lx\\@\n.endm\nu\nu", "ebfeebfe"),
    (".macro t n\n.if \\n\n.byte \\n\nt \\n-1\n.endif\n.endm\nt 3", "030201"),
    (".macro pre n\nmov \\n\\()l, 1\n.endm\npre a", "b001"),
    (".equ A, 1\n.if A == 1\n.byte 1\n.else\n.byte 2\n.endif\n.ifdef B\n.byte 3\n.else\n.byte 4\n.endif", "0104"),
    (".if 0\n.bogus\n.elseif 1\n.byte 5\n.endif", "05"),
    ("start: .byte 1\n.fill 5 - (. - start), 1, 0xee", "01eeeeeeee"),
    ("nop # a\nnop // b\nnop ; c\n/* d\n*/ nop /* e */ # ///", "90909090"),
    ("# /// kvmscope\n# mode = 'long64'\n# ///\nnop", "90"),
    ('ud2; .ascii "kvm"; cpuid', "0f0b6b766d"),
    (".ascii \"#;//\" # '\n.byte '#', ';'", "233b2f2f233b"),
    (".byte 1\n.end\n.byte 2", "01"),
]


@both
@pytest.mark.parametrize(("text", "data"), DATA)
def test_directives(text: str, data: str | None, backend: str) -> None:
    made = hex_of(text, backend=backend)
    if data is not None:
        assert made == data


LABELS = [
    (64, "1: jmp 1b\njmp 1f\n1: jmp 1b", "ebfeeb00ebfe"),
    (64, "jmp far_away\n.fill 127\nfar_away:", "eb7f" + "00" * 127),
    (64, "jmp far_away\n.fill 128\nfar_away:", "e980000000" + "00" * 128),
    (16, "jmp far_away\n.fill 128\nfar_away:", "e98000" + "00" * 128),
    (64, "je far_away\n.fill 128\nfar_away:", "0f8480000000" + "00" * 128),
    (64, "mov rax, offset x\nx:", "48c7c007104000"),
    (64, "movabs rax, offset x\nx:", "48b80a10400000000000"),
    (64, "mov eax, [x]\nx:", "8b042507104000"),
    (64, "mov eax, [rip + x]\nx:", "8b0500000000"),
    (64, "mov dword ptr [rip + x], 5\nx:", "c7050000000005000000"),
    (64, "lea rax, [rip + x]\nx:", "488d0500000000"),
    (32, "mov eax, x\nx:", "a105104000"),
    (32, "mov eax, offset x + 4\nx:", "b809104000"),
    (32, "ljmp 8, x\nx:", "ea071040000800"),
    (32, "lgdt [x]\nx:", "0f011507104000"),
    (32, "jmp [x]\nx:", "ff2506104000"),
    (32, "jmp fword ptr [x]\nx:", "ff2d06104000"),
    (32, "push offset x\nx:", "6805104000"),
    (32, "call x\nx: ret", "e800000000c3"),
    (64, ".quad x\nx: .long x - 4", "08104000000000000410" + "4000"),
    (64, ".equ K, 5\nadd eax, K\nmov eax, K", "83c005b805000000"),
]


@both
@pytest.mark.parametrize(("bits", "text", "data"), LABELS)
def test_labels_in_operands(bits: int, text: str, data: str, backend: str) -> None:
    origin = 0x401000 if bits != 16 else 0x7C00
    assert hex_of(text, bits, origin=origin, backend=backend) == data


@both
def test_a_guest_that_switches_modes_in_one_file(backend: str) -> None:
    text = """
        cli
        lgdt [gdtr]
        mov ax, offset msg
        jmp 8:protected
    .code32
    protected: mov eax, offset msg
        ljmp 0x18, long
    .code64
    long: mov rax, offset msg
        lea rsi, [rip + msg]
        jmp real
    msg: .ascii "x"
    gdtr: .word 7
        .long msg
    .code16
    real: mov bx, offset gdtr
        jmp real
    """
    image = image_of(text, 16, origin=0x7C00, backend=backend)
    assert image.sections[0].data.hex() == (
        "fa0f01162b7cb82a7cea0e7c0800b82a7c0000ea1a7c0000180048c7c02a7c0000488d3502000000eb077807002a7c0000bb2b7cebfb"
    )
    assert image.symbols["real"] == 0x7C31


@both
def test_sections_lie_where_the_source_says(backend: str) -> None:
    text = """
    .equ IDT, 0x2000
    start: mov eax, [value]
    .section .idt, IDT + 0x10
    entry: .long start
    .data
    value: .long entry
    .section .high, 0x500000
    .byte 1
    .org 0x500008
    .byte 2
    .text
    nop
    """
    image = image_of(text, 32, origin=0x400000, backend=backend)
    assert [(section.name, section.address, section.data.hex()) for section in image.sections] == [
        (".idt", 0x2010, "00004000"),
        (".text", 0x400000, "a10600400090"),
        (".data", 0x400006, "10200000"),
        (".high", 0x500000, "010000000000000002"),
    ]
    assert image.constants["IDT"] == 0x2000
    assert "IDT" not in image.symbols
    assert image.entry == 0x400000


@both
def test_org_is_an_address(backend: str) -> None:
    text = "start: jmp start\n.org 0x7dfe\n.word 0xaa55"
    image = image_of(text, 16, origin=0x7C00, backend=backend)
    assert len(image.sections[0].data) == 512
    assert image.sections[0].data[-2:] == b"\x55\xaa"
    assert image_of("start: nop\n.org start + 4\nnop", 16, origin=0x7C00, backend=backend).sections[0].data.hex() == (
        "9000000090"
    )


@both
def test_source_map_has_every_line_with_bytes(backend: str) -> None:
    text = "nop\n\nx: .long x\n.space 3000\n.macro m\nnop\ncli\n.endm\nm\n.rept 2\nhlt\n.endr\nret"
    image = image_of(text, 64, origin=0x1000, backend=backend)
    section = image.sections[0]
    covered = b"".join(entry.data for entry in image.lines)
    assert covered == section.data
    assert [entry.address for entry in image.lines] == sorted(entry.address for entry in image.lines)
    assert image.line_at(0x1000) == 1
    assert image.line_at(0x1001) == 3
    assert image.line_at(0x1005 + 2999) == 4
    assert image.line_at(0x1005 + 3000) == 9
    assert image.line_at(section.end - 1) == 13
    assert {entry.line for entry in image.lines if not entry.code} == {3, 4}


@both
def test_att(backend: str) -> None:
    text = (
        "x: movl $10, %eax\nmovb $1, 4(%rbx,%rcx,2)\nlea x(%rip), %rsi\njne x\ncall *%rax\nljmp *(%rax)\nmov $x, %rdi"
    )
    assert hex_of(text, syntax=Syntax.ATT, backend=backend) == (
        "b80a000000c6444b0401488d35efffffff75edffd0ff2848c7c700000000"
    )


def _program(rnd: random.Random, bits: int, att: bool) -> str:
    """A program of branches, references, data and directives with labels everywhere."""
    labels = [f"l{i}" for i in range(6)]
    accumulator, base = {16: ("ax", "bx"), 32: ("ecx", "ebx"), 64: ("rdx", "rbx")}[bits]
    out = [".equ K, 5", ".macro two x, y=7\n.byte \\x, \\y\nnop\n.endm"]
    todo = list(labels)
    for _ in range(rnd.randint(5, 50)):
        label, other = rnd.choice(labels), rnd.choice(labels)
        count = rnd.choice([0, 1, 3, 7, 100, 120, 126, 127, 128, 200])
        att_forms = [
            f"mov ${label}, %{accumulator}", f"mov {label}, %{accumulator}", f"lea {label}(%{base}), %{accumulator}",
            f"add $K, %{accumulator}", f"cmpw $5, {label}", f"push ${label}", f"lgdt {label}", f"mov %fs:{label}, %eax",
        ]  # fmt: skip
        intel_forms = [
            f"mov {accumulator}, offset {label}", f"mov {accumulator}, [{label}]",
            f"lea {accumulator}, [{base}+{label}]", f"add {accumulator}, K", f"cmp word ptr [{label}], 5",
            f"push offset {label}", f"lgdt [{label}]", f"mov eax, fs:[{label}]",
        ]  # fmt: skip
        out.append(
            rnd.choice(
                [
                    f"jmp {label}", f"jne {label}", f"call {label}", f".long {label}", f".space {count}",
                    f".balign {rnd.choice([2, 4, 8, 16])}", f"two {count}", f".rept {count % 4}\n.byte K\n.endr",
                    f"jne 1f\n.fill {count}\n1: hlt", ".data", ".text", ".text", ".section .far, 0x9000",
                    f".ifdef {label}\nhlt\n.else\ncli\n.endif", f".long . - {other}", *(att_forms if att else intel_forms),
                ]
            )
        )  # fmt: skip
        if todo and rnd.random() < 0.25:
            out.append(f"{todo.pop()}:")
    return "\n".join([*out, ".text", *(f"{label}: nop" for label in todo), ""])


@needs_gas
@pytest.mark.parametrize("seed", range(60))
def test_built_in_layout_is_that_of_gas(seed: int) -> None:
    rnd = random.Random(seed)
    bits, syntax, origin = rnd.choice([16, 32, 64]), rnd.choice(list(Syntax)), rnd.choice([0, 0x1000, 0x7C00])
    text = _program(rnd, bits, syntax is Syntax.ATT)
    gas = assemble(text, bits=bits, syntax=syntax, origin=origin, backend="gas")
    ours = assemble(text, bits=bits, syntax=syntax, origin=origin, backend="keystone", cross_check=False)
    if gas.image is None:
        # A difference of labels in two sections: no relocation can hold it, whoever says so first.
        assert any("resolve" in found.message or "operands" in found.message for found in gas.diagnostics)
        return
    assert ours.image is not None, ours.diagnostics
    assert [(one.name, one.address, one.data) for one in ours.image.sections] == [
        (one.name, one.address, one.data) for one in gas.image.sections
    ]
    assert ours.image.symbols == gas.image.symbols
    assert ours.image.constants == gas.image.constants


@needs_gas
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_padding_is_that_of_gas(bits: int) -> None:
    for count in (1, 2, 3, 5, 7, 8, 11, 12, 13, 17, 31, 33, 90, 127, 129, 130, 200, 255):
        text = f"nop\n.balign 256\n.fill {256 - count}, 1, 0xcc\n.balign 256"
        image = image_of(text, bits, backend="gas")
        assert image.lines[-1].data == nops(count, bits, bits == 64)


@needs_gas
def test_who_made_and_who_confirmed_the_bytes() -> None:
    # Keystone has a needlessly long form of [bp+si], so the built-in assembler refuses it.
    result = assemble("mov ax, [bp+si]", bits=16)
    assert (result.backend, result.image is not None) == ("gas", True)
    agreed = assemble("mov ax, [bx+si]", bits=16)
    assert (agreed.backend, agreed.checked_by) == ("keystone", "gas")


@needs_gas
def test_difference_between_assemblers_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    real = keystone_client.encode

    def other(bits: int, texts: list[str]) -> list[bytes | None]:
        # 8b c3 is the other encoding of `mov eax, ebx` (89 d8): both are right.
        return [
            b"\x8b\xc3" if text == "mov eax, ebx" else data for text, data in zip(texts, real(bits, texts), strict=True)
        ]

    monkeypatch.setattr(keystone_client, "encode", other)
    text = "nop\nmov eax, ebx\nret"
    automatic = assemble(text, bits=64, origin=0x1000)
    assert automatic.image is not None
    assert (automatic.backend, automatic.image.sections[0].data.hex()) == ("gas", "9089d8c3")
    check = automatic.cross_check
    assert check is not None
    assert (check.line, check.address, check.ours.hex(), check.theirs.hex()) == (2, 0x1001, "8bc3", "89d8")
    forced = assemble(text, bits=64, origin=0x1000, backend="keystone")
    assert forced.image is not None
    assert (forced.image.sections[0].data.hex(), forced.cross_check) == ("908bc3c3", check)
    assert [(found.line, found.severity) for found in forced.diagnostics] == [(2, Severity.WARNING)]


@needs_gas
def test_wrong_bytes_of_keystone_never_get_through(monkeypatch: pytest.MonkeyPatch) -> None:
    lies = {
        "mov eax, 0x5": bytes.fromhex("b806000000"),  # another number
        "mov ebx, 0x5": bytes.fromhex("b805000000"),  # another register
        "mov ecx, 0x5": bytes.fromhex("66b90500"),  # another size
        "mov edx, 0x5": bytes.fromhex("ba0500000090"),  # more than one instruction
        "mov esi, 0x5": bytes.fromhex("be0500"),  # less than one
        "add byte ptr [rax], 0x5": bytes.fromhex("830005"),  # another size of memory
        "mov eax, dword ptr [rbx + 0x8]": bytes.fromhex("8b4307"),  # another displacement
        "mov eax, dword ptr [rcx + 0x8]": bytes.fromhex("658b4108"),  # a segment out of nowhere
        "sub eax, 0x5": bytes.fromhex("83c005"),  # another instruction
        "push rax": bytes.fromhex("6650"),  # an operand size that was not written
    }
    monkeypatch.setattr(keystone_client, "encode", lambda bits, texts: [lies[text] for text in texts])
    for text in lies:
        result = assemble(text, bits=64, backend="keystone", cross_check=False)
        assert result.image is None, text


@needs_gas
def test_without_gas_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    good = assemble("mov eax, 1\niretq", bits=64)
    assert (good.backend, good.checked_by, good.ok) == ("keystone", "", True)
    bad = assemble("nop\nvaddps zmm0, zmm1, [rbx+64]", bits=64)
    assert bad.image is None
    assert [(found.line, "binutils" in found.hint) for found in bad.diagnostics] == [(2, True)]
    forced = assemble("nop", bits=64, backend="gas")
    assert "binutils" in forced.diagnostics[0].hint
    assert {info.name: info.available for info in backends()}["gas"] is False


def test_assembling_in_many_threads_at_once() -> None:
    results: list[str] = []

    def work(number: int) -> None:
        for step in range(5):
            value = number * 100 + step
            image = image_of(f"mov eax, {value}\njmp 1f\n1: ret", 64, backend="keystone", cross_check=False)
            results.append("ok" if image.sections[0].data[1:5] == value.to_bytes(4, "little") else "wrong")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["ok"] * 30


@pytest.mark.parametrize(("bits", "backend", "origin"), [(8, "auto", 0), (64, "masm", 0), (64, "auto", -1)])
def test_wrong_arguments_are_the_callers_mistake(bits: int, backend: str, origin: int) -> None:
    with pytest.raises(ValueError):
        assemble("nop", bits=bits, backend=backend, origin=origin)


def test_an_empty_source_is_an_empty_image() -> None:
    image = image_of("# nothing\n", 64, origin=0x400000)
    assert (image.sections, image.entry) == ((), 0x400000)


@needs_clang
def test_clang_encodes_where_it_is_installed() -> None:
    text = "mov eax, 10\nx: jmp x\niret\nlgdt [x]\npush 5\nbogus 5"
    found = assemble(text, bits=32, backend="clang", cross_check=False)
    assert [one.line for one in found.diagnostics] == [6]
    assert hex_of(text.removesuffix("bogus 5"), 32, backend="clang") == "b80a000000ebfecf0f0115050000006a05"
