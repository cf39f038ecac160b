"""The whole test: x86/NAME.c."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kvmscope.asm.image import Syntax
from kvmscope.export.kut.conditions import (
    KUT_VECTORS,
    Condition,
    Needs,
    condition_of,
    vector_constant,
)
from kvmscope.export.kut.fixed import ENTER, MAP_PAGE, TAKE_PAGES, record_stub
from kvmscope.export.kut.handler import StopHandler
from kvmscope.export.kut.observe import Observed
from kvmscope.export.kut.program import Program, program_of
from kvmscope.export.kut.setup import Setup, check_machine, setup_of
from kvmscope.export.kut.text import bit_names, indent, is_wrapped, wrapped
from kvmscope.export.model import refuse
from kvmscope.reproducer import Reproducer
from kvmscope.vmm.boot.layout import SELECTORS
from kvmscope.vmm.engine import StopReason
from kvmscope.x86.state import GPR_NAMES, Seg

__all__ = ["test_source"]

_EXIT_CANDIDATES: Final = (18, 16, 19, 5, 4)
"""Vectors that nothing but a stray machine check or FPU error raises, with an entry in kvm-unit-tests."""
_NO_CODE: Final = re.compile(r'"(?:\\.|[^"\\])*"|/\*.*?\*/', re.DOTALL)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w*")


def test_source(reproducer: Reproducer, observed: Observed) -> tuple[str, tuple[str, ...]]:
    """The C text, and notes for the user.  Raises ExportError naming what cannot be said in a test."""
    check_machine(reproducer)
    _check_end(reproducer, observed)
    # Labels that the C code or the library uses as names get a prefix: found by looking at a draft without them.
    labels = observed.image.symbols
    hidden = {label: f"label{number}{_HIDDEN}" for number, label in enumerate(labels)}
    draft = _Composer(reproducer, observed, hidden).text()
    used = _C_WORDS | set(_IDENTIFIER.findall(_NO_CODE.sub("", draft)))
    renamed = {label: f"guest_{label.strip('.$')}" for label in labels if label in used or not label.isidentifier()}
    composer = _Composer(reproducer, observed, renamed)
    return composer.text(), composer.program.notes


_HIDDEN: Final = "_of_the_program"
_C_WORDS: Final = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "main",
        "printf",
        "puts",
        "memset",
        "memcpy",
        "memcmp",
        "strlen",
        "exit",
        "abort",
        "report",
        "delay",
        "handler",
        "text",
        "data",
        "bss",
        "start",
        "end",
        "stext",
        "etext",
        "edata",
        "gdt",
        "tss",
        "idt_descr",
        "gdt_descr",
        "boot_idt",
        "ptl4",
        "ptl3",
        "ptl2",
        "ptl5",
        "stacktop",
        "start64",
        "page_root",
        "free",
        "malloc",
    ]
)


def _check_end(reproducer: Reproducer, observed: Observed) -> None:
    """Ends that a test can catch: an exception, the debug exit, HLT."""
    reason = observed.stop.reason
    if reason in (StopReason.EXCEPTION, StopReason.DEBUG_EXIT, StopReason.HLT):
        event = observed.stop.exception
        if reason is StopReason.EXCEPTION and event is not None and event.vector not in KUT_VECTORS:
            line = observed.image.line_at(event.before.pc)
            why = f"kvm-unit-tests have no entry for vector {event.vector:#x}, which ends this guest"
            raise refuse(reproducer, line, "The guest's end cannot be exported", why)
        return
    words = {
        StopReason.TRIPLE_FAULT: "it ends in a triple fault, which resets the machine: no test can report it",
        StopReason.BUDGET: f"it does not end: out of budget ({observed.stop.detail})",
        StopReason.UNSUPPORTED: f"the embedded engine cannot run it: {observed.stop.detail}",
    }
    why = words.get(reason, f"it ends with {reason.value}")
    raise refuse(reproducer, observed.image.line_at(observed.final.pc), "The guest's end cannot be exported", why)


class _Composer:
    def __init__(self, reproducer: Reproducer, observed: Observed, renamed: Mapping[str, str]) -> None:
        self.reproducer = reproducer
        self.config = reproducer.config
        self.observed = observed
        self.renamed = renamed
        taken = {handler.vector for handler in self.config.handlers} | {e.vector for e in observed.exceptions}
        free = [vector for vector in _EXIT_CANDIDATES if vector not in taken]
        if len(free) < 2:
            raise refuse(
                reproducer, reproducer.lines.get("handlers"), "The guest cannot be exported", "no vector is free"
            )
        self.exit_vector, self.hlt_vector = free[:2]
        att = reproducer.syntax is Syntax.ATT
        exit_int, hlt_int = (f"int {'$' if att else ''}{vector}" for vector in (self.exit_vector, self.hlt_vector))
        self.program: Program = program_of(reproducer, observed, exit_int, hlt_int, renamed)
        self.needs = Needs()
        self.conditions: list[Condition] = [
            condition_of(expectation, reproducer, observed, self.needs, renamed)
            for expectation in reproducer.expectations
        ]
        if not self.conditions:
            self.needs.stop = True
            self.needs.debug_exit = True
        record = self.needs.events and bool(self.config.handlers)
        self.setup: Setup = setup_of(reproducer, observed, self.program, renamed, record=record)

    def text(self) -> str:
        """The file."""
        parts = [
            self._comment(),
            self._includes(),
            self._declarations(),
            self._program(),
            ENTER,
            self._records(),
            "\n\n".join(self.setup.data),
            StopHandler(self.reproducer, self.observed, self.program, self.needs, self.setup).text(self._last_fields()),
            TAKE_PAGES if self.setup.takes_memory else "",
            MAP_PAGE if self.setup.pages else "",
            self._setup_function(),
            self._main(),
        ]
        return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"

    def _comment(self) -> str:
        lines = [self.reproducer.title or self.reproducer.name.replace("-", " ")]
        if self.reproducer.link:
            lines += ["", self.reproducer.link]
        lines += ["", f"Exported from {Path(self.reproducer.filename).name} by kvmscope."]
        return "/*\n" + "\n".join(f" * {line}".rstrip() for line in lines) + "\n */"

    def _includes(self) -> str:
        names = ["libcflat.h", "desc.h", "msr.h", "processor.h"]
        names += ["alloc_page.h", "list.h"] if self.setup.takes_memory else []
        names += ["vm.h"]
        return "\n".join(f'#include "{name}"' for name in names)

    # state

    def _control_fields(self) -> list[str]:
        return sorted(name.replace(".", "_") for name in self.needs.control)

    def _declarations(self) -> str:
        lines = ["/* INT with these vectors stands in the program for its debug exit and for HLT */"]
        lines.append(f"#define EXIT_VECTOR\t{vector_constant(self.exit_vector)}")
        if self.program.has_hlt:
            lines.append(f"#define HLT_VECTOR\t{vector_constant(self.hlt_vector)}")
        lines.append("")
        lines.append("enum guest_stop { STOP_NONE, STOP_EXCEPTION, STOP_DEBUG_EXIT, STOP_HLT };")
        lines.append("")
        lines.append("/* The program's registers: as it starts, and in the end as it stopped */")
        lines.append("static struct ex_regs guest;")
        lines.append("static enum guest_stop stop;")
        if self.needs.debug_exit:
            lines.append("static u64 debug_exit = -1ul;")
        if self._control_fields():
            lines.append(f"static struct {{\n\tu64 {', '.join(self._control_fields())};\n}} final;")
        lines += [f"static u64 msr_{index:x};" for index in sorted(self.needs.msrs)]
        lines.append("")
        lines.append("extern char guest_code[], leave_guest[];")
        if self.config.ring == 3:
            lines.append("extern char guest_start[], guest_end[];")
        labels = {*self.needs.labels, *self._setup_labels()}
        lines += [f"extern char {', '.join(f'{self.renamed.get(n, n)}[]' for n in sorted(labels))};"] if labels else []
        lines.append("void enter_guest(void);")
        return "\n".join(lines)

    def _setup_labels(self) -> set[str]:
        config = self.config
        found = {h.target for h in config.handlers if isinstance(h.target, str)} if not self.setup.counted else set()
        found |= {v for d in config.descriptors for v in d.fields.values() if isinstance(v, str)}
        found |= {c.address for c in config.contents if isinstance(c.address, str)}
        found |= {v for c in config.contents for _, v in c.words if isinstance(v, str)}
        found |= {v for v in config.registers.values() if isinstance(v, str)}
        found |= {config.entry} if isinstance(config.entry, str) else set()
        return {str(name) for name in found if name}

    # asm

    def _program(self) -> str:
        intel = self.reproducer.syntax is Syntax.INTEL
        ring3 = self.config.ring == 3
        lines = ["/* The program */", 'asm(".pushsection .text\\n"']
        lines.append('    ".balign 4096\\n"' if ring3 else "")
        lines.append('    "guest_start:\\n"' if ring3 else "")
        lines.append('    ".intel_syntax noprefix\\n"' if intel else "")
        lines.append('    "guest_code:\\n"')
        lines += [f"    {line}" if line else "" for line in self.program.lines]
        lines.append('    ".att_syntax prefix\\n"' if intel else "")
        lines.append('    ".code64\\n"' if ".code" in "".join(self.program.lines) else "")
        lines.append('    ".balign 4096\\n"' if ring3 else "")
        lines.append('    "guest_end:\\n"' if ring3 else "")
        lines.append('    ".popsection\\n");')
        return "\n".join(line for line in lines if line)

    def _records(self) -> str:
        """The last exception and counts; stubs that note an exception and go on to the program's own handler."""
        if not self.needs.events:
            return ""
        out = []
        if self.needs.last:
            fields = self._last_fields()
            initial = ", ".join("-1ul" for _ in fields)
            out.append(
                "/* The last exception, as delivered */\n"
                f"static struct {{\n\tu64 {', '.join(fields)};\n}} last __attribute__((used)) = {{ {initial} }};"
            )
        if self.needs.counts:
            out.append("static u64 __attribute__((used)) count[256];")
        if self.needs.total:
            out.append("static u64 __attribute__((used)) exceptions;")
        text = "\n".join(out)
        for handler in self.setup.counted:
            target = self._label(handler.target)
            stub = record_stub(
                handler.vector, target, self._last_fields(), counts=self.needs.counts, total=self.needs.total
            )
            text += "\n\n" + stub
        return text

    def _label(self, target: str | int) -> str:
        return self.renamed.get(target, target) if isinstance(target, str) else f"{target:#x}"

    def _last_fields(self) -> list[str]:
        return [name for name in ("vector", "error_code", "fault_rip", "fault_address") if name in self.needs.last]

    # C

    def _setup_function(self) -> str:
        vectors = sorted(KUT_VECTORS - {handler.vector for handler in self.config.handlers})
        listed = ", ".join(vector_constant(v) for v in vectors)
        listing = wrapped(f"static const u8 caught[] = {{ {listed} }};")
        body: list[str] = [listing]
        variables = ["pteval_t no_user = 0;", "int i;"]
        if "page <" in "\n".join(self.setup.lines):
            variables.append("ulong page;")
        body += variables
        body += [
            "",
            "/* Supervisor pages only, as far as not said otherwise */",
            "__setup_vm(&no_user);",
            *self.setup.lines,
            "",
            "/* Whatever the program does not handle ends it, on a stack of its own. */",
            "tss[0].ist7 = (ulong)stop_stack + sizeof(stop_stack);",
            "for (i = 0; i < ARRAY_SIZE(caught); i++) {",
            "\thandle_exception(caught[i], guest_stopped);",
            "\tboot_idt[caught[i]].ist = 7;",
            "}",
            "set_idt_dpl(EXIT_VECTOR, 3);",
            *(["set_idt_dpl(HLT_VECTOR, 3);"] if self.program.has_hlt else []),
        ]
        for vector in (3, 4):
            if vector not in {h.vector for h in self.config.handlers} | {self.exit_vector, self.hlt_vector}:
                body.append(f"set_idt_dpl({vector_constant(vector)}, 3);")
        return "static void setup_guest(void)\n{\n" + "\n".join(indent(line) for line in body) + "\n}"

    def _registers(self) -> list[str]:
        cpu = self.observed.initial
        lines = []
        values = dict(zip(GPR_NAMES, cpu.gpr, strict=True))
        labels = self.config.registers
        for name in GPR_NAMES:
            label = labels.get(name)
            if isinstance(label, str):
                lines.append(f"guest.{name} = (ulong){self.renamed.get(label, label)};")
            elif values[name]:
                self._plain(values[name], name)
                lines.append(f"guest.{name} = {values[name]:#x}{'ul' if values[name] > 0x7FFFFFFF else ''};")
        entry = self.config.entry
        offset = cpu.rip - self.observed.image.sections[0].address
        start = f"(ulong){self.renamed.get(entry, entry)}" if isinstance(entry, str) else "(ulong)guest_code"
        if not isinstance(entry, str) and offset:
            start += f" + {offset:#x}"
        lines.append(f"guest.rip = {start};")
        lines.append(f"guest.rflags = {cpu.rflags:#x};")
        lines.append(f"guest.cs = {cpu.segments[Seg.CS].selector:#x};")
        lines.append(f"guest.ss = {cpu.segments[Seg.SS].selector:#x};")
        return lines

    def _plain(self, value: int, name: str) -> None:
        if any(s.address <= value < s.end for s in self.observed.image.sections):
            line = self.reproducer.lines.get(f"registers.{name}")
            why = f"{value:#x} is an address in the program, which is linked elsewhere in a test"
            raise refuse(self.reproducer, line, f"{name} cannot be exported", why, "write a label")

    def _main(self) -> str:
        cpu = self.observed.initial
        lines: list[str] = []
        for condition, words in self.setup.features:
            lines.append(
                f'if (!{condition}) {{\n\treport_skip("{words}");\n\treturn report_summary();\n}}'.replace("!!", "")
            )
        lines += ["", "setup_guest();", ""] if lines else ["setup_guest();", ""]
        lines += self._registers()
        lines += [
            "",
            "host_cr0 = read_cr0();",
            "host_cr3 = read_cr3();",
            "host_cr4 = read_cr4();",
            "host_efer = rdmsr(MSR_EFER);",
            "host_gs_base = rdmsr(MSR_GS_BASE);",
            *self.setup.before,
            f"wrmsr(MSR_EFER, {bit_names('EFER', cpu.efer)});",
            f"write_cr4({bit_names('CR4', cpu.cr4)});",
            f"write_cr0({bit_names('CR0', cpu.cr0)});",
        ]
        if cpu.cr2:
            lines.append(f"write_cr2({cpu.cr2:#x}ul);")
        if cpu.cr8:
            lines.append(f"write_cr8({cpu.cr8:#x});")
        for number in range(4):
            if cpu.dr[number]:
                lines.append(f"write_dr{number}((void *){cpu.dr[number]:#x}ul);")
        if cpu.dr[6] not in (0, 0xFFFF0FF0):
            lines.append(f"write_dr6({cpu.dr[6]:#x}ul);")
        if cpu.dr[7] not in (0, 0x400):
            lines.append(f"write_dr7({cpu.dr[7]:#x}ul);")
        for name in ("ds", "es", "fs"):
            selector = cpu.segments[Seg[name.upper()]].selector
            if selector != SELECTORS.data:
                lines.append(f"write_{name}({selector:#x});")
        if cpu.segments[Seg.FS].base:
            lines.append(f"wrmsr(MSR_FS_BASE, {cpu.segments[Seg.FS].base:#x}ul);")
        lines.append(f"wrmsr(MSR_GS_BASE, {cpu.segments[Seg.GS].base:#x});")
        lines += ["enter_guest();", ""]
        if self.observed.stop.reason is not StopReason.EXCEPTION:
            lines += [
                "if (stop == STOP_EXCEPTION)",
                '\treport_info("ended by %s, error code %#lx, rip %#lx", exception_mnemonic(guest.vector),',
                "\t\t    guest.error_code, guest.rip);",
            ]
        lines += self._reports()
        # EFER.NXE gives the page tables their meaning as long as reports read memory.
        lines += ["", "wrmsr(MSR_EFER, host_efer);", "return report_summary();"]
        return "int main(int ac, char **av)\n{\n" + "\n".join(indent(line) for line in lines) + "\n}"

    def _reports(self) -> list[str]:
        conditions = self.conditions or [
            Condition(
                "(stop == STOP_DEBUG_EXIT && debug_exit == 0) || stop == STOP_HLT", "the program ends with status 0", 0
            )
        ]
        lines = []
        if self.reproducer.xfail or self.reproducer.kfail:
            lines.append(f"/* Known to fail: {self.reproducer.xfail or self.reproducer.kfail} */")
        for condition in conditions:
            message = condition.text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
            c = condition.c[1:-1] if is_wrapped(condition.c) else condition.c
            start = (
                f"report_xfail(true, {c},"
                if self.reproducer.xfail
                else f"report_kfail(true, {c},"
                if self.reproducer.kfail
                else f"report({c},"
            )
            single = f'{start} "{message}");'
            lines.append(single if len(single) <= 104 else f'{start}\n       "{message}");')
        return lines
