"""Step rate with full state against a bare Unicorn ``count=1`` loop; run rate counted against uncounted."""

from __future__ import annotations

from benchmarks.guests import LOOP, MIXED, ORIGIN, machine
from benchmarks.measure import Row, alternate

STEPS = 20_000
TICKS = 20_000_000


def _bare(code: bytes):  # type: ignore[no-untyped-def]
    from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
    from unicorn.x86_const import UC_X86_REG_RIP, UC_X86_REG_RSP

    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(0, 16 << 20)
    uc.mem_write(ORIGIN, code)
    uc.reg_write(UC_X86_REG_RSP, 0x80000)
    uc.reg_write(UC_X86_REG_RIP, ORIGIN)
    return uc, UC_X86_REG_RIP


def rows() -> list[Row]:
    out = []
    for name, code in (("registers", LOOP), ("memory", MIXED)):
        ours = machine(code)
        bare, rip = _bare(code)

        def step_ours(m=ours) -> None:  # type: ignore[no-untyped-def]
            for _ in range(STEPS):
                m.step()

        def step_bare(uc=bare, rip=rip) -> None:  # type: ignore[no-untyped-def]
            for _ in range(STEPS):
                uc.emu_start(uc.reg_read(rip), 0, count=1)

        a, b = alternate(step_ours, step_bare)
        out.append(
            Row(
                f"steps/s, {name}",
                f"{STEPS / a:,.0f}",
                f"{STEPS / b:,.0f}",
                "bare Unicorn, count=1 and RIP",
                b / a,
                "ours keeps history and whole state",
            )
        )
        ours.close()

        ours = machine(code)
        bare, rip = _bare(code)

        def run_ours(m=ours) -> None:  # type: ignore[no-untyped-def]
            m.run(TICKS)

        def run_counted(uc=bare, rip=rip) -> None:  # type: ignore[no-untyped-def]
            uc.emu_start(uc.reg_read(rip), 0, count=TICKS)

        def run_free(uc=bare, rip=rip) -> None:  # type: ignore[no-untyped-def]
            uc.emu_start(uc.reg_read(rip), 0, timeout=int(0.3e6))

        a, b = alternate(run_ours, run_counted, 3)
        out.append(
            Row(f"run MIPS, {name}", f"{TICKS / a / 1e6:.0f}", f"{TICKS / b / 1e6:.0f}", "bare Unicorn, counted", b / a)
        )
        ours.close()
    return out
