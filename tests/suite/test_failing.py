from dataclasses import replace

import pytest

from kvmscope.errors import EngineError
from kvmscope.suite.config import parse_config
from kvmscope.suite.failing import report_addresses, to_report
from kvmscope.suite.runner import Job, entry_machine, run_entry
from kvmscope.suite.tree import open_tree
from kvmscope.vmm.engine import StopReason


def job(tree_path, name):
    (entry,) = parse_config(f"[{name}]\nfile = {name}.flat").entries
    return Job(entry, open_tree(tree_path).image(entry.file), 10.0)


@pytest.fixture
def machines():
    made = []

    def make(wanted):
        machine, _notes = entry_machine(wanted, history=64 << 20)
        made.append(machine)
        return machine

    yield make
    for machine in made:
        machine.close()


def test_it_stands_at_the_call_that_reported(tree_path, machines):
    wanted = job(tree_path, "bad")
    (line,) = run_entry(wanted).failures
    machine = machines(wanted)
    found = to_report(machine, line.begin, line.end)
    assert found is not None
    assert (found.what, found.exact, found.tick) == ("call of report", True, machine.tick)
    # The call is the second instruction behind the label.
    assert machine.image.symbol_at(machine.cpu.pc) == ("failing", 5)
    assert machine.serial == b"enabling apic\nPASS: one\n"
    # What follows is the report itself, and everything before is still there.
    machine.step()
    assert machine.image.symbol_at(machine.cpu.pc) == ("report", 0)
    machine.goto(0)
    assert machine.serial == b""


def test_a_function_that_was_jumped_to(tree_path, machines):
    wanted = job(tree_path, "tail")
    (line,) = run_entry(wanted).failures
    machine = machines(wanted)
    found = to_report(machine, line.begin, line.end)
    assert found is not None
    assert found.what == "entry of report"
    assert machine.image.symbol_at(machine.cpu.pc) == ("report", 0)


def test_an_image_without_symbols_stands_before_the_line(tree_path, machines):
    wanted = job(tree_path, "bad")
    (line,) = run_entry(wanted).failures
    machine = machines(wanted)
    machine.image = replace(machine.image, symbols={})
    found = to_report(machine, line.begin, line.end)
    assert found is not None
    assert not found.exact
    assert machine.serial == b"enabling apic\nPASS: one\n"
    machine.step()
    assert machine.serial == b"enabling apic\nPASS: one\nF"


def test_output_that_never_comes(tree_path, machines):
    machine = machines(job(tree_path, "good"))
    with pytest.raises(EngineError, match="before it had printed"):
        to_report(machine, 1000, 1010)
    assert machine.stop.reason is StopReason.DEBUG_EXIT


def test_cancelled(tree_path, machines):
    class Cancelled:
        def is_set(self):
            return True

    machine = machines(job(tree_path, "bad"))
    assert to_report(machine, 10, 20, cancel=Cancelled()) is None


def test_names_are_those_of_the_library(tree_path, machines):
    image = machines(job(tree_path, "good")).image
    assert report_addresses(image) == {image.symbols["report"]: "report"}
