"""Interprocessor interrupts: destinations, shorthands, delivery modes."""

from __future__ import annotations

import itertools

import pytest

from kvmscope.vmm.devices.interrupts import DeliveryMode, Message
from kvmscope.vmm.devices.lapic.registers import Reg
from tests.vmm.devices.lapic.bench import (
    ALL,
    ASSERT,
    EXTINT,
    INIT,
    LEVEL,
    LOGICAL,
    LOWEST,
    NMI,
    OTHERS,
    SELF,
    SIPI,
    SMI,
    Bench,
    icr,
    put,
    take,
    to_x2apic,
    vectors,
)

VECTOR = 0xF1


def x2bench(count: int) -> Bench:
    bench = Bench(count)
    for apic in bench.apics:
        to_x2apic(apic)
    return bench


def hit(bench: Bench) -> list[int]:
    """Who got the vector; everything is ended."""
    return [apic.index for apic in bench.apics if take(apic) == [VECTOR]]


@pytest.mark.parametrize("make", [Bench, x2bench])
@pytest.mark.parametrize("destination", [0, 1, 2, 3, 0x7F])
def test_physical(make: type[Bench], destination: int) -> None:
    bench = make(3)
    icr(bench.apics[0], VECTOR, destination)
    assert hit(bench) == ([destination] if destination < 3 else [])


@pytest.mark.parametrize(("make", "everybody"), [(Bench, 0xFF), (x2bench, 0xFFFFFFFF)])
@pytest.mark.parametrize("mode", [0, LOGICAL])
def test_broadcast_address(make: type[Bench], everybody: int, mode: int) -> None:
    bench = make(3)
    icr(bench.apics[1], mode | VECTOR, everybody)
    assert hit(bench) == [0, 1, 2]


def test_eight_bit_broadcast_is_none_in_x2apic_mode() -> None:
    bench = x2bench(3)
    icr(bench.apics[0], VECTOR, 0xFF)
    assert hit(bench) == []
    # From an I/O APIC or an MSI it is: they have no wider destinations.
    assert bench.bus.send(Message(VECTOR, destination=0xFF))
    assert hit(bench) == [0, 1, 2]


@pytest.mark.parametrize("make", [Bench, x2bench])
@pytest.mark.parametrize(("shorthand", "who"), [(SELF, [1]), (ALL, [0, 1, 2]), (OTHERS, [0, 2])])
def test_shorthands(make: type[Bench], shorthand: int, who: list[int]) -> None:
    bench = make(3)
    icr(bench.apics[1], shorthand | VECTOR, 2)
    assert hit(bench) == who


def test_self_ipi_register() -> None:
    bench = x2bench(2)
    bench.apics[1].write_msr(0x83F, VECTOR)
    assert hit(bench) == [1]
    # It does not show in the ICR.
    assert bench.apics[1].read_msr(0x830) == 0


def test_aliased_physical_ids() -> None:
    bench = Bench(3)
    for number in range(256):
        for apic in bench.apics[:2]:
            put(apic, Reg.ID, number << 24)
        icr(bench.apics[0], VECTOR, number)
        assert hit(bench) == ([0, 1, 2] if number in (2, 0xFF) else [0, 1])


def test_logical_flat() -> None:
    bench = Bench(2)
    for a, b in ((0, 1), (1, 2), (3, 0x81)):
        for apic, logical in zip(bench.apics, (a, b), strict=True):
            put(apic, Reg.DFR, 0xFFFFFFFF)
            put(apic, Reg.LDR, logical << 24)
        for destination in range(255):
            icr(bench.apics[0], LOGICAL | VECTOR, destination)
            assert hit(bench) == [index for index, logical in enumerate((a, b)) if logical & destination]


def test_logical_cluster() -> None:
    bench = Bench(2)
    ids = (0x21, 0x34, 0x3A, 0xE8)
    for a, b in itertools.product(ids, ids):
        for apic, logical in zip(bench.apics, (a, b), strict=True):
            put(apic, Reg.DFR, 0x0FFFFFFF)
            put(apic, Reg.LDR, logical << 24)
        for destination in range(255):
            expected = [i for i, x in enumerate((a, b)) if x >> 4 == destination >> 4 and x & destination & 0xF]
            icr(bench.apics[0], LOGICAL | VECTOR, destination)
            assert hit(bench) == expected


def test_reserved_model_of_the_dfr_addresses_nobody() -> None:
    bench = Bench(1)
    put(bench.apics[0], Reg.DFR, 0x70000000)
    put(bench.apics[0], Reg.LDR, 0x01000000)
    icr(bench.apics[0], LOGICAL | VECTOR, 0x01)
    assert hit(bench) == []


def test_logical_x2apic() -> None:
    bench = x2bench(18)
    icr(bench.apics[0], LOGICAL | VECTOR, 0x0000_8005)
    assert hit(bench) == [0, 2, 15]
    icr(bench.apics[0], LOGICAL | VECTOR, 0x0001_0003)
    assert hit(bench) == [16, 17]
    icr(bench.apics[0], LOGICAL | VECTOR, 0x0002_FFFF)
    assert hit(bench) == []


def test_eight_bit_logical_destinations_reach_cluster_0() -> None:
    bench = x2bench(4)
    assert bench.bus.send(Message(VECTOR, destination=0x0D, logical=True, level=True))
    assert hit(bench) == [0, 2, 3]
    assert bench.ended == [VECTOR] * 3


