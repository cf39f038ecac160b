"""GNU as: the kernel's own assembler, and the judge of every byte where it is installed."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from kvmscope.asm.elfobj import SHN_ABS, SHN_COMMON, ObjectFile, ObjectSection, read_object, relocate
from kvmscope.asm.external import ToolRun, run_tool
from kvmscope.asm.fixed import NEWER_THAN_GAS
from kvmscope.asm.gas_source import ADDRESS_PREFIX, HEADER_LINES, GasSource, split_labels, translate
from kvmscope.asm.hints import hint_for, hint_for_symbol, place, place_symbol
from kvmscope.asm.image import Diagnostic, Image, LineEntry, Section, Severity, Syntax
from kvmscope.asm.limits import MAX_DIAGNOSTICS, MAX_OUTPUT
from kvmscope.asm.listing import LISTING_OPTIONS, Row, assign_sections, line_of_offset, parse_listing
from kvmscope.asm.placing import align_problems, overlaps
from kvmscope.asm.source import Line, Source

__all__ = ["Gas", "assemble_with_gas", "find_gas"]

_MESSAGE: Final = re.compile(r"(.*?):(?:(\d+):)?\s+(Error|Warning|Fatal error|Info|Internal error)[^:]*: (.*)")
_OFFSET: Final = re.compile(r"\bat ([0-9a-f]{4,})\Z")
_COUNTED: Final = re.compile(
    r"\.(space|skip|zero|fill|rept|irp|org|align|balign|p2align|macro)\b(.*)", re.IGNORECASE | re.DOTALL
)
_NUMBER: Final = re.compile(r"\b(?:0[xX][0-9a-fA-F]{1,16}|[1-9]\d{0,18})\b")
_CANDIDATES: Final = ("as", "x86_64-linux-gnu-as", "i686-linux-gnu-as")
_FUNCTION_SECTIONS: Final = (3, 4)
"""ELF symbol types of sections and files, which name no address."""


@dataclass(frozen=True, slots=True)
class Gas:
    """An installed GNU as for x86."""

    path: str
    version: str


def find_gas() -> Gas | None:
    """The GNU as for x86 on the user's PATH; None where there is none."""
    return _find_gas(os.environ.get("PATH", os.defpath))


