"""What a kvm-unit-tests tree needs besides the C file: a line in the Makefile, an entry in unittests.cfg."""

from __future__ import annotations

import re
from pathlib import Path

from kvmscope.export.model import Edit

__all__ = ["cfg_edit", "makefile_edit", "why_no_tree"]

_NON_EFI = re.compile(r"(ifneq \(\$\(CONFIG_EFI\),y\)\n(?:tests \+= .*\n)+)")


def makefile_edit(name: str) -> Edit:
    """The test in x86/Makefile.x86_64, among those with absolute addresses (not built for EFI)."""
    line = f"tests += $(TEST_DIR)/{name}.$(exe)"

    def apply(text: str) -> str | None:
        if line in text.splitlines():
            return None
        changed = _NON_EFI.sub(lambda match: match.group(1) + line + "\n", text, count=1)
        if changed != text:
            return changed
        include = "include $(SRCDIR)/$(TEST_DIR)/Makefile.common"
        block = f"ifneq ($(CONFIG_EFI),y)\n{line}\nendif\n\n"
        return text.replace(include, block + include, 1) if include in text else text + "\n" + line + "\n"

    return Edit("x86/Makefile.x86_64", line, apply)


def cfg_edit(name: str, *, accel: str = "") -> Edit:
    """The entry of x86/unittests.cfg."""
    entry = f"[{name}]\nfile = {name}.flat\narch = x86_64\nqemu_params = -cpu max\n" + (
        f"accel = {accel}\n" if accel else ""
    )

    def apply(text: str) -> str | None:
        if re.search(rf"^\[{re.escape(name)}\]$", text, re.MULTILINE):
            return None
        return text.rstrip("\n") + "\n\n" + entry

    return Edit("x86/unittests.cfg", entry, apply)


def why_no_tree(tree: Path) -> str:
    """Why a directory is no kvm-unit-tests tree; empty when it is one."""
    for part in ("x86/unittests.cfg", "x86/Makefile.x86_64", "lib/libcflat.h"):
        if not (tree / part).is_file():
            return f"{tree} has no {part}"
    return ""
