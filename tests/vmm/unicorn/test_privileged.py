"""Control registers, MSRs, descriptor-table registers, XSETBV, I/O rights."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from kvmscope.vmm.engine import StopReason
from kvmscope.vmm.events import ControlRegisterEvent, ModeEvent, MsrEvent
from kvmscope.x86.profiles import AMD, INTEL
from tests.vmm.unicorn.bench import CODE, GDT, LDT, TSS, Board, board

PG, PE = 1 << 31, 1


def end(b: Board, ticks: int = 40) -> tuple[int, int | None] | None:
    """(vector, error code) of the exception that the program raises, None if it reaches HLT."""
    stop = b.run(ticks)
    assert stop.reason is StopReason.HLT, stop
    return (b.host.exceptions[0].vector, b.host.exceptions[0].error_code) if b.host.exceptions else None


def put(register: str, value: int) -> str:
    return f"mov rax, {value:#x}; mov {register}, rax; hlt"


GP = (13, 0)

CONTROL = {
    "cr0 upper half": ("cr0", 1 << 32 | 0x80010033, GP),
    "cr0 PG without PE": ("cr0", 0x80010032, GP),
    "cr0 NW without CD": ("cr0", 0xA0010033, GP),
    "cr0 CD and NW": ("cr0", 0xE0010033, None),
    "cr0 reserved bits are ignored": ("cr0", 0x80010033 | 1 << 6 | 1 << 28, None),
    "cr0 PG off in 64-bit code": ("cr0", 0x00010033, GP),
    "cr3 above MAXPHYADDR": ("cr3", 1 << 40 | 0x90000, GP),
    "cr3 bit 63 without PCIDE": ("cr3", 1 << 63 | 0x90000, GP),
    "cr3 low bits": ("cr3", 0x90018, None),
    "cr4 reserved": ("cr4", 0x620 | 1 << 15, GP),
    "cr4 upper half": ("cr4", 0x620 | 1 << 33, GP),
    "cr4 without PAE": ("cr4", 0x600, GP),
    "cr4 LA57 in long mode": ("cr4", 0x620 | 1 << 12, GP),
    "cr4 VMXE without VMX": ("cr4", 0x620 | 1 << 13, GP),
    "cr4 UMIP": ("cr4", 0x620 | 1 << 11, None),
    "cr4 PKS without PKS": ("cr4", 0x620 | 1 << 24, GP),
    "cr4 PCIDE": ("cr4", 0x620 | 1 << 17, None),
    "cr4 OSXSAVE": ("cr4", 0x620 | 1 << 18, None),
    "cr8 reserved": ("cr8", 16, GP),
    "cr8": ("cr8", 15, None),
    "dr6 upper half": ("dr6", 1 << 32, GP),
    "dr7 upper half": ("dr7", 1 << 32, GP),
    "dr0": ("dr0", 1 << 63, None),
}


@pytest.mark.parametrize("name", CONTROL)
def test_moves_to_control_registers(name: str) -> None:
    register, value, expected = CONTROL[name]
    with board(put(register, value)) as b:
        before = b.state
        assert end(b) == expected
        now = b.state
        if expected is None:
            notes = [e for e in b.host.events if isinstance(e, ControlRegisterEvent)]
            assert [(e.name, e.rip) for e in notes] in ([], [(register, CODE + (10 if value > 0x7FFFFFFF else 7))])
        else:
            assert (now.cr0, now.cr3, now.cr4, now.cr8, now.dr) == (
                before.cr0,
                before.cr3,
                before.cr4,
                before.cr8,
                before.dr,
            )


def test_cr0_keeps_et_and_drops_reserved_bits() -> None:
    with board("mov rax, 0x90010061; mov cr0, rax; hlt") as b:
        end(b)
        assert b.state.cr0 == 0x80010031


def test_dr6_and_dr7_have_fixed_bits() -> None:
    with board("mov rax, 0xffffffff; mov dr6, rax; xor eax, eax; mov dr7, rax; mov rbx, dr6; mov rcx, dr7; hlt") as b:
        end(b)
        assert b.state.gpr[3] == 0xFFFFEFFF
        assert b.state.gpr[1] == 0x400


def test_dr4_and_dr5_are_aliases_until_de() -> None:
    with board("mov rax, dr4; mov rbx, dr5; hlt") as b:
        assert end(b) is None
        assert b.state.gpr[0] == 0xFFFF0FF0
        b.engine.set_state(replace(b.state, rip=CODE, halted=False, cr4=0x628))
        assert end(b) == (6, None)


def test_lmsw_and_clts_and_smsw() -> None:
    with board("mov eax, 0xfffe; lmsw ax; smsw ebx; clts; smsw rcx; hlt") as b:
        assert end(b) is None
        # PE stays; MP EM TS are loaded, CLTS clears TS.
        assert b.state.gpr[3] & 0xF == 0xF
        assert b.state.gpr[1] & 0xF == 7


@pytest.mark.parametrize("source", ["mov rax, cr0", "mov cr3, rax", "mov rax, dr0", "lgdt [0x500000]", "rdmsr", "wrmsr", "hlt", "clts", "lmsw ax", "ltr ax", "lldt ax", "invlpg [rax]", "wbinvd", "invd", "mov rax, cr8", "swapgs", "cli", "sti", "xsetbv", b"\x0f\x07", b"\x0f\x35", "in al, dx", "out dx, al", "insb", "outsb", "rdpmc"])  # fmt: skip
def test_ring_3_may_not(source: str | bytes) -> None:
    with board(source, "user64") as b:
        b.engine.set_state(replace(b.state, cr4=b.state.cr4 | 1 << 18, msrs={0x174: 8}))
        b.engine.step()
        (event,) = b.host.exceptions
        assert (event.vector, event.error_code, event.rip) == (13, 0, CODE)


@pytest.mark.parametrize("source", ["clac", "stac"])
def test_ring_3_does_not_know(source: str) -> None:
    with board(source, "user64") as b:
        b.engine.step()
        assert b.host.exceptions[0].vector == 6


def wrmsr(index: int, value: int) -> str:
    return f"mov ecx, {index:#x}; mov eax, {value & 0xFFFFFFFF:#x}; mov edx, {value >> 32:#x}; wrmsr; hlt"


MSRS = {
    "STAR": (0xC0000081, 0x0018000812345678, None),
    "LSTAR canonical": (0xC0000082, 0xFFFF800000000000, None),
    "LSTAR": (0xC0000082, 0x0200000000000000, GP),
    "FS_BASE 57 bits": (0xC0000100, 0xFF00000000000000, None),
    "FS_BASE": (0xC0000100, 0x0100000000000000, GP),
    "GS_BASE": (0xC0000101, 0x8000000000000000, GP),
    "KERNEL_GS_BASE": (0xC0000102, 0x8000000000000000, GP),
    "SYSENTER_ESP": (0x175, 0x8000000000000000, GP),
    "PAT": (0x277, 0x0007040600070406, None),
    "PAT bad type": (0x277, 0x0007040600070402, GP),
    "EFER reserved": (0xC0000080, 0xD01 | 1 << 1, GP),
    "EFER SVME without SVM": (0xC0000080, 0xD01 | 1 << 12, GP),
    "EFER LME while paging": (0xC0000080, 0x401, GP),
    "EFER without SCE": (0xC0000080, 0xD00, None),
    "unknown": (0x4B564D00, 0, GP),
}


@pytest.mark.parametrize("name", MSRS)
def test_wrmsr(name: str) -> None:
    index, value, expected = MSRS[name]
    with board(wrmsr(index, value)) as b:
        assert end(b) == expected
        notes = [(e.index, e.value, e.write) for e in b.host.events if isinstance(e, MsrEvent)]
        assert notes == ([(index, value, True)] if expected is None else [])


def test_msrs_read_back() -> None:
    for index, value in ((0xC0000081, 0x18000812345678), (0x174, 8), (0xC0000102, 0x1234), (0xC0000103, 7)):
        with board(wrmsr(index, value).replace("hlt", "xor eax, eax; xor edx, edx; rdmsr; hlt")) as b:
            assert end(b) is None
            assert b.state.gpr[0] | b.state.gpr[2] << 32 == value


@pytest.mark.parametrize("profile", [INTEL, AMD], ids=lambda p: p.name)
def test_cpuid_is_the_profiles(profile: object) -> None:
    with board("xor eax, eax; cpuid; hlt", profile=profile) as b:  # type: ignore[arg-type]
        end(b)
        s = b.state
        vendor = b"".join(s.gpr[i].to_bytes(4, "little") for i in (3, 2, 1)).decode()
        assert vendor == profile.vendor.value  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("cr4", "ecx", "value", "expected"),
    [
        (0x620, 0, 1, (6, None)),
        (0x40620, 0, 1, None),
        (0x40620, 0, 3, None),
        (0x40620, 0, 2, GP),
        (0x40620, 0, 7, GP),
        (0x40620, 1, 1, GP),
    ],
)
def test_xsetbv(cr4: int, ecx: int, value: int, expected: tuple[int, int | None] | None) -> None:
    with board(f"mov ecx, {ecx}; mov eax, {value}; xor edx, edx; xsetbv; hlt") as b:
        b.engine.set_state(replace(b.state, cr4=cr4))
        assert end(b) == expected
        assert b.state.xcr0 == (value if expected is None else 1)


@pytest.mark.parametrize(
    ("instruction", "base", "expected"),
    [
        ("lgdt", 0xFFFF800000000000, None),
        ("lgdt", 0x8000000000000000, GP),
        ("lidt", 0x00FFFFFFFFFFFFFF, None),
        ("lidt", 0x0100000000000000, GP),
    ],
)
def test_table_bases_must_be_canonical(instruction: str, base: int, expected: tuple[int, int] | None) -> None:
    with board(f"{instruction} [0x500000]; nop; cli; jmp .") as b:
        b.put(0x500000, struct.pack("<HQ", 0x7F, base))
        b.engine.step()
        if expected is None:
            table = b.state.gdtr if instruction == "lgdt" else b.state.idtr
            assert (table.base, table.limit) == (base, 0x7F)
        else:
            assert (b.host.exceptions[0].vector, b.host.exceptions[0].error_code) == expected


def test_lgdt_of_16_bit_operand_size_takes_24_bits() -> None:
    with board("lgdt [0x500000]; hlt", "prot32") as b:
        b.put(0x500000, struct.pack("<HI", 0x7F, 0x12345678))
        b.run(1)
        assert b.state.gdtr.base == 0x12345678
    with board(b"\x66\x0f\x01\x15\x00\x00\x50\x00", "prot32") as b:
        b.put(0x500000, struct.pack("<HI", 0x7F, 0x12345678))
        b.run(1)
        assert b.state.gdtr.base == 0x345678


SYSTEM = {
    "null tr": ("ltr", 0, b"", GP),
    "null ldt": ("lldt", 0, b"", None),
    "ldt selector in the ldt": ("lldt", 0x64, b"", (13, 0x64)),
    "beyond the table": ("ltr", 0x400, b"", (13, 0x400)),
    "code for tr": ("ltr", 8, b"", (13, 8)),
    "tss for ldt": ("lldt", 0x60, struct.pack("<QQ", 0x0000890050000067, 0), (13, 0x60)),
    "ldt": ("lldt", 0x60, struct.pack("<QQ", 0x0000820050000067, 0xFFFF8000), None),
    "ldt not present": ("lldt", 0x60, struct.pack("<QQ", 0x0000020050000067, 0), (11, 0x60)),
    "tss": ("ltr", 0x60, struct.pack("<QQ", 0x0000890050000067, 0), None),
    "busy tss": ("ltr", 0x60, struct.pack("<QQ", 0x00008B0050000067, 0), (13, 0x60)),
    "16-bit tss": ("ltr", 0x60, struct.pack("<QQ", 0x0000810050000067, 0), (13, 0x60)),
    "tss not present": ("ltr", 0x60, struct.pack("<QQ", 0x0000090050000067, 0), (11, 0x60)),
    "non-canonical tss": ("ltr", 0x60, struct.pack("<QQ", 0x0000890050000067, 0x01000000), (13, 0x60)),
    "upper type": ("ltr", 0x60, struct.pack("<QQ", 0x0000890050000067, 1 << 40), (13, 0x60)),
}


@pytest.mark.parametrize("name", SYSTEM)
def test_ltr_and_lldt(name: str) -> None:
    instruction, selector, descriptor, expected = SYSTEM[name]
    with board(f"mov eax, {selector}; {instruction} ax; hlt") as b:
        b.put(GDT + 0x60, descriptor)
        assert end(b) == expected
        segment = b.state.segments[7 if instruction == "ltr" else 6]
        if expected is None:
            assert segment.selector == selector
            if descriptor:
                low, high = struct.unpack("<QQ", descriptor)
                assert segment.base == (low >> 16 & 0xFFFFFF) | high << 32
            if instruction == "ltr":
                assert b.get(GDT + 0x60) >> 40 & 0xF == 0xB
                assert segment.type == 0xB


def test_wrfsbase_checks_the_base() -> None:
    with board("mov rax, 0x8000000000000000; wrfsbase rax; hlt") as b:
        b.engine.set_state(replace(b.state, cr4=0x10620))
        assert end(b) == GP
    with board("mov rax, 0x8000000000000000; wrgsbase rax; hlt") as b:
        assert end(b) == (6, None)


@pytest.mark.parametrize(
    ("port", "size", "allowed"),
    [(0x10, 1, True), (0x11, 1, False), (0x10, 2, False), (0x20, 4, True), (0x3000, 1, False)],
)
def test_the_io_bitmap(port: int, size: int, allowed: bool) -> None:
    register = {1: "al", 2: "ax", 4: "eax"}[size]
    with board(f"mov edx, {port}; in {register}, dx; jmp .", "user64") as b:
        bitmap = bytearray(b"\xff" * 0x40)
        bitmap[0x10 // 8] &= ~1
        bitmap[0x20 // 8] = 0
        b.put(TSS + 0x68, bytes(bitmap))
        tr = replace(b.state.segments[7], limit=0x68 + len(bitmap) - 1)
        b.engine.set_state(replace(b.state, segments=(*b.state.segments[:7], tr)))
        b.run(2)
        assert [e[:3] for e in b.host.ports] == ([("in", port, size)] if allowed else [])
        assert [(e.vector, e.error_code) for e in b.host.exceptions] == ([] if allowed else [GP])


def test_iopl_3_allows_all_ports() -> None:
    with board("mov edx, 0x3000; in al, dx; cli; jmp .", "user64") as b:
        b.engine.set_state(replace(b.state, rflags=0x3202))
        b.run(3)
        assert not b.host.exceptions
        assert not b.state.rflags & 0x200


@pytest.mark.parametrize("source", ["rdtsc", "rdtscp"])
def test_tsd(source: str) -> None:
    with board(source, "user64") as b:
        b.engine.set_state(replace(b.state, cr4=0x624))
        b.engine.step()
        assert (b.host.exceptions[0].vector, b.host.exceptions[0].error_code) == GP
    with board(source) as b:
        b.engine.set_state(replace(b.state, cr4=0x624))
        b.engine.step()
        assert not b.host.exceptions


def test_from_real_mode_to_long_mode_and_back() -> None:
    """Mode changes are recorded as they happen."""
    source = """
        lgdt [0x600]
        mov eax, 0x620; mov cr4, eax
        mov eax, 0x90000; mov cr3, eax
        mov ecx, 0xc0000080; mov eax, 0x100; xor edx, edx; wrmsr
        mov eax, 0x80000011; mov cr0, eax
        .byte 0x66, 0xea; .long 1f; .word 8
        .code64
     1: mov ax, 0x10; mov ss, ax
        push 0x38; lea rax, [rip+2f]; push rax; rex.w retf
        .code32
     2: mov eax, 0x11; mov cr0, eax
        hlt
    """
    with board(source, "real16") as b:
        b.put(0x600, struct.pack("<HI", 0xFF, GDT))
        b.page_tables()
        assert b.run(100).reason is StopReason.HLT
        assert not b.host.exceptions
        assert b.state.mode == 32
        assert not b.state.efer & 0x400
        assert [e.what for e in b.host.events if isinstance(e, ModeEvent)] == ["16 -> 64", "64 -> 32"]


def test_pae_needs_valid_pdptes() -> None:
    with board(
        "mov eax, 0x500000; mov cr3, eax; mov eax, 0x620; mov cr4, eax; mov eax, 0x80000011; mov cr0, eax; hlt",
        "prot32",
    ) as b:
        b.put(0x500000, 0x501001 | 1 << 1)
        assert end(b) == GP
        assert b.state.cr0 == 0x11


def test_lar_knows_fewer_types_in_long_mode() -> None:
    for mode, valid in (("long64", False), ("prot32", True)):
        with board("mov eax, 0x60; lar ecx, eax; lsl edx, eax; hlt", mode) as b:
            b.put(GDT + 0x60, 0x0000810050000067)
            end(b)
            assert bool(b.state.rflags & 0x40) == valid
            assert b.state.gpr[1] == (0x8100 if valid else 0)
            assert b.state.gpr[2] == (0x67 if valid else 0)


def test_ldt_selectors_use_the_ldt() -> None:
    with board("mov eax, 0x60; lldt ax; mov eax, 4; mov fs, eax; hlt") as b:
        b.put(GDT + 0x60, struct.pack("<QQ", 0x0000820000000007 | LDT << 16, 0))
        b.put(LDT, 0x00CF93000000FFFF | 0x1234 << 16)
        assert end(b) is None
        assert b.state.segments[4].base == 0x1234
    with board("mov eax, 4; mov fs, eax; hlt") as b:
        assert end(b) == (13, 4)
