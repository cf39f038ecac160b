from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscope.errors import ExpressionError
from kvmscope.expr import Binary, Call, Expression, MappingScope, Name, Node, Number, Text, Unary, evaluate, parse, to_c


def _names(node: Node) -> str | None:
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Call):
        return f"read_{node.function}({to_c(node.arguments[0], _names)})"
    if isinstance(node, Binary) and node.operator == "==" and isinstance(node.right, Text):
        return f"is({node.right.value[1:]})"
    return None


@pytest.mark.parametrize(
    ("text", "c"),
    [
        ("rax & 0xff == 0x34 and not cf", "(rax & 0xffull) == 0x34 && !cf"),
        ("a or b and c", "a || (b && c)"),
        ("a and b and c", "a && b && c"),
        ("rax == -1", "rax == -1ull"),
        ("-(-rax)", "-(-rax)"),
        ("!(a == b)", "!(a == b)"),
        ("1 << rcx", "1ull << rcx"),
        ("a - (b - c)", "a - (b - c)"),
        ("rax == 0xffffffffffffffff", "rax == 0xffffffffffffffffull"),
        ("rax == 1_000", "rax == 0x3e8"),
        ("rax == 1000", "rax == 1000"),
        ("a in (1, 2) and b", "(a == 1 || a == 2) && b"),
        ("a in (1,)", "a == 1"),
        ("exception == '#PF' and u8(rax + 1) == 2", "is(PF) && read_u8(rax + 1ull) == 2"),
        ("not (exception == '#PF')", "!is(PF)"),
    ],
)
def test_forms(text: str, c: str) -> None:
    assert to_c(parse(text), _names) == c


@pytest.mark.parametrize("text", ["'a' in serial", "rax == 0x10000000000000000", "rax << 64", "'a'", "'x' != serial"])
def test_what_c_cannot_say(text: str) -> None:
    with pytest.raises(ExpressionError, match="C"):
        to_c(parse(text), _names)


_VARIABLES = {"a": 0x1234, "b": (1 << 64) - 1, "c": 3, "d": 0}
_LEAVES: st.SearchStrategy[Node] = st.one_of(
    st.builds(Number, st.sampled_from([0, 1, 5, 0x7FFFFFFF, 0x80000000, 1 << 40])),
    st.builds(Name, st.sampled_from(sorted(_VARIABLES))),
)


def _arithmetic(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.one_of(
        st.builds(Binary, st.sampled_from(["|", "^", "&", "-", ">>"]), children, children),
        st.builds(Unary, st.sampled_from(["-", "~"]), children),
    )


_INTEGERS = st.recursive(_LEAVES, _arithmetic, max_leaves=6)
_COMPARED = st.builds(Binary, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), _INTEGERS, _INTEGERS)
_CONDITIONS = st.recursive(
    _COMPARED,
    lambda inner: st.one_of(
        st.builds(Binary, st.sampled_from(["and", "or"]), inner, inner), st.builds(Unary, st.just("not"), inner)
    ),
    max_leaves=5,
)


def test_gcc_computes_the_same(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("gcc is not installed")
    wanted: dict[str, bool] = {}

    @given(_CONDITIONS)
    @settings(max_examples=300, database=None)
    def gather(tree: Node) -> None:
        try:
            wanted[to_c(tree, _names)] = bool(evaluate(Expression(tree), MappingScope(_VARIABLES)))
        except ExpressionError:
            pass  # A shift by 64 or more: an error here, undefined in C.

    gather()
    assert len(wanted) > 50
    variables = "".join(f"volatile unsigned long long {n} = {v:#x}ull;\n" for n, v in _VARIABLES.items())
    # A shift by 64..127 is defined here (0) and undefined in C.
    checks = "".join(
        f"if ((int)({c}) != {int(w)}) return {i % 250 + 1};\n"
        for i, (c, w) in enumerate(wanted.items())
        if ">>" not in c
    )
    source = tmp_path / "t.c"
    source.write_text(f"{variables}int main(void) {{\n{checks}return 0; }}\n")
    program = tmp_path / "t"
    flags = ["-w", "-Werror=parentheses", "-O0"]
    built = subprocess.run([gcc, *flags, str(source), "-o", str(program)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert subprocess.run([program], check=False).returncode == 0
