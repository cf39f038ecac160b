"""From a source to the processor: priorities, EOI, pins, local vector table, errors."""

from __future__ import annotations

import pytest

from kvmscope.vmm.devices.interrupts import DeliveryMode, Message
from kvmscope.vmm.devices.lapic.registers import Reg
from tests.vmm.devices.lapic.bench import (
    BSP,
    EN,
    EXTINT,
    INIT,
    LEVEL,
    MASKED,
    NMI,
    SELF,
    SMI,
    Bench,
    put,
    reg,
    take,
    to_x2apic,
    vectors,
)

SEND_ILLEGAL, RECEIVE_ILLEGAL = 0x20, 0x40
REMOTE_IRR = 1 << 14


def level(vector: int) -> Message:
    return Message(vector, level=True)


def test_priorities_and_nesting() -> None:
    bench = Bench()
    apic = bench.apics[0]
    for vector in (0x31, 0x45, 0x3F):
        put(apic, Reg.ICR, SELF | vector)
    assert bench.kicks == [1]
    assert apic.acknowledge() == 0x45
    assert reg(apic, Reg.PPR) == 0x40
    # 0x3f is of a lower class, and waits.
    assert not apic.signals.interrupt
    put(apic, Reg.ICR, SELF | 0x4A)
    assert not apic.signals.interrupt
    put(apic, Reg.ICR, SELF | 0x50)
    assert apic.signals.interrupt
    assert apic.acknowledge() == 0x50
    assert vectors(apic.isr) == [0x45, 0x50]
    put(apic, Reg.EOI, 0)
    assert vectors(apic.isr) == [0x45]
    put(apic, Reg.EOI, 123)
    assert take(apic) == [0x4A, 0x3F, 0x31]
    assert (apic.isr, apic.irr) == (0, 0)
    put(apic, Reg.EOI, 0)


def test_task_priority_holds_and_releases() -> None:
    apic = Bench().apics[0]
    put(apic, Reg.TPR, 0xF0)
    put(apic, Reg.ICR, SELF | 32)
    put(apic, Reg.ICR, SELF | 62)
    assert not apic.signals.interrupt
    put(apic, Reg.TPR, 0x20)
    assert take(apic) == [62]
    put(apic, Reg.TPR, 0)
    assert take(apic) == [32]


def test_sub_class_of_the_tpr_shows_in_ppr_only() -> None:
    apic = Bench().apics[0]
    put(apic, Reg.TPR, 0x3F)
    assert reg(apic, Reg.PPR) == 0x3F
    put(apic, Reg.ICR, SELF | 0x3F)
    assert not apic.signals.interrupt
    put(apic, Reg.ICR, SELF | 0x40)
    assert apic.acknowledge() == 0x40
    assert reg(apic, Reg.PPR) == 0x40
    put(apic, Reg.TPR, 0x41)
    assert reg(apic, Reg.PPR) == 0x41
    put(apic, Reg.TPR, 0x3F)
    assert reg(apic, Reg.PPR) == 0x40


@pytest.mark.parametrize("tpr", [0, 0x0F, 0x20, 0x3A, 0x40, 0x4F, 0x50, 0xFF])
@pytest.mark.parametrize("vector", [None, 0x10, 0x3F, 0x40, 0x4F, 0xFE])
def test_processor_priority(tpr: int, vector: int | None) -> None:
    apic = Bench().apics[0]
    if vector is not None:
        put(apic, Reg.ICR, SELF | vector)
        assert apic.acknowledge() == vector
    put(apic, Reg.TPR, tpr)
    in_service = (vector or 0) >> 4
    assert reg(apic, Reg.PPR) == (tpr if tpr >> 4 >= in_service else in_service << 4)


def test_pending_once_however_often_sent() -> None:
    apic = Bench().apics[0]
    for _ in range(3):
        put(apic, Reg.ICR, SELF | 0x80)
    assert apic.acknowledge() == 0x80
    put(apic, Reg.ICR, SELF | 0x80)
    put(apic, Reg.ICR, SELF | 0x80)
    put(apic, Reg.EOI, 0)
    assert take(apic) == [0x80]


