"""Live views of the processor's state inside Unicorn, and its conversion to and from `CpuState`.

Views are memoryviews over the structure itself: reading a register costs 40 ns.  `layout` has checked the offsets.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn.layout import CPU, ENV, ENV_SIZE, TLB, XMM_STRIDE, env_address
from kvmscope.x86.state import CpuState, DescriptorTable, Seg, SegmentRegister

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.native import Native

__all__ = [
    "CR",
    "DR",
    "EFER",
    "EFLAGS",
    "EIP",
    "FLAG",
    "HF",
    "HFLAGS",
    "M32",
    "M64",
    "NATIVE",
    "Env",
    "base_index",
    "selector_index",
]

M32: Final = 0xFFFFFFFF
M64: Final = 0xFFFFFFFFFFFFFFFF

# Indices into the 64-bit view.
EIP: Final = ENV["eip"] // 8
EFLAGS: Final = ENV["eflags"] // 8
CC_SRC: Final = ENV["cc_src"] // 8
CR: Final = ENV["cr"] // 8
DR: Final = ENV["dr"] // 8
EFER: Final = ENV["efer"] // 8
XMM: Final = ENV["xmm_regs"] // 8
XCR0: Final = ENV["xcr0"] // 8
GDT_BASE: Final = ENV["gdt"] // 8 + 1
IDT_BASE: Final = ENV["idt"] // 8 + 1
TR_BASE: Final = ENV["tr"] // 8 + 1
LDT_BASE: Final = ENV["ldt"] // 8 + 1

# Indices into the 32-bit view.
CC_OP: Final = ENV["cc_op"] // 4
DF: Final = ENV["df"] // 4
HFLAGS: Final = ENV["hflags"] // 4
MXCSR: Final = ENV["mxcsr"] // 4
PKRU: Final = ENV["pkru"] // 4
ERROR_CODE: Final = ENV["error_code"] // 4
IS_INT: Final = ENV["exception_is_int"] // 4
OLD_EXCEPTION: Final = ENV["old_exception"] // 4
GDT_LIMIT: Final = ENV["gdt"] // 4 + 4
IDT_LIMIT: Final = ENV["idt"] // 4 + 4
TR_SELECTOR: Final = ENV["tr"] // 4
TR_LIMIT: Final = TR_SELECTOR + 4
TR_FLAGS: Final = TR_SELECTOR + 5
LDT_SELECTOR: Final = ENV["ldt"] // 4

CC_OP_EFLAGS: Final = 1
STATUS: Final = 0x8D5
"""OF SF ZF AF PF CF: kept lazily, apart from the other flags; so is DF."""


class HF:
    """Bits of ``hflags``: the part of the mode that translated code depends on."""

    INHIBIT: Final = 1 << 3
    CS32: Final = 1 << 4
    SS32: Final = 1 << 5
    ADDSEG: Final = 1 << 6
    PE: Final = 1 << 7
    LMA: Final = 1 << 14
    CS64: Final = 1 << 15
    GUEST: Final = 1 << 21
    OSFXSR: Final = 1 << 22
    SMAP: Final = 1 << 23


class FLAG:
    """RFLAGS bits."""

    ZF: Final = 1 << 6
    TF: Final = 1 << 8
    IF: Final = 1 << 9
    DF: Final = 1 << 10
    IOPL: Final = 3 << 12
    NT: Final = 1 << 14
    RF: Final = 1 << 16
    VM: Final = 1 << 17
    AC: Final = 1 << 18
    VIF: Final = 1 << 19
    VIP: Final = 1 << 20
    ID: Final = 1 << 21


UNUSABLE: Final = 1 << 16
BUSY: Final = 2 << 8


def selector_index(segment: int) -> int:
    """Index of a segment's selector in the 32-bit view; limit is 4 further, flags 5."""
    return ENV["segs"] // 4 + 6 * segment


def base_index(segment: int) -> int:
    """Index of a segment's base in the 64-bit view."""
    return ENV["segs"] // 8 + 1 + 3 * segment


CS_BASE: Final = base_index(Seg.CS)
SS_BASE: Final = base_index(Seg.SS)
CS_FLAGS: Final = selector_index(Seg.CS) + 5
SS_FLAGS: Final = selector_index(Seg.SS) + 5


