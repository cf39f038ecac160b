"""Instructions that Unicorn does not decode and reports as invalid, executed here as the manuals say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn import decode, paravirt
from kvmscope.vmm.unicorn.env import CR, EIP, HF, HFLAGS, M32, NATIVE
from kvmscope.vmm.unicorn.faults import Fault
from kvmscope.vmm.unicorn.memory import canonical

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.vmm.unicorn.decode import Instruction

__all__ = ["execute", "skip_prefix"]

_GP: Final = 13
_TSC_AUX: Final = 0xC0000103
_PCIDE: Final = 1 << 17

_PREFIX: Final = b"\x0f\x0bkvm"
"""KVM's forced-emulation prefix: UD2 and the letters ``kvm``."""


def skip_prefix(cpu: Cpu, data: bytes) -> bool:
    """Step over KVM's forced-emulation prefix, where the profile's option ``fep`` asks for it; True if it was there.

    The instruction behind it is then executed like any other: this machine has no second way to execute one.
    """
    if "fep" not in cpu.model.profile.options or not data.startswith(_PREFIX):
        return False
    cpu.env.q[EIP] = cpu.env.q[EIP] + len(_PREFIX) & cpu.env.ip_mask
    return True


def execute(cpu: Cpu, ins: Instruction) -> bool:
    """Execute ``ins`` (decoded up to its opcode); True when it has completed, RIP after it.

    False for what is no instruction of the profile.  Raises `Fault`.
    """
    if ins.lock or ins.length >= len(ins.data):
        return False
    handler = _HANDLERS.get((ins.map, ins.opcode))
    if handler is None:
        return False
    length = handler(cpu, ins)
    if not length:
        return False
    cpu.env.q[EIP] = cpu.env.q[EIP] + length & cpu.env.ip_mask
    return True


def _invpcid(cpu: Cpu, found: Instruction) -> int:
    """INVPCID (SDM vol. 2A).  The engine keeps translations of one PCID only, so every type drops them all."""
    if not cpu.model.profile.has("invpcid") or not found.size_prefix or found.rep:
        return 0
    ins = decode.decode(cpu, found.data)
    if ins.mod == 3:
        return 0
    env = cpu.env
    q = env.q
    if q[CR] & 1 and env.cpl:
        # Virtual-8086 mode included.
        raise Fault(_GP, 0)
    code64 = env.d[HFLAGS] & HF.CS64
    kind = q[ins.reg] if code64 else q[ins.reg] & M32
    raw = decode.read_operand(cpu, ins, 16)
    pcid, address = raw & 0xFFFFFFFFFFFFFFFF, raw >> 64
    if kind > 3 or pcid >> 12:
        raise Fault(_GP, 0)
    if kind < 2 and pcid and not q[CR + 4] & _PCIDE:
        raise Fault(_GP, 0)
    if kind == 0 and not canonical(address, cpu.model.linear_bits):
        raise Fault(_GP, 0)
    env.flush_tlb()
    return ins.length


def _group_9(cpu: Cpu, found: Instruction) -> int:
    """RDPID (SDM vol. 2B): F3 0F C7 /7."""
    byte = found.data[found.length]
    if byte < 0xF8 or found.rep != 0xF3 or not cpu.model.profile.has("rdpid"):
        return 0
    cpu.env.q[byte & 7 | (found.rex & 1) << 3] = cpu.env.q[NATIVE[_TSC_AUX]] & M32
    return found.length + 1


def _hypercall(cpu: Cpu, found: Instruction) -> int:
    """VMCALL and VMMCALL: under KVM either does on processors of both vendors."""
    if found.data[found.length] not in (0xC1, 0xD9) or "kvm_pv" not in cpu.model.profile.options:
        return 0
    paravirt.hypercall(cpu)
    return found.length + 1


_HANDLERS: Final[dict[tuple[int, int], Callable[[Cpu, Instruction], int]]] = {
    (1, 0x01): _hypercall,
    (1, 0xC7): _group_9,
    (2, 0x82): _invpcid,
}
"""By opcode map and opcode: what executes it and gives its length, 0 where it is none."""
