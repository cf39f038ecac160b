"""Which assembler serves, and who checks it.

``auto``: the built-in assembler (Keystone behind its guard) tries first; GNU as, where installed, assembles the same
source and judges.  Equal bytes are the built-in assembler's, confirmed.  Where they differ, or the guard refuses, the
bytes are those of GNU as: it is the assembler that the kernel and kvm-unit-tests are built with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmscope.asm.gas import assemble_with_gas, find_gas
from kvmscope.asm.image import Assembly, Diagnostic, Severity, Syntax
from kvmscope.asm.source import clean

__all__ = ["BACKENDS", "BackendInfo", "assemble", "backends"]

BACKENDS: Final = ("auto", "keystone", "gas", "clang")


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One assembler as `doctor` shows it."""

    name: str
    available: bool
    version: str = ""
    why_not: str = ""


def backends() -> list[BackendInfo]:
    """Every backend, with its version or the reason why it cannot serve here."""
    gas = find_gas()
    if gas is None:
        return [BackendInfo("gas", False, "", "no GNU as for x86 on the PATH; install binutils")]
    return [BackendInfo("gas", True, gas.version)]


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

    Never raises for a mistake in ``source``: that is a diagnostic.  Raises ValueError for a wrong argument.
    """
    if bits not in (16, 32, 64):
        raise ValueError(f"bits must be 16, 32 or 64, not {bits}")
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
    if not 0 <= origin < 1 << 64:
        raise ValueError(f"origin {origin:#x} is no address")
    cleaned = clean(source)
    gas = find_gas()
    if gas is None:
        message = "no GNU as"
        return Assembly(None, (Diagnostic(1, 1, Severity.ERROR, message),), "gas")
    image, diagnostics = assemble_with_gas(gas, cleaned, bits, Syntax(syntax), origin)
    return Assembly(image, (*cleaned.diagnostics, *diagnostics), "gas")
