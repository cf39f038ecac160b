"""Running one reproducer: assemble, build the machine, run it to its end, judge."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kvmscope.asm.image import Diagnostic, Image, Severity
from kvmscope.errors import EngineError, KvmscopeError, UsageError
from kvmscope.expr import calls, names, nearest
from kvmscope.reproducer.document import REQUIREMENTS, Reproducer
from kvmscope.reproducer.verdict import Result, Verdict

if TYPE_CHECKING:
    from kvmscope.vmm.engine import Stop
    from kvmscope.vmm.machine import Machine
    from kvmscope.vmm.snapshot import Snapshot

__all__ = ["ENGINES", "Overrides", "check_cpu", "check_engine", "judged", "run", "run_to_the_end"]

ENGINES: Final = ("unicorn", "kvm")
_BUILT_IN: Final = ("unicorn",)
_ABOUT_EXCEPTIONS: Final = frozenset(
    {"stop", "exception", "exceptions", "vector", "error_code", "fault_address", "fault_rip", "count"}
    | {"rip", "eip", "ip", "cr2"}
)
_BOOT_LINE: Final = re.compile(r"\Aline (\d+): ")
_BOOT_KEY: Final = re.compile(r"\A(\w+)(?:: ([\w.]+))?")
"""``entry`` or ``registers: rax = start``: how boot names a key of the header whose line it does not know."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says in place of the header; None leaves the header's word."""

    memory: int | None = None
    cpu: str | None = None
    smp: int | None = None
    quantum: int | None = None
    devices: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    max_instructions: int | None = None
    timeout: float | None = None
    environment: Mapping[str, str] | None = None

    def apply(self, reproducer: Reproducer) -> Reproducer:
        """The reproducer with these in force."""
        config = reproducer.config
        budget = config.budget
        if self.max_instructions is not None:
            budget = replace(budget, instructions=self.max_instructions)
        if self.timeout is not None:
            budget = replace(budget, seconds=self.timeout)
        config = replace(
            config,
            memory=config.memory if self.memory is None else self.memory,
            cpu=config.cpu if self.cpu is None else self.cpu,
            smp=config.smp if self.smp is None else self.smp,
            quantum=config.quantum if self.quantum is None else self.quantum,
            devices=config.devices if self.devices is None else self.devices,
            args=config.args if self.args is None else self.args,
            environment=config.environment if self.environment is None else self.environment,
            budget=budget,
        )
        # What the command line has said does not stand in the header.
        lines = {key: line for key, line in reproducer.lines.items() if getattr(self, key, None) is None}
        return replace(reproducer, config=config, lines=lines)


def check_engine(engine: str) -> str:
    """Why ``engine`` cannot be used here; empty when it can.  Raises UsageError for a name that is none."""
    if engine not in ENGINES:
        close = nearest(engine, ENGINES)
        hint = f"did you mean {close!r}?" if close else f"known: {', '.join(ENGINES)}"
        raise UsageError(f"unknown engine {engine!r}", hint=hint)
    return "" if engine in _BUILT_IN else f"the {engine} engine is not built into this version of kvmscope yet"


def check_cpu(name: str) -> None:
    """Raise UsageError for a CPU profile that cannot be."""
    from kvmscope.reproducer.catalog import check_profile

    check_profile(name)


def run(
    reproducer: Reproducer,
    *,
    engine: str = "unicorn",
    overrides: Overrides | None = None,
    on_output: Callable[[bytes], None] | None = None,
    cross_check: bool = False,
    explain: bool = False,
) -> Result:
    """Run ``reproducer`` to its end and judge it.

    ``on_output`` gets serial output as it comes.  ``cross_check`` has every assembler assemble it, and differences told.
    ``explain`` asks for an explanation of the end even when the verdict is pass.
    A user's mistake is an ERROR verdict; UsageError is raised for an unknown engine only.
    """
    started = time.monotonic()
    if overrides is not None:
        reproducer = overrides.apply(reproducer)
    result = _run(reproducer, engine, on_output, cross_check, explain)
    return replace(result, seconds=time.monotonic() - started)


