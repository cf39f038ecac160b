"""Model-specific registers as a table (SDM vol. 4 chapter 2; APM vol. 2 appendix A; Linux's msr-index.h)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kvmscope.x86.profiles.model import Vendor

__all__ = ["AMD_BANKS", "INTEL_BANKS", "MSRS", "Check", "Msr", "for_vendor"]

_ALL: Final = (1 << 64) - 1
_LOW: Final = 0xFFFFFFFF


class Check:
    """Names of the rules beyond reserved bits that `kvmscope.x86.msrs.check_write` knows."""

    NONE: Final = ""
    CANONICAL: Final = "canonical"
    MEMORY_TYPES: Final = "memory types"
    """Each byte is an MTRR memory type: 0, 1, 4, 5 or 6."""
    PAT: Final = "PAT"
    """Each byte is a PAT memory type: 0, 1 or 4 to 7."""
    LOW_TYPE: Final = "memory type"
    """Bits 7:0 are an MTRR memory type."""
    EFER: Final = "EFER"
    """Valid bits are those of the profile."""
    ALL_OR_NONE: Final = "all or none"
    """All bits or none (SDM vol. 3B section 17.3.2.1: other values are refused since the P6 family)."""
    CLEAR: Final = "clear"
    """Only 0 can be written (machine-check status; on AMD unless HWCR.McStatusWrEn is set)."""


@dataclass(frozen=True, slots=True)
class Msr:
    """One MSR.

    ``writable`` are the bits a write may set (others are reserved: #GP); address bits above MAXPHYADDR are reserved on
    top where ``address`` is set.  ``ignored`` bits keep their value, whatever is written.  ``unsupported`` are bits that
    processors implement and this machine does not: setting one cannot be executed exactly.
    """

    index: int
    name: str
    meaning: str
    reset: int = 0
    writable: int = _ALL
    read_only: bool = False
    write_only: bool = False
    check: str = Check.NONE
    vendor: Vendor | None = None
    """Only there on this vendor's processors."""
    feature: str = ""
    """CPUID feature that it comes with (``a|b``: either)."""
    ignored: int = 0
    unsupported: int = 0
    address: bool = False
    linux: str = ""
    """Name in msr-index.h where it is not the SDM's with MSR_ in front."""
    bits: tuple[tuple[int, str], ...] = ()
    """(mask, features): writable bits that need one of the features (``a|b``)."""
    register: str = ""
    """Register name (`kvmscope.x86.registers`) that shows the same value: it is not in `CpuState.msrs`."""


_INTEL, _AMD = Vendor.INTEL, Vendor.AMD
_MTRR_BASE: Final = 0xFF | _ALL & ~0xFFF
_MTRR_MASK: Final = _ALL & ~0x7FF
_FIXED_RANGES: Final = (
    (0x250, "64K_00000"),
    (0x258, "16K_80000"),
    (0x259, "16K_A0000"),
    *((0x268 + i, f"4K_{0xC0000 + 0x8000 * i:X}") for i in range(8)),
)
_VMX_NAMES: Final = (
    "BASIC PINBASED_CTLS PROCBASED_CTLS EXIT_CTLS ENTRY_CTLS MISC CR0_FIXED0 CR0_FIXED1 CR4_FIXED0 CR4_FIXED1 "
    "VMCS_ENUM PROCBASED_CTLS2 EPT_VPID_CAP TRUE_PINBASED_CTLS TRUE_PROCBASED_CTLS TRUE_EXIT_CTLS TRUE_ENTRY_CTLS VMFUNC "
    "PROCBASED_CTLS3 EXIT_CTLS2"
)  # fmt: skip


INTEL_BANKS: Final = 10
AMD_BANKS: Final = 7

_IMMUNE: Final = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27))
"""RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO,
BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO: nothing speculates here."""

_EVENT_SELECT: Final = 0xF_FFFF_FFFF & ~(1 << 19 | 1 << 21)
"""Bits of a PerfEvtSel that are not reserved (APM vol. 2 figure 13-13), as KVM has them."""
_EVENT_ENABLE: Final = 1 << 22


def _banks() -> Iterator[Msr]:
    """Machine-check banks (SDM vol. 3B section 17.3.2; APM vol. 2 section 9.3.2).

    The SDM lets writes of 1s to ADDR and MISC raise #GP; as under KVM, whose tests ask for it, they are stored.
    """
    for i in range(max(INTEL_BANKS, AMD_BANKS)):
        vendor = None if i < min(INTEL_BANKS, AMD_BANKS) else _INTEL if INTEL_BANKS > AMD_BANKS else _AMD
        for offset, part, meaning, check in (
            (0, "CTL", "enables", Check.ALL_OR_NONE),
            (1, "STATUS", "status", Check.CLEAR),
            (2, "ADDR", "address", Check.NONE),
            (3, "MISC", "more", Check.NONE),
        ):
            name, words = f"IA32_MC{i}_{part}", f"machine-check bank {i}: {meaning}"
            yield Msr(0x400 + 4 * i + offset, name, words, feature="mca", check=check, vendor=vendor)


