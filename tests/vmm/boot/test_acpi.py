"""ACPI tables, found and read as a guest does; the outside check is iasl, where it is installed."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from kvmscope.vmm.boot.acpi import AcpiConfig, AcpiTables, IommuScope, build_acpi, waking_vector
from kvmscope.vmm.devices import acpi_pm

CONFIGS = [
    AcpiConfig(),
    AcpiConfig(apic_ids=(0, 1, 2, 3), ioapic_id=7, timer_bits=32, hpet_id=None),
    AcpiConfig(apic_ids=tuple(range(16)), iommu=IommuScope(address_bits=46)),
]


def memory_of(tables: AcpiTables) -> bytearray:
    memory = bytearray(0x100000)
    for address, content in tables.contents.items():
        assert not any(memory[address : address + len(content)]), "tables overlap"
        memory[address : address + len(content)] = content
    return memory


def find(memory: bytes) -> dict[str, bytes]:
    """Every table that the RSDP leads to."""
    rsdp = next(a for a in range(0xE0000, 0x100000, 16) if memory[a : a + 8] == b"RSD PTR ")
    assert sum(memory[rsdp : rsdp + 20]) & 0xFF == 0
    assert sum(memory[rsdp : rsdp + 36]) & 0xFF == 0
    revision, rsdt, length, xsdt = struct.unpack_from("<BIIQ", memory, rsdp + 15)
    assert (revision, length) == (2, 36)
    found = {"RSDT": table(memory, rsdt), "XSDT": table(memory, xsdt)}
    short = struct.unpack(f"<{(len(found['RSDT']) - 36) // 4}I", found["RSDT"][36:])
    long = struct.unpack(f"<{(len(found['XSDT']) - 36) // 8}Q", found["XSDT"][36:])
    assert short == long
    for address in short:
        found[memory[address : address + 4].decode()] = table(memory, address)
    return found


def table(memory: bytes, address: int) -> bytes:
    length = int.from_bytes(memory[address + 4 : address + 8], "little")
    content = bytes(memory[address : address + length])
    assert sum(content) & 0xFF == 0, content[:4]
    return content


@pytest.mark.parametrize("config", CONFIGS)
def test_tables_are_found_and_sum_to_zero(config: AcpiConfig) -> None:
    built = build_acpi(config)
    found = find(memory_of(built))
    wanted = {"RSDT", "XSDT", "FACP", "APIC"}
    wanted |= {"HPET"} if config.hpet_id is not None else set()
    wanted |= {"DMAR"} if config.iommu is not None else set()
    assert set(found) == wanted
    for name, content in found.items():
        assert built.contents[built.tables[name]] == content


@pytest.mark.parametrize("config", CONFIGS)
def test_fadt_names_the_fixed_hardware(config: AcpiConfig) -> None:
    built = build_acpi(config)
    memory = memory_of(built)
    fadt = find(memory)["FACP"]
    facs, dsdt = struct.unpack_from("<II", fadt, 36)
    assert facs == built.facs
    assert facs % 64 == 0
    assert memory[facs : facs + 8] == b"FACS" + (64).to_bytes(4, "little")
    assert table(memory, dsdt)[:4] == b"DSDT"
    assert struct.unpack_from("<HIBB", fadt, 46) == (9, 0xB2, acpi_pm.ACPI_ENABLE, acpi_pm.ACPI_DISABLE)
    assert struct.unpack_from("<8I", fadt, 56) == (0x600, 0, 0x604, 0, 0, 0x608, 0xAFE0, 0)
    assert bool(int.from_bytes(fadt[112:116], "little") >> 8 & 1) == (config.timer_bits == 32)
    assert fadt[116:129] == bytes((1, 8, 0, 1)) + (0xCF9).to_bytes(8, "little") + b"\x06"
    extended = [struct.unpack_from("<BBBBQ", fadt, 148 + 12 * i) for i in range(8)]
    assert [block[4] for block in extended] == [0x600, 0, 0x604, 0, 0, 0x608, 0xAFE0, 0]
    assert [block[1] for block in extended] == [32, 0, 16, 0, 0, 32, 32, 0]


@pytest.mark.parametrize("config", CONFIGS)
def test_madt_lists_controllers_and_overrides(config: AcpiConfig) -> None:
    madt = find(memory_of(build_acpi(config)))["APIC"]
    assert struct.unpack_from("<II", madt, 36) == (0xFEE00000, 1)
    entries, at = [], 44
    while at < len(madt):
        entries.append(madt[at : at + madt[at + 1]])
        at += madt[at + 1]
    assert at == len(madt)
    assert [e[3] for e in entries if e[0] == 0] == list(config.apic_ids)
    assert all(e[4] & 1 for e in entries if e[0] == 0)
    (ioapic,) = [e for e in entries if e[0] == 1]
    assert (ioapic[2], *struct.unpack_from("<II", ioapic, 4)) == (config.ioapic_id, 0xFEC00000, 0)
    overrides = {e[3]: struct.unpack_from("<IH", e, 4) for e in entries if e[0] == 2}
    assert overrides == {0: (2, 0), 5: (5, 0xD), 9: (9, 0xD), 10: (10, 0xD), 11: (11, 0xD)}
    assert [e[2:] for e in entries if e[0] == 4] == [b"\xff\0\0\1"]


def test_dmar_names_the_unit_and_the_ioapic() -> None:
    dmar = find(memory_of(build_acpi(CONFIGS[2])))["DMAR"]
    assert dmar[36:38] == bytes((45, 1))
    kind, length, flags, segment, base = struct.unpack_from("<HHBxHQ", dmar, 48)
    assert (kind, length, flags, segment, base) == (0, len(dmar) - 48, 1, 0, 0xFED90000)
    assert dmar[64:] == bytes((3, 8, 0, 0, 0, 0xFF, 0, 0))


def test_dsdt_has_the_sleep_types() -> None:
    built = build_acpi(AcpiConfig())
    aml = built.contents[built.tables["DSDT"]][36:]
    assert aml == bytes.fromhex("085c5f53335f1208040a010a010000 085c5f53355f1208040a000a000000")


@pytest.mark.parametrize(
    ("vector", "place"), [(0, None), (0x1000, (0x100, 0)), (0x9FC05, (0x9FC0, 5)), (0xFFFF0, (0xFFFF, 0))]
)
def test_waking_vector(vector: int, place: tuple[int, int] | None) -> None:
    built = build_acpi(AcpiConfig())
    facs = bytearray(built.contents[built.facs])
    facs[12:16] = vector.to_bytes(4, "little")
    assert waking_vector(bytes(facs)) == place


def test_tables_must_fit() -> None:
    with pytest.raises(ValueError, match="BIOS area"):
        build_acpi(AcpiConfig(base=0xFFF00))


@pytest.mark.skipif(shutil.which("iasl") is None, reason="iasl (acpica-tools) is not installed")
@pytest.mark.parametrize("config", CONFIGS)
def test_iasl_reads_every_table(config: AcpiConfig, tmp_path: Path) -> None:
    built = build_acpi(config)
    for name, address in built.tables.items():
        (tmp_path / f"{name}.aml").write_bytes(built.contents[address])
        done = subprocess.run(
            ["iasl", "-d", f"{name}.aml"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Error" not in done.stderr
        assert (tmp_path / f"{name}.dsl").exists()