def _run(
    reproducer: Reproducer, engine: str, on_output: Callable[[bytes], None] | None, cross_check: bool, explain: bool
) -> Result:
    missing = check_engine(engine) or _missing_requirement(reproducer, engine)
    if missing:
        return Result(Verdict.SKIP, engine, missing)
    # Imported here: a skip needs neither assembler nor engine.
    from kvmscope.reproducer.assembling import assemble_reproducer

    assembly = assemble_reproducer(reproducer, cross_check=cross_check)
    image = assembly.image
    if image is None:
        errors = sum(item.severity is Severity.ERROR for item in assembly.diagnostics)
        summary = f"does not assemble: {errors} error{'' if errors == 1 else 's'}"
        return Result(Verdict.ERROR, engine, summary, diagnostics=assembly.diagnostics)
    base = Result(Verdict.ERROR, engine, "", diagnostics=assembly.diagnostics)
    wrong = _unknown_names(reproducer, image)
    if wrong:
        return replace(base, summary="an expectation names what is not there", diagnostics=base.diagnostics + wrong)
    from kvmscope.vmm.machine import Machine

    try:
        # Nobody goes back here.
        machine = Machine(reproducer.config, image, engine=engine, history_limit=0)
    except KvmscopeError as error:
        return replace(base, summary=error.title, notes=(*base.notes, *_notes(error, reproducer)))
    try:
        return _judged(machine, reproducer, base, run_to_the_end(machine, on_output), explain)
    except EngineError as error:
        return replace(base, summary=error.title, notes=(*base.notes, *_notes(error, reproducer)))
    finally:
        machine.close()


def _missing_requirement(reproducer: Reproducer, engine: str) -> str:
    for name in reproducer.requires:
        if not _has(name, engine):
            return f"requires {REQUIREMENTS[name]} ({name})"
    return ""


def _has(name: str, engine: str) -> bool:
    if name == "kvm":
        return engine == "kvm"
    from kvmscope.asm import backends

    wanted = "gas" if name == "as" else name
    return any(backend.available for backend in backends() if backend.name == wanted)


def _unknown_names(reproducer: Reproducer, image: Image) -> tuple[Diagnostic, ...]:
    from kvmscope.reproducer.judge import unknown_names

    found = []
    for expectation in reproducer.expectations:
        message = unknown_names(expectation, image.symbols)
        if message:
            found.append(Diagnostic(expectation.line, 1, Severity.ERROR, f"expect {expectation.text}: {message}"))
    return tuple(found)


def _notes(error: KvmscopeError, reproducer: Reproducer) -> tuple[str, ...]:
    """The rest of a boot error, with the header's line as a place."""
    detail = _BOOT_LINE.sub(lambda match: f"{reproducer.filename}:{match.group(1)}: ", error.detail)
    key = _BOOT_KEY.match(detail)
    if key is not None:
        line = reproducer.lines.get(f"{key[1]}.{key[2]}") or reproducer.lines.get(key[1])
        detail = f"{reproducer.filename}:{line}: {detail}" if line else detail
    return tuple(part for part in (detail, f"hint: {error.hint}" if error.hint else "") if part)


def run_to_the_end(machine: Machine, on_output: Callable[[bytes], None] | None, *, every: float = 0.0) -> Stop:
    """Run until the guest ends or a budget does; ``on_output`` gets the serial output, looked at ``every`` so many seconds."""
    if on_output is None:
        return machine.run()
    shown = 0
    following = 0.0

    def show() -> None:
        nonlocal shown
        output = machine.serial[shown:]
        if output:
            shown += len(output)
            on_output(output)

    def look(_tick: int) -> None:
        nonlocal following
        now = time.monotonic()
        if now >= following:
            following = now + every
            show()

    stop = machine.run(progress=look)
    show()
    return stop


def _judged(machine: Machine, reproducer: Reproducer, base: Result, stop: Stop, explained: bool) -> Result:
    from kvmscope.vmm.engine import StopReason

    snapshot = machine.snapshot()
    result = judged(reproducer, snapshot, stop, machine.image.symbols, machine.debug_exit, base)
    # The other ends are told in full by the summary.
    unexpected = stop.reason in (StopReason.EXCEPTION, StopReason.TRIPLE_FAULT)
    if reproducer.self_judging:
        unexpected = stop.reason not in (StopReason.DEBUG_EXIT, StopReason.BUDGET)
    if explained or (unexpected and result.verdict is not Verdict.PASS):
        from kvmscope.debug.explain import explain

        result = replace(result, explanation=explain(stop, snapshot, machine.image))
    return result


