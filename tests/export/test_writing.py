from __future__ import annotations

import stat

import pytest

from kvmscope.cli.export import main
from kvmscope.errors import ExportError, KvmscopeError, UsageError
from kvmscope.export import TARGETS, target
from kvmscope.export.model import Edit, Export, ExportedFile, c_name
from kvmscope.export.writing import place

SOURCE = "        xor eax, eax\n        out 0xf4, al\n        hlt\n"


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "my-test.asm"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "x86").mkdir(parents=True)
    (root / "lib").mkdir()
    (root / "lib" / "libcflat.h").write_text("")
    (root / "x86" / "unittests.cfg").write_text("[old]\nfile = old.flat\n")
    (root / "x86" / "Makefile.x86_64").write_text("include $(SRCDIR)/$(TEST_DIR)/Makefile.common\n")
    return root


@pytest.mark.parametrize(
    ("text", "name"), [("my-test", "my_test"), ("A b", "a_b"), ("9lives", "test_9lives"), ("--", "test_")]
)
def test_names(text, name):
    assert c_name(text) == name


def test_every_target_is_there():
    for name in TARGETS:
        assert target(name).name == name


def test_unknown_target_names_the_nearest():
    with pytest.raises(UsageError) as caught:
        target("kvm-unit-test")
    assert "kvm-unit-tests" in caught.value.hint


def test_list(capsys):
    assert main(["--list"]) == 0
    assert set(TARGETS) == {line.split()[0] for line in capsys.readouterr().out.splitlines()}


def test_prints_file_and_entries(program, capsys):
    assert main([str(program), "--to", "kvm-unit-tests"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("/*\n * my test\n")
    assert "tests += $(TEST_DIR)/my_test.$(exe)" in text
    assert "[my_test]" in text


def test_output_file_is_not_overwritten_unasked(program, tmp_path):
    out = tmp_path / "test_x.py"
    assert main([str(program), "--to", "pytest", "-o", str(out)]) == 0
    first = out.read_text()
    assert stat.S_IMODE(out.stat().st_mode) & 0o044 == 0o044
    out.write_text("mine")
    with pytest.raises(UsageError):
        main([str(program), "--to", "pytest", "-o", str(out)])
    assert out.read_text() == "mine"
    assert main([str(program), "--to", "pytest", "-o", str(out), "--force"]) == 0
    assert out.read_text() == first


def test_tree_gets_file_and_entries_once(program, tree):
    assert main([str(program), "--to", "kvm-unit-tests", "--tree", str(tree)]) == 0
    assert "int main(" in (tree / "x86" / "my_test.c").read_text()
    assert main([str(program), "--to", "kvm-unit-tests", "--tree", str(tree), "--force"]) == 0
    assert (tree / "x86" / "unittests.cfg").read_text().count("[my_test]") == 1
    assert (tree / "x86" / "Makefile.x86_64").read_text().count("my_test") == 1


def test_tree_is_left_alone_where_the_test_exists(program, tree):
    (tree / "x86" / "my_test.c").write_text("theirs")
    before = {path: path.read_text() for path in tree.rglob("*") if path.is_file()}
    with pytest.raises(UsageError) as caught:
        main([str(program), "--to", "kvm-unit-tests", "--tree", str(tree)])
    assert "--name" in caught.value.hint
    assert before == {path: path.read_text() for path in tree.rglob("*") if path.is_file()}
    assert main([str(program), "--to", "kvm-unit-tests", "--tree", str(tree), "--name", "other"]) == 0
    assert (tree / "x86" / "other.c").exists()


def test_nothing_is_written_when_an_edit_cannot_be_made(tree):
    edits = (Edit("x86/unittests.cfg", "x", lambda text: text + "x"), Edit("x86/missing", "x", lambda text: text))
    with pytest.raises(ExportError):
        place(Export((ExportedFile("x86/a.c", "a"),), edits), tree, force=False)
    assert not (tree / "x86" / "a.c").exists()
    assert (tree / "x86" / "unittests.cfg").read_text() == "[old]\nfile = old.flat\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["--to", "pytest"], ["x.asm"], ["{file}", "--to", "nope"], ["{file}", "--to", "pytest", "--tree", "/x", "-o", "y"],
     ["{file}", "--to", "kvm-unit-tests", "--tree", "/nowhere"], ["missing.asm", "--to", "pytest"], ["{file}", "--too", "pytest"],
     ["{file}", "--to", "pytest", "-o", "/nowhere/x.py"]],
)  # fmt: skip
def test_mistakes(program, arguments):
    with pytest.raises(KvmscopeError):
        main([argument.format(file=program) for argument in arguments])
