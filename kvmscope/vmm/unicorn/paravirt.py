"""KVM's paravirtual interface, for the profile's option ``kvm_pv`` (Documentation/virt/kvm/x86/msr.rst, hypercalls.rst).

Guest time is exact and the TSC counts it, so the structures need no updates but those after a write.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.clock import TSC_RATIO
from kvmscope.vmm.devices.interrupts import DeliveryMode, Message
from kvmscope.vmm.engine import EXIT_TIME
from kvmscope.vmm.unicorn.env import HF, HFLAGS, M32, M64

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["BOOT_TIME", "CLOCKS", "enable_clock", "hypercall", "update_clock"]

BOOT_TIME: Final = 1_735_689_600
"""Wall-clock time at boot, seconds since 1970: 2025-01-01, as the real-time clock has it; never the host's."""

_WALL: Final = (0x11, 0x4B564D00)
_SYSTEM: Final = (0x12, 0x4B564D01)
CLOCKS: Final = frozenset(_WALL + _SYSTEM)
"""MSRs whose write makes KVM fill a structure in memory."""

_TIME_INFO: Final = struct.Struct("<IxxxxQQIbBxx")
"""``struct pvclock_vcpu_time_info``: version, TSC and nanoseconds of one moment, factor, shift, flags."""
_WALL_CLOCK: Final = struct.Struct("<III")
"""``struct pvclock_wall_clock``: version, seconds, nanoseconds."""
_FACTOR, _SHIFT = (1 << 32) // TSC_RATIO, 0
"""Nanoseconds are (counts << shift) * factor >> 32."""
_STABLE: Final = 1 << 0

_EPERM, _EINVAL, _ENOSYS = 1, 22, 1000
_POLL_IRQ, _SEND_IPI, _SCHED_YIELD = 1, 10, 11
_LAST_ID: Final = 0xFE
"""APIC IDs that machines here have; FFH would be a broadcast."""
_UNSENDABLE: Final = 3 << 18 | 1 << 11
"""ICR bits that KVM_HC_SEND_IPI refuses: shorthands, logical destinations."""


def enable_clock(cpu: Cpu, index: int) -> None:
    """MSR ``index`` of `CLOCKS` was written."""
    address = cpu.msrs[index]
    if index in _WALL:
        version = (_version(cpu, address) | 1) + 1 & M32
        cpu.memory.write_physical(address, _WALL_CLOCK.pack(version, BOOT_TIME, 0))
    elif address & 1:
        _write_clock(cpu, address & ~1)


def update_clock(cpu: Cpu) -> None:
    """The vCPU's TSC has changed: so does the structure that the guest reads the time from."""
    for index in _SYSTEM:
        address = cpu.msrs.get(index, 0)
        if address & 1:
            _write_clock(cpu, address & ~1)


def _version(cpu: Cpu, address: int) -> int:
    return int.from_bytes(cpu.memory.read_physical(address, 4), "little")


def _write_clock(cpu: Cpu, address: int) -> None:
    # An even version is a consistent structure; no guest can look while it is being written.
    version = (_version(cpu, address) | 1) + 1 & M32
    stable = _STABLE if cpu.model.profile.has("kvm_clocksource_stable") else 0
    info = _TIME_INFO.pack(version, cpu.tsc, cpu.host.now(), _FACTOR, _SHIFT, stable)
    cpu.memory.write_physical(address, info)


def hypercall(cpu: Cpu) -> None:
    """VMCALL or VMMCALL: the number in RAX, arguments in RBX, RCX, RDX and RSI, the result in RAX."""
    env = cpu.env
    q = env.q
    cpu.host.spend(EXIT_TIME)
    mask = M64 if env.d[HFLAGS] & HF.CS64 else M32
    number, *arguments = (q[i] & mask for i in (0, 3, 1, 2, 6))
    result = -_EPERM if env.cpl else _call(cpu, number, arguments)
    q[0] = result & mask


def _call(cpu: Cpu, number: int, arguments: list[int]) -> int:
    """A hypercall's result; -KVM_ENOSYS for one that the profile does not announce."""
    profile = cpu.model.profile
    if number == _POLL_IRQ:
        # The exit itself was the point: interrupts are looked for after each.
        return 0
    if number == _SCHED_YIELD and profile.has("kvm_pv_sched_yield"):
        cpu.turn_over()
        return 0
    if number == _SEND_IPI and profile.has("kvm_pv_send_ipi"):
        width = 64 if cpu.env.d[HFLAGS] & HF.CS64 else 32
        low, high, first, icr = arguments
        return _send_ipis(cpu, low | high << width, first, icr)
    return -_ENOSYS


def _send_ipis(cpu: Cpu, bitmap: int, first: int, icr: int) -> int:
    """An interrupt to the APIC IDs from ``first`` on that ``bitmap`` names; the number of processors reached."""
    if icr & _UNSENDABLE:
        return -_EINVAL
    mode = icr >> 8 & 7
    if mode not in DeliveryMode.__members__.values():
        return 0
    level, assertion = bool(icr >> 15 & 1), bool(icr >> 14 & 1)
    reached = 0
    while bitmap:
        if bitmap & 1 and first <= _LAST_ID:
            message = Message(icr & 0xFF, DeliveryMode(mode), first, level=level, assert_=assertion)
            reached += cpu.host.send_ipi(message)
        bitmap >>= 1
        first += 1
    return reached
