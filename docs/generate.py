"""Write docs/keys.md and docs/limits.md from the tables that the program itself uses: ``python -m docs.generate``."""

from __future__ import annotations

from pathlib import Path

from kvmscope.debug.commands import COMMANDS
from kvmscope.ui.actions import ACTIONS
from kvmscope.ui.keymap import spelled
from kvmscope.vmm.unicorn.limits import LIMITS

HEADINGS = {
    "run": "Forward",
    "back": "Backwards: the same letter in uppercase",
    "look": "Looking",
    "vcpu": "Several processors",
    "edit": "Editing",
    "file": "Files",
    "app": "Always",
}

PANEL_KEYS = """\
## In a panel

Digits `1` to `9` and `0` bring a panel to the front; `<` and `>` turn the dock's pages; `Tab` goes round.

| key | |
|---|---|
| `↑` `↓` `j` `k`, `PgUp` `PgDn`, `Home` `End` | move the cursor, scroll |
| `←` `→` `h` `l` | field by field in a row |
| `Enter`, double click | open it: a tick goes there, an address is shown, a register or a byte is edited in place |
| `a` | another view: one kind of event after the other, memory as pointers, every register of every device |
| `/` among the devices | only those with a word in the name, or registers with it |
| click on the editor's gutter | set or clear a breakpoint |
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def keys_page() -> str:
    """The whole page."""
    out = [
        "# Keys and commands",
        "",
        "Letters work while the source is not being edited; `i` edits, `Esc` leaves. `?` shows this in the tool.",
        "",
    ]
    for group, heading in HEADINGS.items():
        out += [f"## {heading}", "", "| key | action | |", "|---|---|---|"]
        for action in ACTIONS:
            if action.group != group:
                continue
            keys = " ".join(f"`{key}`" for key in spelled(action.id, all_keys=True).split())
            out.append(f"| {keys or '(palette)'} | {action.title} | {action.help} |")
        out.append("")
    out += [PANEL_KEYS, "## The `:` command line", ""]
    out += [
        "gdb's words; an unambiguous beginning of one is enough, `Tab` completes.",
        "",
        "| command | |",
        "|---|---|",
    ]
    out += [f"| `{_cell(command.usage)}` | {_cell(command.help)} |" for command in COMMANDS]
    return "\n".join(out) + "\n"


def limits_page() -> str:
    """What the embedded engine does not do exactly."""
    out = [
        "# What the embedded machine does not do exactly",
        "",
        "This is the engine's own table. *stops*: the run ends at such an instruction with the reason `unsupported`, so that",
        "nothing goes on wrongly; a reproducer that meets it is skipped with that reason. Otherwise the last column says what a",
        "guest sees. [machine.md](machine.md) says what the machine is made of.",
        "",
        "| area | what | | instead |",
        "|---|---|---|---|",
    ]
    out += [
        f"| {limit.area} | {_cell(limit.what)} | {'stops' if limit.stops else ''} | {_cell(limit.instead)} |"
        for limit in LIMITS
    ]
    return "\n".join(out) + "\n"


PAGES = {"keys.md": keys_page, "limits.md": limits_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        Path(__file__).with_name(name).write_text(page(), encoding="utf-8")
