"""Event log and output: positions, replays, bounds."""

from __future__ import annotations

import pytest

from kvmscope.vmm.events import Event
from kvmscope.vmm.record import EventLog, Output


def event(number: int) -> Event:
    return Event(number, 0, 0)


def numbers(log: EventLog) -> list[int]:
    return [e.tick for e in log.view()]


def test_going_back_and_forth_stores_once() -> None:
    log = EventLog(100)
    for i in range(10):
        log.append(event(i))
    log.position = 4
    assert numbers(log) == [0, 1, 2, 3]
    assert len(log.known()) == 10
    for i in range(4, 12):
        log.append(event(i))
    assert numbers(log) == list(range(12))


def test_a_cut_makes_another_future() -> None:
    log = EventLog(100)
    for i in range(10):
        log.append(event(i))
    before = log.view()
    log.position = 4
    log.cut()
    log.append(event(40))
    assert numbers(log) == [0, 1, 2, 3, 40]
    assert [e.tick for e in before] == list(range(10)), "a view taken before stays as it was"


def test_views_are_frozen_sequences() -> None:
    log = EventLog(100)
    for i in range(5):
        log.append(event(i))
    view = log.view(1)
    log.append(event(5))
    assert len(view) == 4
    assert view[0].tick == 1
    assert view[-1].tick == 4
    assert [e.tick for e in view[1:3]] == [2, 3]
    assert [e.tick for e in view[::-2]] == [4, 2]
    assert len(view[3:1]) == 0
    with pytest.raises(IndexError):
        view[4]


def test_the_oldest_go_first_and_are_counted() -> None:
    log = EventLog(100)
    for i in range(1000):
        log.append(event(i))
        assert len(log.view()) <= 100
    kept = numbers(log)
    assert kept == list(range(1000 - len(kept), 1000))
    assert log.dropped == 1000 - len(kept)
    assert log.position == 1000
    log.position = 10
    assert numbers(log) == []
    assert log.dropped == 10
    log.cut()
    log.append(event(10))
    assert numbers(log) == [10]


def test_output_is_stored_once_and_cut() -> None:
    out = Output()
    for byte in b"hello world":
        out.put(byte)
    assert out.text() == b"hello world"
    out.position = 5
    assert out.text() == b"hello"
    for byte in b" wor":
        out.put(byte)
    assert out.text() == b"hello wor"
    out.cut()
    out.put(ord("n"))
    assert out.text() == b"hello worn"
    out.position = 0
    out.cut()
    for byte in b"HELLO worn":
        out.put(byte)
    assert out.text() == b"HELLO worn"
