"""IA32_APIC_BASE: modes, transitions, what is lost."""

from __future__ import annotations

import itertools

import pytest

from kvmscope.vmm.devices.interrupts import MsrFault
from kvmscope.vmm.devices.lapic.registers import Reg
from tests.vmm.devices.lapic.bench import ASSERT, BSP, EN, EXTD, NMI, Bench, msr_of, put, reg, to_x2apic

BASE = 0xFEE00000
DISABLED, XAPIC, X2APIC, INVALID = 0, EN, EN | EXTD, EXTD
LEGAL = {
    (DISABLED, DISABLED),
    (DISABLED, XAPIC),
    (XAPIC, DISABLED),
    (XAPIC, XAPIC),
    (XAPIC, X2APIC),
    (X2APIC, X2APIC),
    (X2APIC, DISABLED),
}


def in_mode(mode: int) -> Bench:
    bench = Bench(2)
    apic = bench.apics[0]
    if mode == DISABLED:
        apic.write_msr(0x1B, BASE | BSP)
    elif mode == X2APIC:
        to_x2apic(apic)
    return bench


def test_after_power_up() -> None:
    bench = Bench(2, enable=False)
    for index, apic in enumerate(bench.apics):
        assert apic.read_msr(0x1B) == BASE | EN | (0 if index else BSP)
        assert (apic.mmio_enabled, apic.enabled, apic.x2apic_mode, apic.base) == (True, True, False, BASE)
        assert reg(apic, Reg.ID) == index << 24
        assert reg(apic, Reg.VERSION) == 0x00050014
        assert reg(apic, Reg.SVR) == 0xFF
        assert reg(apic, Reg.DFR) == 0xFFFFFFFF
        assert [reg(apic, offset) for offset in range(0x320, 0x380, 0x10)] == [0x10000] * 6
        zero = (
            Reg.TPR,
            Reg.PPR,
            Reg.LDR,
            Reg.ESR,
            Reg.ICR,
            Reg.ICR_HIGH,
            Reg.INITIAL_COUNT,
            Reg.CURRENT_COUNT,
            Reg.DIVIDE,
        )
        assert [reg(apic, offset) for offset in zero] == [0] * len(zero)
        assert apic.signals.interrupt is False


@pytest.mark.parametrize(
    ("old", "new"), list(itertools.product((DISABLED, XAPIC, X2APIC), (DISABLED, XAPIC, X2APIC, INVALID)))
)
def test_transitions(old: int, new: int) -> None:
    apic = in_mode(old).apics[0]
    before = apic.read_msr(0x1B)
    if (old, new) in LEGAL:
        assert apic.write_msr(0x1B, BASE | BSP | new)
        assert apic.read_msr(0x1B) == BASE | BSP | new
        assert (apic.enabled, apic.x2apic_mode) == (bool(new & EN), bool(new & EXTD))
        assert apic.mmio_enabled == (new == XAPIC)
    else:
        with pytest.raises(MsrFault):
            apic.write_msr(0x1B, BASE | BSP | new)
        assert apic.read_msr(0x1B) == before


@pytest.mark.parametrize("bit", [*range(8), 9, *range(40, 64)])
def test_reserved_bits_of_apic_base(bit: int) -> None:
    apic = Bench().apics[0]
    with pytest.raises(MsrFault):
        apic.write_msr(0x1B, BASE | BSP | EN | 1 << bit)


def test_x2apic_needs_the_feature() -> None:
    apic = Bench(x2apic=False).apics[0]
    for value in (EN | EXTD, BASE | BSP | EN | EXTD, BASE | EXTD):
        with pytest.raises(MsrFault):
            apic.write_msr(0x1B, value)
    assert apic.mmio_enabled


def test_relocation() -> None:
    apic = Bench().apics[0]
    apic.write_msr(0x1B, BASE | BSP)
    apic.write_msr(0x1B, 0xFED40000 | BSP | EN)
    assert (apic.base, apic.mmio_enabled) == (0xFED40000, True)
    assert reg(apic, Reg.VERSION) == 0x00050014
    apic.write_msr(0x1B, 0x80_00000000 | BSP | EN)
    assert apic.base == 0x80_00000000


