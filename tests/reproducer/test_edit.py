from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscope.errors import ReproducerError, UsageError
from kvmscope.reproducer import update_header
from kvmscope.reproducer.header import find_header

TEXT = """\
; a comment before
; /// kvmscope
; title = "one"   # keep this
;
; expect = [
;   "rax == 1",  # lost with the list
; ]
; [registers]
; rax = 0x10
; # the end
; [[page]]
; linear = 0
; ///
        hlt ; /// kvmscope
"""


def toml(text: str) -> dict[str, object]:
    header = find_header(text, "")
    assert header is not None
    return tomllib.loads(header.toml)


@pytest.mark.parametrize(
    ("key", "value", "old", "new"),
    [
        ("title", 'two "quoted"', '"one"', '"two \\"quoted\\""'),
        ("registers.rax", 255, "rax = 0x10", "rax = 0xff"),
        ("expect", ["rbx == 2"], '\n;   "rax == 1",  # lost with the list', '\n;   "rbx == 2",'),
        ("registers.rbx", "label", "rax = 0x10\n", 'rax = 0x10\n; rbx = "label"\n'),
        ("mode", "real16", "; ]\n", '; ]\n; mode = "real16"\n'),
        ("msrs.0x10", 5, "linear = 0\n", "linear = 0\n; [msrs]\n; 0x10 = 5\n"),
        ("handlers.#PF", "x", "linear = 0\n", 'linear = 0\n; [handlers]\n; "#PF" = "x"\n'),
        ("max_instructions", 100000, "; ]\n", "; ]\n; max_instructions = 100000\n"),
        ("title", None, '; title = "one"   # keep this\n', ""),
        ("expect", None, '; expect = [\n;   "rax == 1",  # lost with the list\n; ]\n', ""),
        ("registers.rax", None, "; rax = 0x10\n", ""),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_the_value_changes(key: str, value: object, old: str, new: str, end: str) -> None:
    text = TEXT.replace("\n", end)
    assert TEXT.count(old) == 1
    assert update_header(text, key, value) == TEXT.replace(old, new).replace("\n", end)  # type: ignore[arg-type]


def test_a_header_is_made_where_there_is_none() -> None:
    text = update_header("hlt\n", "mode", "real16")
    assert text == '# /// kvmscope\n# mode = "real16"\n# ///\nhlt\n'
    assert update_header("hlt\n", "mode", None) == "hlt\n"
    assert update_header(text, "ring", None) == text


def test_values_of_every_kind() -> None:
    text = "hlt\n"
    values = {
        "timeout": 1.5,
        "memory": "32M",
        "io_permission": [[0xE0, 0xE3]],
        "handlers.0x80": {"entry": "a", "dpl": 3},
        "title": 'tab\t quote" back\\slash \x7f é\n',
        "flag": True,
        "expect": [f"u64({n:#x}) == {n:#x}" for n in range(0x1000, 0x1010)],
    }
    for key, value in values.items():
        text = update_header(text, key, value)  # type: ignore[arg-type]
    found = toml(text)
    assert found.pop("handlers") == {"0x80": values.pop("handlers.0x80")}
    assert found == values
    assert max(map(len, text.split("\n"))) < 100


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        ("# registers = { rax = 1 }", "registers.rbx", 1),
        ("# registers = { rax = 1 }", "registers.rax", None),
        ("# expect = [\n# ] # ///", "expect.x", 1),
    ],
)
def test_what_cannot_be_edited_is_refused(lines: str, key: str, value: int | None) -> None:
    with pytest.raises(UsageError, match="cannot be changed"):
        update_header(f"# /// kvmscope\n{lines}\n# ///\n", key, value)


def test_a_wrong_header_is_not_edited() -> None:
    with pytest.raises(ReproducerError):
        update_header("# /// kvmscope\n# a = = 1\n# ///\n", "mode", "real16")


_KEYS = st.sampled_from(["title", "mode", "registers.rax", "registers.zz", "msrs.0x10", "expect", "handlers.#PF"])
_VALUES = st.one_of(
    st.none(),
    st.integers(0, 1 << 70),
    st.booleans(),
    st.text(max_size=20),
    st.lists(st.text(alphabet="ab\"'\\\n#]é", max_size=8), max_size=4),
    st.dictionaries(st.text(alphabet="ab#.", min_size=1, max_size=4), st.integers(0, 99), max_size=3),
)


@given(st.lists(st.tuples(_KEYS, _VALUES), max_size=8))
@settings(max_examples=200)
def test_any_edits_leave_exactly_what_was_set(edits: list[tuple[str, object]]) -> None:
    text, wanted = TEXT, toml(TEXT)
    for key, value in edits:
        text = update_header(text, key, value)  # type: ignore[arg-type]
        table, _, name = key.rpartition(".")
        inner = (
            wanted.setdefault(table, {}) if table and value is not None else wanted.get(table, {}) if table else wanted
        )
        assert isinstance(inner, dict)
        if value is None:
            inner.pop(name, None)
        else:
            inner[name] = value
    assert toml(text) == wanted
    assert text.startswith("; a comment before\n")
    assert text.endswith("; ///\n        hlt ; /// kvmscope\n")
