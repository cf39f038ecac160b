"""Stepping a machine: into, over, out, until, on; and the same backwards, exactly.

Backwards is another run: go to a place in the past and run forward again up to the place wanted.  Nothing is estimated;
where a search needs the past, it looks at windows of growing length until it finds its answer or the start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from kvmscope.debug.breakpoints import Breakpoint, Breakpoints
from kvmscope.debug.explain.model import Guest
from kvmscope.debug.explain.operands import Decoded, decode
from kvmscope.debug.frames import CALLS, RETURNS, Frame, follow, stack_pointer
from kvmscope.debug.machine import DebuggedMachine
from kvmscope.debug.run_scope import RunScope
from kvmscope.debug.turns import last_turn
from kvmscope.errors import ExpressionError
from kvmscope.expr import evaluate, truth
from kvmscope.vmm.engine import Stop, StopReason
from kvmscope.vmm.events import ExceptionEvent
from kvmscope.x86.state import CpuState, Seg

__all__ = ["Debugger"]

_FIRST_WINDOW: Final = 512
_GROWTH: Final = 8
_CANCEL_EVERY: Final = 256
"""Steps between two looks at the cancel event."""


class Debugger:
    """Steps one machine.  Every command takes a ``cancel`` event; set, it ends with reason PAUSED between instructions."""

    def __init__(self, machine: DebuggedMachine) -> None:
        self.machine = machine
        self.breakpoints = Breakpoints()

    # Forward

    def step(self, count: int = 1, *, cancel: threading.Event | None = None) -> Stop:
        """Execute ``count`` instructions (one iteration of a REP instruction counts as one)."""
        stop = self.machine.step()
        for done in range(1, count):
            if stop.reason is not StopReason.STEP:
                return stop
            if done % _CANCEL_EVERY == 0 and cancel is not None and cancel.is_set():
                return self.paused()
            stop = self.machine.step()
        return stop

    def over(self, *, cancel: threading.Event | None = None) -> Stop:
        """Like `step`, but a call, a software interrupt, a system call or a REP instruction runs to its end."""
        guest = self._guest()
        found = decode(guest)
        if found is None or not (found.mnemonic in CALLS or found.rep):
            return self.machine.step()
        cpu = guest.cpu
        target = self._linear_after(cpu, len(found.data))
        if found.rep:
            return self._run_to({target}, lambda now: True, cancel, own=True)
        depth = stack_pointer(cpu)
        # A recursive call reaches the same address deeper down the stack: that is not yet our return.
        return self._run_to({target}, lambda now: stack_pointer(now) >= depth or now.cpl != cpu.cpl, cancel, own=True)

    def out(self, *, cancel: threading.Event | None = None) -> Stop:
        """Run until the present function or handler returns: the return that finds RSP at or above where it is now.

        Calls made on the way and exceptions delivered meanwhile are run to their end, whatever stack they use.
        """
        base = stack_pointer(self._cpu())
        deliveries = steps = 0
        while True:
            steps += 1
            if steps % _CANCEL_EVERY == 0 and cancel is not None and cancel.is_set():
                return self.paused()
            guest = self._guest()
            found = decode(guest)
            name = found.mnemonic if found is not None else ""
            ours = name in RETURNS and not deliveries and stack_pointer(guest.cpu) >= base
            if name == "call":
                stop, delivered = self.over(cancel=cancel), False
            else:
                stop, delivered = self.traced_step()
            if stop.reason is not StopReason.STEP or (ours and not delivered):
                return stop
            if delivered:
                deliveries += 1
            elif deliveries and name.startswith("iret"):
                deliveries -= 1
            hit = self.hit_here(stop)
            if hit is not None:
                return hit

    def until(self, address: int, *, cancel: threading.Event | None = None) -> Stop:
        """Run until the instruction at linear ``address`` is about to execute, or a breakpoint is hit."""
        return self._run_to({address}, lambda now: True, cancel)

    def cont(self, *, cancel: threading.Event | None = None) -> Stop:
        """Run until a breakpoint, the end of the guest or of the budget."""
        return self._run_to(set(), lambda now: False, cancel)

    # Backwards

    def back(self, count: int = 1) -> Stop:
        """To the state before the last ``count`` instructions; of several vCPUs, those of the selected one."""
        if self.machine.vcpus == 1:
            return self.machine.goto(max(0, self.machine.tick - count))
        stop = self.machine.stop
        for _ in range(count):
            if not self.machine.tick:
                break
            stop = self._back_one()
        return stop

    def _back_one(self) -> Stop:
        machine = self.machine
        here = machine.tick
        stop = machine.goto(here - 1)
        if machine.turn == machine.vcpu:
            return stop
        try:
            found = last_turn(machine, here - 1)
        finally:
            machine.set_breakpoints(self.breakpoints.addresses())
        # A vCPU that has executed nothing sees what the others did undone.
        return machine.goto(here - 1 if found is None else found)

    def back_over(self, *, cancel: threading.Event | None = None) -> Stop:
        """To the state before the last instruction, taking a call that has just returned, and a REP, as one."""
        here = self.machine.tick
        if here == 0:
            return self.machine.goto(0)
        stop = self.back()
        before = self.machine.tick
        guest = self._guest()
        found = decode(guest)
        if found is None:
            return stop
        if found.rep:
            return self._rep_start(before, guest.cpu)
        if found.mnemonic in RETURNS:
            frame = self._search_frame(here, before, cancel)
            if frame is not None:
                return self.machine.goto(frame)
            if cancel is not None and cancel.is_set():
                self.machine.goto(here)
                return self.paused()
        return self.machine.goto(before)

    def back_out(self, *, cancel: threading.Event | None = None) -> Stop:
        """To the call (or the interrupted instruction) that led into the present function; else to the start."""
        here = self.machine.tick
        frame = self._search_frame(here, here, cancel)
        if frame is None and cancel is not None and cancel.is_set():
            self.machine.goto(here)
            return self.paused()
        return self.machine.goto(frame if frame is not None else 0)

    def back_until(self, address: int, *, cancel: threading.Event | None = None) -> Stop:
        """To the last earlier time the instruction at linear ``address`` (or a breakpoint) was about to execute."""
        return self._search_back({address}, cancel)

    def back_cont(self, *, cancel: threading.Event | None = None) -> Stop:
        """To the last earlier breakpoint; to the start when there is none."""
        return self._search_back(set(), cancel)

    # Running forward to something

    def _run_to(
        self,
        extra: set[int],
        arrived: Callable[[CpuState], bool],
        cancel: threading.Event | None,
        *,
        own: bool = False,
    ) -> Stop:
        """Run with the user's breakpoints and ``extra`` ones, which count when ``arrived`` says so.

        With ``own`` they count for the vCPU that is selected now and for no other.
        """
        vcpu = self.machine.vcpu
        self.machine.set_breakpoints(self.breakpoints.addresses() | extra)
        try:
            while True:
                stop = self.machine.run(cancel=cancel)
                if stop.reason is not StopReason.BREAKPOINT:
                    return stop
                cpu = self._cpu()
                if cpu.pc in extra and (not own or self.machine.vcpu == vcpu) and arrived(cpu):
                    return replace(stop, reason=StopReason.STEP, breakpoint=None)
                hit = self.hit_here(stop)
                if hit is not None:
                    return hit
                self.machine.select(vcpu)
                if cancel is not None and cancel.is_set():
                    return self.paused()
        finally:
            self.machine.set_breakpoints(self.breakpoints.addresses())

    def hit_here(self, stop: Stop) -> Stop | None:
        """The stop when a breakpoint of the user's is at the present address and its condition holds."""
        here = self._cpu().pc
        candidates = self.breakpoints.at(here)
        hits = [b for b in candidates if self._condition_holds(b)]
        if not hits:
            return None
        detail = ", ".join(f"breakpoint {b.number}" for b in hits)
        for found in hits:
            self.breakpoints.count_hit(found.number)
        return replace(stop, reason=StopReason.BREAKPOINT, breakpoint=here, detail=detail)

    def _condition_holds(self, found: Breakpoint) -> bool:
        """A condition that cannot be evaluated stops: hiding the error would hide the breakpoint."""
        if found.condition is None:
            return True
        scope = RunScope(self.machine.snapshot(), self.machine.image.symbols, self.machine.debug_exit)
        try:
            return truth(evaluate(found.condition, scope))
        except ExpressionError:
            return True

    # Searching the past

    def _search_back(self, extra: set[int], cancel: threading.Event | None) -> Stop:
        """The last tick before now at which a breakpoint (user's, or ``extra``) was about to execute."""
        here = self.machine.tick
        wanted = self.breakpoints.addresses() | extra
        if not wanted:
            return self.machine.goto(0)
        end, window = here, _FIRST_WINDOW
        while end > 0:
            start = max(0, end - window)
            last = self._last_hit(start, end, wanted, extra, cancel)
            if cancel is not None and cancel.is_set():
                self.machine.goto(here)
                return self.paused()
            if last is not None:
                stop = self.machine.goto(last)
                self.machine.select(self.machine.turn)
                address = self._cpu().pc
                hits = [b for b in self.breakpoints.at(address) if self._condition_holds(b)]
                for found in hits:
                    self.breakpoints.count_hit(found.number)
                if not hits:
                    return stop
                detail = ", ".join(f"breakpoint {b.number}" for b in hits)
                return replace(stop, reason=StopReason.BREAKPOINT, breakpoint=address, detail=detail)
            end, window = start, window * _GROWTH
        return self.machine.goto(0)

    def _last_hit(
        self, start: int, end: int, wanted: set[int], extra: set[int], cancel: threading.Event | None
    ) -> int | None:
        """The last tick in [start, end) with a wanted address at RIP and its condition met."""
        last: int | None = None
        machine = self.machine
        vcpu = machine.vcpu
        machine.goto(start)
        machine.set_breakpoints(wanted)
        try:
            if self._counts_here(wanted, extra):
                last = start
            while machine.tick < end:
                stop = machine.run(end - machine.tick, cancel=cancel)
                if stop.reason is not StopReason.BREAKPOINT or machine.tick >= end:
                    break
                if self._counts_here(wanted, extra):
                    last = machine.tick
        finally:
            machine.set_breakpoints(self.breakpoints.addresses())
            machine.select(vcpu)
        return last

    def _counts_here(self, wanted: set[int], extra: set[int]) -> bool:
        self.machine.select(self.machine.turn)
        address = self._cpu().pc
        if address not in wanted:
            return False
        return address in extra or any(self._condition_holds(b) for b in self.breakpoints.at(address))

    def _rep_start(self, last: int, state: CpuState) -> Stop:
        """The first iteration of the REP instruction whose last tick is ``last``.

        Each iteration takes one tick and one from the counter, so the counter tells whether an earlier tick belongs to
        the same execution of the instruction.
        """
        counter = state.gpr[1]

        def same(distance: int) -> bool:
            self.machine.goto(last - distance)
            cpu = self._cpu()
            return cpu.pc == state.pc and cpu.gpr[1] == counter + distance

        reach, limit = 0, last
        step = 1
        while reach + step <= limit and same(reach + step):
            reach += step
            step *= 2
        while step > 1:
            step //= 2
            if reach + step <= limit and same(reach + step):
                reach += step
        return self.machine.goto(last - reach)

    def _search_frame(self, here: int, end: int, cancel: threading.Event | None) -> int | None:
        """Tick of the last call or delivery before ``end`` that has not returned by then; None when there is none.

        Replays windows that reach back from ``here``, keeping the calls that have not returned.
        """
        window = _FIRST_WINDOW
        while True:
            start = max(0, here - window)
            frames = self._open_frames(start, end, cancel)
            if frames:
                return frames[-1].tick
            if frames is None or start == 0:
                return None
            window *= _GROWTH

    def _open_frames(self, start: int, end: int, cancel: threading.Event | None) -> list[Frame] | None:
        """Calls and deliveries made in [start, end) that have not returned by ``end``; None when cancelled."""
        self.machine.goto(start)
        frames: list[Frame] = []
        while self.machine.tick < end:
            tick = self.machine.tick
            if tick % _CANCEL_EVERY == 0 and cancel is not None and cancel.is_set():
                return None
            guest = self._guest()
            found = decode(guest)
            stop, delivered = self.traced_step()
            # Of several vCPUs the next step of this one may lie behind the end.
            if stop.reason.final or self.machine.tick > end:
                break
            mnemonic = found.mnemonic if found is not None else ""
            follow(frames, tick, mnemonic, guest.cpu, self._cpu(), delivered)
        return frames

    # The machine's state

    def decoded(self) -> Decoded | None:
        """The instruction about to execute; None when it cannot be read."""
        return decode(self._guest())

    def _cpu(self) -> CpuState:
        return self.machine.cpu

    def _guest(self) -> Guest:
        return Guest.of(self.machine.snapshot(), self.machine.image)

    def traced_step(self) -> tuple[Stop, bool]:
        """One step, and whether an exception or interrupt was delivered in it."""
        tick = self.machine.tick
        stop = self.machine.step()
        delivered = False
        for event in reversed(self.machine.events):
            # An event's tick counts the start of its own instruction.
            if event.tick <= tick:
                break
            ours = event.vcpu == self.machine.vcpu
            delivered = delivered or (ours and isinstance(event, ExceptionEvent) and event.delivered)
        return stop, delivered

    def _linear_after(self, cpu: CpuState, size: int) -> int:
        if cpu.mode == 64:
            return cpu.pc + size & (1 << 64) - 1
        mask = 0xFFFF if cpu.mode == 16 else 0xFFFFFFFF
        return cpu.segments[Seg.CS].base + (cpu.rip + size & mask) & 0xFFFFFFFF

    def paused(self) -> Stop:
        """The stop of a command that was cancelled here."""
        return Stop(StopReason.PAUSED, tick=self.machine.tick)
