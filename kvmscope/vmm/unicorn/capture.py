"""The processor's state in and out: `CpuState`, and raw captures for history."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.engine import Activity
from kvmscope.vmm.unicorn import env as e
from kvmscope.vmm.unicorn.env import CR, EFER, EIP, FLAG, HF, HFLAGS, M32, M64, NATIVE, RAW_SIZE, XCR0, XMM
from kvmscope.vmm.unicorn.layout import ENV
from kvmscope.vmm.unicorn.msrs import IA32_TSC
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu, Own
    from kvmscope.x86.state import CpuState

__all__ = ["decode_vcpu", "load_state", "pack_vcpu", "restore_vcpu", "split_vcpus"]

_HEAD: Final = struct.Struct("<I8QQqQQBBBH")
"""RFLAGS, DR0-7, CR8, TSC offset, CR2, previous instruction, activity, interrupt shadow, NMI blocking, number of MSRs."""

_ACTIVITIES: Final = tuple(Activity)

_FPU_INIT: Final = (0x37F).to_bytes(2, "little").ljust(160, b"\0")
"""FNINIT: all exceptions masked, registers empty."""


def pack_vcpu(own: Own, flags: int, cr8: int, env: bytes) -> bytes:
    """Everything that `restore_vcpu` needs of one vCPU, as bytes; ``flags`` with RF, ``env`` as of `Env.raw`."""
    flat = [word for pair in own.msrs.items() for word in pair]
    head = _HEAD.pack(
        flags,
        *own.dr,
        cr8,
        own.tsc_offset,
        own.cr2,
        own.previous,
        _ACTIVITIES.index(own.activity),
        own.shadow_kind,
        own.nmi_blocked,
        len(own.msrs),
    )
    return b"".join((head, struct.pack(f"<{len(flat)}Q", *flat), env))


def split_vcpus(raw: bytes, at: int, count: int) -> list[bytes]:
    """The parts of ``count`` vCPUs from offset ``at`` on.  Raises ValueError for what is no capture of this engine."""
    parts = []
    for _ in range(count):
        if at + _HEAD.size > len(raw):
            raise ValueError("not a capture of this engine")
        msrs = _HEAD.unpack_from(raw, at)[-1]
        end = at + _HEAD.size + 16 * msrs + RAW_SIZE
        parts.append(raw[at:end])
        at = end
    if at != len(raw):
        raise ValueError("not a capture of this engine")
    return parts


def _split(raw: bytes) -> tuple[tuple[int, ...], dict[int, int], bytes]:
    head = _HEAD.unpack_from(raw)
    count = head[-1]
    pairs = struct.unpack_from(f"<{2 * count}Q", raw, _HEAD.size)
    return head, dict(zip(pairs[::2], pairs[1::2], strict=True)), raw[_HEAD.size + 16 * count :]


def decode_vcpu(raw: bytes) -> CpuState:
    """A vCPU's part of a capture as registers."""
    head, msrs, env = _split(raw)
    inhibited = int.from_bytes(env[ENV["hflags"] : ENV["hflags"] + 4], "little") & HF.INHIBIT
    shadow = (head[14] or 1) if inhibited else 0
    return e.decode(env, head[0], head[1:9], head[9], _ACTIVITIES[head[13]] is Activity.HALTED, shadow, msrs)


def restore_vcpu(raw: bytes, own: Own) -> bytes:
    """Put back what Python keeps of one vCPU; the rest is returned, as of `Env.raw`."""
    head, msrs, env = _split(raw)
    own.resuming = bool(head[0] & FLAG.RF)
    own.dr = list(head[1:9])
    own.tsc_offset, own.cr2, own.previous = head[10:13]
    own.activity = _ACTIVITIES[head[13]]
    own.shadow_kind = head[14]
    own.nmi_blocked = bool(head[15])
    own.msrs = msrs
    return env


