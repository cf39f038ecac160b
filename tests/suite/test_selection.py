import pytest

from kvmscope.errors import SuiteError, UsageError
from kvmscope.suite.selection import Selection, select
from kvmscope.suite.tree import is_tree, open_tree

CONFIG = """\
[a]
file = a.flat
[b_one]
file = a.flat
groups = vmx nodefault
[b_two]
file = a.flat
arch = i386
groups = vmx
[c]
file = a.flat
accel = kvm
[d]
file = a.flat
check = /sys/module/kvm/parameters/x=Y
[e]
file = missing.flat
[f]
file = a.flat
smp = 99
[g]
file = a.flat
disabled_if = [[ "$TARGET" = qemu ]] && [[ "$CONFIG_EFI" != "y" ]]
[h]
file = a.flat
disabled_if = [[ "$CONFIG_EFI" = y ]] || [ $ARCH != x86_64 ]
[i]
file = a.flat
disabled_if = grep -q x /proc/cpuinfo
[j]
file = a.flat
groups = migration
#[k]
"""


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "x86").mkdir()
    (tmp_path / "x86" / "unittests.cfg").write_text(CONFIG)
    (tmp_path / "x86" / "a.flat").write_bytes(b"x")
    (tmp_path / "config.mak").write_text("# Shellcheck\nARCH=x86_64\nCONFIG_EFI=\n")
    return open_tree(tmp_path)


def rows(tree, **keys):
    return {row.entry.name: row.skip for row in select(tree, Selection(**keys), max_smp=16)}


def test_reasons_are_run_tests_sh_s(tree):
    assert rows(tree) == {
        "a": "",
        "b_one": "test marked as manual run only",
        "b_two": "i386 only",
        "c": "kvm only, but the machine is kvmscope's own",
        "d": "/sys/module/kvm/parameters/x not equal to Y: the machine is kvmscope's own",
        "e": "Test file 'x86/missing.flat' not found",
        "f": "needs 99 processors, and the machine has 16 at most",
        "g": 'disabled because: [[ "$TARGET" = qemu ]] && [[ "$CONFIG_EFI" != "y" ]]',
        "h": "",
        "i": "disabled_if needs a shell, and none is run: grep -q x /proc/cpuinfo",
        "j": "needs a second machine to migrate to",
    }


def test_groups_and_nodefault(tree):
    assert rows(tree, group="vmx") == {"b_one": "", "b_two": "i386 only"}
    assert rows(tree, all=True)["b_one"] == ""


def test_names_are_patterns(tree):
    assert list(rows(tree, only=("b_*",))) == ["b_one", "b_two"]
    assert list(rows(tree, only=("a", "?"), skip=("[c-j]",))) == ["a"]


@pytest.mark.parametrize(
    ("keys", "hint"),
    [({"only": ("b_tow",)}, "b_two"), ({"skip": ("zzz*",)}, "--list"), ({"group": "vmy"}, "vmx")],
)
def test_names_of_nothing(tree, keys, hint):
    with pytest.raises(UsageError) as caught:
        rows(tree, **keys)
    assert hint in caught.value.hint


def test_a_disabled_entry_is_known_as_such(tree):
    with pytest.raises(UsageError, match="commented out"):
        rows(tree, only=("k",))


def test_efi_and_i386_trees(tree):
    (tree.root / "config.mak").write_text("ARCH=i386\nCONFIG_EFI=y\n")
    found = rows(open_tree(tree.root))
    assert found["a"] == "an EFI build: its images need UEFI firmware"
    assert found["b_two"].startswith("an EFI build")


def test_where_a_tree_is(tree, tmp_path):
    assert is_tree(tmp_path)
    assert open_tree(tmp_path / "x86").root == tmp_path
    (tmp_path / "empty").mkdir()
    assert not is_tree(tmp_path / "empty")
    with pytest.raises(SuiteError, match="no kvm-unit-tests tree"):
        open_tree(tmp_path / "empty")