def judged(
    reproducer: Reproducer,
    snapshot: Snapshot,
    stop: Stop,
    symbols: Mapping[str, int],
    debug_exit: int | None,
    base: Result | None = None,
) -> Result:
    """The verdict on a guest that has come to ``stop``, whoever ran it.

    ``debug_exit`` is the value written to port 0xf4, None if nothing was; ``base`` holds what is known already.
    """
    from kvmscope.debug.run_scope import RunScope
    from kvmscope.reproducer.judge import judge
    from kvmscope.reproducer.registers import register_values

    base = base or Result(Verdict.ERROR, "", "")
    result = replace(
        base,
        stop=stop,
        snapshot=snapshot,
        expectations=judge(reproducer.expectations, RunScope(snapshot, symbols, debug_exit)),
        instructions=snapshot.tick,
        events=snapshot.events,
        serial=snapshot.serial,
        debug_exit=debug_exit,
        registers=register_values(snapshot.cpu),
        notes=(*base.notes, *_unmentioned(reproducer, stop)),
    )
    if reproducer.self_judging:
        from kvmscope.reproducer.image_verdict import judge_image

        return judge_image(result, stop)
    return _verdict(result, reproducer, stop)


def _unmentioned(reproducer: Reproducer, stop: Stop) -> tuple[str, ...]:
    """A note when the run ended in a way that no expectation speaks of: the verdict is theirs, but nobody should miss it."""
    used = {name.lower() for item in reproducer.expectations for name in names(item.expression)}
    used |= {call.function for item in reproducer.expectations for call in calls(item.expression)}
    if not reproducer.expectations:
        return ()
    if stop.reason.value in ("exception", "triple-fault") and not used & _ABOUT_EXCEPTIONS:
        return (f"note: the run ended by {stop.reason.value}, which no expectation mentions",)
    if stop.reason.value == "debug-exit" and stop.code and not used & {"stop", "debug_exit"}:
        return (f"note: the guest wrote {stop.code:#x} to the debug-exit port, which no expectation mentions",)
    return ()


def _verdict(result: Result, reproducer: Reproducer, stop: Stop) -> Result:
    from kvmscope.vmm.engine import StopReason

    asked = any("stop" in names(expectation.expression) for expectation in reproducer.expectations)
    how = f"{stop.reason.value}{f': {stop.detail}' if stop.detail else ''}"
    if not asked and stop.reason is StopReason.BUDGET:
        return replace(
            result,
            verdict=Verdict.ERROR,
            summary=f"out of budget: {stop.detail or 'limit reached'}",
            out_of_budget=True,
        )
    if not asked and stop.reason is StopReason.UNSUPPORTED:
        return replace(result, verdict=Verdict.SKIP, summary=f"the engine cannot do this exactly: {stop.detail}")
    if stop.reason is StopReason.ERROR:
        return replace(result, verdict=Verdict.ERROR, summary=f"the engine failed: {stop.detail}")
    if reproducer.expectations:
        total, bad = len(result.expectations), len(result.failed)
        met = not bad
        plural = "" if total == 1 else "s"
        summary = f"{total} expectation{plural} met" if met else f"{bad} of {total} expectation{plural} not met"
    else:
        met = stop.reason is StopReason.HLT or (stop.reason is StopReason.DEBUG_EXIT and stop.code == 0)
        summary = "ended well" if met else "ended badly"
    return _expected(replace(result, summary=f"{summary}, stopped by {how}"), reproducer, met)


def _expected(result: Result, reproducer: Reproducer, met: bool) -> Result:
    """Apply ``xfail`` (strict: passing is a failure) and ``kfail``."""
    if reproducer.xfail:
        if met:
            summary = f"XPASS: passed, but is expected to fail ({reproducer.xfail})"
            return replace(result, verdict=Verdict.FAIL, summary=summary)
        return replace(result, verdict=Verdict.XFAIL, summary=f"{reproducer.xfail} ({result.summary})")
    if reproducer.kfail and not met:
        return replace(result, verdict=Verdict.KFAIL, summary=f"{reproducer.kfail} ({result.summary})")
    return replace(result, verdict=Verdict.PASS if met else Verdict.FAIL)