def test_spurious_vector_when_nothing_is_deliverable() -> None:
    apic = Bench().apics[0]
    put(apic, Reg.SVR, 0x1EF)
    put(apic, Reg.ICR, SELF | 0x31)
    apic.set_cr8(3)
    assert apic.acknowledge() == 0xEF
    assert apic.isr == 0
    assert vectors(apic.irr) == [0x31]


def test_end_of_level_interrupts_is_told() -> None:
    bench = Bench()
    apic = bench.apics[0]
    apic.receive(level(0x77))
    apic.receive(Message(0x78))
    assert vectors(apic.tmr) == [0x77]
    assert take(apic) == [0x78, 0x77]
    assert bench.ended == [0x77]
    # The TMR bit stays until the vector comes again as an edge.
    assert vectors(apic.tmr) == [0x77]
    apic.receive(Message(0x77))
    assert apic.tmr == 0
    assert take(apic) == [0x77]
    assert bench.ended == [0x77]


def test_software_disable_holds_what_is_pending() -> None:
    apic = Bench().apics[0]
    put(apic, Reg.ICR, SELF | 0x50)
    put(apic, Reg.SVR, 0xFF)
    put(apic, Reg.ICR, SELF | 0x60)
    apic.receive(Message(0x61))
    assert vectors(apic.irr) == [0x50]
    assert take(apic) == [0x50]
    assert apic.acknowledge() is None
    apic.receive(Message(0, DeliveryMode.NMI))
    assert apic.signals.nmi


# LINT0 and LINT1


@pytest.mark.parametrize("pin", [0, 1])
def test_fixed_edge_pin(pin: int) -> None:
    apic = Bench().apics[0]
    offset = (Reg.LVT_LINT0, Reg.LVT_LINT1)[pin]
    apic.set_lint(pin, True)
    put(apic, offset, 0x55)
    assert not apic.signals.interrupt
    apic.set_lint(pin, True)
    assert not apic.signals.interrupt
    apic.set_lint(pin, False)
    apic.set_lint(pin, True)
    assert take(apic) == [0x55]
    assert apic.tmr == 0
    put(apic, offset, MASKED | 0x55)
    apic.set_lint(pin, False)
    apic.set_lint(pin, True)
    assert apic.irr == 0


def test_fixed_level_pin_comes_again_until_it_falls() -> None:
    apic = Bench().apics[0]
    apic.set_lint(0, True)
    put(apic, Reg.LVT_LINT0, LEVEL | 0x55)
    for _ in range(3):
        assert reg(apic, Reg.LVT_LINT0) == LEVEL | REMOTE_IRR | 0x55
        assert apic.acknowledge() == 0x55
        assert apic.irr == 0
        put(apic, Reg.EOI, 0)
    apic.set_lint(0, False)
    assert apic.acknowledge() == 0x55
    put(apic, Reg.EOI, 0)
    assert reg(apic, Reg.LVT_LINT0) == LEVEL | 0x55
    assert apic.irr == 0


def test_level_pin_with_an_illegal_vector_is_an_error_not_a_storm() -> None:
    apic = Bench().apics[0]
    put(apic, Reg.LVT_LINT0, LEVEL | 0x05)
    apic.set_lint(0, True)
    assert reg(apic, Reg.LVT_LINT0) == LEVEL | 0x05
    assert apic.errors == RECEIVE_ILLEGAL


def test_lint1_is_edge_triggered_always() -> None:
    apic = Bench().apics[0]
    put(apic, Reg.LVT_LINT1, LEVEL | 0x55)
    apic.set_lint(1, True)
    assert take(apic) == [0x55]
    assert apic.tmr == 0


