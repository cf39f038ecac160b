"""The screen as an SVG picture."""

from __future__ import annotations

from typing import Any

from textual.app import App

__all__ = ["screen_svg"]


def screen_svg(app: App[Any], title: str) -> str:
    """What is on the screen now.

    Spaces are kept: viewers that have not the font which the picture names would join the words of a line otherwise.
    """
    return app.export_screenshot(title=title).replace("<text ", '<text xml:space="preserve" ')
