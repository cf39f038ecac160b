"""Features that the embedded engine executes, and that every profile therefore has.

Left out on purpose although the engine decodes some of it: AVX and all VEX code (executed wrongly), BMI1 and BMI2 (VEX),
RDRAND and RDSEED (not deterministic), MONITOR, XSAVEC, XSAVES, INVPCID, RDPID, SHA (raise #UD), PCID, UMIP, CET, LAM,
x2APIC, TSC deadline, virtual-8086 extensions (not modelled), the local APIC (no device yet).
"""

from __future__ import annotations

from typing import Final

__all__ = ["COMMON"]

COMMON: Final = frozenset(
    [
        "fpu",
        "de",
        "pse",
        "tsc",
        "msr",
        "pae",
        "mce",
        "cx8",
        "sep",
        "mtrr",
        "pge",
        "mca",
        "cmov",
        "pat",
        "pse36",
        "clflush",
        "mmx",
        "fxsr",
        "sse",
        "sse2",
        "pni",
        "pclmulqdq",
        "ssse3",
        "cx16",
        "sse4_1",
        "sse4_2",
        "movbe",
        "popcnt",
        "aes",
        "xsave",
        "fsgsbase",
        "smep",
        "erms",
        "adx",
        "smap",
        "clflushopt",
        "clwb",
        "xsaveopt",
        "xgetbv1",
        "syscall",
        "nx",
        "pdpe1gb",
        "rdtscp",
        "lm",
        "lahf_lm",
        "abm",
        "3dnowprefetch",
    ]
)
