"""Images run headless: what they find, and what is made of how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvmscope.cli import run_command_line
from kvmscope.errors import GuestImageError, UsageError
from kvmscope.reproducer import Overrides, Result, Verdict, run
from kvmscope.reproducer.images import IMAGE_MEMORY, ImageOptions, is_image, open_image
from kvmscope.vmm.config import Mode
from kvmscope.vmm.engine import StopReason
from tests.asm.loading.support import GUEST, Segment, assembled, elf, link, says

REPORT = "PASS: one\nFAIL: two: x\nSKIP: three\nINFO: PASS: no\nXFAIL: four\n"


def result_of(directory: Path, source: str, **overrides: object) -> Result:
    reproducer = open_image(assembled(directory, source))
    return run(reproducer, overrides=Overrides(**overrides))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "verdict", "status", "exit_status"),
    [
        (0, Verdict.PASS, 1, 0),
        (1, Verdict.FAIL, 3, 1),
        (38, Verdict.SKIP, 77, 77),
        (63, Verdict.FAIL, 127, 1),
        (0x80, Verdict.PASS, 1, 0),
        (5, Verdict.FAIL, 11, 1),
    ],
)
def test_the_exit_status_decides(tmp_path: Path, code: int, verdict: Verdict, status: int, exit_status: int) -> None:
    result = result_of(tmp_path, says(REPORT, code))
    assert (result.verdict, result.exit_status) == (verdict, exit_status)
    assert result.guest is not None
    assert result.guest.status == status
    assert f"1 passed, 1 failed, 1 skipped, exit status {status}" in result.summary
    assert ("aborted" in result.summary) == (code == 63)
    assert result.notes == ("FAIL: two: x",)


@pytest.mark.parametrize(
    ("source", "reason", "word"),
    [
        ("start:  cli\n hlt\n", StopReason.HLT, "HLT"),
        ("start:  lidt [none]\n ud2\nnone: .word 0\n .long 0\n", StopReason.TRIPLE_FAULT, "triple fault"),
    ],
)
def test_an_end_without_a_status_is_a_failure_that_is_explained(
    tmp_path: Path, source: str, reason: StopReason, word: str
) -> None:
    result = result_of(tmp_path, source)
    assert result.stop is not None
    assert (result.stop.reason, result.verdict, result.exit_status) == (reason, Verdict.FAIL, 1)
    assert reason.value in result.summary
    assert "no checks reported" in result.summary
    assert result.explanation is not None
    assert word in result.explanation.title


def test_a_loop_is_out_of_budget(tmp_path: Path) -> None:
    result = result_of(tmp_path, "start:  jmp start\n", max_instructions=5000)
    assert (result.verdict, result.exit_status, result.instructions) == (Verdict.ERROR, 124, 5000)


def test_exceptions_are_always_delivered(tmp_path: Path) -> None:
    # The gate leads to where boot's own stub of #UD would stand, and the same bytes stand there.
    source = """
start:  lgdt    [gdtr]
        lidt    [idtr]
        mov     dword ptr [0x3060], 0x90fdebf4
        mov     dword ptr [0x3064], 0x90909090
        mov     dword ptr [0x3068], 0x90909090
        mov     dword ptr [0x306c], 0x90909090
        ud2
gdtr:   .word   23
        .long   gdt
idtr:   .word   55
        .long   idt
gdt:    .long   0, 0, 0xffff, 0xcf9b00, 0xffff, 0xcf9300
idt:    .space  48
        .long   0x83060, 0x8e00
"""
    result = result_of(tmp_path, source)
    assert result.stop is not None
    assert result.stop.reason is StopReason.HLT
    assert result.registers["rip"] == 0x3061


ECHO = """
start:  mov     esi, [ebx + 16]
        mov     edx, 0x3f8
line:   lodsb
        test    al, al
        jz      done
        out     dx, al
        jmp     line
done:   mov     al, 10
        out     dx, al
        test    dword ptr [ebx], 8
        jz      end
        mov     edi, [ebx + 24]
        mov     esi, [edi]
        mov     ecx, [edi + 4]
        sub     ecx, esi
        rep     outsb
