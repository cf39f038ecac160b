from __future__ import annotations

from pathlib import Path

import pytest

from kvmscope.errors import UsageError
from kvmscope.reproducer import Overrides, Result, Verdict, discover, load, parse, run
from kvmscope.reproducer.shipped import shipped_dir

EXIT = "        out 0xf4, al\n        hlt\n"


def source(*header: str, code: str = "        mov eax, 7\n        hlt\n") -> str:
    return "".join(f"; {line}\n" for line in ("/// kvmscope", *header, "///")) + code


def result_of(*header: str, code: str = "        mov eax, 7\n        hlt\n", **options: object) -> Result:
    return run(parse(source(*header, code=code), "t.asm"), **options)  # type: ignore[arg-type]


def test_pass() -> None:
    result = result_of('expect = ["rax == 7", "stop == \'hlt\'"]')
    assert (result.verdict, result.exit_status, result.engine) == (Verdict.PASS, 0, "unicorn")
    assert [item.ok for item in result.expectations] == [True, True]
    assert result.instructions == 2
    assert result.registers["rax"] == 7
    assert (result.notes, result.diagnostics, result.explanation) == ((), (), None)


def test_fail_shows_both_sides() -> None:
    result = result_of('expect = ["rax == 7",', '"rax == 0x55 and rbx == 0"]')
    assert (result.verdict, result.exit_status) == (Verdict.FAIL, 1)
    (failed,) = result.failed
    assert (failed.line, failed.message) == (3, "rax is 7, rbx is 0")
    assert "t.asm:3: expected rax == 0x55 and rbx == 0" in result.report("t.asm")


@pytest.mark.parametrize(
    ("code", "verdict", "reason"),
    [
        ("hlt\n", Verdict.PASS, "hlt"),
        ("xor eax, eax\n" + EXIT, Verdict.PASS, "debug-exit"),
        ("mov al, 3\n" + EXIT, Verdict.FAIL, "debug-exit"),
        ("ud2\n", Verdict.FAIL, "exception"),
    ],
)
@pytest.mark.parametrize("header", [True, False])
def test_without_expectations_the_end_decides(code: str, verdict: Verdict, reason: str, header: bool) -> None:
    result = run(parse(source(code=code) if header else code, "t.asm"))
    assert result.verdict is verdict
    assert result.stop is not None
    assert result.stop.reason.value == reason


@pytest.mark.parametrize(
    ("keys", "verdict", "status", "word"),
    [
        (['expect = ["rax == 1"]', 'xfail = "known"'], Verdict.XFAIL, 0, "known"),
        (['expect = ["rax == 7"]', 'xfail = "known"'], Verdict.FAIL, 1, "XPASS"),
        (['expect = ["rax == 1"]', 'kfail = "bug 5"'], Verdict.KFAIL, 0, "bug 5"),
        (['expect = ["rax == 7"]', 'kfail = "bug 5"'], Verdict.PASS, 0, "met"),
        (['requires = ["kvm"]'], Verdict.SKIP, 77, "kvm"),
    ],
)
def test_verdicts(keys: list[str], verdict: Verdict, status: int, word: str) -> None:
    result = result_of(*keys)
    assert (result.verdict, result.exit_status) == (verdict, status)
    assert word in result.summary


def test_assembly_errors_are_diagnostics() -> None:
    result = result_of(code="        hlt\n        mvo eax, 1\n")
    assert (result.verdict, result.exit_status, result.stop) == (Verdict.ERROR, 2, None)
    assert [item.line for item in result.diagnostics] == [4]
    assert any(line.startswith("t.asm:4:") for line in result.report("t.asm"))


@pytest.mark.parametrize("backend", ["auto", "gas"])
def test_names_that_nothing_answers_to_are_errors_before_the_run(backend: str) -> None:
    result = result_of(
        f'backend = "{backend}"', 'expect = ["rax == 7 or rip == strat"]', code="start: mov eax, 7\n hlt\n"
    )
    assert (result.verdict, result.stop) == (Verdict.ERROR, None)
    assert [(item.line, "did you mean 'start'" in item.message) for item in result.diagnostics] == [(3, True)]


def test_boot_errors_name_the_headers_line() -> None:
    result = result_of("[handlers]", '"#PF" = "absent"')
    assert result.verdict is Verdict.ERROR
    assert any(note.startswith("t.asm:3: ") for note in result.notes)


