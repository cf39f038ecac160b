"""The guest program as a C `asm` block: comments kept as C comments, the ends of the guest turned into software interrupts.

In a kvm-unit-tests guest an OUT to the debug-exit port would end QEMU, and HLT would hang: both become an INT whose
handler reports.  INT changes no register and works at every privilege level.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from kvmscope.asm.gas_source import split_arguments, split_labels
from kvmscope.asm.image import Syntax
from kvmscope.asm.source import Line, clean
from kvmscope.export.kut.observe import Observed
from kvmscope.export.model import refuse
from kvmscope.reproducer import Reproducer
from kvmscope.vmm.boot.layout import DEBUG_EXIT_PORT
from kvmscope.vmm.events import ExceptionEvent, PortEvent

__all__ = ["TEST_IMAGE", "Program", "label_pattern", "program_of", "rename"]

_OUT: Final = re.compile(r"out[bwl]?$")
_NUMBER: Final = re.compile(
    r"(?<![\w.$%])\$?(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]+|[0-9][0-9_]*|[0-9][0-9a-fA-F]*[hH])(?!\w)"
)
_DX_LOAD: Final = re.compile(r"mov[lwq]?$|movabs$")
_DX_NAMES: Final = frozenset({"dx", "edx", "rdx", "%dx", "%edx", "%rdx"})
_FLOW: Final = re.compile(
    r"j\w+|call\w*|loop\w*|ret\w*|int\w*|iret\w*|sys\w+|hlt|cpuid|rdmsr|rdtscp?|i?mul\w*|i?div\w*|in[bwl]?|cdq|cqo|xchg\w*|pop\w*"
)
_FORBIDDEN: Final[Mapping[str, str]] = {
    "lidt": "the test catches exceptions through its own IDT, which the guest would replace",
    "lgdt": "the test's own GDT holds its code segment, which the guest would replace",
    "str": "TR holds another selector in kvm-unit-tests",
    "ltr": "the TSS has another selector in kvm-unit-tests",
    "lldt": "kvm-unit-tests have no LDT",
    "sldt": "kvm-unit-tests have no LDT",
    "sgdt": "the GDT is at another address in kvm-unit-tests",
    "sidt": "the IDT is at another address in kvm-unit-tests",
}
_SECTION: Final = frozenset(
    {".section", ".pushsection", ".popsection", ".previous", ".text", ".data", ".bss", ".subsection"}
)
_MODE: Final = frozenset({".code16", ".code32", ".code16gcc"})
_WIDTH: Final = 112
TEST_IMAGE: Final = (0x400000, 0x600000)
"""Where a kvm-unit-tests image lies, with room for its .bss."""


@dataclass(frozen=True, slots=True)
class Program:
    """The block's lines (C text) and what stands in it."""

    lines: tuple[str, ...]
    labels: tuple[str, ...]
    has_hlt: bool
    """Some HLT was turned into a software interrupt."""
    has_exit: bool
    mnemonics: frozenset[str]
    notes: tuple[str, ...] = ()
    """What the user should check."""


def label_pattern(names: Collection[str]) -> re.Pattern[str]:
    """Matches any of the labels as a whole word."""
    words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<![\w.$@])(?:{words})(?![\w$@])")


def rename(text: str, names: Mapping[str, str]) -> str:
    """``text`` with labels replaced, outside of string literals."""
    if not names:
        return text
    pattern = label_pattern(names)
    parts = re.split(r'("(?:\\.|[^"\\])*")', text)
    return "".join(
        part if part.startswith('"') else pattern.sub(lambda match: names[match.group()], part) for part in parts
    )


def program_of(
    reproducer: Reproducer, observed: Observed, exit_int: str, hlt_int: str, renamed: Mapping[str, str]
) -> Program:
    """The asm block's body.  Raises ExportError for what cannot run inside of another kernel."""
    return _Writer(reproducer, observed, exit_int, hlt_int, renamed).run()


