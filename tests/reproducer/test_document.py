from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscope.asm.image import Syntax
from kvmscope.errors import KvmscopeError, ReproducerError, UsageError
from kvmscope.reproducer import load, parse
from kvmscope.vmm.config import DescriptorInit, HandlerInit, MachineConfig, MemoryInit, Mode, PageInit, Paging


def header(*lines: str, leader: str = "#") -> str:
    return "\n".join([f"{leader} {line}".rstrip() for line in ("/// kvmscope", *lines, "///")]) + "\nhlt\n"


def config(*lines: str) -> MachineConfig:
    return parse(header(*lines), "t.asm").config


FULL = """\
; SPDX-License-Identifier: GPL-2.0-only
; /// kvmscope
; title = "all of it"
; link = "https://example.org/1"
; mode = "prot32"
; paging = "pae"
; ring = 3
; syntax = "att"
; cpu = "amd"
; memory_size = "32M"
; entry = "start"
; origin = 0x500000
; args = ["a", "b c"]
; max_instructions = 1000
; timeout = 2.5
; requires = ["as"]
; backend = "gas"
; io_permission = [[0xe0, 0xe3], [0xf4, 0xf4]]
; expect = [
;   "rax == 5",     # a comment
;
;   "exception == '#PF'",
; ]
; xfail = "not yet"
; [registers]
; eax = -1
; ebx = "buffer"
; cs.base = 0x10
; "gdtr.limit" = 0xff
; [msrs]
; IA32_EFER = 0x500
; 0x10 = 7
; [handlers]
; "#PF" = "on_pf"
; 0x80 = { entry = 0x600000, dpl = 3, ist = 1, type = "trap" }
; [[page]]
; linear = 0x200000
; physical = 0x300000
; flags = "P NX bit51"
; count = 2
; pkey = 3
; [[page]]
; linear = 0x400000
; [[descriptor]]
; table = "gdt"
; index = 12
; value = 0x00cf1300_0000ffff
; [[descriptor]]
; table = "ldt"
; index = 1
; kind = "call-gate"
; fields = { selector = 8, offset = "gate" }
; [[memory]]
; address = 0x1000
; hex = "90 f4"
; [[memory]]
; address = "buffer"
; u32 = [1, "gate", -1]
; [[memory]]
; address = 0x2000
; fill = { value = 0xcc, count = 4 }
; ///
        hlt
"""


def _at(text: str, after: str = "") -> int:
    """Line of FULL that begins with ``text``, the first one below the line that begins with ``after``."""
    lines = [line.removeprefix("; ").strip() for line in FULL.split("\n")]
    begin = next(i for i, line in enumerate(lines) if line.startswith(after))
    return next(i for i, line in enumerate(lines[begin:], begin) if line.startswith(text)) + 1


def test_every_key() -> None:
    reproducer = parse(FULL, "dir/all.asm")
    assert reproducer.source == FULL
    assert (reproducer.name, reproducer.title, reproducer.link) == ("all", "all of it", "https://example.org/1")
    assert (reproducer.syntax, reproducer.bits, reproducer.origin) == (Syntax.ATT, 32, 0x500000)
    assert (reproducer.timeout, reproducer.max_instructions) == (2.5, 1000)
    assert (reproducer.xfail, reproducer.requires, reproducer.backend) == ("not yet", ("as",), "gas")
    assert [(item.text, item.line) for item in reproducer.expectations] == [
        ("rax == 5", _at('"rax == 5')),
        ("exception == '#PF'", _at('"exception')),
    ]
    assert reproducer.header_lines == (2, _at("///", "fill"))
    machine = reproducer.config
    assert (machine.mode, machine.paging, machine.ring) == (Mode.PROT32, Paging.PAE, 3)
    assert (machine.cpu, machine.memory, machine.entry, machine.args) == ("amd", 32 << 20, "start", ("a", "b c"))
    assert machine.io_permission == ((0xE0, 0xE3), (0xF4, 0xF4))
    assert machine.registers == {"eax": 0xFFFFFFFF, "ebx": "buffer", "cs.base": 0x10, "gdtr.limit": 0xFF}
    assert machine.msrs == {0xC0000080: 0x500, 0x10: 7}
    assert machine.handlers == (
        HandlerInit(14, "on_pf", line=_at('"#PF"')),
        HandlerInit(0x80, 0x600000, ist=1, dpl=3, kind="trap", line=_at("0x80")),
    )
    assert machine.pages == (
        PageInit(0x200000, 0x300000, ("P", "NX", "bit51"), 2, 3, _at("[[page]]")),
        PageInit(0x400000, 0x400000, ("P", "RW", "US"), line=_at("[[page]]", "pkey")),
    )
    assert machine.descriptors == (
        DescriptorInit("gdt", 12, 0x00CF13000000FFFF, line=_at("[[descriptor]]")),
        DescriptorInit(
            "ldt",
            1,
            kind="call-gate",
            fields={"selector": 8, "offset": "gate"},
            line=_at("[[descriptor]]", "value = 0x00cf"),
        ),
    )
    assert machine.contents == (
        MemoryInit(0x1000, b"\x90\xf4", line=_at("[[memory]]")),
        MemoryInit("buffer", words=((4, 1), (4, "gate"), (4, 0xFFFFFFFF)), line=_at("[[memory]]", "hex")),
        MemoryInit(0x2000, b"\xcc" * 4, line=_at("[[memory]]", "u32")),
    )
    assert reproducer.lines["registers.eax"] == _at("eax")


