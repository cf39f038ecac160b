"""Text -> Image: the assembler, its backends, the disassembler and the editor's lexer.

>>> from kvmscope.asm import assemble
>>> assemble("mov eax, 1", bits=32).image.sections[0].data.hex()
'b801000000'
"""

from __future__ import annotations

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