class Env:
    """The registers, live.

    ``q`` and ``d`` are views of the state as 64-bit and 32-bit words, indexed by the constants of this module;
    ``q[0:16]`` are the general-purpose registers in `Gpr` order.
    """

    def __init__(self, native: Native) -> None:
        from unicorn.unicorn_py3.unicorn import uclib
        from unicorn.x86_const import UC_X86_REG_EFLAGS

        self.cpu_address, self.address = env_address(native.uc)
        raw = (ctypes.c_char * ENV_SIZE).from_address(self.address)
        view = memoryview(raw).cast("B")
        self.b = view
        self.q = view.cast("Q")
        self.d = view.cast("I")
        self.w = view.cast("H")
        self._kept = view[:_LOW], view[_HIGH : _HIGH + _HIGH_SIZE]
        self.cflags_next = ctypes.c_uint32.from_address(self.cpu_address + CPU["cflags_next_tb"])
        self.exit_request = ctypes.c_uint8.from_address(self.cpu_address + CPU["exit_request"])
        self.halted = ctypes.c_uint32.from_address(self.cpu_address + CPU["halted"])
        self.interrupt_request = ctypes.c_uint32.from_address(self.cpu_address + CPU["interrupt_request"])
        self._native = native
        self._handle = native.uc._uch
        self._reg_read = uclib.uc_reg_read
        self._flags_buffer = ctypes.c_uint64(0)
        self._flags_pointer = ctypes.byref(self._flags_buffer)
        self._eflags_id = UC_X86_REG_EFLAGS
        self.tlb: dict[int, tuple[int, int, bool, int]] = {}
        """Translations that Python's accesses keep (`Memory`), flushed with Unicorn's."""
        self.pages: dict[int, int] = {}
        tlb = self.address + TLB["start"]
        self._tlb = tuple(
            (ctypes.c_uint64 * 3).from_address(tlb + TLB["stride"] * mode + TLB["window_begin"])
            for mode in range(TLB["modes"])
        )

    # flags

    def flags(self) -> int:
        """RFLAGS with the lazily kept bits computed."""
        if self.d[CC_OP] == CC_OP_EFLAGS:
            value = self.q[EFLAGS] & ~(STATUS | FLAG.DF) | self.q[CC_SRC] & STATUS | 2
            return value | FLAG.DF if self.d[DF] & 0x80000000 else value
        self._reg_read(self._handle, self._eflags_id, self._flags_pointer)
        return self._flags_buffer.value & M32

    def set_flags(self, value: int) -> None:
        """Write RFLAGS; what depends on VM needs `update_hflags`.

        Unicorn moves the status flags from ``eflags`` to ``cc_src`` whenever it begins to run, so both get them.
        """
        self.d[CC_OP] = CC_OP_EFLAGS
        self.q[CC_SRC] = value & STATUS
        self.d[DF] = 0xFFFFFFFF if value & FLAG.DF else 1
        self.q[EFLAGS] = value & M32 | 2

    # mode

    @property
    def cpl(self) -> int:
        """Current privilege level."""
        return self.d[HFLAGS] & 3

    @property
    def long_mode(self) -> bool:
        """IA-32e mode is active (EFER.LMA)."""
        return bool(self.d[HFLAGS] & HF.LMA)

    @property
    def code64(self) -> bool:
        """Executing 64-bit code."""
        return bool(self.d[HFLAGS] & HF.CS64)

    @property
    def linear_ip(self) -> int:
        """Linear address of the current instruction."""
        if self.d[HFLAGS] & HF.CS64:
            return self.q[EIP]
        return (self.q[CS_BASE] + self.q[EIP]) & M32

    @property
    def ip_mask(self) -> int:
        """Width of the instruction pointer as a mask."""
        h = self.d[HFLAGS]
        return M64 if h & HF.CS64 else M32 if h & HF.CS32 else 0xFFFF

    def update_hflags(self, cpl: int) -> None:
        """Derive the translation mode from the control registers, the segments and ``cpl``."""
        d, q = self.d, self.q
        cr0, cr4, efer = q[CR], q[CR + 4], q[EFER]
        h = d[HFLAGS] & HF.INHIBIT | HF.GUEST | cpl | cr0 << 8 & 0xE00
        if cr0 & 1:
            h |= HF.PE
        if cr4 & 0x200:
            h |= HF.OSFXSR
        if cr4 & 1 << 21:
            h |= HF.SMAP
        cs = d[CS_FLAGS]
        if efer & 0x400:
            h |= HF.LMA
        vm = self.q[EFLAGS] & FLAG.VM
        if efer & 0x400 and cs & 1 << 21:
            h |= HF.CS32 | HF.SS32 | HF.CS64
        else:
            if cs & 1 << 22:
                h |= HF.CS32
            if d[SS_FLAGS] & 1 << 22:
                h |= HF.SS32
            # Code for flat segments leaves the addition of the bases out.
            if (
                not cr0 & 1
                or vm
                or not h & HF.CS32
                or q[base_index(Seg.DS)]
                or q[base_index(Seg.ES)]
                or q[base_index(Seg.SS)]
            ):
                h |= HF.ADDSEG
        d[HFLAGS] = h

    def flush_tlb(self) -> None:
        """Drop all translations of the software TLB, keeping its size.

        Unicorn resizes the TLB by *host* time at a flush, up to 24 ms a flush; the window is pinned to prevent it.
        """
        self.tlb.clear()
        self.pages.clear()
        for window in self._tlb:
            window[0], window[1], window[2] = 1 << 62, 0, 0
        self._native.flush_tlb()

    def disable_paging(self) -> None:
        """Make linear addresses physical for the moment; `set_raw` puts things back."""
        self.q[CR] = 0x11
        self.q[CR + 4] = 0
        self.d[HFLAGS] = HF.PE | HF.CS32 | HF.SS32 | HF.GUEST

    # segments

    def segment(self, index: int) -> SegmentRegister:
        """A segment register (`Seg` order, LDTR and TR included)."""
        i = selector_index(index)
        flags = self.d[i + 5]
        attributes = flags >> 8 & 0xF0FF
        if index == Seg.TR:
            attributes |= BUSY >> 8
        if not flags & 1 << 15:
            attributes |= UNUSABLE
        return SegmentRegister(self.d[i] & 0xFFFF, self.q[base_index(index)], self.d[i + 4], attributes)

    def set_segment(self, index: int, selector: int, base: int, limit: int, flags: int) -> None:
        """Write a segment register; ``flags`` is the second doubleword of its descriptor."""
        i = selector_index(index)
        d = self.d
        d[i] = selector
        self.q[base_index(index)] = base
        d[i + 4] = limit
        # Unicorn's I/O permission check knows only the available TSS type in TR.
        d[i + 5] = flags & ~BUSY if index == Seg.TR else flags

    # whole state

    def raw(self) -> bytes:
        """Everything that execution depends on, in Unicorn's own layout."""
        return b"".join(self._kept)

    def copy_out(self, buffer: int) -> None:
        """The same into host memory at ``buffer`` (`RAW_SIZE` bytes)."""
        ctypes.memmove(buffer, self.address, _LOW)
        ctypes.memmove(buffer + _LOW, self.address + _HIGH, _HIGH_SIZE)

    def copy_in(self, buffer: int) -> None:
        """Back from where `copy_out` put it."""
        a = self.address
        ctypes.memmove(a, buffer, _LOW)
        ctypes.memmove(a + _HIGH, buffer + _LOW, _FIRST)
        # The host pointers of Unicorn's own breakpoints lie in between.
        ctypes.memmove(a + _HIGH + _SKIP, buffer + _LOW + _SKIP, _HIGH_SIZE - _SKIP)

    def set_raw(self, raw: bytes) -> None:
        """Write back what `raw` gave."""
        a = self.address
        ctypes.memmove(a, raw[:_LOW], _LOW)
        high = raw[_LOW:]
        ctypes.memmove(a + _HIGH, high[:_FIRST], _FIRST)
        ctypes.memmove(a + _HIGH + _SKIP, high[_SKIP:], _HIGH_SIZE - _SKIP)


