"""Where Unicorn 2.1.4 keeps the processor's state, and the check that it still does.

The public API of Unicorn costs 2.5 us a register and cannot reach hidden parts of segments, pending flags or the
intercept masks; the structures themselves are live and writable in place.  Their layout belongs to exactly one
version, so `check` compares it with what the API says before anything relies on it.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

from kvmscope.errors import EngineError

if TYPE_CHECKING:
    from unicorn import Uc

__all__ = [
    "CPU",
    "ENV",
    "ENV_SIZE",
    "FEATURE_WORDS",
    "TLB",
    "UC",
    "WANTED_VERSION",
    "check",
    "engine_address",
    "env_address",
    "widen_device",
]

WANTED_VERSION: Final = "2.1.4"

UC: Final = {
    "cpu": 440,
    "tcg_ctx": 768,
    "emu_counter": 1368,
    "emu_count": 1376,
    "stop_request": 1389,
    "mapped_blocks": 1960,
    "mapped_block_count": 1968,
    "last_tb": 14848,
}
"""Offsets into ``struct uc_struct``."""

CPU: Final = {
    "exit_request": 21,
    "cflags_next_tb": 24,
    "interrupt_request": 28,
    "env_ptr": 296,
    "icount_decr_ptr": 304,
    "halted": 33176,
    "exception_index": 33184,
    "tcg_exit_req": 33208,
}
"""Offsets into ``CPUState``."""

REGION: Final = {"ops": 16, "addr": 64}
"""Offsets into ``MemoryRegion``."""

OPS: Final = {"size": 80, "valid_max": 44, "impl_max": 68}
"""Offsets into ``MemoryRegionOps``; its largest access sizes are ints."""

TB_INVALIDATIONS: Final = 216
"""``TCGContext.tb_phys_invalidate_count``."""

ENV: Final = {
    "regs": 0,
    "eip": 128,
    "eflags": 136,
    "cc_dst": 144,
    "cc_src": 152,
    "cc_src2": 160,
    "cc_op": 168,
    "df": 172,
    "hflags": 176,
    "hflags2": 180,
    "segs": 184,
    "ldt": 328,
    "tr": 352,
    "gdt": 376,
    "idt": 400,
    "cr": 424,
    "a20_mask": 496,
    "efer": 592,
    "fpstt": 604,
    "fpus": 608,
    "fpuc": 610,
    "fptags": 612,
    "fpregs": 624,
    "fpop": 752,
    "fpip": 760,
    "fpdp": 768,
    "fp_status": 776,
    "sse_status": 808,
    "mxcsr": 816,
    "xmm_regs": 824,
    "sysenter_cs": 4800,
    "sysenter_esp": 4808,
    "sysenter_eip": 4816,
    "star": 4824,
    "lstar": 4840,
    "cstar": 4848,
    "fmask": 4856,
    "kernelgsbase": 4864,
    "tsc_aux": 4896,
    "xcr0": 4904,
    "pat": 5280,
    "pkru": 5304,
    "error_code": 5384,
    "exception_is_int": 5388,
    "dr": 5400,
    "cpu_breakpoint": 5464,
    "old_exception": 5496,
    "vm_vmcb": 5504,
    "intercept": 5520,
    "intercept_cr_read": 5528,
    "intercept_cr_write": 5530,
    "intercept_dr_read": 5532,
    "intercept_dr_write": 5534,
    "intercept_exceptions": 5536,
    "end_reset_fields": 5568,
    "features": 5632,
    "uc": 7000,
}
"""Offsets into ``CPUX86State``."""

ENV_SIZE: Final = 7008

SEGMENT_SIZE: Final = 24
"""``SegmentCache``: selector u32, base u64 at 8, limit u32 at 16, flags (the descriptor's second doubleword) at 20."""

XMM_STRIDE: Final = 64

FEATURE_WORDS: Final = {
    "1.edx": 0,
    "1.ecx": 1,
    "7.ebx": 2,
    "7.ecx": 3,
    "7.edx": 4,
    "80000001.edx": 6,
    "80000001.ecx": 7,
    "8000000a.edx": 18,
    "d.1.eax": 19,
}
"""Index of each CPUID feature word in ``CPUX86State.features`` (u64 each)."""

TLB: Final = {"modes": 3, "start": -2192 + 32, "stride": 696, "window_begin": 16, "window_max": 24, "used": 32}
"""The software TLB's descriptors, relative to ``CPUX86State``."""


def engine_address(uc: Uc) -> int:
    """Address of the ``uc_struct``."""
    address = ctypes.cast(uc._uch, ctypes.c_void_p).value
    if address is None:
        raise EngineError("Unicorn gave no engine", hint="reinstall the unicorn package")
    return address


def env_address(uc: Uc) -> tuple[int, int]:
    """Addresses of ``CPUState`` and ``CPUX86State``."""
    cpu = ctypes.c_uint64.from_address(engine_address(uc) + UC["cpu"]).value
    return cpu, ctypes.c_uint64.from_address(cpu + CPU["env_ptr"]).value


def _mismatch(what: str) -> EngineError:
    import unicorn

    return EngineError(
        "the embedded engine does not fit the installed Unicorn",
        f"{what}; found unicorn {unicorn.__version__}, wanted {WANTED_VERSION}",
        f"pip install unicorn=={WANTED_VERSION}",
    )


def check_version() -> None:
    """Refuse another version of Unicorn before anything of it is touched.

    Raises `EngineError` naming the version found and the one wanted.
    """
    import unicorn

    if unicorn.__version__ != WANTED_VERSION:
        raise _mismatch("its state layout is known for one version only")
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        raise EngineError("the embedded engine needs a 64-bit host", "pointers here have 4 bytes")


def widen_device(uc: Uc, address: int) -> None:
    """Let device space at ``address`` be accessed 8 bytes at once; Unicorn would split that into halves.

    Raises `EngineError` if the region is not where it was.
    """
    engine = engine_address(uc)
    blocks = ctypes.c_uint64.from_address(engine + UC["mapped_blocks"]).value
    count = ctypes.c_uint32.from_address(engine + UC["mapped_block_count"]).value
    if not blocks or not 0 < count < 16:
        raise _mismatch("the list of memory regions is not where it was")
    for region in (ctypes.c_uint64 * count).from_address(blocks):
        if ctypes.c_uint64.from_address(region + REGION["addr"]).value == address:
            operations = ctypes.c_uint64.from_address(region + REGION["ops"]).value
            for field in ("valid_max", "impl_max"):
                size = ctypes.c_int.from_address(operations + OPS[field])
                if size.value != 0:
                    raise _mismatch("a memory region's operations are not where they were")
                size.value = 8
            return
    raise _mismatch("device space is not among the memory regions")


def check(uc: Uc) -> None:
    """Write known values through the API and read them back through the offsets.

    Raises `EngineError` if one differs.  Leaves the registers it uses at 0.
    """
    from unicorn import x86_const as r

    # Unicorn builds its processor at the first use.
    uc.reg_read(r.UC_X86_REG_RIP)
    uch = engine_address(uc)
    if not ctypes.c_uint64.from_address(uch + UC["cpu"]).value:
        raise _mismatch("there is no CPUState where it was")
    _cpu, env = env_address(uc)
    if not env or ctypes.c_uint64.from_address(env + ENV["uc"]).value != uch:
        raise _mismatch("CPUX86State does not point back at its engine")
    rows = (
        (r.UC_X86_REG_RAX, ENV["regs"], ctypes.c_uint64, 0x1122334455667788),
        (r.UC_X86_REG_R15, ENV["regs"] + 120, ctypes.c_uint64, 0x8877665544332211),
        (r.UC_X86_REG_CR2, ENV["cr"] + 16, ctypes.c_uint64, 0x123456789ABCDEF0),
        (r.UC_X86_REG_DR0, ENV["dr"], ctypes.c_uint64, 0x0FEDCBA987654321),
        (r.UC_X86_REG_FS_BASE, ENV["segs"] + 4 * SEGMENT_SIZE + 8, ctypes.c_uint64, 0x7FFF12345678),
    )
    for register, offset, kind, value in rows:
        uc.reg_write(register, value)
        found = kind.from_address(env + offset).value
        uc.reg_write(register, 0)
        if found != value or kind.from_address(env + offset).value != 0:
            raise _mismatch(f"register {register} is not at offset {offset} of CPUX86State")
    uc.reg_write(r.UC_X86_REG_XMM15, 1 << 127 | 5)
    xmm = ctypes.c_uint64 * 2
    if list(xmm.from_address(env + ENV["xmm_regs"] + 15 * XMM_STRIDE)) != [5, 1 << 63]:
        raise _mismatch("XMM15 is not where it was")
    uc.reg_write(r.UC_X86_REG_XMM15, 0)
    uc.reg_write(r.UC_X86_REG_MSR, (0xC0000102, 0x7EDCBA987654))
    if ctypes.c_uint64.from_address(env + ENV["kernelgsbase"]).value != 0x7EDCBA987654:
        raise _mismatch("IA32_KERNEL_GS_BASE is not where it was")
    uc.reg_write(r.UC_X86_REG_MSR, (0xC0000102, 0))
