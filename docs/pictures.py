"""Draw the pictures of README and docs with the app itself: ``python -m docs.pictures``."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from kvmscope.reproducer.shipped import shipped_dir
from kvmscope.ui.app import KvmscopeApp
from kvmscope.ui.document import Document
from kvmscope.ui.picture import screen_svg

HERE = Path(__file__).parent / "pictures"

PICTURES = {
    "session": ("page-fault-write.asm", (160, 50), ["escape", "s", "s", "s"]),
    "small": ("page-fault-write.asm", (80, 24), ["escape", "s", "s", "s", "5"]),
    "double-fault": ("double-fault.asm", (160, 50), ["escape", "s", "s", "s"]),
    "processors": ("ipi.asm", (160, 50), ["escape", *["right_square_bracket"] * 12, "6"]),
    "descriptors": ("call-gate.asm", (120, 40), ["escape", "s", "s", "s", "9"]),
}


async def draw(name: str) -> None:
    """One picture."""
    file, size, keys = PICTURES[name]
    lessons = shipped_dir()
    assert lessons is not None
    with tempfile.TemporaryDirectory() as directory:
        # A copy: the recovery file and the path shown must not depend on where this repository lies.
        path = Path(shutil.copy(lessons / file, directory))
        app = KvmscopeApp(Document.load(path))
        async with app.run_test(size=size) as pilot:
            await pilot.pause(1.0)
            for key in keys:
                await pilot.press(key)
                await pilot.pause(0.6)
            HERE.mkdir(exist_ok=True)
            (HERE / f"{name}.svg").write_text(screen_svg(app, "kvmscope"), encoding="utf-8")


if __name__ == "__main__":
    for picture in PICTURES:
        asyncio.run(draw(picture))