_LOW: Final = ENV["xmm_regs"] + 16 * XMM_STRIDE
_HIGH: Final = ENV["sysenter_cs"]
_HIGH_SIZE: Final = ENV["end_reset_fields"] - _HIGH
_FIRST: Final = ENV["cpu_breakpoint"] - _HIGH
_SKIP: Final = ENV["old_exception"] - _HIGH
RAW_SIZE: Final = _LOW + _HIGH_SIZE


NATIVE: Final = {
    0x174: ENV["sysenter_cs"] // 8,
    0x175: ENV["sysenter_esp"] // 8,
    0x176: ENV["sysenter_eip"] // 8,
    0x277: ENV["pat"] // 8,
    0xC0000081: ENV["star"] // 8,
    0xC0000082: ENV["lstar"] // 8,
    0xC0000083: ENV["cstar"] // 8,
    0xC0000084: ENV["fmask"] // 8,
    0xC0000100: base_index(Seg.FS),
    0xC0000101: base_index(Seg.GS),
    0xC0000102: ENV["kernelgsbase"] // 8,
    0xC0000103: ENV["tsc_aux"] // 8,
}
"""MSRs that live in Unicorn's state: index into the 64-bit view."""


def _shown_msrs(raw: bytes, kept: Mapping[int, int]) -> dict[int, int]:
    """All MSRs by index: those of Unicorn's state and ``kept``, without the segment bases, which are registers."""
    out = {
        index: int.from_bytes(raw[place : place + 8], "little")
        for index, word in NATIVE.items()
        if (place := 8 * word - _HIGH + _LOW) >= _LOW
    }
    out[0x174] &= M32
    return out | dict(kept)


