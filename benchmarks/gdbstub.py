"""Step rate with registers against QEMU's gdbstub (TCG), where QEMU is installed."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.guests import LOOP, machine
from benchmarks.measure import Row, seconds

STEPS = 2000


def _packet(sock: socket.socket, body: str) -> bytes:
    """Send one packet and return the reply's body."""
    sock.sendall(f"${body}#{sum(body.encode()) & 0xFF:02x}".encode())
    data = b""
    while True:
        data += sock.recv(65536)
        start = data.find(b"$")
        end = data.find(b"#", start)
        if start >= 0 and 0 <= end <= len(data) - 3:
            sock.sendall(b"+")
            return data[start + 1 : end]


def rows() -> list[Row]:
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        return [Row("steps/s, registers", "-", "-", "QEMU gdbstub", None, "skipped: qemu-system-x86_64 not found")]
    with tempfile.TemporaryDirectory() as directory:
        boot = Path(directory) / "boot.bin"
        # A boot sector that loops over register instructions (16-bit forms of the same work).
        boot.write_bytes(bytes.fromhex("01d84131c2ebf9").ljust(510, b"\0") + b"\x55\xaa")
        path = Path(directory) / "gdb.sock"
        argv = [qemu, "-nodefaults", "-accel", "tcg", "-display", "none", "-S", "-drive"]
        argv += [f"file={boot},format=raw", "-gdb", f"unix:{path},server=on,wait=off"]
        child = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        try:
            while not path.exists():
                time.sleep(0.02)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                _packet(sock, "?")

                def steps() -> None:
                    for _ in range(STEPS):
                        _packet(sock, "s")
                        _packet(sock, "g")

                steps()
                theirs = STEPS / seconds(steps)
        finally:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
    m = machine(LOOP)

    def ours() -> None:
        for _ in range(STEPS):
            m.step()
            _ = m.cpu

    ours()
    rate = STEPS / seconds(ours)
    m.close()
    return [Row("steps/s with registers", f"{rate:,.0f}", f"{theirs:,.0f}", "QEMU gdbstub, s and g", theirs / rate)]
