"""Every register through both of its windows: the page and the MSRs."""

from __future__ import annotations

import pytest

from kvmscope.vmm.devices.interrupts import MsrFault
from kvmscope.vmm.devices.lapic.registers import REGISTERS, Reg
from tests.vmm.devices.lapic.bench import MASKED, SELF, Bench, msr_of, put, reg, to_x2apic, vectors

ILLEGAL_REGISTER = 0x80
# (offset, access in x2APIC mode, bits that WRMSR takes), SDM vol. 3A table 11-6; 8 vectors words where it says 0-7.
X2APIC = {
    0x020: ("r", 0),
    0x030: ("r", 0),
    0x080: ("rw", 0xFF),
    0x0A0: ("r", 0),
    0x0B0: ("w", 0),
    0x0D0: ("r", 0),
    0x0F0: ("rw", 0x3FF),
    **{first + 0x10 * word: ("r", 0) for first in (0x100, 0x180, 0x200) for word in range(8)},
    0x280: ("rw", 0),
    0x300: ("rw", 0xFFFFFFFF_000CDFFF),
    0x320: ("rw", 0x710FF),
    0x330: ("rw", 0x117FF),
    0x340: ("rw", 0x117FF),
    0x350: ("rw", 0x1F7FF),
    0x360: ("rw", 0x1F7FF),
    0x370: ("rw", 0x110FF),
    0x380: ("rw", 0xFFFFFFFF),
    0x390: ("r", 0),
    0x3E0: ("rw", 0xB),
    0x3F0: ("w", 0xFF),
}


@pytest.mark.parametrize("index", range(0x800, 0x900))
def test_x2apic_access(index: int) -> None:
    apic = Bench().apics[0]
    with pytest.raises(MsrFault):
        apic.read_msr(index)
    with pytest.raises(MsrFault):
        apic.write_msr(index, 0)
    to_x2apic(apic)
    access, _ = X2APIC.get(index - 0x800 << 4, ("", 0))
    if "r" in access:
        value = apic.read_msr(index)
        assert value is not None
        assert 0 <= value < 1 << 64
    else:
        with pytest.raises(MsrFault):
            apic.read_msr(index)
    if "w" in access:
        assert apic.write_msr(index, 0)
    else:
        with pytest.raises(MsrFault):
            apic.write_msr(index, 0)


@pytest.mark.parametrize("offset", [offset for offset, (access, _) in X2APIC.items() if "w" in access])
def test_x2apic_reserved_bits(offset: int) -> None:
    _, taken = X2APIC[offset]
    for bit in range(64):
        apic = Bench().apics[0]
        to_x2apic(apic)
        if taken >> bit & 1:
            assert apic.write_msr(msr_of(offset), 1 << bit)
        else:
            with pytest.raises(MsrFault):
                apic.write_msr(msr_of(offset), 1 << bit)


def test_tsc_deadline_mode_is_reserved_without_the_feature() -> None:
    apic = Bench(tsc_deadline=False).apics[0]
    put(apic, Reg.LVT_TIMER, 0x400EE)
    assert reg(apic, Reg.LVT_TIMER) == 0xEE
    to_x2apic(apic)
    with pytest.raises(MsrFault):
        apic.write_msr(msr_of(Reg.LVT_TIMER), 0x400EE)


@pytest.mark.parametrize(
    ("offset", "reads"),
    [
        (Reg.ID, 0xFF000000),
        (Reg.VERSION, 0x00050014),
        (Reg.TPR, 0xFF),
        (Reg.APR, 0),
        (Reg.EOI, 0),
        (Reg.RRD, 0),
        (Reg.LDR, 0xFF000000),
        (Reg.DFR, 0xFFFFFFFF),
        (Reg.SVR, 0x3FF),
        (Reg.ICR_HIGH, 0xFF000000),
        (Reg.LVT_TIMER, 0x700FF),
        (Reg.LVT_THERMAL, 0x107FF),
        (Reg.LVT_PERFORMANCE, 0x107FF),
        (Reg.LVT_LINT0, 0x1A7FF),
        (Reg.LVT_LINT1, 0x1A7FF),
        (Reg.LVT_ERROR, 0x100FF),
        (Reg.INITIAL_COUNT, 0xFFFFFFFF),
        (Reg.DIVIDE, 0xB),
    ],
)
def test_all_ones_into_the_page(offset: int, reads: int) -> None:
    apic = Bench().apics[0]
    put(apic, offset, 0xFFFFFFFF)
    assert reg(apic, offset) == reads
    assert apic.errors == 0


def test_icr_reads_back_idle() -> None:
    apic = Bench().apics[0]
    put(apic, Reg.ICR, 0xFFFFFFFF)
    assert reg(apic, Reg.ICR) == 0x000CCFFF


