"""The renderers on real machines: what is drawn is what the machine holds, at every step of the shipped reproducers."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmscope.reproducer.assembling import assemble_reproducer
from kvmscope.reproducer.document import parse
from kvmscope.ui.line_panel import plain
from kvmscope.ui.render.disassembly import disassembly_rows, place_window
from kvmscope.ui.render.registers import register_rows
from kvmscope.ui.view import View
from kvmscope.vmm.machine import Machine
from kvmscope.vmm.snapshot import Delta
from tests.ui.render.test_widths import every_row_of

ROOT = Path(__file__).parents[3] / "reproducers"
_STEPS = 40


@pytest.mark.parametrize("name", ["page-fault-write.asm", "real-mode-int.asm", "ring3-ist.asm", "serial-hello.asm"])
def test_every_step_draws_what_the_machine_holds(name):
    path = ROOT / name
    reproducer = parse(path.read_text(), str(path))
    image = assemble_reproducer(reproducer, cross_check=False).image
    assert image is not None
    machine = Machine(reproducer.config, image)
    anchor = None
    seen_events = 0
    try:
        for step in range(_STEPS):
            mark = machine.mark()
            if step:
                machine.step()
            snapshot = machine.snapshot()
            delta = machine.delta_since(mark) if step else Delta()
            view = View(snapshot, delta, image, reproducer.config)
            cpu = snapshot.cpu
            registers = plain(register_rows(view, 62))
            digits = {16: 4, 32: 8, 64: 16}[cpu.mode]
            assert any(f"{cpu.rip:0{digits}x}" in row for row in registers)
            assert any(f"{cpu.gpr[0]:x}" in row for row in registers if "ax " in row)
            anchor = place_window(view, anchor, 20)
            code = plain(disassembly_rows(view, 62, 20, anchor))
            here = [row for row in code if "▶" in row]
            assert len(here) == 1
            assert f"▶{cpu.pc:x}" in here[0].replace("▶0", "▶").replace("▶0", "▶")
            rows = every_row_of(view, 62)
            seen_events = max(seen_events, len(rows["timeline"]))
            if snapshot.stop.reason.final:
                break
    finally:
        machine.close()
    assert step > 3
    assert seen_events >= 1