class _Writer:
    def __init__(
        self, reproducer: Reproducer, observed: Observed, exit_int: str, hlt_int: str, renamed: Mapping[str, str]
    ) -> None:
        self.reproducer = reproducer
        self.observed = observed
        self.exit_int, self.hlt_int = exit_int, hlt_int
        self.renamed = renamed
        self.source = clean(reproducer.source)
        self.base = observed.image.sections[0].address
        self.end = max(section.end for section in observed.image.sections)
        self.labels: list[str] = []
        self.mnemonics: set[str] = set()
        self.has_hlt = self.has_exit = False
        self.dx: int | None = None
        image = observed.image
        self.exit_lines = {
            image.line_at(e.rip)
            for e in observed.events
            if isinstance(e, PortEvent) and e.write and e.port == DEBUG_EXIT_PORT
        }
        self.other_out_lines = {
            image.line_at(e.rip)
            for e in observed.events
            if isinstance(e, PortEvent) and e.write and e.port != DEBUG_EXIT_PORT
        }
        self.faulting_lines = {image.line_at(e.before.pc) for e in observed.events if isinstance(e, ExceptionEvent)}
        self.replaced: set[int] = set()
        self.notes: list[str] = []

    def run(self) -> Program:
        lines: list[str] = []
        header = self.reproducer.header_lines
        first_code = next((line.number for line in self.source.lines if line.statements), 1)
        for line in self.source.lines:
            if line.number < first_code or (header and header[0] <= line.number <= header[1]):
                continue
            lines.extend(self._line(line))
        while lines and not lines[-1].strip():
            lines.pop()
        missed = self.exit_lines - self.replaced - {None}
        if missed:
            number = min(line for line in missed if line is not None)
            why = "the debug exit is written in a macro or a repeated block, where it cannot be replaced"
            raise refuse(self.reproducer, number, "The guest's exit cannot be exported", why, "write the OUT out")
        return Program(
            tuple(lines), tuple(self.labels), self.has_hlt, self.has_exit, frozenset(self.mnemonics), tuple(self.notes)
        )

    def _line(self, line: Line) -> list[str]:
        comment = _comment(line)
        if not line.statements:
            return [f"/* {comment} */"] if comment else [""]
        out: list[str] = []
        for number, statement in enumerate(line.statements):
            labels, rest = split_labels(statement.text)
            for label in labels.split(":"):
                name = label.strip()
                if name:
                    if not name.isdigit() and name not in self.labels:
                        self.labels.append(name)
                    out.append(_string(self._names(f"{name}:")))
            if not rest:
                if comment and number == len(line.statements) - 1 and out:
                    out[-1] = _with_comment(out[-1], comment)
                continue
            text, was = self._statement(line.number, " ".join(_split_blanks(rest)))
            note = "; ".join(part for part in (was, comment if number == len(line.statements) - 1 else "") if part)
            out.append(_with_comment(_string("\t" + self._names(text)), note))
            if _FLOW.fullmatch(rest.split(None, 1)[0].lower()) or labels:
                self.dx = None if not rest.lower().startswith("mov") else self.dx
        return [part for item in out for part in item.split("\n")]

    def _names(self, text: str) -> str:
        return rename(text, self.renamed)

    def _statement(self, number: int, text: str) -> tuple[str, str]:
        """(the statement as exported, the original where it was replaced)."""
        words = text.split(None, 1)
        mnemonic = words[0].lower()
        arguments = words[1] if len(words) > 1 else ""
        if mnemonic in ("rep", "repe", "repne", "repz", "repnz", "lock") and arguments:
            self.mnemonics.add(arguments.split(None, 1)[0].lower())
        self.mnemonics.add(mnemonic)
        if mnemonic.startswith("."):
            return self._directive(number, mnemonic, arguments, text), ""
        if mnemonic in _FORBIDDEN:
            raise refuse(self.reproducer, number, f"{mnemonic.upper()} cannot be exported", _FORBIDDEN[mnemonic])
        if mnemonic == "hlt" and self._replace_hlt(number):
            self.has_hlt = True
            return self.hlt_int, text
        if _OUT.match(mnemonic) and self._is_exit(number, arguments):
            self.has_exit = True
            self.replaced.add(number)
            return self.exit_int, text
        self._track_dx(mnemonic, arguments)
        self._check_addresses(number, arguments)
        return text, ""

    def _replace_hlt(self, number: int) -> bool:
        # At CPL 3 HLT is #GP(0): where it was seen to fault it is part of the test.  Where nothing was seen, the ring
        # that the guest starts in decides.
        if number in self.faulting_lines:
            return False
        return self.reproducer.config.ring == 0 or self.observed.image.line_at(self.observed.final.pc - 1) == number

    def _is_exit(self, number: int, arguments: str) -> bool:
        if number in self.exit_lines:
            return True
        if number in self.other_out_lines or number in self.faulting_lines:
            return False
        parts = [part.strip().lower() for part in split_arguments(arguments)]
        if any(part.lstrip("%") == "dx" or part == "(%dx)" for part in parts):
            if self.dx is None:
                why = "this OUT is not executed here and the value of DX is not known: it might be the debug exit"
                hint = "load DX just before it, or write the port as a number"
                raise refuse(self.reproducer, number, "An OUT to DX cannot be exported", why, hint)
            return self.dx == DEBUG_EXIT_PORT
        return any(_number(part) == DEBUG_EXIT_PORT for part in parts)

    def _track_dx(self, mnemonic: str, arguments: str) -> None:
        parts = [part.strip().lower() for part in split_arguments(arguments)]
        if len(parts) != 2:
            return
        target, value = (parts[1], parts[0]) if self.reproducer.syntax is Syntax.ATT else (parts[0], parts[1])
        if target in _DX_NAMES:
            number = _number(value)
            self.dx = number & 0xFFFF if _DX_LOAD.match(mnemonic) and number is not None else None

    def _check_addresses(self, number: int, arguments: str) -> None:
        """An address of the program written as a number would point into the test image."""
        for match in _NUMBER.finditer(arguments):
            value = _number(match.group(1))
            if value is not None and self.base <= value < self.end and value >= 0x1000:
                why = f"{match.group(1)} is an address in the program, which is linked elsewhere in a test"
                raise refuse(self.reproducer, number, "An absolute address cannot be exported", why, "write a label")
            if value is None or not TEST_IMAGE[0] < value < TEST_IMAGE[1]:
                continue
            if self._in_memory_operand(arguments, match.start()):
                why = f"{match.group(1)} is where the test image lies: the program would overwrite its own test"
                raise refuse(self.reproducer, number, "An address cannot be exported", why, "use one below 4 MiB")
            self.notes.append(
                f"line {number}: {match.group(1)} must not be used as an address: the test image lies there"
            )

    def _in_memory_operand(self, arguments: str, position: int) -> bool:
        if self.reproducer.syntax is Syntax.ATT:
            return arguments[position - 1 : position] != "$" and not arguments.startswith("$", position)
        return any(m.start() <= position < m.end() for m in re.finditer(r"\[[^\]]*\]", arguments))

    def _directive(self, number: int, name: str, arguments: str, text: str) -> str:
        if name in _SECTION:
            why = "the program must be one section: the test has its own"
            raise refuse(self.reproducer, number, f"{name} cannot be exported", why)
        if name in _MODE and self.reproducer.config.mode.bits == 64:
            return text
        if name == ".org":
            first, *rest = split_arguments(arguments)
            value = _number(first.lower())
            if value is not None:
                return f".org guest_code + {value - self.reproducer.origin:#x}" + "".join(f", {part}" for part in rest)
        elif name in (".long", ".int", ".quad", ".word", ".short", ".equ", ".set", ".4byte", ".8byte"):
            self._check_addresses(number, arguments)
        return text


