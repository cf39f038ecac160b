from __future__ import annotations

import sys

import pytest

pytest_plugins = "pytester"

PASS = '; /// kvmscope\n; expect = ["eax == 5"]\n; ///\nmov eax, 5\nhlt\n'
FAIL = PASS.replace("== 5", "== 6")


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest in this process, without a plugin that expects to be the only session of its process."""
    return pytester.runpytest("-p", "no:textual-snapshot", *arguments)


@pytest.fixture(autouse=True)
def _files(pytester: pytest.Pytester) -> None:
    pytester.makefile(".asm", good=PASS, bad=FAIL, wrong="; /// kvmscope\n; mdoe = 1\n; ///\n")
    pytester.makefile(".s", foreign="hlt\n")
    pytester.makepyfile("def test_python(): pass")


def test_nothing_is_collected_that_nobody_asked_for(pytester: pytest.Pytester) -> None:
    run(pytester).assert_outcomes(passed=1)


def test_named_files_are(pytester: pytest.Pytester) -> None:
    run(pytester, "good.asm").assert_outcomes(passed=1)
    assert run(pytester, "foreign.s").ret != 0


def test_the_flag_takes_all_with_a_header(pytester: pytest.Pytester) -> None:
    run(pytester, "--kvmscope").assert_outcomes(passed=2, failed=2)


def test_the_ini_option_names_directories(pytester: pytest.Pytester) -> None:
    directory = pytester.mkdir("cases")
    (directory / "case.asm").write_text(PASS)
    pytester.makeini("[pytest]\nkvmscope_paths = cases")
    run(pytester).assert_outcomes(passed=2)


def test_a_failure_reads_like_the_command_lines(pytester: pytest.Pytester) -> None:
    result = run(pytester, "bad.asm")
    result.stdout.fnmatch_lines(["FAIL: 1 of 1 expectation not met*", "*bad.asm:2: expected eax == 6", "*eax is 5"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*.py:*")


def test_a_wrong_header_is_a_message(pytester: pytest.Pytester) -> None:
    result = run(pytester, "wrong.asm")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["unknown key 'mdoe'", "*wrong.asm:2", "hint: did you mean 'mode'?"])


def test_verdicts_become_outcomes(pytester: pytest.Pytester) -> None:
    def with_key(text: str, key: str) -> str:
        return text.replace("; ///\nmov", f"; {key}\n; ///\nmov")

    pytester.makefile(
        ".asm",
        expected=with_key(FAIL, 'xfail = "known"'),
        strict=with_key(PASS, 'xfail = "known"'),
        skipped=with_key(PASS, 'requires = ["kvm"]'),
    )
    result = run(pytester, "expected.asm", "strict.asm", "skipped.asm")
    result.assert_outcomes(xfailed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*XPASS*"])


def test_loading_it_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    code = "import sys, kvmscope.reproducer.pytest_plugin; print([m for m in sys.modules if 'kvmscope' in m and m[0] != '_'])"
    result = pytester.run(sys.executable, "-c", code)
    result.stdout.fnmatch_lines(["['kvmscope', 'kvmscope.reproducer', 'kvmscope.reproducer.pytest_plugin']"])