@pytest.mark.parametrize(
    ("keys", "overrides", "word"),
    [
        (["max_instructions = 1000"], None, "instructions"),
        ([], Overrides(max_instructions=1000), "instructions"),
        (["timeout = 0.05", "max_instructions = 0xffffffff"], None, "time"),
        (["max_instructions = 0xffffffff"], Overrides(timeout=0.05), "time"),
    ],
)
def test_budgets(keys: list[str], overrides: Overrides | None, word: str) -> None:
    result = result_of(*keys, 'expect = ["rax == 0"]', code="again: jmp again\n", overrides=overrides)
    assert (result.verdict, result.exit_status, result.out_of_budget) == (Verdict.ERROR, 124, True)
    assert word in result.summary


def test_a_budget_can_be_what_is_expected() -> None:
    result = result_of(
        "max_instructions = 500", 'expect = ["stop == \'budget\'", "ticks == 500"]', code="again: jmp again\n"
    )
    assert (result.verdict, result.exit_status) == (Verdict.PASS, 0)


@pytest.mark.parametrize(
    ("expect", "code", "noted"),
    [
        ("rax == 7", "mov eax, 7\nud2\n", "exception"),
        ("rax == 7 and exception == '#UD'", "mov eax, 7\nud2\n", ""),
        ("count('#UD') == 1", "ud2\n", ""),
        ("rax == 7", "mov eax, 7\n" + EXIT, "debug-exit"),
        ("rax == 7", "mov eax, 7\nhlt\n", ""),
    ],
)
def test_an_end_that_no_expectation_mentions_is_noted(expect: str, code: str, noted: str) -> None:
    result = result_of(f'expect = ["{expect}"]', code=code)
    assert result.verdict is Verdict.PASS
    assert [noted in note for note in result.notes] == ([True] if noted else [])


def test_output_comes_in_order_and_whole() -> None:
    pieces: list[bytes] = []
    code = "mov dx, 0x3f8\nmov al, 'A'\nmov ecx, 26\nnext: out dx, al\ninc al\nloop next\nhlt\n"
    result = result_of(code=code, on_output=pieces.append)
    assert b"".join(pieces) == result.serial == b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_engines() -> None:
    result = result_of(engine="kvm")
    assert (result.verdict, result.exit_status) == (Verdict.SKIP, 77)
    assert "not built" in result.summary
    with pytest.raises(UsageError) as caught:
        result_of(engine="unicron")
    assert "unicorn" in caught.value.hint


def test_overrides_win() -> None:
    reproducer = parse(source('memory = "32M"', 'cpu = "amd"', 'args = ["a"]'), "t.asm")
    assert Overrides().apply(reproducer) == reproducer
    changed = Overrides(memory=64 << 20, cpu="intel", args=("b",), timeout=1.0, max_instructions=5, smp=2).apply(
        reproducer
    )
    assert (changed.config.memory, changed.config.cpu, changed.config.args) == (64 << 20, "intel", ("b",))
    assert (changed.timeout, changed.max_instructions, changed.config.smp) == (1.0, 5, 2)


def test_a_failure_is_explained() -> None:
    result = result_of("expect = [\"stop == 'hlt'\"]", code="mov rax, [0x7fffffff0000]\nhlt\n")
    assert result.explanation is not None
    assert "#PF" in result.explanation.title
    assert result.explanation.title in result.details("t.asm", explain=False)


def test_the_same_file_gives_the_same_history() -> None:
    text = source(
        "expect = [\"count('#UD') == 1\"]", "[handlers]", '"#UD" = "h"', code="ud2\nh: mov rbx, [rsp]\nrdtsc\nhlt\n"
    )
    first, second = (run(parse(text, "t.asm")) for _ in range(2))
    assert first.verdict is Verdict.PASS
    assert (first.instructions, first.registers, list(first.events)) == (
        second.instructions,
        second.registers,
        list(second.events),
    )


def _shipped() -> list[Path]:
    directory = shipped_dir()
    return discover([directory]) if directory else []


@pytest.mark.parametrize("path", _shipped(), ids=lambda path: path.stem)
def test_every_shipped_reproducer_passes(path: Path) -> None:
    result = run(load(path))
    assert result.verdict is Verdict.PASS, "\n".join(result.report(str(path)))