def test_mixed_modes() -> None:
    bench = Bench(3)
    to_x2apic(bench.apics[0])
    icr(bench.apics[0], VECTOR, 1)
    assert hit(bench) == [1]
    icr(bench.apics[1], VECTOR, 0)
    assert hit(bench) == [0]
    icr(bench.apics[1], ALL | VECTOR)
    assert hit(bench) == [0, 1, 2]
    icr(bench.apics[0], VECTOR, 0xFFFFFFFF)
    assert hit(bench) == [0, 1, 2]
    put(bench.apics[1], Reg.LDR, 0x01000000)
    icr(bench.apics[0], LOGICAL | VECTOR, 0x00010001)
    assert hit(bench) == []


def test_an_apic_whose_id_is_wider_than_its_register_can_be_started() -> None:
    bench = Bench(258)
    to_x2apic(bench.apics[0])
    icr(bench.apics[0], INIT | ASSERT, 257)
    assert [apic.index for apic in bench.apics if apic.signals.init] == [257]


def test_lowest_priority() -> None:
    bench = Bench(3)
    for apic, priority in zip(bench.apics, (0x50, 0x20, 0x20), strict=True):
        put(apic, Reg.TPR, priority)
    icr(bench.apics[0], LOWEST | VECTOR, 0xFF)
    assert hit(bench) == [1]
    icr(bench.apics[0], ALL | LOWEST | VECTOR)
    assert hit(bench) == [1]
    put(bench.apics[2], Reg.TPR, 0)
    icr(bench.apics[2], OTHERS | LOWEST | VECTOR)
    assert hit(bench) == [1]
    icr(bench.apics[1], OTHERS | LOWEST | VECTOR)
    assert hit(bench) == [2]
    # Nobody of those disabled by software.
    put(bench.apics[2], Reg.SVR, 0xFF)
    icr(bench.apics[0], LOWEST | VECTOR, 0xFF)
    assert hit(bench) == [1]


@pytest.mark.parametrize("make", [Bench, x2bench])
@pytest.mark.parametrize("assertion", [0, ASSERT])
def test_nmi(make: type[Bench], assertion: int) -> None:
    bench = make(2)
    icr(bench.apics[0], NMI | assertion, 1)
    assert [apic.signals.nmi for apic in bench.apics] == [False, True]
    assert bench.kicks == [0, 1]
    icr(bench.apics[0], SELF | NMI | assertion)
    assert bench.apics[0].signals.nmi


@pytest.mark.parametrize("make", [Bench, x2bench])
def test_starting_the_others(make: type[Bench]) -> None:
    bench = make(3)
    for apic in bench.apics[1:]:
        apic.init_reset()
    icr(bench.apics[0], OTHERS | INIT | ASSERT)
    assert [apic.signals.init for apic in bench.apics] == [False, True, True]
    icr(bench.apics[0], OTHERS | SIPI | 0x9A)
    assert [apic.signals.startup for apic in bench.apics] == [None, (0x9A00, 0), (0x9A00, 0)]
    assert bench.kicks == [0, 2, 2]
    icr(bench.apics[0], OTHERS | INIT | ASSERT)
    assert bench.apics[1].signals.startup is None


@pytest.mark.parametrize(
    ("value", "sent"), [(INIT, True), (INIT | ASSERT, True), (INIT | LEVEL | ASSERT, True), (INIT | LEVEL, False)]
)
def test_only_level_deassert_is_no_init(value: int, sent: bool) -> None:
    bench = Bench()
    icr(bench.apics[0], SELF | value)
    assert bench.apics[0].signals.init is sent
    assert not bench.bus.send(Message(0, DeliveryMode.INIT, 5))
    bench.apics[0].signals.init = False
    bench.apics[0].receive(Message(0, DeliveryMode.INIT, assert_=False))
    assert bench.apics[0].signals.init is False


@pytest.mark.parametrize("mode", [3 << 8, EXTINT, SMI])
def test_modes_that_do_nothing(mode: int) -> None:
    bench = Bench(2)
    icr(bench.apics[0], ALL | mode | VECTOR)
    for apic in bench.apics:
        assert (apic.irr, apic.errors, apic.signals.nmi, apic.signals.init) == (0, 0, False, False)
        assert not apic.signals.interrupt


def test_ipis_are_edge_triggered_whatever_the_icr_says() -> None:
    bench = Bench()
    icr(bench.apics[0], SELF | LEVEL | ASSERT | VECTOR)
    assert bench.apics[0].tmr == 0


def test_a_disabled_apic_is_not_there() -> None:
    bench = Bench(2)
    bench.apics[1].write_msr(0x1B, 0xFEE00000)
    for value in (VECTOR, NMI, INIT | ASSERT, SIPI):
        icr(bench.apics[0], OTHERS | value)
        icr(bench.apics[0], value, 1)
        assert not bench.bus.send(Message(VECTOR, DeliveryMode(value >> 8 & 7), 1))
    signals = bench.apics[1].signals
    assert (signals.interrupt, signals.nmi, signals.init, signals.startup) == (False, False, False, None)


def test_disabled_by_software_it_takes_no_fixed_interrupts_and_can_send() -> None:
    bench = Bench(2)
    put(bench.apics[1], Reg.SVR, 0xFF)
    assert not bench.bus.send(Message(VECTOR, destination=1))
    assert bench.bus.send(Message(0, DeliveryMode.NMI, 1))
    icr(bench.apics[1], VECTOR, 0)
    assert hit(bench) == [0]


def test_illegal_vector_is_an_error_at_both_ends() -> None:
    bench = Bench(3)
    icr(bench.apics[0], 0x0F, 1)
    assert [apic.errors for apic in bench.apics] == [0x20, 0x40, 0]
    assert vectors(bench.apics[1].irr) == []


def test_startup_vectors_are_never_illegal() -> None:
    bench = Bench(2)
    icr(bench.apics[0], SIPI | 0, 1)
    assert bench.apics[1].signals.startup == (0, 0)
    assert bench.apics[0].errors == 0
