"""CPUID feature bits by name (SDM vol. 2A CPUID, tables 3-8 and 3-17; APM vol. 3 appendix E).

Names are those of Linux's cpufeatures.h, in lower case; those of the hypervisor's leaf 4000_0001H are KVM's own
(Documentation/virt/kvm/x86/cpuid.rst), with ``kvm_`` in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FEATURES", "REGISTERS", "Feature", "features_in"]

REGISTERS: Final = ("eax", "ebx", "ecx", "edx")


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature bit; ``register`` indexes `REGISTERS`."""

    name: str
    leaf: int
    subleaf: int
    register: int
    bit: int

    @property
    def where(self) -> str:
        """``CPUID.7.0:EBX[20]``."""
        leaf = f"{self.leaf:X}H" if self.leaf > 9 else str(self.leaf)
        return f"CPUID.{leaf}.{self.subleaf}:{REGISTERS[self.register].upper()}[{self.bit}]"


_A, _B, _C, _D = range(4)

# Each word in order of bits; "-" where no feature of interest is.
_WORDS: Final[tuple[tuple[int, int, int, str], ...]] = (
    (
        1, 0, _D,
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov "
        "pat pse36 pn clflush - ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe",
    ),
    (
        1, 0, _C,
        "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm "
        "- pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor",
    ),
    (
        7, 0, _B,
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm zero_fcs_fds mpx rdt_a "
        "avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni "
        "avx512bw avx512vl",
    ),
    (
        7, 0, _C,
        "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni "
        "avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid keylocker bus_lock_detect cldemote - movdiri "
        "movdir64b enqcmd sgx_lc pks",
    ),
    (
        7, 0, _D,
        "- - avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort "
        "- tsx_force_abort serialize hybrid_cpu tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile "
        "amx_int8 spec_ctrl intel_stibp flush_l1d arch_capabilities core_capabilities spec_ctrl_ssbd",
    ),
    (
        7, 1, _A,
        "sha512 sm3 sm4 rao_int avx_vnni avx512_bf16 lass cmpccxadd - - fzrm fsrs fsrc - - - "
        "- fred lkgs wrmsrns nmi_source amx_fp16 hreset avx_ifma - - lam msrlist",
    ),
    (0xD, 1, _A, "xsaveopt xsavec xgetbv1 xsaves xfd"),
    (
        0x40000001, 0, _A,
        "kvm_clocksource kvm_nop_io_delay - kvm_clocksource2 - - kvm_pv_eoi kvm_pv_unhalt - - - kvm_pv_send_ipi "
        "kvm_poll_control kvm_pv_sched_yield - - - - - - - - - - kvm_clocksource_stable",
    ),
    (
        0x80000001, 0, _D,
        "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow",
    ),
    (
        0x80000001, 0, _C,
        "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp "
        "fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx",
    ),
    (0x80000007, 0, _D, "- - - - - - - - constant_tsc"),
    (
        0x80000008, 0, _B,
        "clzero irperf xsaveerptr invlpgb rdpru - mba - mcommit wbnoinvd - - amd_ibpb - amd_ibrs amd_stibp "
        "- amd_stibp_always_on - - efer_lmsle_mbz - - amd_ppin amd_ssbd virt_ssbd amd_ssb_no",
    ),
    (
        0x8000000A, 0, _D,
        "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - pausefilter - "
        "pfthreshold avic - v_vmsave_vmload vgif",
    ),
    (0x80000021, 0, _A, "no_nested_data_bp - lfence_rdtsc - - - null_sel_clr_base - autoibrs"),
)  # fmt: skip

FEATURES: Final = {
    name: Feature(name, leaf, subleaf, register, bit)
    for leaf, subleaf, register, names in _WORDS
    for bit, name in enumerate(names.split())
    if name != "-"
}
"""Feature name to place."""


def features_in(leaf: int, subleaf: int, values: tuple[int, int, int, int]) -> tuple[str, ...]:
    """Names of the features that a CPUID result announces, in order of register and bit."""
    return tuple(
        f.name for f in FEATURES.values() if f.leaf == leaf and f.subleaf == subleaf and values[f.register] >> f.bit & 1
    )
