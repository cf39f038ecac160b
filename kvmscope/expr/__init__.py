"""The expression language of expectations, conditional breakpoints, watches and filters.

>>> from kvmscope.expr import parse, evaluate, MappingScope
>>> evaluate(parse("rax & 0xff == 0x34 and exception == '#GP'"), MappingScope({"rax": 0x1234, "exception": "#GP"}))
True

See docs/reproducer-file.md for the grammar and what each name means.
"""

from __future__ import annotations

from kvmscope.expr.ast import Binary, Call, Expression, Name, Node, Number, Text, Tuple, Unary, calls, names
from kvmscope.expr.c import to_c
from kvmscope.expr.evaluate import MappingScope, Scope, Value, evaluate, truth
from kvmscope.expr.functions import FUNCTIONS, Function
from kvmscope.expr.nearest import nearest
from kvmscope.expr.parser import parse

__all__ = [
    "FUNCTIONS",
    "Binary",
    "Call",
    "Expression",
    "Function",
    "MappingScope",
    "Name",
    "Node",
    "Number",
    "Scope",
    "Text",
    "Tuple",
    "Unary",
    "Value",
    "calls",
    "evaluate",
    "names",
    "nearest",
    "parse",
    "to_c",
    "truth",
]