def test_no_header_runs_with_the_defaults() -> None:
    reproducer = parse("hlt\n", "x.asm")
    assert reproducer.config == MachineConfig()
    assert reproducer.header_lines is None
    assert reproducer.expectations == ()
    assert reproducer.origin == 0x400000


@pytest.mark.parametrize(
    ("name", "syntax"), [("a.asm", Syntax.INTEL), ("a.s", Syntax.ATT), ("a.S", Syntax.ATT), ("a", Syntax.INTEL)]
)
def test_the_suffix_chooses_the_syntax(name: str, syntax: Syntax) -> None:
    assert parse("hlt\n", name).syntax is syntax
    assert parse(header('syntax = "intel"'), name).syntax is Syntax.INTEL


@pytest.mark.parametrize("leader", ["#", ";", "//"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_leaders_and_line_ends(leader: str, end: str) -> None:
    text = header('mode = "real16"', "", 'expect = ["ax == 1",', '"bx == 2"]', leader=leader).replace("\n", end)
    reproducer = parse(f"/* licence */{end}{end}{text}", "t.s")
    assert reproducer.config.mode is Mode.REAL16
    assert [item.line for item in reproducer.expectations] == [6, 7]


@pytest.mark.parametrize(
    ("text", "size"),
    [('"16M"', 16 << 20), ('"1024k"', 1 << 20), ('"1G"', 1 << 30), ("0x200000", 2 << 20), ('"2 MiB"', 2 << 20)],
)
def test_memory_sizes(text: str, size: int) -> None:
    assert config(f"memory = {text}").memory == size


@pytest.mark.parametrize(
    ("mode", "paging", "bits", "origin"),
    [
        ("real16", "none", 16, 0x7C00),
        ("prot32", "32bit", 32, 0x400000),
        ("prot32", "none", 32, 0x400000),
        ("long64", "5level", 64, 0x400000),
    ],
)
def test_modes(mode: str, paging: str, bits: int, origin: int) -> None:
    reproducer = parse(header(f'mode = "{mode}"', f'paging = "{paging}"'), "t.asm")
    assert (reproducer.bits, reproducer.origin, reproducer.config.effective_paging) == (bits, origin, Paging(paging))


@pytest.mark.parametrize("name", ["#PF", "pf", "14", "0xe"])
def test_vectors_by_name_and_number(name: str) -> None:
    assert config("[handlers]", f'"{name}" = "there"').handlers[0].vector == 14


# Header lines, the file's line of the error (1 is `# /// kvmscope`), words of the message.
WRONG = [
    (['mdoe = "long64"'], 2, ["unknown key 'mdoe'", "did you mean 'mode'"]),
    (["", "wholly_different = 1"], 3, ["unknown key", "known: title"]),
    (['mode = "long46"'], 2, ["long64"]),
    (['mode = "real16"', 'paging = "pae"'], 3, ["real16 cannot start with paging 'pae'"]),
    (['paging = "pae"'], 2, ["possible"]),
    (['mode = "real16"', "ring = 3"], 3, ["rings"]),
    (["ring = 1"], 2, ["0 or 3"]),
    (["ring = true"], 2, ["integer"]),
    (['memory = "16X"'], 2, ["memory"]),
    (['memory = "5000"'], 2, ["1M"]),
    (['memory = "64G"'], 2, ["1M"]),
    (["smp = 0"], 2, ["smp"]),
    (['cpu = "via"'], 2, ["CPU profile 'via'"]),
    (['cpu = "intel,+pcdi"'], 2, ["CPU feature 'pcdi'", "did you mean pcid"]),
    (['cpu = "amd,+avx"'], 2, ["avx cannot be executed"]),
    (["cpu = 1"], 2, ["text in quotes"]),
    (['syntax = "gas"'], 2, ["syntax"]),
    (['backend = "nasm"'], 2, ["backend"]),
    (["timeout = 0"], 2, ["timeout"]),
    (["timeout = nan"], 2, ["timeout"]),
    (["timeout = inf"], 2, ["timeout"]),
    (["max_instructions = 0"], 2, ["max_instructions"]),
    (["title = 5"], 2, ["text in quotes"]),
    (['expect = "rax == 5"'], 2, ["list of texts"]),
    (["expect = [", '  "rax == 1",', "  5,", "]"], 4, ["list of texts"]),
    (["expect = [", '  "rax == 1",', '  "rax = 1",', "]"], 4, ["==", "^"]),
    (['xfail = ""'], 2, ["reason"]),
    (['xfail = "a"', 'kfail = "b"'], 3, ["exclude"]),
    (['requires = ["as", "moon"]'], 2, ["moon"]),
    (["origin = 0x1000000"], 2, ["origin"]),
    (['entry = "not a label"'], 2, ["label"]),
    (["[registers]", "raxx = 1"], 3, ["did you mean 'rax'"]),
    (["[registers]", "eax = 0x100000000"], 3, ["eax"]),
    (["[registers]", "eax = 1.5"], 3, ["integer", "eax"]),
    (["[registers]", "cs.bsae = 1"], 3, ["cs.base"]),
    (["registers = 5"], 2, ["table"]),
    (["[msrs]", "IA32_EFR = 1"], 3, ["IA32_EFER"]),
    (["[msrs]", "IA32_EFER = 1", "0xc0000080 = 2"], 4, ["twice"]),
    (["[handlers]", '"#PQ" = "x"'], 3, ["unknown exception"]),
    (["[handlers]", '256 = "x"'], 3, ["0 to 255"]),
    (["[handlers]", '"#PF" = "x"', '14 = "y"'], 4, ["two handlers"]),
    (["[handlers]", '"#PF" = { ist = 1 }'], 3, ["entry"]),
    (["[handlers]", '"#PF" = { entry = "x", ist = 8 }'], 3, ["ist"]),
    (["[handlers]", '"#PF" = { entry = "x", typ = "trap" }'], 3, ["did you mean 'type'"]),
    (["[[page]]", "physical = 0"], 2, ["linear"]),
    (["[[page]]", "linear = 0x1001"], 3, ["4 KiB"]),
    (["[[page]]", "linear = 0", 'flags = "P XN"'], 4, ["XN"]),
    (["[[page]]", "linear = 0", 'flags = "bit64"'], 4, ["bit64"]),
    (["[[page]]", "linear = 0", "[[page]]", "linear = 0", "pkey = 16"], 6, ["pkey"]),
    (['mode = "real16"', "[[page]]", "linear = 0"], 3, ["paging"]),
    (["[[descriptor]]", 'table = "gdt"', "value = 1"], 2, ["index"]),
    (["[[descriptor]]", 'table = "gdt"', "index = 1"], 2, ["either"]),
    (["[[descriptor]]", 'table = "gdt"', "index = 1", 'kind = "call-gat"'], 5, ["call-gate"]),
    (["[[descriptor]]", 'table = "gdt"', "index = 1", 'kind = "code"', "fields = { dlp = 1 }"], 6, ["'dpl'"]),
    (["[[memory]]", "address = 0"], 2, ["one of"]),
    (["[[memory]]", "address = 0", 'hex = "9"'], 4, ["hexadecimal"]),
    (["[[memory]]", "address = 0", "u8 = [256]"], 4, ["u8"]),
    (["[[memory]]", "address = 0", 'ascii = "a"', "u8 = [1]"], 5, ["one of"]),
    (["[[memory]]", "address = 0", "fill = { value = 1, count = 0xffffffff }"], 4, ["count"]),
    (["io_permission = [[3, 2]]"], 2, ["empty"]),
    (["io_permission = [3]"], 2, ["port ranges"]),
]


@pytest.mark.parametrize(("lines", "line", "words"), WRONG)
def test_errors_name_the_line(lines: list[str], line: int, words: list[str]) -> None:
    with pytest.raises(ReproducerError) as caught:
        parse(header(*lines), "dir/t.asm")
    assert re.match(rf"dir/t\.asm:{line}\b", caught.value.detail), str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("\n# /// kvmscope\n# ring 3\n# ///\n", "3:8"),
        (";   /// kvmscope\n;   ring = = 3\n; ///\n", "2:12"),
        ("# /// kvmscope\n# ring = 3\n# ring = 3\n# ///\n", "3:11"),
        ('# /// kvmscope\n# title = "open\n# ///\n', "2:16"),
        ("# /// kvmscope\n# expect = [\n# ///\n", "2"),
        ("# /// kvmscope\n# ring = 3\nhlt\n", "3"),
        ("# /// kvmscope\n# ring = 3\n", "3"),
        ("# /// kvmscope\n; ring = 3\n# ///\n", "2"),
        ('# /// kvmscope\n# memory = "16M"\n# [[memory]]\n# address = 0\n# ///\n', "3:11"),
        ("hlt\n# /// kvmscope\n# ///\n", "2"),
        ("# /// kvmscope\n# ///\n# /// kvmscope\n# ///\n", "3"),
        ("# /// kvmscope\n# x = " + "[" * 5000 + "\n# ///\n", "1"),
        ("# /// kvmscope\n# ring = " + "9" * 5000 + "\n# ///\n", "2"),
    ],
)
def test_toml_and_block_errors_name_the_place(text: str, place: str) -> None:
    with pytest.raises(ReproducerError) as caught:
        parse(text, "t.asm")
    assert caught.value.detail.split("\n")[0] == f"t.asm:{place}", str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "absent.asm")
    with pytest.raises(UsageError, match="directory"):
        load(tmp_path)
    binary = tmp_path / "binary.asm"
    binary.write_bytes(b"hlt\n\xff\xfe")
    with pytest.raises(ReproducerError) as caught:
        load(binary)
    assert caught.value.detail == f"{binary}:2"
    large = tmp_path / "large.asm"
    large.write_bytes(b"\n" * ((4 << 20) + 1))
    with pytest.raises(ReproducerError, match="larger"):
        load(large)


