import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscope.errors import SuiteError
from kvmscope.suite.config import KEYS, Check, load_config, parse_config
from kvmscope.suite.words import DATE

FULL = """\
# comment
[one]
file = one.flat
arch = x86_64
machine = q35
smp = 4
test_args = "a b" -m 64
qemu_params = -cpu max,+vmx
groups = vmx nodefault
accel = kvm
timeout = 2m
check = /sys/a=Y /proc/b=0
disabled_if = [[ "$CONFIG_EFI" = y ]]

#[init]
#file = init.flat

[two]
file=two.flat
extra_params = --append 'x y'
kvmtool_params = --foo
"""


def test_every_key():
    one, two = parse_config(FULL).entries
    assert (one.name, one.line, one.file, one.arch, one.machine, one.smp) == ("one", 2, "one.flat", "x86_64", "q35", 4)
    # Bash gives the words behind the first to QEMU.
    assert one.append == "a b"
    assert one.params == ("-m", "64", "-cpu", "max,+vmx")
    assert one.groups == ("vmx", "nodefault")
    assert (one.accel, one.timeout, one.duration) == ("kvm", 120.0, "2m")
    assert one.check == (Check("/sys/a", "Y"), Check("/proc/b", "0"))
    assert one.disabled_if == '[[ "$CONFIG_EFI" = y ]]'
    assert two.append is None
    assert two.params == ("--append", "x y")
    assert (two.smp, two.timeout, two.duration) == (1, 90.0, "90s")


def test_disabled_entries_are_named():
    config = parse_config(FULL)
    assert config.disabled == ("init",)
    assert config.warnings == ()


def test_keys_behind_a_disabled_head_are_not_the_previous_entry_s():
    config = parse_config("[a]\nfile = a.flat\n#[b]\nfile = b.flat\n")
    assert config.entries[0].file == "a.flat"
    assert "unittests.cfg:4" in config.warnings[0]


def test_date_is_a_note():
    (entry,) = parse_config('[a]\nfile = a.flat\ntest_args = "1 `date +%s`"\n').entries
    assert entry.append == f"1 {DATE}"
    assert str(DATE) in entry.notes[0]


def test_triple_quotes_go_over_lines():
    text = '[a]\nfile = a.flat\nqemu_params = """-cpu max \\\n-m 2g\n-smp 2"""\nsmp = 3\n'
    (entry,) = parse_config(text).entries
    assert entry.params == ("-cpu", "max", "-m", "2g", "-smp", "2")
    assert entry.smp == 3


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("file = a.flat\n", 1, "before the first"),
        ("[a]\n", 1, "has no 'file'"),
        ("[]\nfile = a.flat\n", 1, "without a name"),
        ("[a]\nfile = ../../etc/passwd\n", 2, "beside this one"),
        ("[a]\nfile = ..\n", 2, "beside this one"),
        ("[a]\nfile = a.flat\nsmp = $MAX_SMP\n", 3, "number above 0"),
        ("[a]\nfile = a.flat\nsmp = 0\n", 3, "number above 0"),
        ("[a]\nfile = a.flat\ntimeout = soon\n", 3, "timeout"),
        ("[a]\nfile = a.flat\ncheck = /x\n", 3, "path=value"),
        ("[a]\nfile = a.flat\ntest_args = `reboot`\n", 3, "reboot"),
        ("[a]\nfile = a.flat\nqemu_params = -cpu $CPU\n", 3, "expanded by a shell"),
        ("[a]\nfile = a.flat\nrubbish\n", 3, "neither"),
        ('[a]\nfile = a.flat\nqemu_params = """-m 1\n', 3, "not closed"),
    ],
)
def test_errors_have_file_and_line(text, line, what):
    with pytest.raises(SuiteError) as caught:
        parse_config(text, "x.cfg")
    assert any(part.startswith(f"x.cfg:{line}: ") and what in part for part in caught.value.detail.splitlines())


def test_all_errors_are_told_in_order():
    with pytest.raises(SuiteError, match="2 errors") as caught:
        parse_config("[a]\nsmp = x\n", "x.cfg")
    assert [part.split(":")[1] for part in caught.value.detail.splitlines()] == ["1", "2"]


def test_unknown_key_is_a_warning_with_the_nearest():
    config = parse_config("[a]\nfile = a.flat\ntimeuot = 3\n")
    assert "did you mean 'timeout'" in config.warnings[0]
    assert config.entries[0].timeout == 90


def test_missing_file(tmp_path):
    with pytest.raises(SuiteError, match="No such file"):
        load_config(tmp_path / "unittests.cfg")


_values = st.text(alphabet=st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), max_size=30)
_lines = st.one_of(
    st.builds(lambda key, value: f"{key} = {value}", st.sampled_from([*KEYS, "other"]), _values),
    st.builds(lambda name: f"[{name}]", _values),
    _values,
)


@given(st.lists(_lines, max_size=12))
def test_any_file_gives_entries_or_errors_with_places(lines):
    places = []
    try:
        config = parse_config("\n".join(lines), "f")
    except SuiteError as error:
        places = error.detail.split("\n")
    else:
        places = list(config.warnings)
        assert all(entry.file and entry.smp > 0 for entry in config.entries)
    assert all(re.match(r"f:\d+: .", place) for place in places)


_name = st.from_regex(r"[a-z][a-z0-9_-]{0,12}", fullmatch=True)


@given(st.lists(st.tuples(_name, st.integers(1, 64), st.integers(1, 999), st.lists(_name, max_size=3)), min_size=1))
def test_what_is_written_is_read(entries):
    text = "".join(
        f"[{name}]\nfile = {name}.flat\nsmp = {smp}\ntimeout = {timeout}\ngroups = {' '.join(groups)}\n\n"
        for name, smp, timeout, groups in entries
    )
    read = parse_config(text).entries
    assert [(entry.name, entry.smp, entry.timeout, list(entry.groups)) for entry in read] == [
        (name, smp, float(timeout), groups) for name, smp, timeout, groups in entries
    ]
