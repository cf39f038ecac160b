"""Unicorn's interrupt and invalid-instruction hooks: what raised an event, and what is done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn import decode, extended, privileged
from kvmscope.vmm.unicorn.breakpoints import is_repeating
from kvmscope.vmm.unicorn.checks import beyond_limit
from kvmscope.vmm.unicorn.completion import BS, complete, guarded, settle
from kvmscope.vmm.unicorn.controls import DebugFault
from kvmscope.vmm.unicorn.delivery import DB, GP, PF, UD, deliver
from kvmscope.vmm.unicorn.env import (
    CR,
    EIP,
    ERROR_CODE,
    IS_INT,
    OLD_EXCEPTION,
)
from kvmscope.vmm.unicorn.faults import Fault, Unsupported
from kvmscope.vmm.unicorn.native import INTR, INVALID, HookKind
from kvmscope.vmm.unicorn.privileged import Intercept
from kvmscope.vmm.unicorn.probe import COUNTER, LAST, LIMIT, NOWHERE, PREVIOUS
from kvmscope.vmm.unicorn.refine import general_protection, undo_branch, undo_branch_from, write_intent

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.vmm.unicorn.native import Native

__all__ = ["EventHooks"]

_SVM_EXIT: Final = 0x100
_WINDOW: Final = _SVM_EXIT + Intercept.INTR
_HAS_ERROR: Final = frozenset({8, 10, 11, 12, 13, 14, 17})
_CHANGES_MODE: Final = frozenset({Intercept.IRET, Intercept.WRITE_CR0, Intercept.WRITE_CR0 + 4})


class EventHooks:
    """The two hooks of one processor."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._retried = NOWHERE
        """Address whose fetch fault is being retried as a block of one instruction."""
        self.intercepts = frozenset(privileged.INTERCEPTS) | {Intercept.SWINT, Intercept.INTR}

    def install(self, native: Native) -> None:
        """Add the hooks."""
        native.hook(HookKind.INTR, INTR, self._on_interrupt)
        native.hook(HookKind.INVALID, INVALID, self._on_invalid, default=False)

    def _on_interrupt(self, _uc: int, number: int, _data: int) -> None:
        cpu = self._cpu
        env = cpu.env
        if number == _WINDOW:
            # Not an instruction's doing: an interrupt waits, and now it can be taken.
            env.interrupt_request.value = 0
            env.d[OLD_EXCEPTION] = 0xFFFFFFFF
            env.d[IS_INT] = 0
            cpu.break_slice()
            return
        try:
            try:
                if number >= _SVM_EXIT:
                    self._intercepted(number - _SVM_EXIT)
                else:
                    self._interrupt(number)
            except (Fault, DebugFault, Unsupported) as raised:
                settle(cpu, raised)
        except BaseException as error:
            cpu.native.fail(error)
        finally:
            # Left as they are, the next #PF would become #DF and the next exit would move RIP.
            env.d[OLD_EXCEPTION] = 0xFFFFFFFF
            env.d[IS_INT] = 0
            cpu.probe.forget_last()

    def _interrupt(self, number: int) -> None:
        cpu = self._cpu
        env = cpu.env
        if number == DB:
            if undo_branch(cpu):
                raise Fault(GP, 0)
            # Unicorn's own debug registers are inert: this is TF.
            resume = is_repeating(cpu, env.linear_ip, LAST)
            deliver(cpu, DB, dr6=BS | cpu.debug.take(), trap=True, resume=resume)
        elif cpu.probe.fields[LAST] != env.linear_ip:
            if number == GP and undo_branch(cpu):
                # The branch was counted when it started.
                raise Fault(GP, 0)
            self._fetch_fault(number)
        else:
            cpu.probe.restore_flags()
            cpu.debug.hits = 0
            if number == GP and not env.d[ERROR_CODE]:
                number = general_protection(cpu)
            code = env.d[ERROR_CODE] if number in _HAS_ERROR else None
            if number == PF:
                code = write_intent(cpu, env.d[ERROR_CODE], env.q[CR + 2])
            raise Fault(number, code, env.q[CR + 2])

    def _fetch_fault(self, vector: int) -> None:
        """A fault that came before the instruction at RIP was started: its bytes cannot be fetched.

        Unicorn translates ahead, so the bytes may belong to a later instruction of the same block; a block of one
        instruction tells.
        """
        cpu = self._cpu
        env, fields = cpu.env, cpu.probe.fields
        address, where = env.q[CR + 2], env.linear_ip
        if fields[COUNTER] >= fields[LIMIT]:
            # The run was over before this instruction.
            env.q[CR + 2] = cpu.cr2
            cpu.native.stop()
            return
        if vector == PF and address >> 12 != where >> 12 and self._retried != where:
            env.q[CR + 2] = cpu.cr2
            self._retried = where
            env.cflags_next.value = 1
            return
        self._retried = NOWHERE
        cpu.count_start()
        raise Fault(vector, env.d[ERROR_CODE] if vector in _HAS_ERROR else None, address)

    def code_limit(self) -> None:
        """Between two instructions: the one before may have been a branch beyond CS's limit, which faults there."""
        cpu = self._cpu
        if beyond_limit(cpu, cpu.env.linear_ip) and undo_branch_from(cpu, cpu.probe.fields[PREVIOUS]):
            guarded(cpu, lambda: deliver(cpu, GP, 0))

    def data_breakpoint(self) -> None:
        """Between two instructions: the one before hit a data or I/O breakpoint.

        MOV SS and POP SS put the trap off until after the next instruction.
        """
        cpu = self._cpu
        if cpu.shadow == 2:
            return
        resume = is_repeating(cpu, cpu.env.linear_ip, PREVIOUS)
        guarded(cpu, lambda: deliver(cpu, DB, dr6=cpu.debug.take(), trap=True, resume=resume))

    def _intercepted(self, code: int) -> None:
        cpu = self._cpu
        cpu.probe.restore_flags()
        if code == Intercept.SWINT:
            self._software_interrupt()
            return
        trap = cpu.trap_flag
        if code in _CHANGES_MODE:
            rip, mode = cpu.env.q[EIP], cpu.mode
            privileged.execute(cpu, code)
            cpu.note_mode(mode, rip)
        else:
            privileged.execute(cpu, code)
        complete(cpu, trap)

    def _software_interrupt(self) -> None:
        """INT n, INT3, INTO."""
        cpu = self._cpu
        data = decode.fetch(cpu)
        ins = decode.decode(cpu, data, modrm=False)
        length = ins.length
        if ins.opcode == 0xCD:
            vector = data[length]
            length += 1
        else:
            vector = 3 if ins.opcode == 0xCC else 4
        next_ip = cpu.env.q[EIP] + length & cpu.env.ip_mask
        deliver(cpu, vector, software=True, next_ip=next_ip)

    def _on_invalid(self, _uc: int, _data: int) -> bool:
        cpu = self._cpu
        try:
            guarded(cpu, self._invalid)
        except BaseException as error:
            cpu.native.fail(error)
        finally:
            cpu.env.d[OLD_EXCEPTION] = 0xFFFFFFFF
            cpu.probe.forget_last()
        return True

    def _invalid(self) -> None:
        cpu = self._cpu
        cpu.probe.restore_flags()
        cpu.debug.hits = 0
        data = decode.fetch(cpu)
        if extended.skip_prefix(cpu, data):
            return
        ins = decode.decode(cpu, data, modrm=False)
        trap = cpu.trap_flag
        if ins.map == 0 and ins.opcode == 0xF1 and not ins.lock:
            # ICEBP: a trap-like #DB that no DR6 bit marks.
            env = cpu.env
            env.q[EIP] = env.q[EIP] + ins.length & env.ip_mask
            deliver(cpu, DB, trap=True)
        elif extended.execute(cpu, ins):
            complete(cpu, trap)
        else:
            deliver(cpu, UD)
