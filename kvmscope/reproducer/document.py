"""The reproducer: one self-contained text file, parsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kvmscope.asm.image import Image, Syntax
from kvmscope.errors import ExpressionError, ReproducerError, UsageError
from kvmscope.expr import Expression
from kvmscope.expr import parse as parse_expression
from kvmscope.reproducer.fields import Fields, Origin
from kvmscope.reproducer.header import find_header, parse_header, place
from kvmscope.reproducer.machine_fields import machine_config
from kvmscope.vmm.boot.layout import CODE_ORIGIN
from kvmscope.vmm.config import MachineConfig

__all__ = ["BACKENDS", "REQUIREMENTS", "TOP_LEVEL_KEYS", "Expectation", "Reproducer", "load", "parse"]

MAX_SOURCE: Final = 4 << 20
"""Largest file taken, in bytes."""

TOP_LEVEL_KEYS: Final = (
    "title",
    "link",
    "mode",
    "paging",
    "ring",
    "syntax",
    "cpu",
    "memory",
    "memory_size",
    "smp",
    "quantum",
    "devices",
    "entry",
    "origin",
    "args",
    "max_instructions",
    "timeout",
    "expect",
    "xfail",
    "kfail",
    "requires",
    "backend",
    "io_permission",
    "registers",
    "msrs",
    "handlers",
    "page",
    "descriptor",
)
BACKENDS: Final = ("auto", "keystone", "gas", "clang")
REQUIREMENTS: Final = {
    "as": "GNU as",
    "clang": "clang",
    "keystone": "the built-in assembler",
    "kvm": "a run on real KVM",
}
"""What ``requires`` may name; where it is missing the verdict is skip."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One line of ``expect``; ``line`` is the file's."""

    expression: Expression
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Reproducer:
    """A file: its source whole, and what its header says."""

    source: str
    filename: str
    config: MachineConfig
    syntax: Syntax = Syntax.INTEL
    origin: int = CODE_ORIGIN["long64"]
    expectations: tuple[Expectation, ...] = ()
    title: str = ""
    link: str = ""
    xfail: str = ""
    """Reason for which this must fail; passing is then a failure."""
    kfail: str = ""
    """Known bug because of which this may fail."""
    requires: tuple[str, ...] = ()
    backend: str = "auto"
    header_lines: tuple[int, int] | None = None
    """First and last line of the header; None: the file has none and runs with the defaults."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """The file's line of each header key, dotted: ``registers.rax``."""
    image: Image | None = None
    """The program of a file that is an image: nothing is assembled."""

    @property
    def bits(self) -> int:
        """Code size at entry: 16, 32 or 64."""
        return self.config.mode.bits

    @property
    def self_judging(self) -> bool:
        """An image that says itself whether it passed: by its exit status, as kvm-unit-tests do."""
        return self.image is not None and not self.config.mode.declared

    @property
    def timeout(self) -> float:
        """Wall-clock budget in seconds."""
        return self.config.budget.seconds

    @property
    def max_instructions(self) -> int:
        """Budget of instruction starts."""
        return self.config.budget.instructions

    @property
    def name(self) -> str:
        """The file's name without directory and suffix."""
        return Path(self.filename).stem


def load(path: Path) -> Reproducer:
    """Read and parse a file.

    Raises UsageError when it cannot be read, ReproducerError when it is not text or its header is wrong.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SOURCE + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_SOURCE:
        raise ReproducerError(f"{path} is larger than {MAX_SOURCE >> 20} MiB", hint="is it a source?")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        title = f"byte {data[error.start]:#04x} is not UTF-8"
        raise ReproducerError(title, f"{path}:{line}", "a source is a text file") from None
    return parse(text, str(path))


def parse(text: str, filename: str) -> Reproducer:
    """The reproducer that ``text`` is; a file without a header runs with the defaults.

    Raises ReproducerError; its detail begins with ``file:line``.
    """
    syntax = Syntax.ATT if Path(filename).suffix.lower() == ".s" else Syntax.INTEL
    header = find_header(text, filename)
    if header is None:
        return Reproducer(text, filename, MachineConfig(), syntax)
    values, places = parse_header(header, text, filename)
    fields = Fields(values, Origin(filename, text, header, places))
    fields.only(TOP_LEVEL_KEYS)
    if fields.has("xfail") and fields.has("kfail"):
        raise fields.error("xfail and kfail exclude each other", "kfail")
    config = machine_config(fields)
    return Reproducer(
        source=text,
        filename=filename,
        config=config,
        syntax=fields.choice("syntax", {word.value: word for word in Syntax}, syntax),
        origin=_origin(fields, config),
        expectations=_expectations(fields),
        title=fields.text("title"),
        link=fields.text("link"),
        xfail=_reason(fields, "xfail"),
        kfail=_reason(fields, "kfail"),
        requires=_requires(fields),
        backend=fields.choice("backend", {name: name for name in BACKENDS}, "auto"),
        header_lines=(header.first, header.last),
        lines={".".join(map(str, path)): header.line(places.line(path)) for path in (*places.tables, *places.entries)},
    )


def _origin(fields: Fields, config: MachineConfig) -> int:
    return fields.integer("origin", CODE_ORIGIN[config.mode.value], 0, config.memory - 1)


def _expectations(fields: Fields) -> tuple[Expectation, ...]:
    out = []
    for number, text in enumerate(fields.texts("expect")):
        line = fields.origin.line(("expect", number))
        try:
            out.append(Expectation(parse_expression(text), text, line))
        except ExpressionError as error:
            caret = "\n".join(f"    {part}" for part in error.detail.split("\n"))
            where = place(fields.origin.text, fields.origin.filename, line).split("\n")[0]
            raise ReproducerError(f"expect: {error.title}", f"{where}\n{caret}", error.hint) from None
    return tuple(out)


def _reason(fields: Fields, key: str) -> str:
    reason = fields.text(key)
    if fields.has(key) and not reason.strip():
        raise fields.error(f"{key} needs a reason", key)
    return reason


def _requires(fields: Fields) -> tuple[str, ...]:
    wanted = fields.texts("requires")
    for number, name in enumerate(wanted):
        if name not in REQUIREMENTS:
            raise fields.origin.error(
                f"requires: unknown {name!r}", ("requires", number), f"known: {', '.join(REQUIREMENTS)}"
            )
    return wanted
