"""Which assembler serves, and who checks it.

``auto``: the built-in assembler (Keystone behind its guard) and GNU as, where installed, assemble the same source.
Equal bytes are the built-in assembler's, confirmed.  Where they differ, or the guard refuses, the bytes are those of
GNU as: it is the assembler that the kernel and kvm-unit-tests are built with.  Without a cross-check GNU as serves
alone where it is installed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kvmscope.asm.gas import Gas, assemble_with_gas, find_gas
from kvmscope.asm.hints import label_warnings
from kvmscope.asm.image import Assembly, CrossCheck, Diagnostic, Image, LineEntry, Severity, Syntax
from kvmscope.asm.source import Source, clean

if TYPE_CHECKING:
    from kvmscope.asm.encoder import Encode
    from kvmscope.asm.native import Native

# The built-in assembler and clang are imported where they serve: `kvmscope run` with GNU as needs neither, and they are
# a third of its time.

__all__ = ["BACKENDS", "BackendInfo", "assemble", "backends"]

BACKENDS: Final = ("auto", "keystone", "gas", "clang")
_INSTALL: Final = "install GNU as (package binutils), which assembles it"
_CHOOSE: Final = "choose backend auto: GNU as then decides"
_NO_GAS: Final = "no GNU as for x86 on the PATH; install binutils"
_NO_KEYSTONE: Final = "keystone-engine is not installed (it has no wheel for ARM); install binutils instead"


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One assembler as `doctor` shows it."""

    name: str
    available: bool
    version: str = ""
    why_not: str = ""


def backends() -> list[BackendInfo]:
    """Every backend, with its version or the reason why it cannot serve here."""
    from kvmscope.asm import clang, keystone_client

    gas = find_gas()
    keystone = keystone_client.keystone_version()
    driver = clang.find_clang()
    return [
        BackendInfo("keystone", bool(keystone), keystone, "" if keystone else _NO_KEYSTONE),
        BackendInfo("gas", gas is not None, gas.version if gas else "", "" if gas else _NO_GAS),
        BackendInfo("clang", driver is not None, driver.version if driver else "", "" if driver else clang.WHY_NOT),
    ]


def assemble(
    source: str,
    *,
    bits: int,
    syntax: Syntax = Syntax.INTEL,
    origin: int = 0,
    backend: str = "auto",
    cross_check: bool = True,
) -> Assembly:
    """Assemble ``source`` for ``bits`` (16, 32 or 64)-bit code at address ``origin``.

    Never raises for a mistake in ``source``: that is a diagnostic.  Raises ValueError for a wrong argument.  May be
    called from any thread.
    """
    if bits not in (16, 32, 64):
        raise ValueError(f"bits must be 16, 32 or 64, not {bits}")
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
    if not 0 <= origin < 1 << 64:
        raise ValueError(f"origin {origin:#x} is no address")
    cleaned = clean(source)
    if any(found.severity is Severity.ERROR for found in cleaned.diagnostics):
        return Assembly(None, cleaned.diagnostics, backend)
    job = _Job(cleaned, bits, Syntax(syntax), origin, cross_check)
    result = {"auto": job.auto, "keystone": job.keystone, "gas": job.gas_alone, "clang": job.clang}[backend]()
    doubts = label_warnings(cleaned, Syntax(syntax))
    return replace(result, diagnostics=(*cleaned.diagnostics, *doubts, *result.diagnostics))


