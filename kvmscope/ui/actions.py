"""Everything the UI can do, as a table: the palette, the key help and the bindings are made from it.

``method`` is the screen's ``action_<method>``; keys are in `kvmscope.ui.keymap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["ACTIONS", "BY_ID", "ActionSpec", "Where"]


class Where(StrEnum):
    """When an action's keys work."""

    RUN = "run"
    """Not while a letter would be typed."""
    EDIT = "edit"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """One thing a user can do."""

    id: str
    title: str
    """A few words, as the palette shows it."""
    help: str
    """One sentence: what happens."""
    method: str
    where: Where = Where.RUN
    short: str = ""
    """The word in the footer; empty: not there."""

    @property
    def group(self) -> str:
        """The heading it stands under in the help."""
        return self.id.partition(".")[0]


_R, _E, _A = Where.RUN, Where.EDIT, Where.ALWAYS

ACTIONS: Final = (
    ActionSpec("run.step", "Step", "Execute one instruction.", "step", _R, "step"),
    ActionSpec("run.over", "Step over", "One instruction; calls, interrupts and REP run to their end.", "over", _R, "over"),
    ActionSpec("run.step_line", "Step line", "To the next source line of an image, into calls.", "step_line", _R),
    ActionSpec("run.over_line", "Step line over", "To the next source line of an image, over calls.", "over_line", _R),
    ActionSpec("run.finish", "Finish", "Run until the present function or handler returns.", "finish", _R),
    ActionSpec("run.to_cursor", "Run to cursor", "Run until the line of the cursor is about to execute.", "to_cursor", _R),
    ActionSpec("run.continue", "Continue", "Run to a breakpoint or the end.", "cont", _R, "cont"),
    ActionSpec("run.stop", "Stop", "Stop a run at once.", "stop_run", _R),
    ActionSpec("run.restart", "Restart", "Assemble again and go to the first instruction.", "restart", _R, "restart"),
    ActionSpec("back.step", "Step back", "Undo one instruction.", "step_back", _R, "back"),
    ActionSpec("back.over", "Step back over", "Back by one instruction, a call as one.", "over_back", _R),
    ActionSpec("back.step_line", "Line back", "Back to the beginning of a source line.", "line_back", _R),
    ActionSpec("back.over_line", "Line back over", "Back to the beginning of a source line, a call as one.", "over_line_back", _R),
    ActionSpec("back.entry", "Back to the call", "Back to where the present function or handler was entered.", "entry", _R),
    ActionSpec("back.to_cursor", "Back to cursor", "Back to the last time the line of the cursor executed.", "cursor_back", _R),
    ActionSpec("back.continue", "Continue back", "Back to the last breakpoint hit, or the start.", "cont_back", _R),
    ActionSpec("back.previous_event", "Previous event", "Back to the event before this point.", "previous_event", _R),
    ActionSpec("run.next_event", "Next event", "On to the next event (exception, I/O, MSR, control register).", "next_event", _R, "event"),
    ActionSpec("run.breakpoint", "Breakpoint", "Set or clear a breakpoint at the cursor.", "toggle_breakpoint", _R, "break"),
    ActionSpec("look.memory", "Memory at register", "Show the memory that the register under the cursor points to.", "memory_at", _R),
    ActionSpec("look.walk", "Page walk", "Show the page walk of the address under the cursor.", "walk_at", _R),
    ActionSpec("look.decode", "Decode value", "Say what the value under the cursor is, bit by bit.", "decode", _R),
    ActionSpec("look.watch", "Watch expression", "Show an expression at every stop.", "watch", _R),
    ActionSpec("look.goto", "Go to", "Go to a label, an address, a line or a tick.", "goto", _R, "goto"),
    ActionSpec("look.copy", "Copy", "Copy the selection, or the line or value under the cursor.", "copy_it", _R),
    ActionSpec("look.command", "Command line", "Type gdb's words: break, x/4gx, print, info, until, ...", "command_line", _R, "command"),
    ActionSpec("look.zoom", "Zoom", "Give the focused panel the whole screen, or take it back.", "zoom", _R),
    ActionSpec("look.next_panel", "Next panel", "Focus the next panel.", "next_panel", _A),
    ActionSpec("look.previous_panel", "Previous panel", "Focus the previous panel.", "previous_panel", _A),
    ActionSpec("look.picture", "Picture", "Write a picture of the screen as SVG.", "picture", _R),
    ActionSpec("look.theme", "Theme", "Next theme: dark, light, 16 colours.", "next_theme", _A),
    ActionSpec("vcpu.next", "Next vCPU", "Look at the next vCPU; stepping steps the one that is looked at.", "next_vcpu", _R),
    ActionSpec("vcpu.previous", "Previous vCPU", "Look at the vCPU before.", "previous_vcpu", _R),
    ActionSpec("vcpu.lock", "Freeze other vCPUs", "Give turns only to the vCPU that is looked at; again: to all.", "lock_vcpu", _R),
    ActionSpec("edit.edit", "Edit", "Type in the source.", "edit", _R, "edit"),
    ActionSpec("edit.leave", "Back to running", "Leave the source; a changed one is assembled and started.", "leave_edit", _E, "run"),
    ActionSpec("edit.start", "Assemble and start", "Assemble and go to the first instruction.", "restart", _E, "assemble"),
    ActionSpec("edit.find", "Find", "Find text in the source.", "find", _A),
    ActionSpec("edit.find_next", "Find next", "The next place of the text looked for.", "find_next", _A),
    ActionSpec("edit.next_problem", "Next problem", "To the next line that does not assemble.", "next_problem", _A),
    ActionSpec("file.save", "Save", "Write the file.", "save", _A),
    ActionSpec("file.save_as", "Save as", "Write to another file.", "save_as", _A),
    ActionSpec("file.open", "Open", "Open another file.", "open", _A),
    ActionSpec("file.recent", "Recent files", "Open a file of late.", "recent", _A),
    ActionSpec("file.lessons", "Shipped reproducers", "Open one of the lessons that come with kvmscope.", "lessons", _A),
    ActionSpec("file.new", "New from template", "Begin a reproducer from a template.", "new", _A),
    ActionSpec("file.suite", "Suite browser", "Back to the entries of the kvm-unit-tests tree that was opened.", "suite", _R),
    ActionSpec("file.export", "Export", "Write the reproducer as a test that upstream accepts.", "export", _R, "export"),
    ActionSpec("app.palette", "Command palette", "Find any action by name.", "palette", _A, "palette"),
    ActionSpec("app.help", "Help", "Keys and panels.", "help", _A, "help"),
    ActionSpec("app.quit", "Quit", "Leave kvmscope.", "leave", _A, "quit"),
)  # fmt: skip
"""In the order of the help."""

BY_ID: Final = {action.id: action for action in ACTIONS}
