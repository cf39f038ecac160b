"""History of a random writer, compared with full copies of its memory."""

from __future__ import annotations

import mmap
import random

import pytest

from kvmscope.vmm.history import Checkpoint, History

PAGE = 4096
PAGES = 64


class Writer:
    """RAM, its history, and a full copy for every checkpoint."""

    def __init__(self, seed: int, limit: int = 1 << 30) -> None:
        self.random = random.Random(seed)
        self.ram = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        boot = {3: b"boot".ljust(PAGE, b"."), 9: bytes(range(256)) * 16}
        for page, content in boot.items():
            self.ram[page * PAGE : (page + 1) * PAGE] = content
        self.history = History(self.ram, boot, Checkpoint(0, b"cpu0", (), ()), limit)
        self.copies = {0: self.ram[:]}
        self.tick = 0

    def scribble(self) -> None:
        for _ in range(self.random.randrange(6)):
            page = self.random.randrange(PAGES)
            offset = self.random.randrange(PAGE - 8)
            self.ram[page * PAGE + offset : page * PAGE + offset + 8] = self.random.randbytes(8)
        if self.random.random() < 0.2:
            page = self.random.randrange(PAGES)
            self.ram[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)

    def checkpoint(self, *, edit: bool = False) -> None:
        self.tick += self.random.randrange(1, 50)
        self.history.add(Checkpoint(self.tick, b"cpu%d" % self.tick, (), (), edit=edit))
        self.copies[self.tick] = self.ram[:]

    def close(self) -> None:
        self.history.close()
        self.ram.close()


@pytest.fixture
def writer():
    made: list[Writer] = []

    def make(seed: int, limit: int = 1 << 30) -> Writer:
        made.append(Writer(seed, limit))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("seed", range(6))
def test_every_checkpoint_comes_back_exactly(writer, seed: int) -> None:
    w = writer(seed)
    for _ in range(60):
        w.scribble()
        w.checkpoint()
    for _ in range(150):
        if w.random.random() < 0.5:
            w.scribble()
        tick = w.random.choice(list(w.copies))
        before = w.ram[:]
        changed = w.history.restore(w.history.find(tick))
        assert w.ram[:] == w.copies[tick]
        differing = [p for p in range(PAGES) if before[p * PAGE : (p + 1) * PAGE] != w.ram[p * PAGE : (p + 1) * PAGE]]
        assert changed == differing, "exactly the pages that had to change are reported"


@pytest.mark.parametrize("seed", range(4))
def test_forward_over_known_ground(writer, seed: int) -> None:
    """A replay passes checkpoints; RAM then stands on them."""
    w = writer(seed)
    for _ in range(30):
        w.scribble()
        w.checkpoint()
    ticks = sorted(w.copies)
    for _ in range(60):
        i = w.random.randrange(len(ticks) - 1)
        w.history.restore(w.history.find(ticks[i]))
        w.ram[:] = w.copies[ticks[i + 1]]
        assert w.history.passed(ticks[i + 1]) is not None
        j = w.random.randrange(len(ticks))
        w.history.restore(w.history.find(ticks[j]))
        assert w.ram[:] == w.copies[ticks[j]]


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_forgets_and_what_follows_is_right(writer, seed: int) -> None:
    w = writer(seed)
    for _ in range(12):
        for _ in range(8):
            w.scribble()
            w.checkpoint()
        tick = w.random.choice(list(w.copies))
        w.history.restore(w.history.find(tick))
        w.history.cut(tick)
        w.copies = {t: copy for t, copy in w.copies.items() if t <= tick}
        w.tick = tick
        assert w.history.find(1 << 60).tick == tick
    for tick in w.copies:
        w.history.restore(w.history.find(tick))
        assert w.ram[:] == w.copies[tick]
    w.history.restore(w.history.find(0))
    w.history.cut(0)
    assert w.history.count == 1
    assert w.history.bytes < 4096


