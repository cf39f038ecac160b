"""Both trackers against a random writer, and the self-test that chooses."""

from __future__ import annotations

import mmap
import os
import random

import pytest

from kvmscope.vmm.dirty import CompareTracker, DirtyTracker, UffdTracker, make_tracker, present_pages, tracker_name

PAGES = 300
PAGE = 4096


def memory() -> mmap.mmap:
    return mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


@pytest.fixture(params=[UffdTracker, CompareTracker])
def tracked(request: pytest.FixtureRequest):
    if request.param is UffdTracker and tracker_name() != UffdTracker.name:
        pytest.skip("userfaultfd with asynchronous write protection failed its self-test")
    ram = memory()
    for page in range(0, PAGES, 7):
        ram[page * PAGE] = 1
    tracker: DirtyTracker = request.param(ram)
    yield ram, tracker
    tracker.close()
    ram.close()


def test_nothing_written_is_nothing_found(tracked: tuple[mmap.mmap, DirtyTracker]) -> None:
    ram, tracker = tracked
    assert tracker.collect() == []
    assert sum(ram[page * PAGE] for page in range(PAGES)) == len(range(0, PAGES, 7))
    assert tracker.collect() == [], "reading is not writing"


def test_every_write_is_found_once(tracked: tuple[mmap.mmap, DirtyTracker]) -> None:
    ram, tracker = tracked
    random.seed(3)
    for _ in range(100):
        pages = sorted(random.sample(range(PAGES), random.randrange(40)))
        for page in pages:
            at = page * PAGE + random.randrange(PAGE)
            ram[at] = ram[at] + 1 & 0xFF
        assert tracker.collect() == pages
        assert tracker.collect() == []


def test_the_last_byte_and_a_straddling_write(tracked: tuple[mmap.mmap, DirtyTracker]) -> None:
    ram, tracker = tracked
    ram[PAGES * PAGE - 1] = 9
    ram[5 * PAGE - 2 : 5 * PAGE + 2] = b"abcd"
    assert tracker.collect() == [4, 5, PAGES - 1]


def test_pages_never_touched_are_not_present() -> None:
    ram = memory()
    for page in (0, 17, PAGES - 1):
        ram[page * PAGE + 5] = 1
    found = present_pages(ram)
    assert {0, 17, PAGES - 1} <= set(found)
    assert len(found) in (3, PAGES), "or all, where the kernel does not say"
    ram.close()


def test_a_forked_child_tracks_its_own_memory() -> None:
    here = memory()
    make_tracker(here).collect()
    child = os.fork()
    if child == 0:
        ram = memory()
        ram[7 * PAGE] = 1
        found = set(present_pages(ram)) >= {7}
        tracker = make_tracker(ram)
        ram[9 * PAGE] = 1
        os._exit(0 if found and tracker.collect() == [9] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_memory_can_be_closed_after_its_tracker() -> None:
    ram = memory()
    tracker = make_tracker(ram)
    assert tracker.name == tracker_name()
    tracker.close()
    tracker.close()
    ram.close()