@lru_cache(maxsize=8)
def _find_gas(path: str) -> Gas | None:
    for name in _CANDIDATES:
        found = shutil.which(name, path=path)
        if found is None:
            continue
        try:
            run = subprocess.run(
                [found, "--version"], capture_output=True, text=True, timeout=5, check=False,
                stdin=subprocess.DEVNULL, env={"LC_ALL": "C", "PATH": path},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            continue
        version = re.search(r"GNU assembler.*?(\d+\.[\d.]+)", run.stdout)
        if version and re.search(r"target of [`'‘](x86_64|i[3-6]86)", run.stdout):
            return Gas(found, version.group(1))
    return None


def assemble_with_gas(
    gas: Gas, source: Source, bits: int, syntax: Syntax, origin: int
) -> tuple[Image | None, list[Diagnostic]]:
    """Assemble ``source``; the image is None exactly when a diagnostic is an error."""
    image, diagnostics = _run(gas, source, bits, syntax, translate(source, bits, syntax, origin), origin)
    if image is None and any(found.token.lower() in NEWER_THAN_GAS for found in diagnostics):
        newer = translate(source, bits, syntax, origin, newer=True)
        return _run(gas, source, bits, syntax, newer, origin)
    return image, diagnostics


def _run(
    gas: Gas, source: Source, bits: int, syntax: Syntax, text: GasSource, origin: int
) -> tuple[Image | None, list[Diagnostic]]:
    if text.diagnostics:
        return None, list(text.diagnostics)
    with tempfile.TemporaryDirectory(prefix="kvmscope-as-") as directory:
        command = [
            gas.path, "--64" if text.wide else "--32", "--divide", "-aln=listing", *LISTING_OPTIONS,
            "--MD", "read", "-o", "object", "--",
        ]  # fmt: skip
        run = run_tool(command, text.text, directory)
        blob = _read(directory, "object")
        listing = _read(directory, "listing").decode(errors="replace")
        diagnostics = _messages(run, source, bits, syntax, listing, text)
        read = _read(directory, "read").decode(errors="replace")
    failed = any(found.severity is Severity.ERROR for found in diagnostics)
    if not failed and re.sub(r"^object:|\{standard input\}|[\\\s]", "", read):
        diagnostics.append(_whole("the source reads another file", "a reproducer is one self-contained file"))
        failed = True
    if not failed and (run.failure or run.status != 0 or not blob):
        diagnostics.append(_exhausted(run, source))
        failed = True
    if failed:
        return None, diagnostics
    try:
        obj = read_object(blob)
    except (ValueError, struct.error, IndexError, KeyError) as error:
        return None, [*diagnostics, _whole(f"the object of GNU as cannot be read: {error}")]
    return _Linker(obj, listing, source, text, bits, syntax, origin, diagnostics).link()


def _read(directory: str, name: str) -> bytes:
    try:
        with open(os.path.join(directory, name), "rb") as file:
            return file.read()
    except OSError:
        return b""


def _whole(message: str, hint: str = "") -> Diagnostic:
    return Diagnostic(1, 1, Severity.ERROR, message, hint)


def _exhausted(run: ToolRun, source: Source) -> Diagnostic:
    """The message for a source that used up what an assembler may use, at the statement that most likely did."""
    reason = run.failure or run.errors.strip().split("\n")[-1][:200] or "it wrote nothing"
    worst: tuple[int, Line] | None = None
    for line in source.lines:
        for statement in line.statements:
            match = _COUNTED.match(split_labels(statement.text)[1])
            if match is None:
                continue
            count = max((int(number, 0) for number in _NUMBER.findall(match.group(2))), default=0)
            if worst is None or count > worst[0]:
                worst = count, line
    hint = "a count is too large, or a macro calls itself without an end"
    if worst is None:
        return _whole(f"GNU as failed: {reason}", hint)
    column, length, token = place("", worst[1])
    return Diagnostic(worst[1].number, column, Severity.ERROR, f"GNU as failed: {reason}", hint, length, token)


def _messages(
    run: ToolRun, source: Source, bits: int, syntax: Syntax, listing: str, text: GasSource
) -> list[Diagnostic]:
    """The messages of `as`, each at its line and column."""
    found: list[Diagnostic] = []
    for row in run.errors.split("\n"):
        match = _MESSAGE.match(row)
        if match is None or len(found) >= MAX_DIAGNOSTICS:
            continue
        file, number, kind, message = match.groups()
        if file != "{standard input}":
            # Text of a file that was read in spite of all: none of it is shown.
            continue
        if number is None and (offset := _OFFSET.search(message)):
            # The last pass of `as` has forgotten the lines, not the places.
            number = str(line_of_offset(listing, HEADER_LINES, int(offset.group(1), 16), text.likely) + HEADER_LINES)
        if number is None:
            number = str(_line_of_quoted(message, source) + HEADER_LINES)
        line_number = min(max(int(number) - HEADER_LINES, 1), max(len(source.lines), 1))
        line = source.lines[line_number - 1]
        if kind == "Info":
            severity = Severity.NOTE
        else:
            severity = Severity.WARNING if kind == "Warning" else Severity.ERROR
        column, length, token = place(message, line)
        hint = "" if severity is Severity.NOTE else hint_for(message, line, syntax, bits)
        found.append(Diagnostic(line_number, column, severity, _plain(message), hint, length, token))
    return sorted(found, key=lambda diagnostic: diagnostic.line) if _ordered(found) else found


def _line_of_quoted(message: str, source: Source) -> int:
    """The first line that holds a name quoted in a message without a line; 1 if none does."""
    for name in re.findall(r"[`'‘]([^`'’]+)['’]", message):
        for line in source.lines:
            if re.search(rf"(?<![\w.$]){re.escape(name)}(?![\w.$])", line.text):
                return line.number
    return 1


def _ordered(found: list[Diagnostic]) -> bool:
    """True when no note belongs to the message before it, so that sorting keeps the sense."""
    return not any(diagnostic.severity is Severity.NOTE for diagnostic in found)


def _plain(message: str) -> str:
    """GNU's `quotes' as 'quotes'."""
    return re.sub(r"`([^`']*)'", r"'\1'", message)


class _Linker:
    """Decides addresses, relocates, and maps the bytes to lines."""

    def __init__(
        self, obj: ObjectFile, listing: str, source: Source, text: GasSource, bits: int, syntax: Syntax,
        origin: int, diagnostics: list[Diagnostic],
    ) -> None:  # fmt: skip
        self.obj = obj
        self.listing = listing
        self.source = source
        self.text = text
        self.bits = bits
        self.syntax = syntax
        self.origin = origin
        self.diagnostics = diagnostics
        self.loaded: list[ObjectSection] = []

    def link(self) -> tuple[Image | None, list[Diagnostic]]:
        self._add_common()
        self.loaded = [section for section in self.obj.sections.values() if section.loaded]
        if sum(section.size for section in self.loaded) > MAX_OUTPUT:
            message = f"the program has more than {MAX_OUTPUT >> 20} MiB"
            self.diagnostics.append(_whole(message, "declare large memory with [[memory]] or write it at run time"))
            return None, self.diagnostics
        addresses = self._declared()
        self._place(addresses)
        rows = assign_sections(parse_listing(self.listing, HEADER_LINES), self.loaded, self.text.likely)
        for section in self.loaded:
            if not section.data:
                section.data = bytearray(section.size)
        runs = [(section.name, section.address, section.size) for section in self.loaded]
        self.diagnostics += overlaps(runs)
        self.diagnostics += align_problems([(s.name, s.address, s.align) for s in self.loaded])
        rows.sort(key=lambda row: (row.section, row.offset))
        self._relocate(rows)
        if any(diagnostic.severity is Severity.ERROR for diagnostic in self.diagnostics):
            return None, self.diagnostics
        return self._image(rows), self.diagnostics

    def _add_common(self) -> None:
        """Give `.comm` symbols a place at the end of .bss."""
        bss = next((section for section in self.obj.sections.values() if section.name == ".bss"), None)
        if bss is None:
            return
        for i, symbol in enumerate(self.obj.symbols):
            if symbol.section == SHN_COMMON:
                # A common symbol's value is its alignment.
                offset = -(-bss.size // max(symbol.value, 1)) * max(symbol.value, 1)
                self.obj.symbols[i] = replace(symbol, value=offset, section=bss.index)
                bss.size = offset + symbol.size
                bss.align = max(bss.align, symbol.value)

    def _declared(self) -> dict[str, int]:
        """Addresses given with ``.section NAME, ADDRESS``."""
        addresses: dict[str, int] = {}
        for symbol in self.obj.symbols:
            if not symbol.name.startswith(ADDRESS_PREFIX):
                continue
            name = symbol.name.removeprefix(ADDRESS_PREFIX)
            if symbol.section == SHN_ABS:
                addresses[name] = symbol.value
                continue
            line = next((x for x in self.source.lines if name in x.text and ".section" in x.text), self.source.lines[0])
            column, length, token = place_symbol(name, line)
            message = f"the address of section {name} is not a constant"
            hint = "write a number, or a constant of .equ"
            self.diagnostics.append(Diagnostic(line.number, column, Severity.ERROR, message, hint, length, token))
        return addresses

    def _place(self, addresses: dict[str, int]) -> None:
        """.text at the origin, sections with an address there, the others one after another behind .text."""
        text = next((section for section in self.obj.sections.values() if section.name == ".text"), None)
        cursor = addresses.get(".text", self.origin) + (text.size if text is not None else 0)
        for section in self.obj.sections.values():
            if section.name == ".text":
                section.address = addresses.get(".text", self.origin)
            elif section.name in addresses:
                section.address = addresses[section.name]
            elif section.loaded:
                section.address = cursor + -cursor % section.align
                cursor = section.address + section.size
            else:
                # Empty, but a label in it is a place all the same.
                section.address = cursor

    def _relocate(self, rows: list[Row]) -> None:
        by_name = {section.name: section.index for section in self.loaded}
        known = [symbol.name for symbol in self.obj.symbols if symbol.name and symbol.section]
        for error in relocate(self.obj):
            line = self._line_of(rows, by_name.get(error.section, 0), error.offset)
            column, length, token = place_symbol(error.symbol, line)
            hint = "the target is too far away for this instruction, or the value too large for its operand"
            if error.undefined:
                hint = hint_for_symbol(error.symbol, line, known, self.syntax, self.bits)
            found = Diagnostic(line.number, column, Severity.ERROR, error.message, hint, length, token)
            if found not in self.diagnostics and len(self.diagnostics) < MAX_DIAGNOSTICS:
                self.diagnostics.append(found)

    def _line_of(self, rows: list[Row], section: int, offset: int) -> Line:
        number = 1
        for row in rows:
            if row.section == section and row.offset <= offset:
                number = row.line
        return self.source.lines[min(max(number, 1), len(self.source.lines)) - 1]

    def _image(self, rows: list[Row]) -> Image:
        lines: list[LineEntry] = []
        for index, row in enumerate(rows):
            following = rows[index + 1] if index + 1 < len(rows) else None
            section = self.obj.sections[row.section]
            end = row.offset + len(row.data)
            if row.truncated:
                end = following.offset if following and following.section == row.section else section.size
            data = bytes(section.data[row.offset : end])
            lines.append(LineEntry(row.line, section.address + row.offset, data, self._is_code(row.line)))
        symbols: dict[str, int] = {}
        constants: dict[str, int] = {}
        for symbol in self.obj.symbols:
            if not symbol.name or symbol.kind in _FUNCTION_SECTIONS or symbol.name.startswith(ADDRESS_PREFIX):
                continue
            if symbol.section == SHN_ABS:
                constants[symbol.name] = symbol.value
            elif symbol.section in self.obj.sections and symbol.section:
                symbols[symbol.name] = self.obj.sections[symbol.section].address + symbol.value
        loaded = sorted(self.loaded, key=lambda section: section.address)
        sections = tuple(Section(s.name, s.address, bytes(s.data), s.executable) for s in loaded)
        start = symbols.get("_start", next((s.address for s in loaded if s.name == ".text"), self.origin))
        source = "\n".join(line.raw for line in self.source.lines)
        ordered = tuple(sorted(lines, key=lambda entry: entry.address))
        return Image(sections, symbols, ordered, start, source, self.bits, constants=constants)

    def _is_code(self, number: int) -> bool:
        """False for a line that holds directives alone (the end of a repetition stands for its body)."""
        if not 1 <= number <= len(self.source.lines):
            return False
        words = [split_labels(statement.text)[1].lower() for statement in self.source.lines[number - 1].statements]
        return any(word and (word[0] != "." or word.startswith(".endr")) for word in words)
