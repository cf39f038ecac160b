import os
import signal
import time

import pytest

from kvmscope.reproducer.kut import Word
from kvmscope.suite import pool as pools
from kvmscope.suite.config import parse_config
from kvmscope.suite.pool import Began, Done, Output, Pool
from kvmscope.suite.runner import Job
from kvmscope.suite.running import run_selected
from kvmscope.suite.selection import Selection, select
from kvmscope.suite.tree import open_tree

LIMIT = 60.0
"""Seconds after which a condition is given up; nothing is measured with it."""


@pytest.fixture
def pool():
    made = Pool(2)
    yield made
    made.close()


def job(tree_path, name, seconds=30.0):
    (entry,) = parse_config(f"[{name}]\nfile = {name}.flat").entries
    return Job(entry, open_tree(tree_path).image(entry.file), seconds)


def events_of(pool, until=None):
    deadline = time.monotonic() + LIMIT
    while not pool.idle:
        assert time.monotonic() < deadline
        for event in pool.poll(0.5):
            yield event
            if until is not None and until(event):
                return


def test_jobs_begin_print_and_end(pool, tree_path):
    jobs = [job(tree_path, name) for name in ("good", "bad", "skipping")]
    pool.submit(jobs)
    events = list(events_of(pool))
    for wanted in jobs:
        mine = [event for event in events if event.job is wanted]
        assert isinstance(mine[0], Began)
        assert isinstance(mine[-1], Done)
        printed = b"".join(event.data for event in mine if isinstance(event, Output))
        assert printed == mine[-1].outcome.output


def test_a_process_that_dies_costs_one_row(pool, tree_path):
    pool.submit([job(tree_path, "looping")])
    list(events_of(pool, until=lambda event: isinstance(event, Output)))
    os.kill(pool._workers[0].process.pid, signal.SIGKILL)
    (done,) = [event for event in events_of(pool) if isinstance(event, Done)]
    assert done.outcome.word is Word.ERROR
    assert done.outcome.line == "ERROR looping (its process died (signal 9))"
    assert done.outcome.output == b"PASS: before\n"
    pool.submit([job(tree_path, "good")])
    (done,) = [event for event in events_of(pool) if isinstance(event, Done)]
    assert done.outcome.word is Word.PASS


def test_a_process_that_hangs_is_ended(pool, tree_path, monkeypatch):
    monkeypatch.setattr(pools, "_GRACE", 0.0)
    pool.submit([job(tree_path, "looping", 1.0)])
    list(events_of(pool, until=lambda event: isinstance(event, Output)))
    process = pool._workers[0].process
    os.kill(process.pid, signal.SIGSTOP)
    (done,) = [event for event in events_of(pool) if isinstance(event, Done)]
    assert "did not stop" in done.outcome.reason
    assert process.returncode == -signal.SIGKILL


def test_close_ends_everything(tree_path):
    made = Pool(2)
    made.submit([job(tree_path, "looping") for _ in range(3)])
    list(events_of(made, until=lambda event: isinstance(event, Output)))
    processes = [worker.process for worker in made._workers]
    made.close()
    assert all(process.poll() is not None for process in processes)
    assert made.idle


@pytest.mark.parametrize("processes", [1, 3])
def test_rows_and_output_come_in_the_configuration_s_order(tree_path, processes):
    tree = open_tree(tree_path)
    chosen = select(tree, Selection(skip=("looping",)), max_smp=1)
    printed = []
    told = []
    for outcome in run_selected(
        tree, chosen, processes=processes, emit=lambda name, data: printed.append((name, data))
    ):
        told.append(outcome.name)
        assert b"".join(data for name, data in printed if name == outcome.name) == outcome.output
    assert told == [selected.entry.name for selected in chosen]
    names = [name for name, _ in printed]
    assert names == sorted(names, key=told.index)


def test_a_suite_that_is_given_up_leaves_no_process(tree_path):
    tree = open_tree(tree_path)
    chosen = select(tree, Selection(only=("good", "looping")), max_smp=1)
    rows = run_selected(tree, chosen, processes=2)
    assert next(rows).name == "good"
    rows.close()
