"""The engine against bare Unicorn: steps with full state, counted and uncounted runs, exceptions, stopping a run."""

from __future__ import annotations

import threading
import time
from statistics import median

from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
from unicorn.x86_const import UC_X86_REG_RCX, UC_X86_REG_RIP, UC_X86_REG_RSP

from benchmarks.guests import (
    FAULT_HANDLERS,
    FAULT_TICKS,
    FAULTS,
    LOOP,
    LOOP_TICKS,
    MIXED,
    MIXED_TICKS,
    ORIGIN,
    machine,
)
from benchmarks.measure import Row, alternate, percentile, seconds

STEPS = 20_000
TURNS = 2_000_000
PAIRS = 5_000
STOPS = 40
STOP_TICKS = 100_000_000


def bare(code: bytes) -> Uc:
    """Unicorn as it comes, with ``code`` at the same address."""
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(0, 16 << 20)
    uc.mem_write(ORIGIN, code)
    uc.reg_write(UC_X86_REG_RSP, 0x80000)
    uc.reg_write(UC_X86_REG_RIP, ORIGIN)
    return uc


def rows() -> list[Row]:
    out = []
    for name, code in (("registers", LOOP), ("memory", MIXED)):
        out.append(_steps(name, code))
    for name, code, ticks in (("registers", LOOP, LOOP_TICKS), ("memory", MIXED, MIXED_TICKS)):
        out += _runs(name, code, ticks)
    return [*out, _exceptions(), _stops()]


def _steps(name: str, code: bytes) -> Row:
    ours, uc = machine(code), bare(code)

    def step_ours() -> None:
        for _ in range(STEPS):
            ours.step()
            _ = ours.cpu

    def step_bare() -> None:
        for _ in range(STEPS):
            uc.emu_start(uc.reg_read(UC_X86_REG_RIP), 0, count=1)

    a, b = alternate(step_ours, step_bare)
    ours.close()
    note = "ours: history kept, every register read"
    return Row(f"steps/s, {name}", f"{STEPS / a:,.0f}", f"{STEPS / b:,.0f}", "bare Unicorn, count=1, RIP", a / b, note)


def _runs(name: str, code: bytes, each: int) -> list[Row]:
    """Counted means that Unicorn counts instructions; a run that can be gone back through must be."""
    ticks = TURNS * each
    ours, uc = machine(code), bare(code)

    def run_ours() -> None:
        ours.run(ticks)

    def run_bare(count: int) -> None:
        uc.reg_write(UC_X86_REG_RCX, TURNS)
        uc.emu_start(ORIGIN, ORIGIN + len(code) - 1, count=count)

    a, b = alternate(run_ours, lambda: run_bare(1 << 60), 3)
    # The same blocks are not used again for both: counting is compiled into them.
    uc = bare(code)
    _, c = alternate(run_ours, lambda: run_bare(0), 3)
    ours.close()

    def mips(took: float) -> str:
        return f"{ticks / took / 1e6:,.0f}"

    return [
        Row(f"run MIPS, {name}", mips(a), mips(b), "bare Unicorn, counted", a / b, "ours: history kept"),
        Row(f"run MIPS, {name}", mips(a), mips(c), "bare Unicorn, uncounted", a / c),
    ]


def _exceptions() -> Row:
    """What an exception and its IRETQ add; the yardstick is a step."""
    faults, steps = machine(FAULTS, FAULT_HANDLERS), machine(LOOP)
    a, b = alternate(lambda: faults.run(PAIRS * FAULT_TICKS), lambda: [steps.step() for _ in range(PAIRS)])
    faults.close()
    steps.close()
    return Row("exception + IRETQ", f"{a / PAIRS * 1e6:.0f} us", f"{b / PAIRS * 1e6:.0f} us", "a step", a / b)


def _stops() -> Row:
    """From `wake` to the end of a run of 100 million instructions in another thread."""
    guest = machine(MIXED)
    times = []
    for _ in range(STOPS):
        cancel = threading.Event()
        thread = threading.Thread(target=guest.run, args=(STOP_TICKS,), kwargs={"cancel": cancel})
        thread.start()
        time.sleep(0.05)
        if not thread.is_alive():
            raise RuntimeError("the run ended before it was stopped")

        def stop(cancel: threading.Event = cancel, thread: threading.Thread = thread) -> None:
            cancel.set()
            guest.wake()
            thread.join()

        times.append(seconds(stop))
    guest.close()
    p50, p95 = median(times), percentile(times, 95)
    return Row("stop a run of 100M", f"{p50 * 1e3:.1f} ms", f"{p95 * 1e3:.1f} ms", "its own p95", p50 / p95)
