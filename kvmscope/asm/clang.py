"""clang as the encoder of the built-in assembler, where Keystone is missing or knows too little.

From ``clang`` on the PATH, or from the wheel ``ziglang`` (the extra ``portable``), which has builds for ARM too.
clang gets what Keystone would get, one instruction a label, and the guard reads its answers with the same distrust.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata, util
from typing import Final

from kvmscope.asm.elfobj import read_object
from kvmscope.asm.external import run_tool

__all__ = ["WHY_NOT", "Clang", "find_clang"]

WHY_NOT: Final = "no clang on the PATH; install clang, or the extra: pip install 'kvmscope[portable]'"
_ERROR: Final = re.compile(r"^[^\n:]*:(\d+):\d+: error:", re.MULTILINE)
_HEADER_LINES: Final = 1


@dataclass(frozen=True, slots=True)
class Clang:
    """An installed clang and the command that runs it."""

    command: tuple[str, ...]
    version: str

    def encode(self, bits: int, texts: Sequence[str]) -> list[bytes | None]:
        """The bytes of every text (Intel syntax, one instruction), None for what clang refuses."""
        kept = list(range(len(texts)))
        out: list[bytes | None] = [None] * len(texts)
        # Every round takes out the lines that clang complains of; the second is normally without errors.
        for _ in range(3):
            errors, blob = self._run(bits, [texts[i] for i in kept])
            wrong = {int(match.group(1)) - _HEADER_LINES - 1 for match in _ERROR.finditer(errors)}
            if not wrong:
                for i, data in zip(kept, _split(blob, len(kept)), strict=True):
                    out[i] = data
                return out
            kept = [i for at, i in enumerate(kept) if at not in wrong]
            if not kept:
                return out
        return out

    def _run(self, bits: int, texts: Sequence[str]) -> tuple[str, bytes]:
        target = "x86_64" if bits == 64 else "x86"
        triple = "x86_64-linux-gnu" if bits == 64 else "i386-linux-gnu"
        lines = [f".intel_syntax noprefix; .code{bits}"]
        lines += [f"k{i}: {text}" for i, text in enumerate(texts)]
        with tempfile.TemporaryDirectory(prefix="kvmscope-clang-") as directory:
            zig = "ziglang" in self.command
            options = [f"-target={target}-linux-gnu"] if zig else [f"--target={triple}"]
            if zig:
                options = ["-target", f"{target}-linux-gnu"]
            command = [*self.command, *options, "-c", "-x", "assembler", "-o", "object", "-"]
            environment = {"ZIG_GLOBAL_CACHE_DIR": directory, "ZIG_LOCAL_CACHE_DIR": directory, "HOME": directory}
            run = run_tool(command, "\n".join([*lines, f"k{len(texts)}:", ""]), directory, environment)
            try:
                with open(os.path.join(directory, "object"), "rb") as file:
                    return run.errors, file.read()
            except OSError:
                return run.errors, b""


def _split(blob: bytes, count: int) -> list[bytes | None]:
    """The bytes between the labels k0, k1 and so on."""
    try:
        obj = read_object(blob)
    except (ValueError, struct.error, IndexError, KeyError):
        return [None] * count
    text = next((section for section in obj.sections.values() if section.name == ".text"), None)
    places = {symbol.name: symbol.value for symbol in obj.symbols if symbol.name.startswith("k")}
    if text is None or text.relocations or len(places) != count + 1:
        return [None] * count
    return [bytes(text.data[places[f"k{i}"] : places[f"k{i + 1}"]]) or None for i in range(count)]


def find_clang() -> Clang | None:
    """clang on the user's PATH, or ziglang's; None where there is neither."""
    return _find_clang(os.environ.get("PATH", os.defpath))


@lru_cache(maxsize=8)
def _find_clang(path: str) -> Clang | None:
    found = shutil.which("clang", path=path)
    if found is not None:
        try:
            run = subprocess.run(
                [found, "--version"], capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired):
            run = None
        version = re.search(r"version (\d+\.[\d.]+)", run.stdout) if run else None
        if version:
            return Clang((found,), version.group(1))
    if util.find_spec("ziglang") is not None:
        return Clang((sys.executable, "-m", "ziglang", "cc"), f"ziglang {metadata.version('ziglang')}")
    return None
