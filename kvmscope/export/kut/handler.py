"""The function that ends the program: what it records, and the way back."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kvmscope.export.kut.conditions import Needs, msr_constant
from kvmscope.export.kut.observe import Observed
from kvmscope.export.kut.program import Program
from kvmscope.export.kut.setup import Setup
from kvmscope.export.kut.text import chain, coded_mask, indent
from kvmscope.reproducer import Reproducer
from kvmscope.vmm.boot.layout import DEBUG_EXIT_PORT
from kvmscope.vmm.events import PortEvent

__all__ = ["StopHandler"]


class StopHandler:
    """Writes ``guest_stopped()``."""

    def __init__(
        self, reproducer: Reproducer, observed: Observed, program: Program, needs: Needs, setup: Setup
    ) -> None:
        self.config = reproducer.config
        self.observed = observed
        self.program = program
        self.needs = needs
        self.setup = setup

    def text(self, last: Sequence[str]) -> str:
        """``guest_stopped()``; ``last`` are the fields of the last exception that are recorded."""
        ends = [("EXIT_VECTOR", ["stop = STOP_DEBUG_EXIT;"])]
        if self.needs.debug_exit:
            ends[0][1].append(f"debug_exit = {self._exit_width()};")
        if self.program.has_hlt:
            ends.append(("HLT_VECTOR", ["stop = STOP_HLT;"]))
        values = {
            "vector": "regs->vector",
            "error_code": f"BIT(regs->vector) & {coded_mask()} ? regs->error_code : -1ul",
            "fault_rip": "regs->rip",
            "fault_address": "read_cr2()",
        }
        other = ["stop = STOP_EXCEPTION;", *(f"last.{name} = {values[name]};" for name in last)]
        other += ["count[regs->vector]++;"] * self.needs.counts + ["exceptions++;"] * self.needs.total
        blocks = [(f"if (regs->vector == {vector})", body) for vector, body in ends] + [("", other)]
        lines = [
            "/* The program may have left DF set, which C takes to be clear. */",
            'asm volatile("cld" : : : "memory", "cc");',
            "guest = *regs;",
            chain(blocks),
        ]
        lines += self._captures()
        lines += [
            "",
            *self.setup.restore,
            "write_cr0(host_cr0);",
            "write_cr4(host_cr4);",
            "write_cr3(host_cr3);",
            "wrmsr(MSR_GS_BASE, host_gs_base);",
        ]
        if self._uses_debug_registers():
            lines.append("write_dr7(0x400);")
        if self.config.ring == 3 or "lgdt(&gdt_descr);" in self.setup.restore:
            lines += ["write_ds(KERNEL_DS);", "write_es(KERNEL_DS);"]
        lines += [
            "",
            "regs->rip = (ulong)leave_guest;",
            "regs->cs = KERNEL_CS;",
            "regs->rflags = X86_EFLAGS_FIXED;",
            "regs->ss = KERNEL_DS;",
            "regs->rsp = host_rsp;",
        ]
        body = "\n".join(indent(line) for line in lines)
        return f"static void guest_stopped(struct ex_regs *regs)\n{{\n{body}\n}}"

    def _exit_width(self) -> str:
        """The value of the OUT: as wide as it was in the run; 32 bits where none was seen."""
        sizes = {
            e.size for e in self.observed.events if isinstance(e, PortEvent) and e.write and e.port == DEBUG_EXIT_PORT
        }
        return {1: "(u8)regs->rax", 2: "(u16)regs->rax"}.get(max(sizes, default=4), "(u32)regs->rax")

    def _captures(self) -> list[str]:
        reads = {"efer": "rdmsr(MSR_EFER)", "fs.base": "rdmsr(MSR_FS_BASE)", "gs.base": "rdmsr(MSR_GS_BASE)"}
        lines = []
        for name in sorted(self.needs.control):
            if name in ("dr0", "dr1", "dr2", "dr3"):
                lines.append(f'asm volatile("mov %%{name}, %0" : "=r"(final.{name}));')
            else:
                lines.append(f"final.{name.replace('.', '_')} = {reads.get(name, f'read_{name}()')};")
        lines += [f"msr_{index:x} = rdmsr({msr_constant(index)});" for index in sorted(self.needs.msrs)]
        return lines

    def _uses_debug_registers(self) -> bool:
        text = "\n".join(self.program.lines)
        return bool(re.search(r"\bdr7\b|\bdb7\b", text)) or any(n.startswith("dr") for n in self.config.registers)
