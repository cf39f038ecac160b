"""A running UI for tests: a real machine, a private state directory, waiting for conditions instead of times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from textual import events
from textual.pilot import Pilot

from kvmscope.ui.app import KvmscopeApp
from kvmscope.ui.document import Document
from kvmscope.ui.screen import MainScreen

LIMIT = 20.0
"""Seconds after which a condition is given up; nothing is measured with it."""

FAULTING = """\
; /// kvmscope
; title = "A store to a read-only page"
; mode = "long64"
; expect = ["exception == '#PF'"]
; [[page]]
; linear = 0x200000
; physical = 0x200000
; flags = "P"
; ///
start:  mov     rax, 0x200000
        mov     ebx, 5
store:  mov     [rax], rbx
        hlt
"""

LOOPING = """\
; /// kvmscope
; mode = "long64"
; max_instructions = 2000000000
; ///
        xor     eax, eax
again:  inc     rax
        jmp     again
"""

CALLING = """\
; /// kvmscope
; mode = "long64"
; ///
        mov     ecx, 3
        call    double
        mov     edx, eax
        mov     al, 'A'
        out     0xe9, al
        out     0xf4, al
double: lea     eax, [rcx + rcx]
        ret
"""


class Bench:
    """The app under test with its pilot."""

    def __init__(self, app: KvmscopeApp, pilot: Pilot[int]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def main(self) -> MainScreen:
        return self.app.main

    @property
    def tick(self) -> int:
        assert self.main.view is not None
        return self.main.view.snapshot.tick

    @property
    def line(self) -> int | None:
        assert self.main.view is not None
        return self.main.view.line

    async def until(self, condition: Callable[[], bool], what: str = "") -> None:
        """Wait until ``condition`` holds."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline, f"never happened: {what or condition}"
            await self.pilot.pause(0.01)
        await self.pilot.pause()

    async def idle(self) -> None:
        """Wait until the machine has answered everything."""
        await self.until(lambda: not self.main.controller.busy, "machine idle")

    async def started(self) -> None:
        """Wait until the machine stands at the text shown."""
        await self.until(lambda: self.main.view is not None and not self.main.stale, "machine started")
        await self.idle()

    async def press(self, *keys: str) -> None:
        """Press keys one after the other, each answered before the next."""
        for key in keys:
            await self.pilot.press(key)
            await self.pilot.pause()
            await self.idle()

    async def type(self, text: str, *, by_keys: bool = False) -> None:
        """Put text into what has the focus: pasted, which is quicker, or key by key."""
        if by_keys:
            await self.pilot.press(*(_NAMES.get(char, char) for char in text))
        elif self.app.focused is not None:
            self.app.post_message(events.Paste(text))
            await self.pilot.pause()

    async def command(self, text: str) -> None:
        """Carry out a line of the command line."""
        await self.press(":")
        await self.type(text)
        await self.press("enter")

    def register(self, number: int) -> int:
        assert self.main.view is not None
        return self.main.view.snapshot.cpu.gpr[number]

    def screen_text(self) -> str:
        """What stands on the screen."""
        return "\n".join(strip.text for strip in self.app.screen._compositor.render_strips())


_NAMES = {" ": "space", "\n": "enter"}


def drive(
    scenario: Callable[[Bench], Awaitable[None]],
    document: Document | str = FAULTING,
    size: tuple[int, int] = (120, 40),
    *,
    start: bool = True,
) -> None:
    """Run ``scenario`` on a UI that shows ``document``."""

    async def run() -> None:
        shown = Document.blank(document) if isinstance(document, str) else document
        app = KvmscopeApp(shown)
        async with app.run_test(size=size) as pilot:
            bench = Bench(app, pilot)
            await bench.until(lambda: bool(bench.main.panels), "panels loaded")
            if start:
                await bench.started()
            await scenario(bench)

    asyncio.run(run())
