from dataclasses import replace

import pytest

from kvmscope.reproducer.kut import Word
from kvmscope.suite.config import parse_config
from kvmscope.suite.runner import MAX_SMP, Job, run_entry, skipped
from kvmscope.suite.tree import open_tree
from kvmscope.vmm.boot.prepare import MAX_VCPUS


def run(tree_path, name, emit=None, **keys):
    tree = open_tree(tree_path)
    entry = replace(parse_config(f"[{name}]\nfile = {name}.flat").entries[0], **keys)
    return run_entry(Job(entry, tree.image(entry.file), entry.timeout, 2_000_000), emit)


@pytest.mark.parametrize(
    ("name", "line", "status"),
    [
        ("good", "PASS good (2 tests)", 0),
        ("bad", "FAIL bad (3 tests, 1 unexpected failures, 1 skipped)", 3),
        ("skipping", "SKIP skipping (1 tests, 1 skipped)", 77),
        ("aborting", "FAIL aborting (aborted)", 127),
        ("silent", "PASS silent", 0),
        ("faulting", "FAIL faulting (triple fault)", 1),
    ],
)
def test_rows(tree_path, name, line, status):
    outcome = run(tree_path, name)
    assert outcome.line == line
    assert outcome.status == status


def test_a_guest_out_of_budget_fails_with_what_it_had_printed(tree_path):
    outcome = run(tree_path, "looping")
    assert (outcome.word, outcome.status) == (Word.FAIL, 124)
    assert outcome.instructions == 2_000_000
    assert outcome.output == b"PASS: before\n"
    assert len(outcome.lines) == 1


def test_wall_clock_is_a_timeout_with_the_entry_s_duration(tree_path):
    tree = open_tree(tree_path)
    (entry,) = parse_config("[looping]\nfile = looping.flat\ntimeout = 1s").entries
    outcome = run_entry(Job(entry, tree.image(entry.file), 0.01))
    assert outcome.line == "FAIL looping (timeout; duration=0.01s)"
    outcome = run_entry(Job(replace(entry, timeout=0.01, duration="10ms"), tree.image(entry.file), 0.01))
    assert outcome.line == "FAIL looping (timeout; duration=10ms)"


def test_a_bad_end_is_explained(tree_path):
    outcome = run(tree_path, "faulting")
    assert "main" in outcome.details[0]
    assert any("#UD" in text for text in outcome.details)
    assert run(tree_path, "bad").details == ()


def test_serial_output_comes_in_order(tree_path):
    parts = []
    outcome = run(tree_path, "bad", parts.append)
    assert b"".join(parts) == outcome.output
    assert [line.text for line in outcome.failures] == ["two: it is # broken"]


def test_what_is_not_honoured_is_noted(tree_path):
    outcome = run(tree_path, "good", params=("-device", "hyperv-testdev"))
    assert outcome.notes == ("-device hyperv-testdev: there is no such device",)


def test_an_image_that_is_none_is_an_error_row(tree_path, tmp_path):
    (entry,) = parse_config("[x]\nfile = x.flat").entries
    (tmp_path / "x.flat").write_bytes(b"")
    outcome = run_entry(Job(entry, tmp_path / "x.flat", 1.0))
    assert outcome.word is Word.ERROR
    assert "empty" in outcome.line
    (tmp_path / "x.flat").write_bytes(b"\x7fELF rubbish")
    assert run_entry(Job(entry, tmp_path / "x.flat", 1.0)).word is Word.ERROR


def test_a_row_of_an_entry_that_is_not_run():
    (entry,) = parse_config("[x]\nfile = x.flat").entries
    assert skipped(entry, "i386 only").line == "SKIP x (i386 only)"


def test_the_number_of_processors_is_the_machine_s():
    assert MAX_SMP == MAX_VCPUS