@pytest.mark.parametrize("seed", range(4))
def test_memory_is_bounded_and_the_rest_stays_exact(writer, seed: int) -> None:
    # Room for boot, five edits and the newest, each with every page.
    limit = 450 * PAGE
    w = writer(seed, limit)
    for i in range(400):
        w.scribble()
        w.checkpoint(edit=i % 97 == 5)
        assert w.history.bytes <= limit
        if i % 40 == 0:
            tick = w.history.find(w.random.randrange(w.tick + 1)).tick
            w.history.restore(w.history.find(tick))
            assert w.ram[:] == w.copies[tick]
            w.history.restore(w.history.find(w.tick))
            assert w.ram[:] == w.copies[w.tick]
    assert w.history.count < 400
    edits = [tick for i, tick in enumerate(sorted(w.copies)[1:]) if i % 97 == 5]
    kept = {w.history.find(tick).tick for tick in w.copies}
    assert {0, *edits} <= kept, "boot and edits are never thinned out"
    for tick in kept:
        w.history.restore(w.history.find(tick))
        assert w.ram[:] == w.copies[tick]


def test_device_state_counts_too(writer) -> None:
    w = writer(3, 64 * PAGE)
    for tick in range(1, 60):
        w.history.add(Checkpoint(tick, b"cpu", ((1, bytes(5 * PAGE)),), ()))
        assert w.history.bytes <= 64 * PAGE
    assert 5 < w.history.count < 14
    w.history.restore(w.history.find(0))
    w.history.cut(0)
    assert w.history.bytes < PAGE


def test_a_cap_that_cannot_be_met_keeps_the_newest(writer) -> None:
    w = writer(1, 1)
    for _ in range(30):
        w.scribble()
        w.checkpoint()
    assert w.history.count == 2
    w.history.restore(w.history.find(0))
    assert w.ram[:] == w.copies[0]
    w.history.restore(w.history.find(w.tick))
    assert w.ram[:] == w.copies[w.tick]


def test_the_next_edit(writer) -> None:
    w = writer(2)
    edits = []
    for i in range(20):
        w.checkpoint(edit=i % 5 == 0)
        if i % 5 == 0:
            edits.append(w.tick)
    assert w.history.next_edit(0) == edits[0]
    assert w.history.next_edit(edits[0]) == edits[1]
    assert w.history.next_edit(edits[-1]) is None
    w.history.restore(w.history.find(edits[2]))
    w.history.cut(edits[2])
    assert w.history.next_edit(edits[1]) == edits[2]
    assert w.history.next_edit(edits[2]) is None


def apply(old: bytes, changes) -> bytes:
    out = bytearray(old)
    for change in changes:
        assert out[change.address : change.address + len(change.old)] == change.old
        assert len(change.old) == len(change.new) > 0
        assert all(a != b for a, b in zip(change.old, change.new, strict=True)), "only bytes that differ"
        out[change.address : change.address + len(change.new)] = change.new
    return bytes(out)


@pytest.mark.parametrize("seed", range(6))
def test_changes_since_a_mark_are_exact(writer, seed: int) -> None:
    w = writer(seed)
    marked = b""
    for i in range(120):
        action = w.random.random()
        if not marked or action < 0.3:
            w.history.mark()
            marked = w.ram[:]
        w.scribble()
        if action > 0.8:
            w.history.restore(w.history.find(w.tick))
            w.checkpoint()
        elif action > 0.7 and i > 5:
            w.history.restore(w.history.find(w.random.randrange(w.tick + 1)))
        elif action > 0.65:
            tick = w.history.find(w.random.randrange(w.tick + 1)).tick
            w.history.restore(w.history.find(tick))
            w.history.cut(tick)
            w.tick = tick
        changes, truncated = w.history.changes()
        assert not truncated
        assert apply(marked, changes) == w.ram[:]
        assert w.history.changes()[0] == changes, "asking changes nothing"


def test_runs_join_across_pages_and_many_pages_are_cut() -> None:
    ram = mmap.mmap(-1, 600 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    history = History(ram, {}, Checkpoint(0, b"", (), ()), 1 << 30)
    history.mark()
    ram[PAGE - 2 : PAGE + 2] = b"abcd"
    changes, truncated = history.changes()
    assert [(c.address, c.old, c.new) for c in changes] == [(PAGE - 2, bytes(4), b"abcd")]
    for page in range(600):
        ram[page * PAGE] = 1
    changes, truncated = history.changes()
    assert truncated
    assert len(changes) == 256, "256 pages; the second run of the first page goes on into the next"
    history.mark()
    assert history.changes() == ((), False)
    history.close()
    ram.close()
