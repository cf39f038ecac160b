"""Commands for a machine with several vCPUs: which there are, which one is looked at, which get turns.

Only ``freeze``, ``thaw`` and gdb's ``set scheduler-locking`` touch the guest's history: who gets turns is part of it, so
done in the past they cut off the future.
"""

from __future__ import annotations

from collections.abc import Iterable

from kvmscope.debug.commands.arguments import evaluate_int, numbers
from kvmscope.debug.commands.model import Command, CommandContext, CommandResult
from kvmscope.debug.explain.model import Guest
from kvmscope.errors import UsageError
from kvmscope.vmm.snapshot import Snapshot, VcpuView

__all__ = ["VCPUS", "info_vcpus", "scheduler_locking", "vcpu_names"]


def vcpu_names(context: CommandContext) -> list[str]:
    """The numbers of the vCPUs, for completion."""
    return [str(vcpu.index) for vcpu in context.machine.snapshot().vcpus] or ["0"]


def _mode(vcpu: VcpuView) -> str:
    """``64-bit CPL 0``, ``v86 16-bit CPL 3``, ``real mode``."""
    cpu = vcpu.cpu
    if not cpu.cr0 & 1:
        return "real mode"
    return f"{'v86 ' if cpu.rflags >> 17 & 1 else ''}{cpu.mode}-bit CPL {cpu.cpl}"


def info_vcpus(argument: str, context: CommandContext) -> list[str]:
    """``* 0  active  64-bit CPL 0  turn  0x401000 <start>, line 3``, one row a vCPU."""
    snapshot = context.machine.snapshot()
    if not snapshot.vcpus:
        return [f"One vCPU, at {context.guest().place()}"]
    chosen = _chosen(argument, snapshot) if argument.strip() else {vcpu.index for vcpu in snapshot.vcpus}
    rows = [("  vCPU", "activity", "mode", "turn", "next instruction")]
    for vcpu in snapshot.vcpus:
        if vcpu.index in chosen:
            mark = "*" if vcpu.index == snapshot.vcpu else " "
            turn = "frozen" if vcpu.frozen else "next" if vcpu.next else ""
            place = Guest.of(snapshot, context.machine.image, vcpu.cpu).place()
            rows.append((f"{mark} {vcpu.index}", vcpu.activity.value, _mode(vcpu), turn, place))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return ["  ".join((*(f"{row[i]:<{widths[i]}}" for i in range(4)), row[4])) for row in rows]


def _chosen(argument: str, snapshot: Snapshot) -> set[int]:
    """The vCPUs that ``argument`` names: numbers, ranges, ``all`` or ``others``.  Raises UsageError."""
    every = {vcpu.index for vcpu in snapshot.vcpus} or {0}
    word = argument.strip()
    if word == "all":
        return every
    if word == "others":
        return every - {snapshot.vcpu}
    chosen = set(numbers(argument, "vCPU"))
    absent = sorted(chosen - every)
    if absent:
        raise UsageError(f"There is no vCPU {absent[0]}", f"the machine has {len(every)}: 0 to {max(every)}")
    return chosen


def _thread(argument: str, letters: str, context: CommandContext) -> CommandResult:
    machine = context.machine
    if not argument.strip():
        return CommandResult((_here(context),))
    machine.select(evaluate_int(argument, context))
    return CommandResult((_here(context),), changed=True)


def _here(context: CommandContext) -> str:
    snapshot = context.machine.snapshot()
    activity = next((vcpu.activity.value for vcpu in snapshot.vcpus if vcpu.index == snapshot.vcpu), "")
    return f"vCPU {snapshot.vcpu}{f', {activity}' if activity else ''}: {context.guest().place()}"


def _hold(frozen: Iterable[int], context: CommandContext) -> CommandResult:
    """Freeze exactly these, unless they are frozen already: an edit cuts off the future."""
    machine = context.machine
    before = {vcpu.index for vcpu in machine.snapshot().vcpus if vcpu.frozen}
    wanted = set(frozen)
    if wanted != before:
        machine.freeze(wanted)
    held = ", ".join(str(vcpu) for vcpu in sorted(wanted))
    text = f"frozen: {held}" if wanted else "every vCPU gets its turn"
    return CommandResult((text,), changed=wanted != before)


def _freeze(argument: str, letters: str, context: CommandContext) -> CommandResult:
    snapshot = context.machine.snapshot()
    if not argument.strip():
        raise UsageError("freeze needs vCPUs", hint="freeze 1 3, freeze others; thaw lets them go on")
    return _hold({vcpu.index for vcpu in snapshot.vcpus if vcpu.frozen} | _chosen(argument, snapshot), context)


def _thaw(argument: str, letters: str, context: CommandContext) -> CommandResult:
    snapshot = context.machine.snapshot()
    chosen = _chosen(argument, snapshot) if argument.strip() else {vcpu.index for vcpu in snapshot.vcpus}
    return _hold({vcpu.index for vcpu in snapshot.vcpus if vcpu.frozen} - chosen, context)


def scheduler_locking(argument: str, context: CommandContext) -> CommandResult:
    """gdb's ``set scheduler-locking on|off``: only the vCPU that is looked at gets turns, or every one."""
    word = argument.strip().lstrip("= ")
    if word not in ("on", "off"):
        raise UsageError(
            "scheduler-locking is on or off", argument.strip(), "on freezes all vCPUs but the selected one"
        )
    snapshot = context.machine.snapshot()
    return _hold(_chosen("others", snapshot) if word == "on" else (), context)


VCPUS = (
    Command("thread", ("vcpu", "t"), "thread [N]", "Look at vCPU N, and step it", _thread, "vcpu"),
    Command("freeze", (), "freeze N... | others", "Give these vCPUs no turn", _freeze, "vcpu"),
    Command("thaw", (), "thaw [N...]", "Give frozen vCPUs their turn again, all without a number", _thaw, "vcpu"),
)
"""The table of these commands."""
