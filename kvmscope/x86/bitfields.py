"""Control, flag and debug registers as tables of bits (SDM vol. 3A sections 2.3, 2.5, 2.7, 18.2; vol. 1 section 10.2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "BIT_TABLES",
    "CR0",
    "CR3",
    "CR4",
    "CR8",
    "DR6",
    "DR7",
    "EFER",
    "MXCSR",
    "PKRU",
    "RFLAGS",
    "XCR0",
    "Bit",
    "decode",
    "defined_mask",
    "flag_string",
]


@dataclass(frozen=True, slots=True)
class Bit:
    """A field of ``width`` bits from bit ``position`` up."""

    position: int
    width: int
    name: str
    meaning: str

    @property
    def mask(self) -> int:
        """The field's bits in place."""
        return (1 << self.width) - 1 << self.position

    def of(self, value: int) -> int:
        """The field's content."""
        return value >> self.position & (1 << self.width) - 1


def _bits(*rows: tuple[int, str, str] | tuple[int, str, str, int]) -> tuple[Bit, ...]:
    return tuple(Bit(row[0], row[3] if len(row) == 4 else 1, row[1], row[2]) for row in rows)


RFLAGS: Final = _bits(
    (0, "CF", "carry"),
    (2, "PF", "parity of the low byte"),
    (4, "AF", "auxiliary carry"),
    (6, "ZF", "zero"),
    (7, "SF", "sign"),
    (8, "TF", "trap: single step"),
    (9, "IF", "maskable interrupts enabled"),
    (10, "DF", "direction: strings go down"),
    (11, "OF", "overflow"),
    (12, "IOPL", "I/O privilege level", 2),
    (14, "NT", "nested task"),
    (16, "RF", "resume: ignore instruction breakpoints once"),
    (17, "VM", "virtual-8086 mode"),
    (18, "AC", "alignment check; with SMAP, access override"),
    (19, "VIF", "virtual interrupt flag"),
    (20, "VIP", "virtual interrupt pending"),
    (21, "ID", "CPUID can be used"),
)
CR0: Final = _bits(
    (0, "PE", "protection enable"),
    (1, "MP", "monitor coprocessor: WAIT heeds TS"),
    (2, "EM", "emulation: x87 raises #NM, SSE #UD"),
    (3, "TS", "task switched: x87 and SSE raise #NM"),
    (4, "ET", "extension type, always 1"),
    (5, "NE", "x87 errors raise #MF"),
    (16, "WP", "supervisor writes heed R/W"),
    (18, "AM", "alignment mask: EFLAGS.AC works"),
    (29, "NW", "not write-through"),
    (30, "CD", "cache disable"),
    (31, "PG", "paging"),
)
CR3: Final = _bits(
    (3, "PWT", "write-through (PAT index bit 0)"),
    (4, "PCD", "cache disable (PAT index bit 1)"),
    (12, "BASE", "physical page of the root table", 40),
    (61, "LAM_U57", "linear-address masking of user pointers, 57 bits"),
    (62, "LAM_U48", "linear-address masking of user pointers, 48 bits"),
)
CR4: Final = _bits(
    (0, "VME", "virtual-8086 extensions"),
    (1, "PVI", "protected-mode virtual interrupts"),
    (2, "TSD", "RDTSC at CPL 0 only"),
    (3, "DE", "debugging extensions: DR4 and DR5 raise #UD"),
    (4, "PSE", "4-MByte pages in 32-bit paging"),
    (5, "PAE", "physical-address extension: 8-byte entries"),
    (6, "MCE", "machine-check exceptions"),
    (7, "PGE", "global pages"),
    (8, "PCE", "RDPMC at any CPL"),
    (9, "OSFXSR", "FXSAVE and SSE"),
    (10, "OSXMMEXCPT", "SSE errors raise #XM"),
    (11, "UMIP", "SGDT, SIDT, SLDT, SMSW, STR at CPL 0 only"),
    (12, "LA57", "57-bit linear addresses"),
    (13, "VMXE", "VMX"),
    (14, "SMXE", "SMX"),
    (16, "FSGSBASE", "RDFSBASE and its kin"),
    (17, "PCIDE", "process-context identifiers"),
    (18, "OSXSAVE", "XSAVE, XSETBV"),
    (19, "KL", "Key Locker"),
    (20, "SMEP", "no supervisor fetch from user pages"),
    (21, "SMAP", "no supervisor access to user pages unless AC = 1"),
    (22, "PKE", "protection keys for user pages"),
    (23, "CET", "control-flow enforcement"),
    (24, "PKS", "protection keys for supervisor pages"),
    (25, "UINTR", "user interrupts"),
    (27, "LASS", "linear-address-space separation"),
    (28, "LAM_SUP", "linear-address masking of supervisor pointers"),
    (32, "FRED", "flexible return and event delivery"),
)
CR8: Final = _bits((0, "TPL", "task-priority level: interrupt classes up to it wait", 4))
EFER: Final = _bits(
    (0, "SCE", "SYSCALL and SYSRET"),
    (8, "LME", "IA-32e mode enable"),
    (10, "LMA", "IA-32e mode active"),
    (11, "NXE", "no-execute bit of page-table entries"),
    (12, "SVME", "SVM (AMD)"),
    (13, "LMSLE", "long-mode segment limits (AMD)"),
    (14, "FFXSR", "fast FXSAVE (AMD)"),
    (15, "TCE", "translation-cache extension (AMD)"),
    (17, "MCOMMIT", "MCOMMIT instruction (AMD)"),
    (18, "INTWB", "interruptible WBINVD (AMD)"),
    (20, "UAIE", "upper-address ignore (AMD)"),
    (21, "AIBRSE", "automatic IBRS (AMD)"),
)
DR6: Final = _bits(
    (0, "B0", "breakpoint 0 matched"),
    (1, "B1", "breakpoint 1 matched"),
    (2, "B2", "breakpoint 2 matched"),
    (3, "B3", "breakpoint 3 matched"),
    (11, "BLD", "0: bus lock"),
    (13, "BD", "debug register accessed with DR7.GD = 1"),
    (14, "BS", "single step"),
    (15, "BT", "task switch"),
    (16, "RTM", "0: inside a transaction"),
)
DR7: Final = _bits(
    *((2 * i, f"L{i}", f"breakpoint {i} enabled, local") for i in range(4)),
    *((2 * i + 1, f"G{i}", f"breakpoint {i} enabled, global") for i in range(4)),
    (8, "LE", "exact, local"),
    (9, "GE", "exact, global"),
    (11, "RTM", "debug in transactions"),
    (13, "GD", "general detect: MOV DR raises #DB"),
    *(
        row
        for i in range(4)
        for row in (
            (16 + 4 * i, f"RW{i}", "0 execute, 1 write, 2 I/O, 3 read or write", 2),
            (18 + 4 * i, f"LEN{i}", "0: 1 byte, 1: 2, 2: 8, 3: 4", 2),
        )
    ),
)
XCR0: Final = _bits(
    (0, "x87", "x87 state, always 1"),
    (1, "SSE", "XMM registers and MXCSR"),
    (2, "AVX", "upper halves of YMM"),
    (3, "BNDREGS", "MPX bounds"),
    (4, "BNDCSR", "MPX configuration"),
    (5, "opmask", "AVX-512 k registers"),
    (6, "ZMM_Hi256", "upper halves of ZMM0-15"),
    (7, "Hi16_ZMM", "ZMM16-31"),
    (9, "PKRU", "protection-key rights"),
    (17, "TILECFG", "AMX configuration"),
    (18, "TILEDATA", "AMX tiles"),
    (19, "APX", "R16-R31"),
)
MXCSR: Final = _bits(
    (0, "IE", "invalid operation"),
    (1, "DE", "denormal"),
    (2, "ZE", "divide by zero"),
    (3, "OE", "overflow"),
    (4, "UE", "underflow"),
    (5, "PE", "precision"),
    (6, "DAZ", "denormals are zeros"),
    (7, "IM", "invalid operation masked"),
    (8, "DM", "denormal masked"),
    (9, "ZM", "divide by zero masked"),
    (10, "OM", "overflow masked"),
    (11, "UM", "underflow masked"),
    (12, "PM", "precision masked"),
    (13, "RC", "rounding: 0 nearest, 1 down, 2 up, 3 to zero", 2),
    (15, "FTZ", "flush to zero"),
)
PKRU: Final = _bits(
    *(
        row
        for i in range(16)
        for row in ((2 * i, f"AD{i}", f"key {i}: no access"), (2 * i + 1, f"WD{i}", f"key {i}: no write"))
    )
)
BIT_TABLES: Final = {
    "rflags": RFLAGS,
    "cr0": CR0,
    "cr3": CR3,
    "cr4": CR4,
    "cr8": CR8,
    "efer": EFER,
    "dr6": DR6,
    "dr7": DR7,
    "xcr0": XCR0,
    "mxcsr": MXCSR,
    "pkru": PKRU,
}
"""By register name."""


def decode(table: tuple[Bit, ...], value: int) -> list[tuple[Bit, int]]:
    """Every field of ``table`` with its content in ``value``, low bits first."""
    return [(bit, bit.of(value)) for bit in table]


def defined_mask(table: tuple[Bit, ...]) -> int:
    """All bits that ``table`` names."""
    mask = 0
    for bit in table:
        mask |= bit.mask
    return mask


def flag_string(rflags: int) -> str:
    """Names of the flags that are set, high bits first, as ``ZF PF`` or ``IOPL=3 IF``; empty when none is."""
    words = []
    for bit in reversed(RFLAGS):
        value = bit.of(rflags)
        if value:
            words.append(bit.name if bit.width == 1 else f"{bit.name}={value}")
    return " ".join(words)
