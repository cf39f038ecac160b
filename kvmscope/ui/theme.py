"""Colours: one accent, quiet neutrals, and a meaning for every other colour.

`palette_for` gives the styles that rows are written in, resolved once per theme; drawing code never asks Textual for a
style.  Every highlight carries an attribute (bold, underline, reverse) or is accompanied by a glyph, so that it survives
16 colours and ``NO_COLOR``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

from rich.style import Style
from textual.theme import Theme

__all__ = ["STYLE_NAMES", "THEMES", "Inks", "Palette", "palette_for"]

Palette = Mapping[str, Style]
"""Style name -> rich style, background included."""


@dataclass(frozen=True, slots=True)
class Inks:
    """The colours of one theme, as rich writes them; an empty string is the terminal's own."""

    back: str
    raised: str
    """Background of the cursor's row and of bars."""
    mark: str
    """Background of the current line."""
    text: str
    soft: str
    """Secondary text."""
    faint: str
    """Rules, zeros, comments."""
    accent: str
    on_accent: str
    red: str
    amber: str
    green: str
    violet: str
    cyan: str
    dark: bool = True
    ansi: bool = False


_INKS: Final = {
    "kvmscope-dark": Inks(
        back="#12151a", raised="#1e242c", mark="#1b3146", text="#d5dae1", soft="#8d97a5", faint="#525c69",
        accent="#62b0ff", on_accent="#0c1116", red="#ff7a72", amber="#e9b44c", green="#7bcf8a", violet="#c0a5f5",
        cyan="#6fcfd2",
    ),
    "kvmscope-light": Inks(
        back="#fbfbf9", raised="#eeeeea", mark="#dbeafb", text="#23272e", soft="#5c6673", faint="#9da4ad",
        accent="#0a5fb4", on_accent="#ffffff", red="#b9251c", amber="#8a5a00", green="#1d7a35", violet="#6f42c1",
        cyan="#00727a", dark=False,
    ),
    "ansi-dark": Inks(
        back="default", raised="default", mark="default", text="default", soft="default", faint="bright_black",
        accent="bright_blue", on_accent="black", red="bright_red", amber="yellow", green="green", violet="magenta",
        cyan="cyan", ansi=True,
    ),
    "ansi-light": Inks(
        back="default", raised="default", mark="default", text="default", soft="default", faint="bright_black",
        accent="blue", on_accent="white", red="red", amber="yellow", green="green", violet="magenta", cyan="cyan",
        dark=False, ansi=True,
    ),
}  # fmt: skip

_STYLES: Final[Mapping[str, tuple[str, str, str]]] = MappingProxyType(
    {
        # name: (ink, background ink, attributes)
        "text": ("text", "back", ""),
        "value": ("text", "back", ""),
        "dim": ("soft", "back", ""),
        "zero": ("faint", "back", ""),
        "comment": ("faint", "back", "italic"),
        "rule": ("faint", "back", ""),
        "title": ("soft", "back", "bold"),
        "title_off": ("faint", "back", ""),
        "tab": ("text", "back", "bold underline"),
        "tab_focus": ("accent", "back", "bold underline"),
        "title_focus": ("accent", "back", "bold underline"),
        "name": ("soft", "back", ""),
        "addr": ("soft", "back", ""),
        "bytes": ("faint", "back", ""),
        "ascii": ("soft", "back", ""),
        "symbol": ("cyan", "back", ""),
        "label": ("cyan", "back", "bold"),
        "accent": ("accent", "back", "bold"),
        "changed": ("amber", "back", "bold underline"),
        "error": ("red", "back", "bold"),
        "bad": ("red", "back", ""),
        "warn": ("amber", "back", ""),
        "ok": ("green", "back", ""),
        "mnemonic": ("accent", "back", ""),
        "reg": ("text", "back", ""),
        "num": ("violet", "back", ""),
        "string": ("green", "back", ""),
        "directive": ("violet", "back", ""),
        "operator": ("soft", "back", ""),
        "header": ("green", "back", ""),
        "flag_on": ("text", "back", "bold"),
        "flag_off": ("faint", "back", ""),
        "breakpoint": ("red", "back", "bold"),
        "squiggle": ("red", "back", "underline"),
        "gutter": ("faint", "back", ""),
        "gutter_current": ("accent", "back", "bold"),
        "past": ("violet", "back", "bold"),
        "bar": ("soft", "raised", ""),
        "bar_strong": ("text", "raised", "bold"),
        "bar_key": ("accent", "raised", "bold"),
        "bar_edit": ("on_accent", "green", "bold"),
        "bar_run": ("on_accent", "accent", "bold"),
        "bar_fault": ("on_accent", "red", "bold"),
        "bar_past": ("on_accent", "violet", "bold"),
        "bar_error": ("red", "raised", "bold"),
        "bar_warn": ("amber", "raised", "bold"),
        "bar_ok": ("green", "raised", ""),
        "bar_rule": ("faint", "raised", ""),
        # Laid over another style: only their background and attributes count.
        "cursor": ("", "raised", ""),
        "cursor_field": ("", "mark", "bold"),
        "current": ("", "mark", ""),
        "selection": ("", "mark", ""),
    }
)
STYLE_NAMES: Final = tuple(sorted(_STYLES))
"""Every name a `Span` may carry.  ``cursor``, ``cursor_field``, ``current`` and ``selection`` are overlays for whole rows."""

_OVERLAYS: Final = {"cursor", "cursor_field", "current", "selection"}


def _style(inks: Inks, name: str) -> Style:
    ink, back, attributes = _STYLES[name]
    style = Style.parse(attributes) if attributes else Style()
    if inks.ansi and back not in ("back", "raised", "mark"):
        # Badges: reversing a colour is readable on any 16-colour background.
        return style + Style(color=getattr(inks, back), reverse=True)
    if name in _OVERLAYS:
        if inks.ansi:
            return Style(reverse=True) if name != "current" else Style(bold=True, underline=True)
        return style + Style(bgcolor=getattr(inks, back))
    return style + Style(color=getattr(inks, ink), bgcolor=getattr(inks, back))


@cache
def palette_for(theme: str) -> Palette:
    """The styles of ``theme`` (those of the dark one for a theme that is not ours)."""
    inks = _INKS.get(theme, _INKS["kvmscope-dark"])
    return MappingProxyType({name: _style(inks, name) for name in STYLE_NAMES})


def _textual(name: str, inks: Inks) -> Theme:
    return Theme(
        name=name,
        primary=inks.accent,
        accent=inks.accent,
        warning=inks.amber,
        error=inks.red,
        success=inks.green,
        foreground=inks.text,
        background=inks.back,
        surface=inks.back,
        panel=inks.raised,
        dark=inks.dark,
        variables={
            "rule": inks.faint,
            "soft": inks.soft,
            "raised": inks.raised,
            "selection": inks.mark,
            "block-cursor-text-style": "none",
            "input-cursor-text-style": "reverse",
            "footer-key-foreground": inks.accent,
        },
    )


THEMES: Final = tuple(_textual(name, inks) for name, inks in _INKS.items() if not inks.ansi)
"""Themes of our own; Textual brings ``ansi-dark`` and ``ansi-light``."""