end:    mov     ecx, [ebx + 8]
        xor     eax, eax
        out     0xf4, eax
        hlt
"""


def test_arguments_environment_and_memory_reach_the_guest(tmp_path: Path) -> None:
    path = assembled(tmp_path, ECHO)
    plain = run(open_image(path))
    assert plain.serial == f"{path} \n".encode()
    assert plain.registers["rcx"] == IMAGE_MEMORY - (1 << 20) >> 10
    reproducer = open_image(path, ImageOptions(environment={"A": "b c", "D": ""}))
    result = run(reproducer, overrides=Overrides(args=("-x", "y"), memory=32 << 20))
    assert result.serial == f"{path} -x y\nA=b c\nD=\n".encode()
    assert result.registers["rcx"] == 31 << 10


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assembled(tmp_path, ECHO)
    command = ["run", "guest.flat", "b", "--args", "a 1", "--env", "X=1", "--env", "Y=2", "--memory", "64M", "--", "-c"]
    assert run_command_line(command) == 0
    out, err = capfd.readouterr()
    assert out == "guest.flat a 1 b -c\nX=1\nY=2\n"
    assert err.startswith("PASS guest.flat: no checks reported, exit status 1 (")


def test_json_has_the_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["run", str(assembled(tmp_path, says(REPORT, 1))), "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    assert document["report"] == {
        "status": 3,
        "passed": 1,
        "failed": 1,
        "skipped": 1,
        "lines": [
            {"kind": "PASS", "text": "one"},
            {"kind": "FAIL", "text": "two: x"},
            {"kind": "SKIP", "text": "three"},
        ],
    }
    assert (document["verdict"], document["exit_status"], document["serial"]) == ("fail", 1, REPORT)


@pytest.mark.parametrize("suffix", ["flat", "elf"])
def test_what_gnu_tools_link_runs(tmp_path: Path, suffix: str) -> None:
    path = link(tmp_path, GUEST).with_suffix(f".{suffix}")
    result = run(open_image(path))
    assert result.verdict is Verdict.PASS, result.report("x")
    assert result.summary == "2 passed, 1 skipped, exit status 1"


@pytest.mark.parametrize(
    ("mode", "code", "address"),
    [
        (Mode.REAL16, b"\x66\x31\xc0\x66\xe7\xf4\xf4", 0x7C00),
        (Mode.PROT32, b"\x31\xc0\xe7\xf4\xf4", 0x400000),
        (Mode.LONG64, b"\x48\x31\xc0\xe7\xf4\xf4", 0x200000),
    ],
)
def test_raw_bytes_start_in_the_mode_asked_for(tmp_path: Path, mode: Mode, code: bytes, address: int) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(code)
    at = None if mode is not Mode.LONG64 else address
    reproducer = open_image(path, ImageOptions(mode=mode, address=at))
    result = run(reproducer)
    assert (result.verdict, result.instructions) == (Verdict.PASS, 2)
    assert result.registers["rip"] == address + len(code) - 1
    # Boot's tables are there: an exception without a handler stops at its instruction.
    path.write_bytes(b"\x0f\x0b")
    result = run(open_image(path, ImageOptions(mode=mode, address=at)))
    assert result.stop is not None
    assert (result.stop.reason, result.verdict) == (StopReason.EXCEPTION, Verdict.FAIL)


def test_an_elf_without_a_header_starts_where_it_says(tmp_path: Path) -> None:
    path = tmp_path / "x.elf"
    path.write_bytes(elf((Segment(0x300000, b"\xf4\x31\xc0\xe7\xf4\xf4"),), entry=0x300001, wide=True))
    with pytest.raises(GuestImageError, match="Nothing says how") as caught:
        open_image(path)
    assert "--mode" in caught.value.hint
    assert run(open_image(path, ImageOptions(mode=Mode.LONG64))).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("name", "options", "kind", "words"),
    [
        ("x.bin", ImageOptions(), GuestImageError, "Nothing says how"),
        ("x.bin", ImageOptions(rom=True, mode=Mode.LONG64), UsageError, "A ROM starts at its reset vector"),
        ("x.bin", ImageOptions(mode=Mode.LONG64, environment={"A": ""}), UsageError, "Only a multiboot image"),
        ("x.bin", ImageOptions(mode=Mode.MULTIBOOT), UsageError, "is not a mode"),
        ("x.flat", ImageOptions(address=5), UsageError, "says itself where it goes"),
        ("x.flat", ImageOptions(entry="main"), UsageError, "says itself where it starts"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, name: str, options: ImageOptions, kind: type[Exception], words: str
) -> None:
    assembled(tmp_path, says(""), name="x.flat")
    (tmp_path / "x.bin").write_bytes(bytes(32))
    with pytest.raises(kind, match=words):
        open_image(tmp_path / name, options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.asm", "--env", "A=1"], "is a source"),
        (["x.flat", "--env", "1=2"], "NAME=VALUE"),
        (["x.flat", "--address", "0x1"], "says itself where it goes"),
        (["x.flat", "--smp", "17"], "16 processors"),
        (["x.o"], "a relocatable object"),
        (["x.bin"], "Nothing says how this image starts"),
    ],
)
def test_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assembled(tmp_path, says(""), name="x.flat")
    Path("x.asm").write_text("hlt\n")
    Path("x.bin").write_bytes(b"\xf4")
    Path("x.o").write_bytes(elf((Segment(0x400000, b"\xf4"),), kind=1))
    assert run_command_line(["run", *arguments]) == 2
    assert words in capfd.readouterr().err


def test_what_is_an_image(tmp_path: Path) -> None:
    assembled(tmp_path, says(""), name="noname")
    (tmp_path / "x.asm").write_text("hlt\n")
    assert is_image(tmp_path / "noname")
    assert is_image(tmp_path / "x.FLAT")
    assert not is_image(tmp_path / "x.asm")
    assert not is_image(tmp_path)


def rom_with(directory: Path, entry: str, far: str = "hlt") -> Path:
    """A ROM of 64 KiB: the reset vector jumps to ``entry`` at offset 0xf000; ``far`` stands at 0xf100."""
    from kvmscope.asm import assemble

    rom = bytearray(b"\xf4" * 0x10000)
    rom[0xFFF0:0xFFF3] = b"\xe9" + (0xF000 - 0xFFF3 & 0xFFFF).to_bytes(2, "little")
    rom[0xE000] = ord("d")
    for offset, source in ((0xF000, entry), (0xF100, far)):
        assembly = assemble(source, bits=16, origin=offset, cross_check=False)
        assert assembly.image is not None, assembly.diagnostics
        code = assembly.image.sections[0].data
        rom[offset : offset + len(code)] = code
    path = directory / "x.rom"
    path.write_bytes(rom)
    return path


READ_ITSELF = """
        mov     dx, 0x3f8
        mov     al, byte ptr cs:[0xe000]
        out     dx, al
        .byte   0xea
        .word   0xf100, 0xf000
"""
SAY_LOW = """
        mov     al, 'L'
        out     dx, al
        xor     eax, eax
        out     0xf4, eax
"""


def test_a_rom_starts_at_the_reset_vector_and_goes_on_below_1_mib(tmp_path: Path) -> None:
    result = run(open_image(rom_with(tmp_path, READ_ITSELF, SAY_LOW), ImageOptions(rom=True)))
    assert (result.serial, result.verdict) == (b"dL", Verdict.PASS)
    assert result.registers["cs.base"] == 0xF0000


def test_a_rom_is_not_written(tmp_path: Path) -> None:
    store = "mov byte ptr cs:[0xe000], 1\nhlt\n"
    result = run(open_image(rom_with(tmp_path, store), ImageOptions(rom=True)))
    assert result.stop is not None
    assert result.stop.reason is StopReason.UNSUPPORTED
    assert "store to ROM" in result.stop.detail
    assert result.verdict is Verdict.FAIL
