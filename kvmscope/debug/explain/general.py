"""#GP(0) and #SS(0) from what the faulting instruction does (SDM vol. 3A section 6.15, interrupts 12 and 13).

`instruction_cause` tries the rules in a fixed order; a rule answers only when the state before the instruction shows
that it fails, so that no answer is a guess.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmscope.debug.explain.control import control_cause
from kvmscope.debug.explain.model import SEGMENTS, Guest
from kvmscope.debug.explain.operands import Decoded, MemoryOperand, register_value
from kvmscope.debug.explain.selectors import CODE_RETURN, STACK, check
from kvmscope.debug.explain.traps import Cause
from kvmscope.x86.state import Seg
from kvmscope.x86.tss import port_allowed

__all__ = ["instruction_cause", "segment_cause"]

_PRIVILEGED: Final = frozenset({
    "clts", "hlt", "invd", "invlpg", "invpcid", "lgdt", "lidt", "lldt", "lmsw", "ltr", "rdmsr", "wrmsr", "wbinvd",
    "sysexit", "sysret", "sysretq", "swapgs", "xsetbv", "invept", "invvpid", "vmxon", "vmclear", "vmptrld", "vmptrst",
    "vmlaunch", "vmresume", "vmread", "vmwrite", "vmxoff", "stgi", "clgi", "vmrun", "vmload", "vmsave", "wbnoinvd",
})  # fmt: skip
"""#GP(0) where CPL is not 0 (SDM vol. 3A section 5.9)."""

_UMIP: Final = frozenset({"sgdt", "sidt", "sldt", "smsw", "str"})
_IOPL_ONLY: Final = frozenset({"cli", "sti"})
_PORT_IO: Final = frozenset({"in", "out", "insb", "insw", "insd", "outsb", "outsw", "outsd"})
_ALIGNED_16: Final = frozenset({
    "movaps", "movapd", "movdqa", "movntdq", "movntps", "movntpd", "movntdqa", "fxsave", "fxrstor", "fxsave64",
    "fxrstor64", "cmpxchg16b",
})  # fmt: skip
_UNALIGNED_SSE: Final = frozenset({"movups", "movupd", "movdqu", "lddqu"})


def _reference(key: str, words: str, *lines: str) -> tuple[str, Cause]:
    return key, (words, list(lines))


Answer = tuple[str, Cause] | None
"""(key of a reference, cause)."""


def _privilege(guest: Guest, decoded: Decoded) -> Answer:
    cpl = guest.cpu.cpl
    if cpl == 0:
        return None
    name = decoded.mnemonic
    if name in _PRIVILEGED:
        return _reference("privileged", f"{name.upper()} needs CPL 0, CPL = {cpl}")
    if name == "mov" and any(r.startswith(("cr", "dr")) for r in decoded.registers):
        return _reference("privileged", f"{decoded.text} needs CPL 0, CPL = {cpl}")
    if name in _UMIP and guest.cpu.cr4 >> 11 & 1:
        return _reference("privileged", f"{name.upper()} at CPL {cpl} with CR4.UMIP = 1")
    if name in ("rdtsc", "rdtscp") and guest.cpu.cr4 >> 2 & 1:
        return _reference("privileged", f"{name.upper()} at CPL {cpl} with CR4.TSD = 1")
    if name == "rdpmc" and not guest.cpu.cr4 >> 8 & 1:
        return _reference("privileged", f"RDPMC at CPL {cpl} with CR4.PCE = 0")
    return None


def _iopl(guest: Guest, decoded: Decoded) -> Answer:
    iopl = guest.cpu.rflags >> 12 & 3
    virtual8086 = guest.cpu.rflags >> 17 & 1 and guest.cpu.cr0 & 1
    sensitive = decoded.mnemonic in _IOPL_ONLY or (
        bool(virtual8086) and decoded.mnemonic.startswith(("pushf", "popf", "int", "iret"))
    )
    if sensitive and guest.protected | bool(virtual8086) and guest.cpu.cpl > iopl:
        return _reference("io", f"{decoded.mnemonic.upper()} with CPL = {guest.cpu.cpl} above IOPL = {iopl}")
    return None


