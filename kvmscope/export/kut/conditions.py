"""Expectations as C conditions over what the generated test records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kvmscope.errors import ExpressionError
from kvmscope.export.kut.observe import Observed
from kvmscope.export.model import refuse
from kvmscope.expr import Binary, Call, Name, Node, Number, Text, names, to_c
from kvmscope.reproducer import Expectation, Reproducer
from kvmscope.vmm.engine import StopReason
from kvmscope.x86.exceptions import EXCEPTIONS, vector_of
from kvmscope.x86.msrs import msr_index
from kvmscope.x86.registers import BIT_TABLES, KNOWN_NAMES
from kvmscope.x86.state import GPR_NAMES

__all__ = [
    "KUT_MSRS",
    "KUT_VECTORS",
    "Condition",
    "Needs",
    "condition_of",
    "msr_constant",
    "register_part",
    "vector_constant",
]

KUT_VECTORS: Final = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 21})
"""Vectors for which kvm-unit-tests have an entry (lib/x86/desc.c)."""

KUT_MSRS: Final[Mapping[int, str]] = {
    0x10: "MSR_IA32_TSC",
    0x174: "MSR_IA32_SYSENTER_CS",
    0x175: "MSR_IA32_SYSENTER_ESP",
    0x176: "MSR_IA32_SYSENTER_EIP",
    0xC0000080: "MSR_EFER",
    0xC0000081: "MSR_STAR",
    0xC0000082: "MSR_LSTAR",
    0xC0000083: "MSR_CSTAR",
    0xC0000084: "MSR_SYSCALL_MASK",
    0xC0000100: "MSR_FS_BASE",
    0xC0000101: "MSR_GS_BASE",
    0xC0000102: "MSR_KERNEL_GS_BASE",
}

_STOPS: Final[Mapping[str, str]] = {
    StopReason.EXCEPTION.value: "STOP_EXCEPTION",
    StopReason.DEBUG_EXIT.value: "STOP_DEBUG_EXIT",
    StopReason.HLT.value: "STOP_HLT",
}
_WHY_NOT: Final[Mapping[str, str]] = {
    "serial": "the guest's serial output goes to the test's own log and cannot be read back",
    "ticks": "a count of instructions has no meaning outside of the embedded engine",
    "mode": "the test catches the guest's end in 64-bit mode",
    "mxcsr": "the test does not save SSE state",
    "pkru": "the test does not save PKRU",
    "xcr0": "the test does not save XCR0",
    "gdtr": "the GDT is at another address in kvm-unit-tests",
    "idtr": "the IDT is at another address in kvm-unit-tests",
    "tr": "TR holds another selector in kvm-unit-tests",
    "ldtr": "kvm-unit-tests have no LDT",
}
_EVENT_NAMES: Final = frozenset({"exception", "vector", "error_code", "fault_address", "fault_rip", "exceptions"})
_SELECTORS: Final = ("ds", "es", "fs", "gs")
_CONTROL: Final = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7")
_SIZES: Final = {
    "u8": "u8",
    "u16": "u16",
    "u32": "u32",
    "u64": "u64",
    "p8": "u8",
    "p16": "u16",
    "p32": "u32",
    "p64": "u64",
}
_LOW_BYTES: Final = {
    "al": "rax",
    "cl": "rcx",
    "dl": "rdx",
    "bl": "rbx",
    "spl": "rsp",
    "bpl": "rbp",
    "sil": "rsi",
    "dil": "rdi",
}
_HIGH_BYTES: Final = {"ah": "rax", "ch": "rcx", "dh": "rdx", "bh": "rbx"}


@dataclass
class Needs:
    """What the conditions ask the test to record."""

    last: set[str] = field(default_factory=set)
    """Of the last exception: ``vector``, ``error_code``, ``fault_rip``, ``fault_address``."""
    counts: bool = False
    """How often each vector was delivered."""
    total: bool = False
    """How many exceptions and interrupts were delivered."""
    stop: bool = False
    debug_exit: bool = False
    control: set[str] = field(default_factory=set)
    """Control and debug registers, selectors, ``fs.base`` and ``gs.base``."""
    msrs: set[int] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)

    @property
    def events(self) -> bool:
        """Something of the exceptions on the way is asked for."""
        return bool(self.last) or self.counts or self.total


@dataclass(frozen=True, slots=True)
class Condition:
    """One expectation in C, and its text."""

    c: str
    text: str
    line: int


def vector_constant(vector: int) -> str:
    """``PF_VECTOR``; a number for vectors without a name."""
    for entry in EXCEPTIONS:
        if entry.vector == vector and vector in KUT_VECTORS:
            return entry.mnemonic.lstrip("#").replace("MF9", "9") + "_VECTOR"
    return f"{vector:#x}"


def msr_constant(index: int) -> str:
    """``MSR_EFER``, or the index in hexadecimal."""
    return KUT_MSRS.get(index, f"{index:#x}")


def condition_of(
    expectation: Expectation, reproducer: Reproducer, observed: Observed, needs: Needs, renamed: Mapping[str, str]
) -> Condition:
    """The C condition; ``needs`` collects what it reads.  Raises ExportError for what a test cannot know."""
    writer = _Writer(expectation, reproducer, observed, needs, renamed)
    for name in names(expectation.expression):
        writer.check(name)
    try:
        text = to_c(expectation.expression, writer.translate)
    except ExpressionError as error:
        raise writer.refused(error.title) from None
    return Condition(text, expectation.text, expectation.line)


def register_part(name: str) -> tuple[str, str] | None:
    """(field of the saved frame, expression around it with ``{}``) of a register or its part."""
    if name in ("cs", "ss", "rip", "rflags", *GPR_NAMES):
        return name, "{}"
    if name in _LOW_BYTES:
        return _LOW_BYTES[name], "({} & 0xff)"
    if name in _HIGH_BYTES:
        return _HIGH_BYTES[name], "({} >> 8 & 0xff)"
    if name in ("eip", "eflags"):
        return "r" + name[1:], "(u64)(u32){}"
    if name.startswith("e") and "r" + name[1:] in GPR_NAMES:
        return "r" + name[1:], "(u64)(u32){}"
    if "r" + name in GPR_NAMES:
        return "r" + name, "({} & 0xffff)"
    if name[:-1] in GPR_NAMES and name[-1] in "dwb":
        return name[:-1], {"d": "(u64)(u32){}", "w": "({} & 0xffff)", "b": "({} & 0xff)"}[name[-1]]
    return None


class _Writer:
    def __init__(
        self,
        expectation: Expectation,
        reproducer: Reproducer,
        observed: Observed,
        needs: Needs,
        renamed: Mapping[str, str],
    ) -> None:
        self.expectation = expectation
        self.reproducer = reproducer
        self.observed = observed
        self.needs = needs
        self.renamed = renamed

    def refused(self, why: str) -> Exception:
        title = f"An expectation cannot be exported: {self.expectation.text}"
        return refuse(self.reproducer, self.expectation.line, title, why)

    def check(self, name: str) -> None:
        """Refuse names that the test cannot give a value, before anything is written."""
        lower = name.lower()
        if name in self.observed.image.symbols and lower not in KNOWN_NAMES:
            return
        stem = lower.split(".")[0]
        if lower in ("fs.base", "gs.base"):
            return
        if lower.startswith("xmm"):
            raise self.refused(f"{name}: the test does not save SSE state")
        if stem in _WHY_NOT:
            raise self.refused(f"{name}: {_WHY_NOT[stem]}")
        if "." in lower and stem in ("cs", "ss", *_SELECTORS) and lower.split(".")[1] not in ("selector", "rpl"):
            raise self.refused(f"{name}: software cannot read the hidden part of a segment register")

    def translate(self, node: Node) -> str | None:
        """The C text of a leaf of the expression; None leaves the node to `to_c`."""
        if isinstance(node, Binary) and node.operator in ("==", "!="):
            return self._comparison(node)
        if isinstance(node, Name):
            return self._name(node.name)
        if isinstance(node, Call):
            return self._call(node)
        return None

    def _comparison(self, node: Binary) -> str | None:
        for name, text in ((node.left, node.right), (node.right, node.left)):
            if isinstance(name, Name) and isinstance(text, Text):
                return f"({self._text(name.name, text.value, node.operator)})"
        return None

    def _text(self, name: str, text: str, operator: str) -> str:
        if name == "stop":
            constant = _STOPS.get(text)
            if constant is None:
                raise self.refused(
                    f"stop {operator} {text!r}: a test cannot observe this end (a triple fault resets it)"
                )
            self.needs.stop = True
            return f"stop {operator} {constant}"
        if name == "exception":
            self.needs.last.add("vector")
            if not text:
                return "last.vector == -1ul" if operator == "==" else "last.vector != -1ul"
            vector = vector_of(text)
            if vector is None:
                raise self.refused(f"no exception is called {text!r}")
            return f"last.vector {operator} {vector_constant(vector)}"
        raise self.refused(f"{name} cannot be compared with a text in C")

    def _name(self, name: str) -> str:
        lower = name.lower()
        if name in _EVENT_NAMES:
            if name == "exceptions":
                self.needs.total = True
                self._undelivered(None)
                return "exceptions"
            if name == "exception":
                raise self.refused("exception can be compared with a mnemonic only")
            self.needs.last.add(name)
            return f"last.{name}"
        if name == "debug_exit":
            self.needs.debug_exit = True
            return "debug_exit"
        if name == "stop":
            raise self.refused("stop can be compared with a text only")
        if name == "cpl":
            return "(guest.cs & 3)"
        if name in self.observed.image.symbols and lower not in KNOWN_NAMES:
            self.needs.labels.add(name)
            return f"(ulong){self.renamed.get(name, name)}"
        found = self._register(lower)
        if found is None:
            raise self.refused(f"{name} is not recorded by a test")
        return found

    def _register(self, name: str) -> str | None:
        part = register_part(name)
        if part is not None:
            return part[1].format(f"guest.{part[0]}")
        if name in _CONTROL or name in _SELECTORS:
            self.needs.control.add(name)
            return f"final.{name}"
        if name in ("fs.base", "gs.base"):
            self.needs.control.add(name)
            return f"final.{name.replace('.', '_')}"
        stem, _, field_name = name.partition(".")
        if field_name in ("selector", "rpl"):
            base = self._register(stem)
            return f"({base} & 3)" if field_name == "rpl" else base
        table = BIT_TABLES.get(stem if field_name else "rflags", ())
        for bit in table:
            if bit.name.lower() == (field_name or name):
                whole = "guest.rflags" if not field_name or stem == "rflags" else self._register(stem)
                return f"({whole} >> {bit.position} & {(1 << bit.width) - 1:#x})" if whole else None
        return None

    def _call(self, node: Call) -> str:
        argument = node.arguments[0]
        if node.function == "count":
            self.needs.counts = True
            vector = vector_of(argument.value) if isinstance(argument, Text) else None
            if isinstance(argument, Number):
                vector = argument.value
            if vector is None:
                raise self.refused("count() needs the name or number of a vector")
            self._undelivered(vector)
            return f"count[{vector_constant(vector)}]"
        if node.function == "msr":
            index = msr_index(argument.value) if isinstance(argument, Text) else None
            if isinstance(argument, Number):
                index = argument.value
            if index is None:
                raise self.refused("msr() needs the name or number of an MSR")
            self.needs.msrs.add(index)
            return f"msr_{index:x}"
        if node.function in _SIZES:
            kind = _SIZES[node.function]
            address = to_c(node.arguments[0], self.translate)
            if node.function.startswith("p"):
                address = f"phys_to_virt({address})"
            elif not isinstance(node.arguments[0], Number):
                address = f"({address})"
            return f"*(u64 *){address}" if kind == "u64" else f"(u64)*({kind} *){address}"
        raise self.refused(f"{node.function}() has no form in C")

    def _undelivered(self, vector: int | None) -> None:
        """Counts are those of handlers entered: an exception whose delivery failed is seen by the processor alone."""
        for event in self.observed.exceptions:
            consequence = any(
                other.parent == event.vector and other.tick == event.tick for other in self.observed.exceptions
            )
            if consequence and vector in (None, event.vector) and not event.delivered:
                raise self.refused("it counts an exception whose delivery fails, which no software sees")