_LINES = st.lists(
    st.one_of(
        st.sampled_from([f"# {line}" for lines, _, _ in WRONG for line in lines]),
        st.sampled_from(
            ["# /// kvmscope", "# ///", "; ///", "hlt", "#", "", '# """', "# '''", "# x = {a = 1, b = [1,\n#2]}"]
        ),
        st.text(alphabet="#=[]{}\"'.,a1 \\\n", max_size=12).map(lambda text: "# " + text),
    ),
    max_size=8,
)


@given(_LINES)
@settings(max_examples=300)
def test_no_text_raises_anything_else(lines: list[str]) -> None:
    text = "\n".join(["# /// kvmscope", *lines, "# ///"])
    try:
        parse(text, "t.asm")
    except KvmscopeError as error:
        place = error.detail
    else:
        return
    assert re.match(r"t\.asm:\d+", place)


def test_several_processors_and_devices() -> None:
    text = '; /// kvmscope\n; smp = 4\n; quantum = 500\n; devices = ["edu", "intel-iommu"]\n; ///\nhlt\n'
    config = parse(text, "x.asm").config
    assert (config.smp, config.quantum, config.devices) == (4, 500, ("edu", "intel-iommu"))


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("smp = 17", "smp is 1 to 16, not 17"),
        ("quantum = 0", "quantum"),
        ('devices = ["edus"]', "did you mean 'edu'"),
        ('devices = "edu"', "devices"),
    ],
)
def test_processors_and_devices_that_cannot_be(line: str, word: str) -> None:
    with pytest.raises(ReproducerError) as caught:
        parse(f"; /// kvmscope\n; {line}\n; ///\nhlt\n", "x.asm")
    assert word in str(caught.value)
    assert "x.asm:2" in str(caught.value)
