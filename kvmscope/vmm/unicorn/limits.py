"""What the embedded engine does not do exactly, as data: the documentation quotes this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["LIMITS", "Limit"]


@dataclass(frozen=True, slots=True)
class Limit:
    """One departure from the manuals.

    ``stops`` says that the engine refuses at run time (`StopReason.UNSUPPORTED`) instead of going on wrongly; where it
    is False, a guest that depends on ``what`` sees ``instead``.
    """

    area: str
    what: str
    instead: str
    stops: bool = False


LIMITS: Final[tuple[Limit, ...]] = (
    Limit(
        "instructions", "AVX, AVX-512, BMI and every other VEX, EVEX or XOP encoding", "#UD, as CPUID announces none"
    ),
    Limit("instructions", "RDRAND, RDSEED, XSAVEC, XSAVES, SHA", "#UD, as CPUID announces none"),
    Limit("instructions", "MWAIT, where a profile has it", "ends at once, as it may; it never waits"),
    Limit(
        "instructions",
        "CET, LAM, TSX, virtual-8086 extensions, performance monitoring, Hyper-V's interface",
        "absent, as CPUID says; a profile cannot ask for them",
    ),
    Limit("instructions", "VMX and SVM instructions", "#UD, as CPUID announces neither"),
    Limit(
        "instructions",
        "a near branch with a 66 prefix in 64-bit code on the Intel profile",
        "the run stops: Intel's processors ignore the prefix, the engine's translator does not",
        stops=True,
    ),
    Limit("instructions", "an instruction fetch from device space", "the run stops", stops=True),
    Limit(
        "SSE",
        "unmasked SIMD floating-point exceptions (#XM)",
        "loading an MXCSR that unmasks one stops the run",
        stops=True,
    ),
    Limit("SSE", "the sticky exception flags MXCSR[5:0]", "operations do not set them; what is loaded stays"),
    Limit("x87", "FERR# and IRQ 13 (CR0.NE = 0)", "#MF, whatever CR0.NE says"),
    Limit("x87", "the last-instruction pointers and opcode (FIP, FDP, FOP)", "partly kept, as QEMU 5.0 does"),
    Limit(
        "alignment",
        "#AC for an SSE operand or another of unusual size",
        "the run stops where such an operand is not aligned to 16 bytes while alignment checks are on",
        stops=True,
    ),
    Limit(
        "segmentation",
        "an SSE or MMX access within 64 bytes of the limit of a segment, or through one that is not writable",
        "the run stops where the segment may not allow it",
        stops=True,
    ),
    Limit(
        "segmentation",
        "a 16-bit address whose operand runs over offset FFFF in real-address or virtual-8086 mode",
        "the access goes on behind the segment instead of #GP or #SS",
    ),
    Limit("paging", "more than 40 physical address bits", "bits 51:40 of an entry are reserved; MAXPHYADDR is 40"),
    Limit("paging", "the PDPTE registers of PAE paging", "checked at MOV to CR3, then read from memory at each walk"),
    Limit("paging", "1 GiB pages", "no profile is without them: the engine's translator always has them"),
    Limit(
        "paging",
        "an SSE or MMX access to a page that IA32_PKRS (supervisor protection keys) may forbid",
        "the run stops where 64 bytes from its address on do not allow a write",
        stops=True,
    ),
    Limit("paging", "translations of several PCIDs", "every write of CR3 and every INVPCID drops them all, as it may"),
    Limit("paging", "how long a stale translation lives", "until INVLPG, a CR write, or a flush every 65,536 ticks"),
    Limit("virtual-8086 mode", "VME and PVI (CR4), the interrupt redirection bitmap", "#GP for the CR4 bits"),
    Limit("virtual-8086 mode", "PUSHFD with IOPL 3", "the image shows VM set"),
    Limit("task switch", "the debug trap bit (T) of a TSS", "the run stops after the switch", stops=True),
    Limit(
        "debug",
        "data breakpoints on accesses that are not an instruction's plain operands",
        "event frames, descriptor and TSS accesses, and IRET's, RET far's and the task switch's stack do not hit",
    ),
    Limit("debug", "branch trace, last-branch records, DR6.RTM and bus-lock traps", "absent, as CPUID says"),
    Limit("MSRs", "performance counters of the AMD profile", "enabling one stops the run", stops=True),
    Limit("MSRs", "machine checks", "the banks' registers can be written and read, none is ever reported"),
    Limit("caches", "memory types, WBINVD, CLFLUSH, prefetches, fences", "no effect: every access is coherent at once"),
    Limit(
        "time",
        "cycles",
        "an instruction start takes a nanosecond, what a hypervisor would have to act on 10 us; the TSC runs at 4 GHz",
    ),
    Limit("interrupts", "SMI and system-management mode", "an SMI arrives and does nothing"),
    Limit("interrupts", "INIT at the first processor, resets", "the run ends and says so: there is no firmware"),
    Limit("interrupts", "HLT with RFLAGS.IF = 0 while only an NMI from a timer could wake", "the run ends"),
    Limit("interrupts", "several devices on one ISA line", "the last level driven counts, they are not ORed"),
    Limit(
        "several processors",
        "memory ordering",
        "sequentially consistent: stores are seen at once, instructions are never torn",
    ),
    Limit(
        "port I/O",
        "INS into device space",
        "a 0 is written to the destination before the value, as the translator probes the address",
    ),
)
"""In order of area."""
