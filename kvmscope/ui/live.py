"""Assembling while the user types: on a thread of its own, the newest text only, after a short rest."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kvmscope.asm.image import Diagnostic, Severity
from kvmscope.errors import KvmscopeError, ReproducerError

if TYPE_CHECKING:
    from kvmscope.asm.image import Assembly
    from kvmscope.reproducer.document import Reproducer

__all__ = ["Assembled", "LiveAssembler", "assemble_text"]

_REST: Final = 0.12
"""Seconds without a key before the text is assembled."""
_PLACE: Final = re.compile(r":(\d+)(?::(\d+))?")


@dataclass(frozen=True, slots=True)
class Assembled:
    """What became of one version of the text.  ``reproducer`` is None when its header is wrong."""

    generation: int
    text: str
    reproducer: Reproducer | None = None
    assembly: Assembly | None = None
    diagnostics: tuple[Diagnostic, ...] = ()
    problem: KvmscopeError | None = field(default=None, compare=False)
    """What is wrong beside the lines of the source: an assembler that is missing, for one."""

    @property
    def ok(self) -> bool:
        """True when there is a program to run."""
        assembly = self.assembly
        # Bytes that two assemblers disagree about are not run before the user has chosen.
        return assembly is not None and assembly.image is not None and assembly.cross_check is None

    @property
    def errors(self) -> int:
        """How many lines are wrong."""
        return sum(item.severity is Severity.ERROR for item in self.diagnostics)


def assemble_text(text: str, filename: str, generation: int = 0, *, cross_check: bool = False) -> Assembled:
    """Parse and assemble; a user's mistake is a diagnostic, whatever made it."""
    from kvmscope.reproducer.assembling import assemble_reproducer
    from kvmscope.reproducer.document import parse

    reproducer: Reproducer | None = None
    try:
        reproducer = parse(text, filename)
        assembly = assemble_reproducer(reproducer, cross_check=cross_check)
    except ReproducerError as error:
        return Assembled(generation, text, diagnostics=(_at_line(error),))
    except KvmscopeError as error:
        return Assembled(generation, text, reproducer, diagnostics=(_at_line(error),), problem=error)
    notes = list(assembly.diagnostics)
    if assembly.cross_check is not None:
        other = assembly.cross_check
        notes.append(
            Diagnostic(
                other.line,
                1,
                Severity.ERROR,
                f"{assembly.backend} gives {other.ours.hex(' ')}, {other.other} gives {other.theirs.hex(' ')}",
                'choose one with backend = "gas" or backend = "keystone" in the header',
            )
        )
    return Assembled(generation, text, reproducer, assembly, tuple(notes))


def program_of(program: Reproducer, text: str, generation: int) -> Assembled:
    """An image in the place of what is assembled."""
    from kvmscope.reproducer.assembling import assemble_reproducer

    return Assembled(generation, text, program, assemble_reproducer(program, cross_check=False))


def _at_line(error: KvmscopeError) -> Diagnostic:
    """An error of the header as a diagnostic of its line; its detail begins with ``file:line``."""
    first, _, rest = error.detail.partition("\n")
    found = _PLACE.search(first)
    line, column = (int(found.group(1)), int(found.group(2) or 1)) if found else (1, 1)
    hint = error.hint or (rest.strip() if found else first)
    return Diagnostic(line, column, Severity.ERROR, error.title, hint)


class LiveAssembler:
    """The thread; results go to ``deliver``, which is called on it."""

    def __init__(self, deliver: Callable[[Assembled], object]) -> None:
        self._deliver = deliver
        self._wake = threading.Condition()
        self._wanted: tuple[int, str, str, bool, Reproducer | None] | None = None
        self._hurry = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(
        self, generation: int, text: str, filename: str, *, now: bool = False, program: Reproducer | None = None
    ) -> None:
        """Assemble this text next, in place of any that waits; ``now`` skips the rest and has GNU as confirm the bytes.

        With ``program`` the text is about an image, which is the answer.
        """
        with self._wake:
            self._wanted = generation, text, filename, now, program
            self._hurry = now
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="assembler", daemon=True)
                self._thread.start()
            self._wake.notify()

    def close(self) -> None:
        """End the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _next(self) -> tuple[int, str, str, bool, Reproducer | None] | None:
        with self._wake:
            while self._wanted is None and not self._closed:
                self._wake.wait()
            # Each new key begins the rest anew.
            while not self._hurry and not self._closed and self._wake.wait(_REST):
                pass
            wanted, self._wanted, self._hurry = self._wanted, None, False
            return None if self._closed else wanted

    def _run(self) -> None:
        while (wanted := self._next()) is not None:
            generation, text, filename, checked, program = wanted
            if program is not None:
                self._deliver(program_of(program, text, generation))
            else:
                self._deliver(assemble_text(text, filename, generation, cross_check=checked))
