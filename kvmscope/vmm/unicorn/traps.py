"""Traps at instruction starts: the user's breakpoints, DR0-3 execution breakpoints, and instructions of `scan`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from kvmscope.vmm.engine import Stop, StopReason
from kvmscope.vmm.unicorn import decode, scan
from kvmscope.vmm.unicorn.breakpoints import is_repeating
from kvmscope.vmm.unicorn.checks import beyond_limit, real_addressing
from kvmscope.vmm.unicorn.completion import complete, guarded
from kvmscope.vmm.unicorn.delivery import DB, deliver
from kvmscope.vmm.unicorn.env import EIP, HF, HFLAGS
from kvmscope.vmm.unicorn.lengths import Shape, instructions
from kvmscope.vmm.unicorn.native import EDGE, HookKind
from kvmscope.vmm.unicorn.plans import Plan, plan, surely_allowed
from kvmscope.vmm.unicorn.probe import COUNTER, PREVIOUS
from kvmscope.vmm.unicorn.system import HANDLERS, Kind
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["Traps"]

STI: Final = b"\xfb"
_CS: Final = 1 << Seg.CS
_PLAIN: Final = frozenset(
    {
        Kind.PORT,
        Kind.MEMORY,
        Kind.FETCH,
        Kind.SEGMENT,
        Kind.FAR_RETURN,
        Kind.SYSCALL,
        Kind.SYSRET,
        Kind.SYSENTER,
        Kind.SYSEXIT,
        Kind.UNDEFINED,
        Kind.BRANCH16,
        Kind.RDPMC,
        Kind.SSE4A,
        Kind.X87,
        Kind.X87_CONTROL,
    }
)
"""Kinds whose instruction has no ModRM operand."""
_DIRECT: Final = (0x9A, 0xEA)
"""Far CALL and JMP with an immediate pointer."""
_NEW_TF: Final = frozenset({Kind.SYSCALL, Kind.SYSRET})
"""Kinds after which the *new* TF decides about a #DB."""
_QUIET: Final = frozenset({Kind.INVLPG, Kind.SEGMENT, Kind.X87_CONTROL})
"""Kinds whose handler looks at no operand, cannot fault, and leaves the execution to Unicorn."""
_NO_OPERAND: Final = decode.Instruction()
_NOWHERE: Final = -1
_IN_VAIN: Final = 64
"""Traps of code that is gone after which the probe's table is filled anew, which costs as much."""


class _Site(NamedTuple):
    """A trapped instruction, as it was when its block was translated."""

    kind: str
    data: bytes
    modrm: bool
    plan: Plan | None = None
    """How to tell quickly that there is nothing to do."""
    physical: int = _NOWHERE
    """Where its bytes are in RAM, if only there: once they have changed, its block is gone."""
    call: int | None = None
    """The register that an indirect near call goes to."""


def _call_register(kind: str, code: bytes) -> int | None:
    """The register of ``FF /2`` with at most a REX prefix; None for everything else."""
    if kind != Kind.NEAR_CALL:
        return None
    rex = code[0] if code[0] & 0xF0 == 0x40 else 0
    opcode = code[1:] if rex else code
    if len(opcode) != 2 or opcode[0] != 0xFF or opcode[1] < 0xC0:
        return None
    return opcode[1] & 7 | (rex & 1) << 3