def _ports(guest: Guest, decoded: Decoded) -> Answer:
    if decoded.mnemonic not in _PORT_IO or not guest.cpu.cr0 & 1:
        return None
    iopl, cpl = guest.cpu.rflags >> 12 & 3, guest.cpu.cpl
    virtual8086 = guest.cpu.rflags >> 17 & 1
    if cpl <= iopl and not virtual8086:
        return None
    port = decoded.immediates[0] & 0xFF if decoded.immediates else guest.gpr("rdx") & 0xFFFF
    size = {"b": 1, "w": 2, "d": 4}.get(decoded.mnemonic[-1], 0) if decoded.mnemonic not in ("in", "out") else 0
    if not size:
        accumulator = next((r for r in decoded.registers if r in ("al", "ax", "eax")), "al")
        size = {"al": 1, "ax": 2, "eax": 4}[accumulator]
    task = guest.cpu.segments[Seg.TR]
    state = f"CPL = {cpl}, IOPL = {iopl}, port {port:#x}, {size} byte{'s' * (size > 1)}"
    if not task.type & 8:
        return _reference("io", "the TSS is a 16-bit one: it has no I/O permission bitmap", state)
    if task.limit < 103:
        return _reference("io", f"the TSS limit {task.limit:#x} leaves no I/O map base", state)
    raw = guest.read(task.base, min(task.limit, 0x2068) + 1)
    if raw is None:
        return None
    if port_allowed(raw, port, size):
        return None
    base = int.from_bytes(raw[102:104], "little")
    position = base + (port >> 3)
    if position + 1 > task.limit:
        words = f"the bitmap byte of port {port:#x} is at TSS offset {position:#x}, beyond the limit {task.limit:#x}"
        return _reference("io", words, state, f"TSS base {task.base:#x}, I/O map base {base:#x}")
    bits = int.from_bytes(raw[position : position + 2], "little")
    denied = [port + i for i in range(size) if bits >> (port & 7) + i & 1]
    words = f"port {denied[0]:#x}: its bit in the I/O permission bitmap is 1, CPL {cpl} > IOPL {iopl}"
    where = f"TSS base {task.base:#x}, I/O map base {base:#x}: bytes at {task.base + position:#x} = {bits:#06x}"
    return _reference("io", words, state, where)


def segment_cause(guest: Guest, operand: MemoryOperand) -> tuple[int, str, str] | None:
    """(vector, reference, words) when an access breaks the rules of its segment or is not canonical."""
    vector = 12 if operand.segment == Seg.SS else 13
    name = SEGMENTS[operand.segment]
    last = operand.linear + max(operand.size, 1) - 1
    if guest.bits == 64:
        for address in (operand.linear, last):
            if not guest.canonical(address):
                values = ", ".join(f"{n} = {v:#x}" for n, v in operand.registers)
                words = f"the address {address:#x} is not canonical ({operand.text}: {values})"
                return vector, "canonical", words
        return None
    segment = guest.cpu.segments[operand.segment]
    offset_last = operand.offset + max(operand.size, 1) - 1
    if guest.protected:
        if not segment.selector & 0xFFFC and segment.attributes >> 16 & 1 | (not segment.present):
            return 13, "type", f"{name} holds a null selector"
        if operand.writes and (segment.type & 8 or not segment.type & 2):
            kind = "code" if segment.type & 8 else "read-only data"
            return vector, "type", f"write through {name} = {segment.selector:#x}, a {kind} segment"
        if "read" in operand.access and segment.type & 8 and not segment.type & 2:
            return vector, "type", f"read through {name} = {segment.selector:#x}, an execute-only segment"
    expand_down = guest.protected and not segment.type & 8 and segment.type & 4
    if expand_down:
        top = 0xFFFFFFFF if segment.db else 0xFFFF
        if operand.offset <= segment.limit or offset_last > top:
            words = (
                f"offset {operand.offset:#x} is outside of {name}'s expand-down range {segment.limit + 1:#x}..{top:#x}"
            )
            return vector, "limit", words
    elif offset_last > segment.limit:
        words = f"offset {operand.offset:#x} + {operand.size} bytes exceeds {name}'s limit {segment.limit:#x}"
        return vector, "limit", words
    return None


