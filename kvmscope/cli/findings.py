"""The probes of ``kvmscope doctor``: one function each, none with a side effect."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from typing import Final

from kvmscope.errors import KvmscopeError

__all__ = ["Finding", "State", "all_findings"]

_KVM_GET_API_VERSION: Final = 0xAE00
_KVM_API_VERSION: Final = 12
"""The only one there has been since Linux 2.6.22."""
_ASSEMBLERS: Final = {
    "keystone": ("keystone", "assembling without any tool installed"),
    "gas": ("GNU as", "a second opinion on every byte, and the forms that the built-in assembler lacks"),
    "clang": ("clang", "a third assembler"),
}
_CLIPBOARDS: Final = ("wl-copy", "xclip", "xsel", "pbcopy")


class State(StrEnum):
    """``wrong``: it is there and cannot be used."""

    FOUND = "found"
    ABSENT = "absent"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked for: what was found, what it gives, and what to do about it."""

    name: str
    state: State
    found: str
    gives: str = ""
    hint: str = ""
    required: bool = False


def all_findings() -> list[Finding]:
    """Every probe's answer, in the order in which they are printed."""
    return [_python(), *_packages(), *_assemblers(), *_tools(), _kvm(), _dirty_tracking(), *_terminal()]


def _python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()}"
    return Finding("python", State.FOUND, found, required=True)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Finding]:
    yield _package("textual", "the terminal IDE", required=True)
    yield _unicorn()
    yield _package("capstone", "disassembly", required=True)
    yield _package("ziglang", "clang as an assembler, from PyPI", "pip install 'kvmscope[portable]'")


def _package(name: str, gives: str, hint: str = "", *, required: bool = False) -> Finding:
    version = _version(name)
    if version is None:
        return Finding(name, State.ABSENT, "not installed", gives, hint or f"pip install {name}", required)
    return Finding(name, State.FOUND, version, gives, required=required)


def _unicorn() -> Finding:
    gives = "the embedded engine"
    version = _version("unicorn")
    if version is None:
        return Finding("unicorn", State.ABSENT, "not installed", gives, "pip install unicorn==2.1.4", required=True)
    try:
        from unicorn import UC_ARCH_X86, UC_MODE_64, Uc, UcError

        from kvmscope.vmm.unicorn.layout import check, check_version
    except ImportError as error:
        return Finding("unicorn", State.WRONG, f"{version}, but {error}", gives, required=True)
    try:
        check_version()
        check(Uc(UC_ARCH_X86, UC_MODE_64))
    except UcError as error:
        return Finding("unicorn", State.WRONG, f"{version}, but {error}", gives, required=True)
    except KvmscopeError as error:
        return Finding("unicorn", State.WRONG, f"{version}: {error.title}", gives, error.hint, required=True)
    return Finding("unicorn", State.FOUND, f"{version}, its state is where it should be", gives, required=True)


def _tools() -> Iterator[Finding]:
    yield _tool("ld", "building exported tests", "binutils")
    yield _tool("gcc", "building exported tests", "gcc")


def _tool(command: str, gives: str, package: str) -> Finding:
    path = shutil.which(command)
    if path is None:
        return Finding(command, State.ABSENT, "not installed", gives, f"install {package}")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(command, State.WRONG, f"{path}: {error}", gives)
    first = done.stdout.split("\n", 1)[0].strip()
    if done.returncode or not first:
        return Finding(command, State.WRONG, f"{path} does not tell its version", gives)
    return Finding(command, State.FOUND, f"{first} ({path})", gives)


def _assemblers() -> Iterator[Finding]:
    """Each backend, then whether there is one at all."""
    from kvmscope.asm import backends

    found = backends()
    for backend in found:
        name, gives = _ASSEMBLERS.get(backend.name, (backend.name, ""))
        if backend.available:
            yield Finding(name, State.FOUND, backend.version, gives)
        else:
            yield Finding(name, State.ABSENT, "not usable here", gives, backend.why_not)
    usable = [_ASSEMBLERS.get(backend.name, (backend.name, ""))[0] for backend in found if backend.available]
    if usable:
        yield Finding("assembler", State.FOUND, " and ".join(usable), required=True)
    else:
        hint = "install binutils, or pip install 'kvmscope[portable]'"
        yield Finding("assembler", State.ABSENT, "none of the above", "sources become code", hint, required=True)


def _kvm() -> Finding:
    name, path, gives = "KVM", "/dev/kvm", "a run on real KVM (an engine that this version does not have yet)"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return Finding(name, State.ABSENT, f"no {path}", gives, "the embedded engine needs none")
        hint = "add yourself to the group kvm" if error.errno in (errno.EACCES, errno.EPERM) else ""
        return Finding(name, State.WRONG, f"{path}: {error.strerror}", gives, hint)
    try:
        import fcntl

        version = fcntl.ioctl(descriptor, _KVM_GET_API_VERSION)
    except OSError as error:
        return Finding(name, State.WRONG, f"{path}: {error.strerror}", gives)
    finally:
        os.close(descriptor)
    if version != _KVM_API_VERSION:
        return Finding(name, State.WRONG, f"{path}, API version {version} and not {_KVM_API_VERSION}", gives)
    return Finding(name, State.FOUND, f"{path}, API version {version}", gives)


def _dirty_tracking() -> Finding:
    from kvmscope.vmm.dirty import UffdTracker, tracker_name

    name, gives = "userfaultfd", "cheap checkpoints: the kernel notes which pages were written"
    if tracker_name() == UffdTracker.name:
        return Finding(name, State.FOUND, "write tracking passed its self-test", gives)
    hint = "Linux 6.7 and permission are needed; without it pages are compared, which is slower and as exact"
    return Finding(name, State.ABSENT, "no usable write tracking", gives, hint)


def _terminal() -> Iterator[Finding]:
    term = os.environ.get("TERM", "")
    if not sys.stdout.isatty():
        yield Finding("terminal", State.ABSENT, f"stdout is none (TERM={term or 'not set'})")
    else:
        columns, lines = shutil.get_terminal_size()
        found = f"{term or 'TERM is not set'}, {columns}x{lines}, {_colours(term)}"
        small = columns < 80 or lines < 24
        hint = "the IDE wants 80x24 at least" if small else ""
        yield Finding("terminal", State.WRONG if small or not term else State.FOUND, found, hint=hint)
    if os.environ.get("TMUX"):
        yield _tmux()
    escdelay = os.environ.get("ESCDELAY", "")
    found = f"{escdelay} ms" if escdelay.isdecimal() else "100 ms (the default)"
    yield Finding("ESCDELAY", State.FOUND, f"{found}: a key that comes later than this is not part of the sequence")
    tools = [tool for tool in _CLIPBOARDS if shutil.which(tool)]
    found = f"by the terminal (OSC 52){''.join(f', {tool}' for tool in tools)}"
    yield Finding("clipboard", State.FOUND, found)


def _colours(term: str) -> str:
    if os.environ.get("NO_COLOR"):
        return "no colours (NO_COLOR)"
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        return "16 million colours"
    return "256 colours" if "256color" in term else "16 colours or fewer"


def _tmux() -> Finding:
    try:
        done = subprocess.run(
            ["tmux", "show-options", "-sv", "escape-time"], capture_output=True, text=True, timeout=5, check=False
        )
        delay = int(done.stdout.strip())
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return Finding("tmux", State.FOUND, "running in it")
    hint = "set -s escape-time 10 in tmux.conf makes Esc prompt" if delay > 50 else ""
    return Finding("tmux", State.FOUND, f"running in it, escape-time {delay} ms", hint=hint)
