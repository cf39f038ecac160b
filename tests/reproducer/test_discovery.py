from __future__ import annotations

from pathlib import Path

import pytest

from kvmscope.errors import UsageError
from kvmscope.reproducer import discover, has_header

HEADER = "; /// kvmscope\n; ///\nhlt\n"


def put(path: Path, text: str = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_directories_are_searched_in_order_and_foreign_files_left_out(tmp_path: Path) -> None:
    wanted = [put(tmp_path / name) for name in ("a.asm", "b.S", "c.s", "sub/a.asm", "sub/deep/z.s")]
    put(tmp_path / "plain.s", "hlt\n")
    put(tmp_path / "other.txt")
    for skipped in (".hidden/a.asm", "__pycache__/a.asm", "node_modules/a.asm", "env/a.asm", ".a.asm"):
        put(tmp_path / skipped)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert discover([tmp_path]) == wanted
    assert discover([tmp_path / "sub", tmp_path]) == [*wanted[3:], *wanted[:3]]


def test_a_named_file_is_taken_as_it_is(tmp_path: Path) -> None:
    plain = put(tmp_path / "plain.txt", "hlt\n")
    assert discover([plain, plain]) == [plain]


def test_a_missing_path_names_the_nearest(tmp_path: Path) -> None:
    put(tmp_path / "page-fault.asm")
    with pytest.raises(UsageError) as caught:
        discover([tmp_path / "pagefault.asm"])
    assert "page-fault.asm" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (HEADER, True),
        ("// a\n\n//   /// kvmscope  \n", True),
        ("# /// kvmscope\r\n", True),
        ("hlt # /// kvmscope\n", False),
        ("# /// script\n", False),
        ("# /// kvmscopes\n", False),
        ("", False),
    ],
)
def test_has_header(tmp_path: Path, text: str, found: bool) -> None:
    path = tmp_path / "a.asm"
    path.write_bytes(text.encode())
    assert has_header(path) is found


def test_unreadable_files_have_none(tmp_path: Path) -> None:
    assert not has_header(tmp_path)
    assert not has_header(tmp_path / "absent.s")
