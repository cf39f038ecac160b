"""The same guests, stepped and travelled through: the way to a tick makes no difference, whatever device is at work."""

from __future__ import annotations

import random
import zlib

import pytest

from kvmscope.reproducer import parse
from kvmscope.reproducer.assembling import assemble_reproducer
from kvmscope.vmm.machine import Machine
from tests.machine import test_guests_apic, test_guests_devices, test_guests_smp, test_guests_timers
from tests.machine.guests import Guest, source

GUESTS = {
    f"{name}: {key}": guest
    for name, guests in {
        "apic": test_guests_apic.GUESTS,
        "smp": test_guests_smp.GUESTS,
        "timers": test_guests_timers.GUESTS,
        "devices": test_guests_devices.GUESTS,
    }.items()
    for key, guest in guests.items()
}


def make(guest: Guest) -> Machine:
    reproducer = parse(source(guest), filename="guest.asm")
    image = assemble_reproducer(reproducer, cross_check=False).image
    assert image is not None
    return Machine(reproducer.config.with_(memory=5 << 20), image)


def state(m: Machine) -> tuple[object, ...]:
    snapshot = m.snapshot()
    return (
        snapshot.tick,
        snapshot.time,
        snapshot.cpu,
        snapshot.vcpus,
        snapshot.devices,
        tuple(snapshot.events),
        zlib.crc32(m.memory.read(0, m.memory.size) or b""),
    )


@pytest.mark.parametrize("name", GUESTS)
def test_the_way_makes_no_difference(name: str) -> None:
    guest = GUESTS[name]
    chooser = random.Random(name)
    whole, stepped = make(guest), make(guest)
    try:
        stop = whole.run()
        end = whole.tick
        whole.select(0)
        last = state(whole)
        seen: dict[int, tuple[object, ...]] = {}
        while stepped.tick < end:
            if stepped.vcpus == 1 and chooser.random() < 0.5 * 20 / max(20, end):
                stepped.step()
            else:
                stepped.run(chooser.randrange(1, 2 + end // 4))
            stepped.select(0)
            seen[stepped.tick] = state(stepped)
        # That nothing can go on may be found by the next command only, when time has passed.
        assert stepped.run() == stop
        stepped.select(0)
        assert state(stepped) == last
        seen[end] = last
        for tick in chooser.choices(list(seen), k=3):
            whole.goto(tick)
            whole.select(0)
            assert state(whole) == seen[tick]
        assert whole.run() == stop
        whole.select(0)
        assert state(whole) == last
    finally:
        whole.close()
        stepped.close()