def _number(text: str) -> int | None:
    """A literal of either dialect; None for anything else."""
    bare = text.strip().lstrip("$").replace("_", "").lower()
    if re.fullmatch(r"[0-9][0-9a-f]*h", bare):
        return int(bare[:-1], 16)
    if re.fullmatch(r"0[0-7]+", bare):
        return int(bare, 8)
    try:
        return int(bare, 0)
    except ValueError:
        return None


def _comment(line: Line) -> str:
    """The comment of a line without its leader."""
    if line.statements:
        last = line.statements[-1]
        tail = line.raw[last.column - 1 + len(last.text) :]
    else:
        tail = line.raw
    text = tail.strip().lstrip("#;/* ").rstrip("*/ ").strip()
    return text.replace("*/", "* /").replace("/*", "/ *")


def _split_blanks(text: str) -> list[str]:
    """Words of a statement; blanks inside of strings are kept."""
    return re.findall(r'(?:[^\s"]|"(?:\\.|[^"\\])*")+', text)


def _string(text: str) -> str:
    """A C string literal with the line's end."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return f'"{escaped}\\n"'


def _with_comment(literal: str, comment: str) -> str:
    if not comment:
        return literal
    if len(literal) + len(comment) + 16 > _WIDTH:
        return f"/* {comment} */\n{literal}"
    tabs = "\t" * max(1, 5 - len(literal) // 8)
    return f"{literal}{tabs}/* {comment} */"