def _rows() -> Iterator[Msr]:
    yield Msr(0x10, "IA32_TIME_STAMP_COUNTER", "time-stamp counter", feature="tsc", linux="MSR_IA32_TSC")
    yield Msr(0x17, "IA32_PLATFORM_ID", "platform ID", read_only=True, vendor=_INTEL)
    yield Msr(
        0x1B,
        "IA32_APIC_BASE",
        "local APIC: base, enable, x2APIC, BSP",
        0xFEE00900,
        _ALL & ~0x2FF,
        feature="apic",
        address=True,
        linux="MSR_IA32_APICBASE",
        ignored=1 << 8,
    )
    yield Msr(
        0x3A,
        "IA32_FEATURE_CONTROL",
        "lock and enables of VMX, SMX, SGX",
        writable=0x16FF07,
        feature="vmx|smx",
        vendor=_INTEL,
        linux="MSR_IA32_FEAT_CTL",
    )
    yield Msr(0x3B, "IA32_TSC_ADJUST", "offset added to the TSC", feature="tsc_adjust")
    yield Msr(0x34, "MSR_SMI_COUNT", "SMIs since reset", read_only=True, vendor=_INTEL)
    yield Msr(
        0x48,
        "IA32_SPEC_CTRL",
        "speculation control",
        writable=0x7,
        feature="spec_ctrl|intel_stibp|spec_ctrl_ssbd|amd_ibrs|amd_stibp|amd_ssbd",
        bits=((1, "spec_ctrl|amd_ibrs"), (2, "intel_stibp|amd_stibp"), (4, "spec_ctrl_ssbd|amd_ssbd")),
    )
    yield Msr(0x49, "IA32_PRED_CMD", "prediction barrier", writable=0x1, write_only=True, feature="spec_ctrl|amd_ibpb")
    yield Msr(
        0x79,
        "IA32_BIOS_UPDT_TRIG",
        "microcode update trigger",
        write_only=True,
        vendor=_INTEL,
        linux="MSR_IA32_UCODE_WRITE",
    )
    yield Msr(0x8B, "IA32_BIOS_SIGN_ID", "microcode revision", 1 << 32, linux="MSR_IA32_UCODE_REV")
    yield Msr(0xCE, "MSR_PLATFORM_INFO", "ratios and capabilities of the package", read_only=True, vendor=_INTEL)
    yield Msr(0xFE, "IA32_MTRRCAP", "MTRRs there are", 0x508, read_only=True, feature="mtrr", linux="MSR_MTRRcap")
    yield Msr(
        0x10A,
        "IA32_ARCH_CAPABILITIES",
        "immunities to speculation attacks",
        _IMMUNE,
        read_only=True,
        feature="arch_capabilities",
        vendor=_INTEL,
    )
    yield Msr(0x10B, "IA32_FLUSH_CMD", "L1D flush", writable=1, write_only=True, feature="flush_l1d")
    yield Msr(0x122, "IA32_TSX_CTRL", "TSX enable", writable=3, feature="rtm", vendor=_INTEL)
    yield Msr(0x174, "IA32_SYSENTER_CS", "CS of SYSENTER", writable=_LOW, feature="sep")
    # AMD has SYSENTER in 32-bit code only and does not check the addresses.
    for index, part, word in ((0x175, "ESP", "RSP"), (0x176, "EIP", "RIP")):
        name, meaning = f"IA32_SYSENTER_{part}", f"{word} of SYSENTER"
        yield Msr(index, name, meaning, check=Check.CANONICAL, feature="sep", vendor=_INTEL)
        yield Msr(index, name, meaning, feature="sep", vendor=_AMD)
    # MCG_CTL_P, and the number of banks.
    for vendor, banks in ((_INTEL, INTEL_BANKS), (_AMD, AMD_BANKS)):
        meaning = "machine-check banks there are"
        yield Msr(0x179, "IA32_MCG_CAP", meaning, 1 << 8 | banks, read_only=True, feature="mca", vendor=vendor)
    yield Msr(0x17A, "IA32_MCG_STATUS", "machine-check status", writable=0x7, feature="mca")
    yield Msr(0x17B, "IA32_MCG_CTL", "machine-check enables", _ALL, feature="mca", check=Check.ALL_OR_NONE)
    yield from _banks()
    yield Msr(
        0x1A0,
        "IA32_MISC_ENABLE",
        "fast strings, CPUID limit, MONITOR, XD disable",
        0x1801,
        0x0000_0004_00C5_1889,
        vendor=_INTEL,
        ignored=0x1880,
    )
    yield Msr(0x1D9, "IA32_DEBUGCTL", "branch stepping and records", writable=0x7FC3, vendor=_INTEL, unsupported=0x7FC3)
    yield Msr(0x1D9, "IA32_DEBUGCTL", "branch stepping and records", writable=0x3F, vendor=_AMD, unsupported=0x3F)
    for i in range(8):
        yield Msr(
            0x200 + 2 * i,
            f"IA32_MTRR_PHYSBASE{i}",
            f"variable MTRR {i}: base and type",
            writable=_MTRR_BASE,
            check=Check.LOW_TYPE,
            feature="mtrr",
            address=True,
            linux=f"MTRRphysBase_MSR{i}",
        )
        yield Msr(
            0x201 + 2 * i,
            f"IA32_MTRR_PHYSMASK{i}",
            f"variable MTRR {i}: mask and valid",
            writable=_MTRR_MASK,
            feature="mtrr",
            address=True,
            linux=f"MTRRphysMask_MSR{i}",
        )
    for index, name in _FIXED_RANGES:
        yield Msr(
            index,
            f"IA32_MTRR_FIX{name}",
            "fixed MTRR",
            check=Check.MEMORY_TYPES,
            feature="mtrr",
            linux=f"MSR_MTRRfix{name}",
        )
    yield Msr(
        0x277,
        "IA32_PAT",
        "page attribute table",
        0x0007040600070406,
        check=Check.PAT,
        feature="pat",
        linux="MSR_IA32_CR_PAT",
    )
    yield Msr(
        0x2FF,
        "IA32_MTRR_DEF_TYPE",
        "default memory type, enables",
        writable=0xCFF,
        check=Check.LOW_TYPE,
        feature="mtrr",
        linux="MSR_MTRRdefType",
    )
    for i, name in enumerate(_VMX_NAMES.split()):
        yield Msr(0x480 + i, f"IA32_VMX_{name}", "VMX capability", read_only=True, feature="vmx", vendor=_INTEL)
    yield Msr(
        0x6A0,
        "IA32_U_CET",
        "user CET configuration",
        feature="shstk|ibt",
        check=Check.CANONICAL,
        writable=~0x3C0 & _ALL,
    )
    yield Msr(
        0x6A2,
        "IA32_S_CET",
        "supervisor CET configuration",
        feature="shstk|ibt",
        check=Check.CANONICAL,
        writable=~0x3C0 & _ALL,
    )
    for i in range(4):
        yield Msr(
            0x6A4 + i,
            f"IA32_PL{i}_SSP",
            f"shadow-stack pointer of ring {i}",
            writable=_ALL & ~3,
            feature="shstk",
            check=Check.CANONICAL,
        )
    yield Msr(
        0x6A8,
        "IA32_INTERRUPT_SSP_TABLE_ADDR",
        "table of interrupt shadow stacks",
        feature="shstk",
        check=Check.CANONICAL,
        linux="MSR_IA32_INT_SSP_TAB",
    )
    yield Msr(0x6E0, "IA32_TSC_DEADLINE", "TSC at which the APIC timer fires", feature="tsc_deadline_timer")
    yield Msr(0x6E1, "IA32_PKRS", "rights of supervisor protection keys", writable=_LOW, feature="pks")
    yield Msr(0xDA0, "IA32_XSS", "supervisor state components", writable=0, feature="xsaves")
    yield Msr(
        0xC0000080,
        "IA32_EFER",
        "extended features",
        check=Check.EFER,
        feature="lm|nx|syscall",
        ignored=1 << 10,
        register="efer",
        linux="MSR_EFER",
    )
    yield Msr(0xC0000081, "IA32_STAR", "segments of SYSCALL and SYSRET", feature="syscall", linux="MSR_STAR")
    yield Msr(
        0xC0000082,
        "IA32_LSTAR",
        "RIP of SYSCALL in 64-bit mode",
        check=Check.CANONICAL,
        feature="lm",
        linux="MSR_LSTAR",
    )
    yield Msr(
        0xC0000083,
        "IA32_CSTAR",
        "RIP of SYSCALL in compatibility mode (AMD)",
        check=Check.CANONICAL,
        feature="lm",
        linux="MSR_CSTAR",
    )
    yield Msr(
        0xC0000084,
        "IA32_FMASK",
        "RFLAGS that SYSCALL clears",
        writable=_LOW,
        feature="syscall",
        linux="MSR_SYSCALL_MASK",
    )
    yield Msr(
        0xC0000100,
        "IA32_FS_BASE",
        "FS base",
        check=Check.CANONICAL,
        feature="lm",
        register="fs.base",
        linux="MSR_FS_BASE",
    )
    yield Msr(
        0xC0000101,
        "IA32_GS_BASE",
        "GS base",
        check=Check.CANONICAL,
        feature="lm",
        register="gs.base",
        linux="MSR_GS_BASE",
    )
    yield Msr(
        0xC0000102,
        "IA32_KERNEL_GS_BASE",
        "GS base that SWAPGS swaps in",
        check=Check.CANONICAL,
        feature="lm",
        linux="MSR_KERNEL_GS_BASE",
    )
    yield Msr(0xC0000103, "IA32_TSC_AUX", "ECX of RDTSCP", writable=_LOW, feature="rdtscp|rdpid", linux="MSR_TSC_AUX")
    yield Msr(
        0xC0000104,
        "MSR_AMD64_TSC_RATIO",
        "TSC scaling of guests",
        1 << 32,
        0xFF_FFFFFFFF,
        feature="tsc_scale",
        vendor=_AMD,
    )
    for i in range(4):
        yield Msr(
            0xC0010000 + i,
            f"MSR_K7_EVNTSEL{i}",
            f"performance counter {i}: event",
            writable=_EVENT_SELECT,
            vendor=_AMD,
            unsupported=_EVENT_ENABLE,
        )
        yield Msr(0xC0010004 + i, f"MSR_K7_PERFCTR{i}", f"performance counter {i}", 0, (1 << 48) - 1, vendor=_AMD)
    yield Msr(0xC0010010, "MSR_AMD64_SYSCFG", "system configuration", writable=0x00F4_0000, vendor=_AMD)
    yield Msr(0xC0010015, "MSR_K7_HWCR", "hardware configuration", writable=0x01040148, vendor=_AMD)
    yield Msr(0xC0010020, "MSR_AMD64_PATCH_LOADER", "microcode patch loader", write_only=True, vendor=_AMD)
    yield Msr(0xC0010114, "MSR_VM_CR", "SVM enable and lock", writable=0x1F, feature="svm", vendor=_AMD)
    yield Msr(
        0xC0010117,
        "MSR_VM_HSAVE_PA",
        "SVM host save area",
        writable=_ALL & ~0xFFF,
        feature="svm",
        address=True,
        vendor=_AMD,
    )
    yield Msr(0xC0010140, "MSR_AMD64_OSVW_ID_LENGTH", "errata there are entries for", feature="osvw", vendor=_AMD)
    yield Msr(0xC0010141, "MSR_AMD64_OSVW_STATUS", "errata that need a workaround", feature="osvw", vendor=_AMD)
    yield Msr(0xC0011029, "MSR_AMD64_DE_CFG", "decode configuration: LFENCE serializes", 2, 2, vendor=_AMD, ignored=2)