def _memory(guest: Guest, decoded: Decoded) -> Answer:
    for operand in decoded.memory:
        if not operand.access:
            continue
        found = segment_cause(guest, operand)
        if found is not None:
            _, key, words = found
            return _reference(key, words)
    for operand in decoded.memory:
        wide = operand.size >= 16 and "xmm" in decoded.operands and decoded.mnemonic not in _UNALIGNED_SSE
        aligned = decoded.mnemonic in _ALIGNED_16 or (wide and decoded.data[0] not in (0xC4, 0xC5, 0x62))
        if operand.access and aligned and operand.linear & 15:
            words = f"{decoded.mnemonic.upper()} at {operand.linear:#x}, which is not 16-byte aligned"
            return _reference("limit", words, operand.formula())
    return None


def _return_frame(guest: Guest, decoded: Decoded) -> tuple[int, int, int | None] | None:
    """(RIP, CS, SS or None) that a far return is about to load, from the stack."""
    size = decoded.operand_size // 8
    stack = next((m for m in decoded.memory if m.segment == Seg.SS), None)
    if stack is None:
        return None
    words = [guest.word(stack.linear + i * size, size) for i in range(5)]
    if words[0] is None or words[1] is None:
        return None
    slot = 4 if decoded.mnemonic.startswith("iret") else 3
    # A stack segment is popped on a change of privilege, and by IRET in 64-bit mode always.
    changes = (words[1] & 3) > guest.cpu.cpl or (guest.bits == 64 and slot == 4)
    return words[0], words[1] & 0xFFFF, (words[slot] or 0) & 0xFFFF if changes and words[slot] is not None else None


def _returns(guest: Guest, decoded: Decoded) -> Answer:
    name = decoded.mnemonic
    if name in ("sysret", "sysretq"):
        target = guest.gpr("rcx")
        if decoded.operand_size == 64 and not guest.canonical(target):
            return _reference("return", f"SYSRET to RCX = {target:#x}, which is not canonical")
        return None
    if name == "sysexit":
        if not guest.cpu.msrs.get(0x174, 0) & 0xFFFC:
            return _reference("return", "SYSEXIT with IA32_SYSENTER_CS = 0")
        return None
    if name == "sysenter":
        if not guest.protected:
            return _reference("return", "SYSENTER in real-address mode")
        if not guest.cpu.msrs.get(0x174, 0) & 0xFFFC:
            return _reference("return", "SYSENTER with IA32_SYSENTER_CS = 0")
        return None
    if not guest.protected or not name.startswith(("iret", "retf")):
        return None
    if name.startswith("iret") and guest.cpu.rflags >> 14 & 1 and guest.long_mode:
        return _reference("return", "IRET with RFLAGS.NT = 1 in IA-32e mode")
    frame = _return_frame(guest, decoded)
    if frame is None:
        return None
    rip, cs, ss = frame
    shown = f"return to {cs:#x}:{rip:#x}" + (f", SS = {ss:#x}" if ss is not None else "")
    failure = check(guest, cs, CODE_RETURN)
    if failure is not None and failure.vector == 13 and not failure.selector_code:
        return _reference("return", f"CS = {cs:#x}: {failure.words}", shown)
    if failure is None and guest.bits == 64 and decoded.operand_size == 64 and not guest.canonical(rip):
        return _reference("canonical", f"the return address {rip:#x} is not canonical", shown)
    # SS is checked against the CPL that the return leads to; a null SS is allowed in 64-bit mode below CPL 3.
    if failure is None and ss is not None and not ss & 0xFFFC and ((cs & 3) == 3 or guest.bits != 64):
        return _reference("return", f"SS = {ss:#x} on the stack: a null selector, for CPL {cs & 3}", shown)
    return None