@dataclass(frozen=True)
class _Job:
    """One source and how to assemble it."""

    source: Source
    bits: int
    syntax: Syntax
    origin: int
    cross_check: bool

    def auto(self) -> Assembly:
        gas = find_gas()
        if gas is not None and not self.cross_check:
            return self._gas(gas)
        from kvmscope.asm import clang, keystone_client

        native = self._native() if keystone_client.keystone_version() else None
        if native is not None and native.too_much:
            return _assembly(native, "keystone")
        if gas is not None:
            return self._judged(native, self._gas(gas))
        if native is not None and not native.refused:
            return _assembly(native, "keystone")
        if clang.find_clang() is not None:
            return self.clang()
        if native is None:
            return _nothing("auto", "there is no assembler", _INSTALL.replace(", which assembles it", ""))
        return _assembly(_hinted(native, _INSTALL), "keystone")

    def gas_alone(self) -> Assembly:
        gas = find_gas()
        return self._gas(gas) if gas is not None else _nothing("gas", "GNU as is not installed", _NO_GAS)

    def keystone(self) -> Assembly:
        from kvmscope.asm import keystone_client

        if not keystone_client.keystone_version():
            return _nothing("keystone", "the built-in assembler is not installed", _NO_KEYSTONE)
        gas = find_gas() if self.cross_check else None
        native = self._native()
        if native.image is None:
            return _assembly(_hinted(native, _CHOOSE if find_gas() else _INSTALL), "keystone")
        return (
            _compared(_assembly(native, "keystone"), self._gas(gas))
            if gas is not None
            else _assembly(native, "keystone")
        )

    def clang(self) -> Assembly:
        from kvmscope.asm import clang

        driver = clang.find_clang()
        if driver is None:
            return _nothing("clang", "clang is not installed", clang.WHY_NOT)
        native = self._with(driver.encode)
        gas = find_gas() if self.cross_check else None
        if native.image is None:
            return _assembly(_hinted(native, _CHOOSE if find_gas() else _INSTALL), "clang")
        return _compared(_assembly(native, "clang"), self._gas(gas)) if gas is not None else _assembly(native, "clang")

    def _native(self) -> Native:
        from kvmscope.asm import keystone_client

        # The process starts while we load the decoder.
        keystone_client.start()
        return self._with(keystone_client.encode)

    def _with(self, encode: Encode) -> Native:
        from kvmscope.asm.native import assemble_native

        return assemble_native(self.source, self.bits, self.syntax, self.origin, encode)

    def _gas(self, gas: Gas) -> Assembly:
        image, diagnostics = assemble_with_gas(gas, self.source, self.bits, self.syntax, self.origin)
        return Assembly(image, tuple(diagnostics), "gas")

    def _judged(self, native: Native | None, gas: Assembly) -> Assembly:
        """GNU as decides: its bytes and its errors, the built-in assembler's where they are the same."""
        if native is None or native.image is None or gas.image is None:
            return gas
        difference = _difference(native.image, gas.image)
        if difference is None:
            # Repetitions and macros have finer lines in our own source map; the messages are those of the judge.
            return Assembly(native.image, gas.diagnostics, "keystone", None, "gas")
        note = _note(difference, "the bytes are those of GNU as", Severity.NOTE)
        return replace(gas, cross_check=difference, diagnostics=(*gas.diagnostics, note))


def _assembly(native: Native, backend: str) -> Assembly:
    return Assembly(native.image, tuple(native.diagnostics), backend)


def _nothing(backend: str, message: str, hint: str) -> Assembly:
    return Assembly(None, (Diagnostic(1, 1, Severity.ERROR, message, hint),), backend)


def _hinted(native: Native, hint: str) -> Native:
    """Say how to go on where only this assembler has no answer."""
    if native.refused:
        native.diagnostics = [
            found if found.hint or found.severity is not Severity.ERROR else replace(found, hint=hint)
            for found in native.diagnostics
        ]
    return native


def _compared(ours: Assembly, gas: Assembly) -> Assembly:
    """A forced backend keeps its bytes; what GNU as says of them is added."""
    if ours.image is None:
        return ours
    if gas.image is None:
        first = next(found for found in gas.diagnostics if found.severity is Severity.ERROR)
        message = f"GNU as refuses this: {first.message}"
        found = Diagnostic(first.line, first.column, Severity.WARNING, message, first.hint, first.length, first.token)
        return replace(ours, diagnostics=(*ours.diagnostics, found))
    difference = _difference(ours.image, gas.image)
    if difference is None:
        return replace(ours, checked_by="gas")
    note = _note(difference, f"the bytes are those of {ours.backend}", Severity.WARNING)
    return replace(ours, cross_check=difference, diagnostics=(*ours.diagnostics, note))


def _note(difference: CrossCheck, verdict: str, severity: Severity) -> Diagnostic:
    message = (
        f"two encodings: {difference.ours.hex(' ') or 'nothing'} by the built-in assembler, "
        f"{difference.theirs.hex(' ') or 'nothing'} by {difference.other}; {verdict}"
    )
    return Diagnostic(
        difference.line, 1, severity, message, "both are shown since they differ; .byte fixes one of them"
    )


def _difference(ours: Image, theirs: Image) -> CrossCheck | None:
    """The first difference of the bytes, None when all sections are equal."""
    mine = [(section.address, section.data) for section in ours.sections]
    other = [(section.address, section.data) for section in theirs.sections]
    if mine == other:
        return None
    by_line = _by_line(theirs.lines)
    for line, data in sorted(_by_line(ours.lines).items()):
        if by_line.get(line, b"") != data:
            address = next(entry.address for entry in ours.lines if entry.line == line)
            return CrossCheck(line, address, data, by_line.get(line, b""))
    # Lines inside a repetition belong to its end in the listing of GNU as: compare by address.
    for entry in ours.lines:
        known = _at(theirs, entry)
        if known != entry.data:
            return CrossCheck(entry.line, entry.address, entry.data, known)
    return CrossCheck(1, mine[0][0] if mine else 0, b"", other[0][1][:16] if other else b"")


def _by_line(lines: tuple[LineEntry, ...]) -> dict[int, bytes]:
    out: dict[int, bytes] = {}
    for entry in lines:
        out[entry.line] = out.get(entry.line, b"") + entry.data
    return out


def _at(image: Image, entry: LineEntry) -> bytes:
    for section in image.sections:
        if section.address <= entry.address < section.end:
            at = entry.address - section.address
            return section.data[at : at + len(entry.data)]
    return b""