def _kvm() -> Iterator[Msr]:
    """KVM's own (Documentation/virt/kvm/x86/msr.rst)."""
    for index, number in ((0x11, ""), (0x4B564D00, "_NEW")):
        feature = "kvm_clocksource2" if number else "kvm_clocksource"
        yield Msr(index, f"MSR_KVM_WALL_CLOCK{number}", "address of the wall clock at boot", feature=feature)
        yield Msr(index + 1, f"MSR_KVM_SYSTEM_TIME{number}", "address of this vCPU's clock, enable", feature=feature)
    yield Msr(0x4B564D05, "MSR_KVM_POLL_CONTROL", "host-side halt polling", 1, 1, feature="kvm_poll_control")


def _index() -> tuple[dict[int, Msr], dict[tuple[Vendor, int], Msr]]:
    """The table by index, and the rows whose content depends on the vendor."""
    table: dict[int, Msr] = {}
    special: dict[tuple[Vendor, int], Msr] = {}
    for row in (*_rows(), *_kvm()):
        if row.vendor is not None:
            special[row.vendor, row.index] = row
        table.setdefault(row.index, row)
    return table, special


MSRS, _BY_VENDOR = _index()


def for_vendor(index: int, vendor: Vendor) -> Msr | None:
    """The row for ``index`` on ``vendor``'s processors, features aside."""
    found = _BY_VENDOR.get((vendor, index))
    if found is not None:
        return found
    shared = MSRS.get(index)
    return shared if shared is not None and shared.vendor is None else None