def test_dfr_keeps_its_model_only() -> None:
    apic = Bench().apics[0]
    put(apic, Reg.DFR, 0)
    assert reg(apic, Reg.DFR) == 0x0FFFFFFF


@pytest.mark.parametrize("offset", [o for o in range(0, 0x1000, 0x10) if o not in REGISTERS or o == Reg.SELF_IPI])
def test_reserved_offsets_are_errors(offset: int) -> None:
    for access in ("read", "write"):
        apic = Bench().apics[0]
        if access == "read":
            assert reg(apic, offset) == 0
        else:
            put(apic, offset, 0)
        assert apic.errors == ILLEGAL_REGISTER
        assert reg(apic, Reg.ESR) == 0
        put(apic, Reg.ESR, 0)
        assert reg(apic, Reg.ESR) == ILLEGAL_REGISTER
        put(apic, Reg.ESR, 0)
        assert reg(apic, Reg.ESR) == 0


@pytest.mark.parametrize(
    ("offset", "size", "value"),
    [
        (0x30, 4, 0x00050014),
        (0x30, 2, 0x0014),
        (0x30, 1, 0x14),
        (0x32, 1, 0x05),
        (0x32, 2, 0x0005),
        (0x31, 2, 0x0500),
        (0x33, 1, 0),
        (0x33, 2, 0),
        (0x34, 4, 0),
        (0x34, 1, 0),
        (0x30, 8, 0),
        (0x3C, 4, 0),
    ],
)
def test_narrow_and_odd_loads(offset: int, size: int, value: int) -> None:
    apic = Bench().apics[0]
    assert apic.read(offset, size) == value
    assert apic.errors == 0


@pytest.mark.parametrize(("offset", "size"), [(0x80, 1), (0x80, 2), (0x80, 8), (0x82, 4), (0x84, 4), (0x81, 1)])
def test_odd_stores_are_dropped(offset: int, size: int) -> None:
    apic = Bench().apics[0]
    apic.write(offset, size, 0x20)
    assert reg(apic, Reg.TPR) == 0
    assert apic.errors == 0


def test_cr8_is_the_class_of_the_tpr() -> None:
    apic = Bench().apics[0]
    put(apic, Reg.TPR, 0x5A)
    assert apic.get_cr8() == 5
    apic.set_cr8(0xF)
    assert reg(apic, Reg.TPR) == 0xF0
    assert reg(apic, Reg.PPR) == 0xF0


def test_vector_registers_show_the_vectors() -> None:
    apic = Bench().apics[0]
    apic.set_cr8(0xF)
    for vector in range(16, 256):
        put(apic, Reg.ICR, SELF | vector)
    words = [reg(apic, Reg.IRR + 0x10 * word) for word in range(8)]
    assert words == [0xFFFF0000] + [0xFFFFFFFF] * 7
    apic.set_cr8(0)
    assert apic.acknowledge() == 255
    assert reg(apic, Reg.ISR + 0x70) == 1 << 31
    assert reg(apic, Reg.IRR + 0x70) == 0x7FFFFFFF


def test_read_only_registers_ignore_stores() -> None:
    apic = Bench().apics[0]
    for offset in (Reg.VERSION, Reg.PPR, *range(0x100, 0x280, 0x10), Reg.CURRENT_COUNT):
        put(apic, offset, 0xFFFFFFFF)
    assert (vectors(apic.isr), vectors(apic.tmr), vectors(apic.irr)) == ([], [], [])
    assert reg(apic, Reg.CURRENT_COUNT) == reg(apic, Reg.PPR) == 0


def test_software_disable_masks_every_entry() -> None:
    apic = Bench().apics[0]
    lvts = range(0x320, 0x380, 0x10)
    for offset in lvts:
        put(apic, offset, 0x41)
    assert [reg(apic, offset) for offset in lvts] == [0x41] * 6
    put(apic, Reg.SVR, 0xFF)
    assert [reg(apic, offset) for offset in lvts] == [MASKED | 0x41] * 6
    for offset in lvts:
        put(apic, offset, 0x42)
    assert [reg(apic, offset) for offset in lvts] == [MASKED | 0x42] * 6
    put(apic, Reg.SVR, 0x1FF)
    assert [reg(apic, offset) for offset in lvts] == [MASKED | 0x42] * 6


def test_icr_is_one_register_of_64_bits() -> None:
    apic = Bench().apics[0]
    to_x2apic(apic)
    assert apic.write_msr(0x830, 0x12345678_0000D0F1)
    assert apic.read_msr(0x830) == 0x12345678_0000C0F1
