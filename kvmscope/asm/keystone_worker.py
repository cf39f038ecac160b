"""The process in which Keystone runs, since it can crash, hang, and read files.

Reads one JSON object a line, ``{"bits": 64, "texts": [...]}``, and answers with a list of hex strings, null for what
Keystone refuses.  Started by path, so it imports nothing of kvmscope.
"""

from __future__ import annotations

import json
import resource
import sys

__all__: list[str] = []

_MEMORY = 1 << 30


def main() -> None:
    """Answer requests until standard input ends."""
    import keystone

    modes = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    engines: dict[int, keystone.Ks] = {}
    for request in sys.stdin:
        question = json.loads(request)
        bits = question["bits"]
        if bits not in engines:
            engines[bits] = keystone.Ks(keystone.KS_ARCH_X86, modes[bits])
            # Without an explicit syntax the radix of numbers is whatever memory held.
            engines[bits].syntax = keystone.KS_OPT_SYNTAX_INTEL
        answers: list[str | None] = []
        for text in question["texts"]:
            try:
                data, count = engines[bits].asm(text, 0, as_bytes=True)
            except keystone.KsError:
                data, count = None, 0
            # Success without bytes is one of its ways to fail.
            answers.append(data.hex() if data and count == 1 else None)
        sys.stdout.write(json.dumps(answers) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
