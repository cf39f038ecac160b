"""Runs the entries of a built kvm-unit-tests tree under QEMU's TCG, as its run_tests.sh does, and writes what came of it.

    python tools/compare_qemu.py TREE -o qemu.json [NAME...]

For a comparison with ``kvmscope suite`` (see docs/generate.py); KVM is never asked for.  One entry after the other, each
under its own time-out; the file is written anew after each, so that a run that is ended keeps what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from kvmscope.reproducer.kut import count, report_lines, summary, word_of
from kvmscope.suite.config import Entry, load_config
from kvmscope.suite.words import DATE

QEMU = "qemu-system-x86_64"
NO_KERNEL = "_NO_FILE_4Uhere_"
STARTED = re.compile(r"[Cc]ould not (load|open) kernel|error loading|failed to load")


def environment(version: str) -> str:
    """The guest's environment, which run_tests.sh hands over as an initrd."""
    numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", version)
    major, minor, micro = numbers.groups() if numbers else ("", "", "")
    release = os.uname().release
    kernel = [*re.findall(r"\d+", release), "", "", ""][:3]
    pairs = {
        "TARGET": "", "QEMU_ACCEL": "tcg", "QEMU_VERSION_STRING": version,
        "QEMU_MAJOR": major, "QEMU_MINOR": minor, "QEMU_MICRO": micro,
        "KERNEL_VERSION_STRING": release, "KERNEL_VERSION": kernel[0], "KERNEL_PATCHLEVEL": kernel[1],
        "KERNEL_SUBLEVEL": kernel[2], "KERNEL_EXTRAVERSION": "", "ERRATA_FORCE": "y",
    }  # fmt: skip
    return "".join(f"{name}={value}\n" for name, value in pairs.items())


def command(entry: Entry, kernel: str, initrd: str) -> list[str]:
    """x86/run's command line."""
    words = [
        QEMU, "--no-reboot", "-nodefaults", "-global", "kvm-pit.lost_tick_policy=discard", "-device", "pc-testdev",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4", "-display", "none", "-serial", "stdio",
        "-device", "pci-testdev", "-machine", "accel=tcg", "-kernel", kernel, "-smp", str(entry.smp),
    ]  # fmt: skip
    if entry.append is not None:
        words += ["-append", entry.append.replace(str(DATE), str(int(time.time())))]
    return [*words, *entry.params, "-initrd", initrd]


def refused(entry: Entry, tree: Path, initrd: str) -> str:
    """Why run_tests.sh would not run it; empty when it would."""
    if "nodefault" in entry.groups:
        return "test marked as manual run only"
    if entry.arch not in ("", "x86_64"):
        return f"{entry.arch} only"
    if entry.accel not in ("", "tcg"):
        return f"{entry.accel} only, but ACCEL=tcg"
    for check in entry.check:
        path = Path(check.path)
        if not path.is_file() or path.read_text().strip() != check.value:
            return f"{check.path} not equal to {check.value}"
    if not (tree / "x86" / entry.file).is_file():
        return f"Test file 'x86/{entry.file}' not found"
    if "-enable-kvm" in entry.params:
        return "asks for KVM (-enable-kvm): not tried"
    done = subprocess.run(command(entry, NO_KERNEL, initrd), capture_output=True, text=True, timeout=30, check=False)
    log = (done.stdout + done.stderr).strip()
    lines = [line for line in log.splitlines() if NO_KERNEL in line]
    return "" if any(STARTED.search(line) for line in lines) else log.splitlines()[-1]


def run(entry: Entry, tree: Path, initrd: str, log: Path | None) -> dict[str, object]:
    """One row."""
    reason = refused(entry, tree, initrd)
    row: dict[str, object] = {"name": entry.name, "word": "SKIP", "reason": reason, "seconds": 0.0, "lines": [0, 0, 0]}
    if reason:
        return row
    words = command(entry, f"x86/{entry.file}", initrd)
    started = time.monotonic()
    done = subprocess.run(
        ["timeout", "-k", "1s", "--foreground", entry.duration, *words],
        stdin=subprocess.DEVNULL, capture_output=True, cwd=tree, check=False,
    )  # fmt: skip
    took = time.monotonic() - started
    errors = done.stderr.decode(errors="replace").splitlines()
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    if status == 0:
        # Without the debug-exit device: a triple fault under --no-reboot.
        status = 1
    elif status == 1 and all("warning" in line.lower() for line in errors):
        status = 0
    word, why = word_of(status, entry.duration)
    counts = count(report_lines(done.stdout))
    if log is not None:
        (log / f"{entry.name}.log").write_bytes(done.stdout + done.stderr)
    return row | {
        "word": word.value,
        "reason": why or summary(done.stdout).strip("()"),
        "status": status,
        "seconds": round(took, 2),
        "lines": [counts.passed, counts.failed, counts.skipped],
    }


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--logs", type=Path)
    options = parser.parse_intermixed_args()
    tree = options.tree.resolve()
    if options.logs is not None:
        options.logs.mkdir(parents=True, exist_ok=True)
    version = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    rows = []
    with tempfile.NamedTemporaryFile("w", suffix=".env") as initrd:
        initrd.write(environment(version))
        initrd.flush()
        for entry in load_config(tree / "x86" / "unittests.cfg").entries:
            if options.names and entry.name not in options.names:
                continue
            row = run(entry, tree, initrd.name, options.logs)
            rows.append(row)
            print(row["word"], row["name"], row["reason"], row["lines"], row["seconds"], flush=True)
            options.output.write_text(json.dumps({"qemu": version, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