def decode(
    raw: bytes,
    flags: int,
    dr: tuple[int, ...],
    cr8: int,
    halted: bool,
    shadow: int,
    msrs: Mapping[int, int],
) -> CpuState:
    """A `CpuState` from `Env.raw` and what the engine keeps beside it."""
    q = memoryview(raw)[:_LOW].cast("Q")
    d = memoryview(raw)[:_LOW].cast("I")

    def table(offset: int) -> DescriptorTable:
        return DescriptorTable(q[offset // 8 + 1], d[offset // 4 + 4] & 0xFFFF)

    segments = []
    for index in range(8):
        i = selector_index(index)
        access = d[i + 5] >> 8 & 0xF0FF
        if index == Seg.TR:
            access |= BUSY >> 8
        if not access & 0x80:
            access |= UNUSABLE
        segments.append(SegmentRegister(d[i] & 0xFFFF, q[base_index(index)], d[i + 4], access))
    high64 = memoryview(raw)[_LOW:].cast("Q")
    high32 = memoryview(raw)[_LOW:].cast("I")
    return CpuState(
        gpr=tuple(q[:16]),
        rip=q[EIP],
        rflags=flags,
        segments=tuple(segments),
        gdtr=table(ENV["gdt"]),
        idtr=table(ENV["idt"]),
        cr0=q[CR],
        cr2=q[CR + 2],
        cr3=q[CR + 3],
        cr4=q[CR + 4],
        cr8=cr8,
        efer=q[EFER],
        dr=dr,
        xcr0=high64[(ENV["xcr0"] - _HIGH) // 8],
        mxcsr=d[MXCSR],
        xmm=tuple(q[XMM + 8 * i] | q[XMM + 8 * i + 1] << 64 for i in range(16)),
        fpu=_fxsave(raw),
        pkru=high32[(ENV["pkru"] - _HIGH) // 4],
        cpl=d[HFLAGS] & 3,
        halted=halted,
        interrupt_shadow=shadow,
        msrs=_shown_msrs(raw, msrs),
    )


def _fxsave(raw: bytes) -> bytes:
    """Bytes 0-159 of an FXSAVE image (SDM vol. 1 table 10-2), 64-bit form of the pointers."""
    top = int.from_bytes(raw[ENV["fpstt"] : ENV["fpstt"] + 4], "little") & 7
    status = int.from_bytes(raw[ENV["fpus"] : ENV["fpus"] + 2], "little") & ~0x3800 | top << 11
    tags = raw[ENV["fptags"] : ENV["fptags"] + 8]
    full = sum((not tags[i]) << i for i in range(8))
    out = bytearray(160)
    out[0:2] = raw[ENV["fpuc"] : ENV["fpuc"] + 2]
    out[2:4] = status.to_bytes(2, "little")
    out[4] = full
    out[6:8] = raw[ENV["fpop"] : ENV["fpop"] + 2]
    out[8:16] = raw[ENV["fpip"] : ENV["fpip"] + 8]
    out[16:24] = raw[ENV["fpdp"] : ENV["fpdp"] + 8]
    out[24:28] = raw[ENV["mxcsr"] : ENV["mxcsr"] + 4]
    out[28:30] = b"\xff\xff"
    for i in range(8):
        register = ENV["fpregs"] + 16 * ((top + i) & 7)
        out[32 + 16 * i : 42 + 16 * i] = raw[register : register + 10]
    return bytes(out)