class Traps:
    """All addresses whose instruction start calls back into Python."""

    def __init__(self) -> None:
        self._cpu: Cpu
        self._breakpoints: frozenset[int] = frozenset()
        self._sites: dict[int, list[_Site]] = {}
        self._resumed: int | None = None
        """Where a run begins, until its first instruction has started."""
        self._forgotten = False
        """The probe's table has addresses that nobody wants trapped any more."""
        self._in_vain = 0

    def attach(self, cpu: Cpu) -> None:
        """Set the processor; once."""
        self._cpu = cpu
        cpu.native.hook(HookKind.EDGE, EDGE, self._on_block)

    def resume(self) -> None:
        """A run begins: the breakpoint it stands at does not stop it again."""
        self._resumed = self._cpu.env.linear_ip

    def started(self) -> None:
        """Its first instruction has started: what begins another slice, an interrupt's handler, is no resumption."""
        self._resumed = None

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """Replace the user's breakpoints."""
        self._breakpoints = frozenset(linear)
        self.arm()

    def arm(self) -> None:
        """Fill the probe's table anew."""
        cpu = self._cpu
        cpu.debug_changed = False
        cpu.debug.arm()
        self._fill()

    def _fill(self) -> None:
        cpu = self._cpu
        probe = cpu.probe
        probe.clear()
        self._forgotten = False
        self._in_vain = 0
        for addresses in (self._breakpoints, cpu.debug.execute):
            for address in addresses:
                probe.add(address)
        for address, sites in self._sites.items():
            for site in sites:
                probe.add(address, site.call)

    def _on_block(self, _uc: int, block: int, _previous: int, _data: int) -> None:
        """A block was translated: note the pages its code is in, and what must be trapped in it."""
        cpu = self._cpu
        memory = cpu.memory
        start = ctypes.c_uint64.from_address(block).value
        size = ctypes.c_uint16.from_address(block + 10).value
        physical = memory.probe(start)
        if physical is None or not size:
            return
        memory.note_code(physical >> 12)
        if (start & 0xFFF) + size <= 0x1000 and physical + size <= memory.size:
            data = bytes(memory.ram[physical : physical + size])
        else:
            data = memory.peek(start, size)
            last = memory.probe(start + size - 1)
            if last is not None:
                memory.note_code(last >> 12)
        h = cpu.env.d[HFLAGS]
        code64, code32 = bool(h & HF.CS64), bool(h & HF.CS32)
        if not code64 and cpu.policy[0] & _CS and beyond_limit(cpu, start + size - 1):
            for shape in instructions(data, code64, code32):
                if beyond_limit(cpu, start + shape.offset + shape.length - 1):
                    self._add(start, physical, data, shape, Kind.FETCH, code32)
        for shape, kind in scan.find(data, code64, code32, self._policy()):
            self._add(start, physical, data, shape, kind, code32)

    def _add(self, start: int, physical: int, data: bytes, shape: Shape, kind: str, code32: bool) -> None:
        address = start + shape.offset
        code = data[shape.offset : shape.offset + shape.length]
        cpu = self._cpu
        segments, alignment, _ = cpu.policy
        # Where only segments are to be checked.
        simple = kind == Kind.MEMORY and segments > 0 and not (alignment and cpu.env.cpl == 3)
        quick = plan(shape, code, code32) if simple else None
        site = _Site(
            kind, code, kind not in _PLAIN and shape.opcode not in _DIRECT, quick, call=_call_register(kind, code)
        )
        place = physical + shape.offset
        if (address & 0xFFF) + shape.length > 0x1000 or place + shape.length > cpu.memory.size:
            place = _NOWHERE
        known = self._sites.setdefault(address, [])
        for i, other in enumerate(known):
            if other[:4] == site[:4]:
                if other.physical != place:
                    known[i] = site
                break
        else:
            known.append(site._replace(physical=place))
        self._cpu.probe.add(address, site.call)

    def _policy(self) -> scan.Policy:
        """What the instructions of a new block can fault on that Unicorn does not look at."""
        cpu = self._cpu
        ports = not cpu.ports_allowed
        segments, alignment, unmasked = cpu.policy
        if alignment and cpu.env.cpl == 3:
            return scan.Policy(ports, -1, x87=unmasked)
        return scan.Policy(ports, segments, real_addressing(cpu), unmasked)

    def follow_policy(self) -> None:
        """Between two slices: blocks translated under another policy must go, and what was found in them."""
        cpu = self._cpu
        now = cpu.memory_policy
        if now != cpu.policy:
            cpu.policy = now
            self._sites.clear()
            cpu.native.flush_blocks()
            self.arm()

    def on_start(self, address: int) -> None:
        """The probe trapped the instruction at ``address``."""
        cpu = self._cpu
        fields = cpu.probe.fields
        first = self._resumed == address and fields[COUNTER] == 1
        self._resumed = None
        if address in self._breakpoints and not first and not is_repeating(cpu, address, PREVIOUS):
            fields[COUNTER] -= 1
            if cpu.pending is None:
                cpu.pending = Stop(StopReason.BREAKPOINT, cpu.clock, breakpoint=address)
            cpu.native.stop()
            return
        hit = cpu.debug.execute.get(address)
        if hit and not cpu.resuming and not is_repeating(cpu, address, PREVIOUS) and not self._after_mov_ss():
            guarded(cpu, lambda: deliver(cpu, DB, dr6=hit))
            self._leave()
            return
        sites = self._sites.get(address)
        if sites is None:
            # A slot of the table that is shared, or code that is gone.
            self._in_vain += self._forgotten
            if self._in_vain > _IN_VAIN:
                self._fill()
            return
        peek = cpu.memory.peek
        gone = False
        for site in sites:
            # The same address may hold other code by now, or in another address space.
            if peek(address, len(site.data)) != site.data:
                gone = gone or self._gone(site)
            elif site.kind in _QUIET:
                HANDLERS[site.kind](cpu, _NO_OPERAND)
            elif (site.plan is None or not surely_allowed(cpu, site.plan)) and self._special(site):
                return
        if gone:
            self._forget(address, sites)

    def _gone(self, site: _Site) -> bool:
        """Whether its block was dropped: a store there changed what was translated."""
        physical = site.physical
        return physical >= 0 and self._cpu.memory.read_physical(physical, len(site.data)) != site.data

    def _forget(self, address: int, sites: list[_Site]) -> None:
        """Drop what is gone, or a guest that writes its code anew would be trapped ever more often."""
        self._sites[address] = left = [site for site in sites if not self._gone(site)]
        if not left:
            del self._sites[address]
            self._forgotten = True

    def _after_mov_ss(self) -> bool:
        """The instruction before was MOV SS or POP SS, which suppresses execution breakpoints on Intel's processors."""
        cpu = self._cpu
        if not cpu.model.intel or not cpu.env.d[HFLAGS] & HF.INHIBIT:
            return False
        return cpu.memory.peek(cpu.probe.fields[PREVIOUS], 1) != STI

    def _special(self, site: _Site) -> bool:
        """Execute or check the instruction; True if Unicorn is not to execute it."""
        cpu = self._cpu
        rip = cpu.env.q[EIP]
        mode = cpu.mode
        trap = cpu.trap_flag
        completed = False

        def execute() -> None:
            nonlocal completed, trap
            ins = decode.decode(cpu, site.data, site.modrm, len(site.data))
            if HANDLERS[site.kind](cpu, ins):
                completed = True
                cpu.note_mode(mode, rip)
                if site.kind in _NEW_TF:
                    trap = cpu.trap_flag
                complete(cpu, trap)

        if guarded(cpu, execute) or completed:
            self._leave()
            return True
        # The translated code goes on and counts on the flags being as lazy as it left them.
        cpu.probe.restore_flags()
        return False

    def _leave(self) -> None:
        """Do not execute the instruction: go on where RIP points."""
        cpu = self._cpu
        cpu.native.redirect(cpu.env.q[EIP])
        cpu.probe.forget_last()
