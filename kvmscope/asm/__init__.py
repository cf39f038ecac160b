"""Text -> Image: the assembler, its backends, the disassembler and the editor's lexer.

>>> from kvmscope.asm import assemble
>>> assemble("mov eax, 1", bits=32).image.sections[0].data.hex()
'b801000000'

Names are imported on first use: whoever needs an `Image` only must not wait for the assemblers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvmscope.asm.assembler import BACKENDS, BackendInfo, assemble, backends
    from kvmscope.asm.image import Assembly, CrossCheck, Diagnostic, Image, LineEntry, Section, Severity, Syntax

__all__ = [
    "BACKENDS",
    "Assembly",
    "BackendInfo",
    "CrossCheck",
    "Diagnostic",
    "Image",
    "LineEntry",
    "Section",
    "Severity",
    "Syntax",
    "assemble",
    "backends",
]

_ASSEMBLER: Final = frozenset({"BACKENDS", "BackendInfo", "assemble", "backends"})


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "assembler" if name in _ASSEMBLER else "image"
    return getattr(import_module(f"{__name__}.{home}"), name)