def test_disabled_it_is_no_memory_but_cr8_works() -> None:
    apic = Bench().apics[0]
    apic.set_cr8(5)
    apic.write_msr(0x1B, BASE | BSP)
    for offset in range(0, 0x1000, 4):
        put(apic, offset, 0xFFFFFFFF)
    assert reg(apic, Reg.VERSION) == reg(apic, Reg.TPR) == 0xFFFFFFFF
    assert apic.read(Reg.VERSION, 1) == 0xFF
    assert apic.get_cr8() == 5
    apic.set_cr8(0xA)
    assert apic.get_cr8() == 0xA
    apic.write_msr(0x1B, BASE | BSP | EN)
    assert reg(apic, Reg.TPR) == 0xA0


def test_disabling_loses_everything_else() -> None:
    bench = Bench(2)
    apic = bench.apics[1]
    put(apic, Reg.ID, 9 << 24)
    put(apic, Reg.LDR, 0x55 << 24)
    put(apic, Reg.LVT_TIMER, 0x31)
    put(apic, Reg.INITIAL_COUNT, 100)
    put(apic, Reg.ICR, 1 << 18 | 0x40)
    assert apic.signals.interrupt
    apic.write_msr(0x1B, BASE)
    assert not apic.signals.interrupt
    assert apic.acknowledge() is None
    assert bench.clock.deadline is None
    apic.write_msr(0x1B, BASE | EN)
    assert reg(apic, Reg.ID) == 1 << 24
    assert reg(apic, Reg.SVR) == 0xFF
    assert reg(apic, Reg.LDR) == reg(apic, Reg.INITIAL_COUNT) == reg(apic, 0x220) == 0
    assert reg(apic, Reg.LVT_TIMER) == 0x10000


def test_ids_across_modes() -> None:
    bench = Bench(20)
    apic = bench.apics[19]
    put(apic, Reg.ID, 77 << 24)
    to_x2apic(apic)
    assert apic.read_msr(msr_of(Reg.ID)) == 19
    assert apic.read_msr(msr_of(Reg.LDR)) == 1 << 16 | 1 << 3
    apic.write_msr(0x1B, BASE)
    apic.write_msr(0x1B, BASE | EN)
    assert reg(apic, Reg.ID) == 19 << 24


def test_registers_survive_the_step_to_x2apic() -> None:
    bench = Bench()
    apic = bench.apics[0]
    put(apic, Reg.LVT_TIMER, 0x20031)
    put(apic, Reg.INITIAL_COUNT, 5000)
    put(apic, Reg.ICR, 1 << 18 | 0x40)
    to_x2apic(apic)
    assert apic.read_msr(msr_of(Reg.SVR)) == 0x1FF
    assert apic.read_msr(msr_of(Reg.LVT_TIMER)) == 0x20031
    assert apic.read_msr(msr_of(Reg.INITIAL_COUNT)) == 5000
    assert apic.read_msr(msr_of(0x220)) == 1
    assert reg(apic, Reg.VERSION) == 0xFFFFFFFF
    bench.advance(10_000)
    assert apic.read_msr(msr_of(0x210)) == 1 << 17


def test_init_keeps_id_and_mode() -> None:
    apic = Bench(2).apics[1]
    put(apic, Reg.ID, 9 << 24)
    put(apic, Reg.TPR, 0x55)
    put(apic, Reg.ICR, 1 << 18 | 0x90)
    apic.init_reset()
    assert reg(apic, Reg.ID) == 9 << 24
    assert (reg(apic, Reg.SVR), reg(apic, Reg.TPR), apic.irr) == (0xFF, 0, 0)
    to_x2apic(apic)
    apic.write_msr(msr_of(Reg.TPR), 0x33)
    apic.init_reset()
    assert apic.x2apic_mode
    assert apic.read_msr(msr_of(Reg.ID)) == 1
    assert apic.read_msr(msr_of(Reg.TPR)) == 0
    apic.reset()
    assert apic.mmio_enabled
    assert reg(apic, Reg.ID) == 1 << 24


def test_reset_forgets_what_waits() -> None:
    apic = Bench().apics[0]
    put(apic, Reg.ICR, ASSERT | 1 << 18 | NMI)
    assert apic.signals.nmi
    apic.reset()
    assert (apic.signals.nmi, apic.signals.init, apic.signals.startup) == (False, False, None)


def test_foreign_msrs() -> None:
    apic = Bench(tsc_deadline=False).apics[0]
    for index in (0x10, 0x6E0, 0x7FF, 0x900, 0xC0000080):
        assert apic.read_msr(index) is None
        assert apic.write_msr(index, 0) is False