@pytest.mark.parametrize("pin", [0, 1])
def test_other_delivery_modes_of_pins(pin: int) -> None:
    bench = Bench()
    apic = bench.apics[0]
    offset = (Reg.LVT_LINT0, Reg.LVT_LINT1)[pin]
    for mode in (NMI, INIT, SMI):
        put(apic, offset, LEVEL | mode | 0x02)
        before = bench.kicks[0]
        apic.set_lint(pin, True)
        apic.set_lint(pin, False)
        assert (apic.signals.nmi, apic.signals.init) == (mode == NMI, mode == INIT)
        assert bench.kicks[0] - before == (mode != SMI)
        apic.signals.nmi = apic.signals.init = False
    assert (apic.irr, apic.errors) == (0, 0)


def test_extint_follows_the_level() -> None:
    bench = Bench(2)
    apic = bench.apics[0]
    put(apic, Reg.LVT_LINT0, EXTINT)
    put(apic, Reg.ICR, SELF | 0xF1)
    assert apic.acknowledge() == 0xF1
    # Neither task priority nor an interrupt in service holds an ExtINT.
    apic.set_cr8(0xF)
    apic.set_lint(0, True)
    assert apic.signals.interrupt
    apic.set_lint(0, False)
    assert not apic.signals.interrupt
    apic.set_lint(0, True)
    assert apic.acknowledge() == bench.pic.vector
    assert vectors(apic.isr) == [0xF1]
    # The 8259 lowers its output by itself; until then there is another cycle to take.
    assert apic.signals.interrupt
    assert bench.pic.cycles == 1
    put(apic, Reg.LVT_LINT0, MASKED | EXTINT)
    assert not apic.signals.interrupt


def test_extint_is_nothing_where_no_8259_is_wired() -> None:
    apic = Bench(2).apics[1]
    put(apic, Reg.LVT_LINT0, EXTINT)
    apic.set_lint(0, True)
    apic.receive(Message(0, DeliveryMode.EXTINT))
    assert not apic.signals.interrupt


def test_extint_message() -> None:
    bench = Bench()
    apic = bench.apics[0]
    assert bench.bus.send(Message(0x33, DeliveryMode.EXTINT, 0))
    assert apic.signals.interrupt
    assert apic.acknowledge() == bench.pic.vector
    assert not apic.signals.interrupt


def test_without_an_apic_the_pins_are_intr_and_nmi() -> None:
    bench = Bench()
    apic = bench.apics[0]
    apic.write_msr(0x1B, 0xFEE00000 | BSP)
    apic.set_lint(0, True)
    assert apic.acknowledge() == bench.pic.vector
    apic.set_lint(1, True)
    assert apic.signals.nmi
    apic.write_msr(0x1B, 0xFEE00000 | BSP | EN)
    assert not apic.signals.interrupt


# errors


@pytest.mark.parametrize("vector", [0, 15])
def test_illegal_vectors_never_get_into_the_irr(vector: int) -> None:
    apic = Bench().apics[0]
    put(apic, Reg.LVT_ERROR, 0xFE)
    put(apic, Reg.ICR, SELF | vector)
    assert apic.errors == SEND_ILLEGAL | RECEIVE_ILLEGAL
    assert take(apic) == [0xFE]
    apic.receive(Message(vector))
    assert apic.irr == 0
    put(apic, Reg.ESR, 0)
    assert reg(apic, Reg.ESR) == SEND_ILLEGAL | RECEIVE_ILLEGAL
    apic.receive(Message(vector))
    assert take(apic) == [0xFE]
    assert reg(apic, Reg.ESR) == SEND_ILLEGAL | RECEIVE_ILLEGAL
    put(apic, Reg.ESR, 0)
    assert reg(apic, Reg.ESR) == RECEIVE_ILLEGAL


def test_error_interrupt_with_an_illegal_vector_ends() -> None:
    apic = Bench().apics[0]
    put(apic, Reg.LVT_ERROR, 0x03)
    reg(apic, 0x40)
    assert apic.errors == 0x80 | RECEIVE_ILLEGAL
    assert apic.irr == 0


def test_self_ipi_register_with_an_illegal_vector() -> None:
    apic = Bench().apics[0]
    to_x2apic(apic)
    assert apic.write_msr(0x83F, 0)
    apic.write_msr(0x828, 0)
    assert apic.read_msr(0x828) == SEND_ILLEGAL | RECEIVE_ILLEGAL