def _selector_loads(guest: Guest, decoded: Decoded) -> Answer:
    if decoded.mnemonic in ("mov", "pop") and decoded.first == "reg" and decoded.registers[0] == "ss":
        selector = _loaded_selector(guest, decoded)
        failure = check(guest, selector, STACK) if selector is not None and guest.protected else None
        if selector is not None and failure is not None and not failure.selector_code:
            return _reference("selector", f"SS = {selector:#x}: {failure.words}")
    if decoded.mnemonic in ("ltr",) and guest.protected:
        selector = _loaded_selector(guest, decoded)
        if selector is not None and not selector & 0xFFFC:
            return _reference("selector", "TR cannot be loaded with a null selector")
    return None


def _loaded_selector(guest: Guest, decoded: Decoded) -> int | None:
    """The selector that MOV, POP, LTR or LLDT loads."""
    sources = decoded.registers[1:] if decoded.mnemonic == "mov" else decoded.registers
    if decoded.mnemonic != "pop" and sources:
        value = register_value(guest, sources[-1])
        return None if value is None else value & 0xFFFF
    if decoded.memory:
        return guest.word(decoded.memory[0].linear, 2)
    return None


def _branch(guest: Guest, decoded: Decoded) -> Answer:
    """Near transfers to an address outside of CS or not canonical."""
    if decoded.mnemonic not in ("jmp", "call", "ret"):
        return None
    if decoded.mnemonic == "ret":
        stack = decoded.memory[-1]
        target = guest.word(stack.linear, 8 if guest.bits == 64 else stack.size)
        source = f"return address at {stack.linear:#x}"
    elif decoded.immediates:
        target, source = decoded.immediates[0], "target"
    elif decoded.registers:
        target, source = register_value(guest, decoded.registers[0]), decoded.registers[0]
    else:
        operand = decoded.memory[0]
        target, source = guest.word(operand.linear, operand.size), f"target at {operand.linear:#x}"
    if target is None:
        return None
    if guest.bits == 64:
        target &= (1 << 64) - 1
        if not guest.canonical(target):
            return _reference("canonical", f"{source} = {target:#x} is not canonical")
        return None
    limit = guest.cpu.segments[Seg.CS].limit
    if target & 0xFFFFFFFF > limit:
        return _reference("limit", f"{source} = {target:#x} exceeds the CS limit {limit:#x}")
    return None


def _tables(guest: Guest, decoded: Decoded) -> Answer:
    if decoded.mnemonic not in ("lgdt", "lidt") or guest.bits != 64 or not decoded.memory:
        return None
    base = guest.word(decoded.memory[0].linear + 2, 8)
    if base is not None and not guest.canonical(base):
        return _reference("canonical", f"{decoded.mnemonic.upper()} with base {base:#x}, which is not canonical")
    return None


def _code_fetch(guest: Guest, decoded: Decoded | None) -> Answer:
    """The instruction itself: longer than 15 bytes, beyond the CS limit, at an address that is not canonical."""
    cpu = guest.cpu
    if guest.bits == 64:
        if not guest.canonical(cpu.rip):
            return _reference("canonical", f"RIP = {cpu.rip:#x} is not canonical")
    else:
        limit = cpu.segments[Seg.CS].limit
        size = len(decoded.data) if decoded is not None else 1
        if cpu.rip + size - 1 > limit:
            return _reference("limit", f"the instruction at {cpu.rip:#x} is beyond the CS limit {limit:#x}")
    code = guest.code()
    if decoded is None and len(code) == 15 and _prefix_bytes(code) >= 14:
        return _reference("limit", "the instruction is longer than 15 bytes")
    return None


def _prefix_bytes(code: bytes) -> int:
    count = 0
    while count < len(code) and code[count] in (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3):
        count += 1
    return count


_RULES: Final[tuple[Callable[[Guest, Decoded], Answer], ...]] = (
    _privilege,
    _iopl,
    _ports,
    control_cause,
    _selector_loads,
    _memory,
    _tables,
    _returns,
    _branch,
)


def instruction_cause(guest: Guest, decoded: Decoded | None) -> Answer:
    """(reference key, cause) of a #GP(0) or #SS(0) raised by the instruction at RIP; None when no rule shows it."""
    found = _code_fetch(guest, decoded)
    if found is not None or decoded is None:
        return found
    for rule in _RULES:
        found = rule(guest, decoded)
        if found is not None:
            return found
    return None
