"""The built-in assembler: our own front, Keystone (or clang) for the instructions, the guard for every one of them."""

from __future__ import annotations

from collections.abc import Iterator

from kvmscope.asm.direct import Code
from kvmscope.asm.encoder import Encode, Request, encode_all
from kvmscope.asm.expand import Expander
from kvmscope.asm.gas_source import split_labels
from kvmscope.asm.hints import hint_for, hint_for_symbol, nasm_hint
from kvmscope.asm.image import Diagnostic, Image, LineEntry, Section, Severity, Syntax
from kvmscope.asm.layout import At, Layout, Undefined
from kvmscope.asm.limits import MAX_DIAGNOSTICS
from kvmscope.asm.placing import align_problems, overlaps
from kvmscope.asm.program import Item, Pad, Program
from kvmscope.asm.refusal import Refusal, TooMuch, Trouble
from kvmscope.asm.source import Source, Statement

__all__ = ["Native", "assemble_native"]


class Native:
    """The outcome: an image, or diagnostics; ``refused`` when another assembler could know better,
    ``too_much`` when none should try."""

    def __init__(self) -> None:
        self.image: Image | None = None
        self.diagnostics: list[Diagnostic] = []
        self.refused = False
        self.too_much = False


def assemble_native(source: Source, bits: int, syntax: Syntax, origin: int, encode: Encode) -> Native:
    """Assemble ``source``; raises nothing for what stands in it."""
    return _Assembler(source, bits, syntax, origin, encode).run()


class _Assembler:
    def __init__(self, source: Source, bits: int, syntax: Syntax, origin: int, encode: Encode) -> None:
        self.source = source
        self.syntax = syntax
        self.bits = bits
        self.origin = origin
        self.encode = encode
        self.program = Program(bits, syntax, origin)
        self.result = Native()
        self.modes = {bits}

    def run(self) -> Native:
        self._collect()
        self._encode()
        if not self._failed():
            self._lay_out()
        self.result.diagnostics += self.program.warnings
        self.result.diagnostics.sort(key=lambda found: (found.line, found.column))
        return self.result

    def _failed(self) -> bool:
        return any(found.severity is Severity.ERROR for found in self.result.diagnostics)

    def _collect(self) -> None:
        expander = Expander(self.program)
        try:
            for statement in self._statements(expander):
                try:
                    self.program.add(statement)
                    self.modes.add(self.program.bits)
                except Trouble as trouble:
                    self._trouble(trouble, statement)
                if len(self.result.diagnostics) >= MAX_DIAGNOSTICS:
                    return
        except Trouble as trouble:
            place = expander.current or Statement(1, 1, "")
            self._trouble(trouble, place)
        except RecursionError:
            self._trouble(Refusal("this is nested too deeply"), expander.current or Statement(1, 1, ""))

    def _statements(self, expander: Expander) -> Iterator[Statement]:
        return expander.run([statement for line in self.source.lines for statement in line.statements])

    def _encode(self) -> None:
        items = [
            (item, item.content)
            for section in self.program.sections.values()
            for item in section.items
            if isinstance(item.content, Request)
        ]
        answers = encode_all([content for _, content in items], self.encode) if items else []
        for (item, _), answer in zip(items, answers, strict=True):
            if isinstance(answer, Code):
                item.content = answer
            else:
                self._trouble(answer, item.statement)

    def _lay_out(self) -> None:
        layout = Layout(self.program, 64 in self.modes)
        for item, undefined in layout.undefined():
            self._trouble(undefined, item.statement)
        if self._failed():
            return
        try:
            layout.sizes()
        except At as error:
            self._trouble(error.trouble, error.item.statement)
            return
        except Trouble as trouble:
            self._trouble(trouble, Statement(1, 1, ""))
            return
        sections: list[Section] = []
        lines: list[LineEntry] = []
        for section in self.program.sections.values():
            start = layout.at[section.name]
            data = bytearray()
            for item in section.items:
                piece = self._bytes(layout, item, start + item.offset)
                if isinstance(item.content, Pad) and item.content.fill is None:
                    piece = layout.padding(item, section)
                data += piece
                if piece:
                    lines.append(LineEntry(item.statement.line, start + item.offset, piece, item.is_code))
            if data:
                sections.append(Section(section.name, start, bytes(data), section.code))
        self.result.diagnostics += overlaps([(one.name, one.address, len(one.data)) for one in sections])
        aligned = {one.name: one.align for one in self.program.sections.values()}
        self.result.diagnostics += align_problems([(one.name, one.address, aligned[one.name]) for one in sections])
        if not self._failed():
            self.result.image = self._image(layout, sections, lines)

    def _bytes(self, layout: Layout, item: Item, address: int) -> bytes:
        try:
            return layout.item_bytes(item, address)
        except Trouble as trouble:
            self._trouble(trouble, item.statement)
            return bytes(item.size)

    def _image(self, layout: Layout, sections: list[Section], lines: list[LineEntry]) -> Image:
        symbols: dict[str, int] = {}
        constants: dict[str, int] = {}
        for name in self.program.labels:
            if "#" not in name and not name.startswith(".L"):
                symbols[name] = layout.name(name).number
        for name in self.program.constants:
            if name.startswith(".L"):
                continue
            try:
                value = layout.name(name)
            except Trouble:
                # Never used, or its use would have been reported.
                continue
            # As in the object of GNU as: 32 bits unless there is 64-bit code.
            width = 64 if 64 in self.modes else 32
            (symbols if value.weight else constants)[name] = value.number & (1 << width) - 1
        ordered = tuple(sorted(sections, key=lambda section: section.address))
        start = symbols.get("_start", layout.at[".text"])
        if "_start" not in symbols and not any(section.name == ".text" for section in sections):
            start = self.origin
        text = "\n".join(line.raw for line in self.source.lines)
        entries = tuple(sorted(lines, key=lambda entry: entry.address))
        return Image(ordered, symbols, entries, start, text, self.bits, constants=constants)

    def _trouble(self, trouble: Trouble, statement: Statement) -> None:
        if isinstance(trouble, Refusal):
            self.result.refused = True
        self.result.too_much |= isinstance(trouble, TooMuch)
        line = self.source.lines[statement.line - 1] if self.source.lines else None
        column, length, token, hint = statement.column, 1, trouble.token, trouble.hint
        if line is not None:
            labels, rest = split_labels(statement.text)
            word = rest.split()[0] if rest.split() else statement.text
            nasm = nasm_hint(line, self.syntax)
            token = word if nasm or not token or token not in line.text or token == rest.strip() else token
            at = line.text.find(token, statement.column - 1)
            if at < 0:
                at, token = line.text.find(token), token
            if at >= 0:
                column, length = at + 1, len(token)
            elif statement.text:
                column += len(labels)
            if isinstance(trouble, Undefined) and not hint:
                known = [name for name in (*self.program.labels, *self.program.constants) if "#" not in name]
                hint = hint_for_symbol(trouble.token, line, known, self.syntax, self.bits)
            hint = nasm or hint or hint_for(trouble.message, line, self.syntax, self.bits)
        found = Diagnostic(statement.line, column, Severity.ERROR, trouble.message, hint, max(length, 1), token)
        if found not in self.result.diagnostics:
            self.result.diagnostics.append(found)