def load_state(cpu: Cpu, state: CpuState) -> None:
    """Write every register of ``state``."""
    from unicorn.x86_const import UC_X86_REG_MXCSR

    env = cpu.env
    q, d = env.q, env.d
    for i, value in enumerate(state.gpr):
        q[i] = value & M64
    q[EIP] = state.rip & M64
    cpu.load_flags(state.rflags)
    for index, segment in enumerate(state.segments):
        flags = (segment.attributes & 0xF0FF) << 8
        if segment.attributes & e.UNUSABLE:
            flags &= ~(1 << 15)
        # The limit's upper nibble is part of the doubleword that LAR and VERR look at.
        stored = segment.limit >> 12 if segment.g else segment.limit
        flags |= stored & 0xF0000
        if index == Seg.TR and flags >> 8 & 7 not in (1, 3):
            # Unicorn aborts the process on a stack switch through anything that is not a TSS.
            flags = flags & ~0x1F00 | 0x8900
        env.set_segment(index, segment.selector, segment.base, segment.limit, flags)
    q[e.GDT_BASE], d[e.GDT_LIMIT] = state.gdtr.base, state.gdtr.limit
    q[e.IDT_BASE], d[e.IDT_LIMIT] = state.idtr.base, state.idtr.limit
    q[CR], q[CR + 2], q[CR + 3], q[CR + 4] = state.cr0, state.cr2, state.cr3, state.cr4
    cpu.cr2 = state.cr2
    cpu.host.set_cr8(cpu.vcpu, state.cr8)
    q[EFER] = state.efer
    q[XCR0] = state.xcr0
    cpu.dr = [*state.dr[:4], 0, 0, state.dr[6], state.dr[7]]
    cpu.debug_changed = True
    cpu.native.write_register(UC_X86_REG_MXCSR, state.mxcsr)
    for i, value in enumerate(state.xmm):
        q[XMM + 8 * i], q[XMM + 8 * i + 1] = value & M64, value >> 64
    _load_fpu(cpu, state.fpu if len(state.fpu) >= 160 else _FPU_INIT)
    d[e.PKRU] = state.pkru & M32
    cpu.activity = Activity.HALTED if state.halted else Activity.ACTIVE
    cpu.nmi_blocked = False
    cpu.shadow_kind = state.interrupt_shadow
    d[HFLAGS] = d[HFLAGS] & ~HF.INHIBIT | (HF.INHIBIT if state.interrupt_shadow else 0)
    msrs = dict(state.msrs)
    for index, place in NATIVE.items():
        if index in msrs:
            q[place] = msrs.pop(index)
    if IA32_TSC in msrs:
        cpu.tsc = msrs.pop(IA32_TSC)
    cpu.replace_msrs(msrs)
    env.update_hflags(state.cpl)
    env.flush_tlb()


def _load_fpu(cpu: Cpu, image: bytes) -> None:
    """Registers from bytes 0-159 of an FXSAVE image."""
    from unicorn.x86_const import UC_X86_REG_FPCW

    env = cpu.env
    status = int.from_bytes(image[2:4], "little")
    top = status >> 11 & 7
    cpu.native.write_register(UC_X86_REG_FPCW, int.from_bytes(image[0:2], "little"))
    for softfloat in ("fp_status", "sse_status"):
        # Exceptions that earlier instructions have accrued.
        env.b[ENV[softfloat] + 2] = 0
    env.d[ENV["fpstt"] // 4] = top
    env.w[ENV["fpop"] // 2] = int.from_bytes(image[6:8], "little")
    env.w[ENV["fpop"] // 2 + 1] = env.w[ENV["fpop"] // 2 + 2] = 0
    env.q[ENV["fpip"] // 8] = int.from_bytes(image[8:16], "little")
    env.q[ENV["fpdp"] // 8] = int.from_bytes(image[16:24], "little")
    env.w[ENV["fpus"] // 2] = status & ~0x3800
    for i in range(8):
        env.b[ENV["fptags"] + i] = 0 if image[4] >> i & 1 else 1
        place = ENV["fpregs"] + 16 * ((top + i) & 7)
        env.b[place : place + 10] = image[32 + 16 * i : 42 + 16 * i]
