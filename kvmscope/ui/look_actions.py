"""Actions that look: panels, memory, values, going to places, copying, pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kvmscope.errors import UsageError
from kvmscope.ui import clipboard
from kvmscope.ui.files import free_name, write_atomically
from kvmscope.ui.layouts import PANELS, docked
from kvmscope.ui.picture import screen_svg
from kvmscope.ui.vcpu_actions import VcpuActions

if TYPE_CHECKING:
    from kvmscope.ui.line_panel import Key, PanelActivated
    from kvmscope.ui.panels.devices import DevicesPanel, FilterAsked
    from kvmscope.ui.view import Space

__all__ = ["LookActions"]


class LookActions(VcpuActions):
    """Everything that changes what is seen and not what runs, and values edited in place."""

    _filtered: DevicesPanel | None = None
    """The panel that a word was asked for."""

    # Panels.

    def action_panel(self, number: int) -> None:
        """Bring up the panel of a digit."""
        # The key 0 stands behind 9.
        self.bring_up(PANELS[(number - 1) % 10])

    def action_next_panel(self) -> None:
        """Focus the next panel on screen."""
        self._focus_by(1)

    def action_previous_panel(self) -> None:
        """Focus the previous panel on screen."""
        self._focus_by(-1)

    def _focus_by(self, step: int) -> None:
        shown = [name for name in PANELS if name in ("editor", *self.panels) and self.widget_of(name).display]
        at = next((i for i, name in enumerate(shown) if self.widget_of(name).has_focus), 0)
        self.widget_of(shown[(at + step) % len(shown)]).focus()

    def action_dock(self, step: int) -> None:
        """The next or previous panel of the dock."""
        spare = docked(self._layout)
        self.bring_up(spare[(spare.index(self.front) + step) % len(spare)])

    def action_zoom(self) -> None:
        """The focused panel alone, or everything again."""
        name = self.focused_panel.KIND if self.focused_panel else "editor"
        self.zoomed = "" if self.zoomed else name
        self.place_panels()
        self.widget_of(name).focus()

    # Places.

    def action_goto(self) -> None:
        """Ask where to go."""
        self.ask_line("goto")

    def action_find(self) -> None:
        """Ask for text to find."""
        self.ask_line("find", self.editor.selected_text.split("\n")[0])

    def action_find_next(self) -> None:
        """The next place of the same text."""
        if not self._needle:
            self.action_find()
        elif not self.editor.find(self._needle, again=True):
            self.say(f"{self._needle!r} is not in the source", "bar_warn")

    def action_next_problem(self) -> None:
        """The next line that does not assemble."""
        line = self.editor.next_problem()
        if line is None:
            self.say("Everything assembles", "bar_ok")
            return
        note = self.editor.problem_at(line)
        self.hush()
        self.editor.go_to(line, note.column if note else 1)
        self.editor.focus()

    def completer_of(self, purpose: str) -> Callable[[str], list[str]] | None:
        return self._labels_like if purpose == "goto" else super().completer_of(purpose)

    def _labels_like(self, text: str) -> list[str]:
        image = self.controller.image
        return sorted(name for name in (image.symbols if image else ()) if name.startswith(text))

    def on_filter_asked(self, message: FilterAsked) -> None:
        """Ask for the word that a panel is to be filtered by."""
        self._filtered = message.panel
        self.ask_line("filter", message.word)

    def take_line(self, purpose: str, text: str) -> None:
        text = text.strip()
        if purpose == "filter" and self._filtered is not None:
            self._filtered.filter_by(text)
        if not text:
            return
        if purpose == "goto":
            self.go_to(text)
        elif purpose == "find":
            self._needle = text
            if not self.editor.find(text):
                self.say(f"{text!r} is not in the source", "bar_warn")
        elif purpose.startswith("set "):
            self.run_line(f"{purpose} = {text}")
        elif purpose.startswith("byte "):
            self._set_bytes(int(purpose[5:], 16), text)
        else:
            super().take_line(purpose, text)

    def carry_out(self, kind: str, argument: str) -> None:
        if kind != "show":
            super().carry_out(kind, argument)
        elif argument in PANELS:
            self.bring_up(argument)
        else:
            self.go_to(argument)

    def go_to(self, text: str) -> None:
        """Go to ``12`` (line), ``@40`` or ``tick 40`` (step), a label or an address."""
        tick = re.fullmatch(r"(?:@|tick\s+|step\s+)(\d[\d_,]*)", text)
        if tick:
            self.travel(int(re.sub("[_,]", "", tick.group(1))))
            return
        line = re.fullmatch(r"(?::|line\s+)?(\d+)", text)
        if line:
            self.show_line(int(line.group(1)))
            return
        image = self.controller.image
        symbols = image.symbols if image else {}
        if text in symbols:
            self.show_address(symbols[text])
        elif re.fullmatch(r"0[xX][0-9a-fA-F_]+", text):
            self.show_address(int(text, 16))
        else:
            from kvmscope.expr import nearest

            close = nearest(text, symbols)
            hint = (
                f"did you mean {close!r}?" if close else "a line (12), a step (@40), a label or an address (0x401000)"
            )
            self.complain(UsageError(f"There is no label {text!r}", hint=hint))

    def show_line(self, line: int) -> None:
        """Put the editor's cursor on a line."""
        self.editor.go_to(line)
        self.editor.focus()

    def show_address(self, address: int) -> None:
        """Show code in source and disassembly, anything else in the memory panel."""
        image = self.controller.image
        if self.document.program is not None:
            if self.show_code(address):
                self.look_at(replace(self.focus_of_user, code=address))
            else:
                self.show_memory(address)
            return
        line = image.line_at(address) if image else None
        entry = next((e for e in image.lines if e.line == line and e.address <= address), None) if image else None
        if line is not None and entry is not None and entry.code:
            self.editor.go_to(line)
            self.look_at(replace(self.focus_of_user, code=address))
        else:
            self.show_memory(address)

    def show_memory(self, address: int, space: Space | None = None, register: str = "") -> None:
        """Show memory from an address on."""
        from kvmscope.ui.view import Space

        space = space or Space.LINEAR
        self.look_at(replace(self.focus_of_user, memory=address, memory_space=space, memory_register=register))
        self.bring_up("memory", focus=False)

    # Values.

    def open_key(self, key: Key, message: PanelActivated) -> None:
        if key.kind == "code":
            self.show_address(int(key.value))
        elif key.kind == "memory":
            self.show_memory(int(key.value))
        elif key.kind == "physical":
            from kvmscope.ui.view import Space

            self.show_memory(int(key.value), Space.PHYSICAL)
        elif key.kind == "walk":
            self.show_walk(int(key.value))
        elif key.kind == "line":
            self.show_line(int(key.value))
        elif key.kind == "register":
            self._edit_in_place(f"set ${key.value}", key, message)
        elif key.kind == "byte":
            self._edit_in_place(f"byte {key.value:x}" if isinstance(key.value, int) else "", key, message)
        else:
            super().open_key(key, message)

    def _edit_in_place(self, purpose: str, key: Key, message: PanelActivated) -> None:
        """Open an input over the value itself."""
        if self.stale or self.controller.busy:
            self.say("Values can be edited while the machine stands", "bar_warn")
            return
        region = message.region
        width = max(region.width + 2, 12)
        x = min(region.x, self.app.size.width - width)
        self._return_to = message.panel
        self.inplace.styles.offset = (max(0, x), region.y)
        self.inplace.styles.width = width
        self.inplace.display = True
        self.inplace.ask(purpose, key.text)
        self.inplace.select_all()

    def _set_bytes(self, physical: int, text: str) -> None:
        digits = text.replace(" ", "").removeprefix("0x")
        if len(digits) % 2:
            digits = f"0{digits}"
        try:
            data = bytes.fromhex(digits)
        except ValueError:
            self.complain(UsageError(f"{text!r} is no byte", hint="hexadecimal digits, as 90 or 0f 0b"))
            return
        self.controller.edit_memory(physical, data)

    def action_memory_at(self) -> None:
        """The memory that a register (or a number) under the cursor points to."""
        found = self._value_here()
        if found is not None:
            name, value = found
            self.show_memory(value, register=name)

    def action_walk_at(self) -> None:
        """The page walk of an address under the cursor."""
        found = self._value_here()
        if found is not None:
            self.show_walk(found[1])

    def show_walk(self, address: int) -> None:
        """Show the page walk of a linear address."""
        self.look_at(replace(self.focus_of_user, walk=address))
        self.bring_up("paging", focus=False)

    def action_decode(self) -> None:
        """Say what the value under the cursor is."""
        found = self._value_here()
        if found is not None and self.view is not None:
            from kvmscope.ui.values import describe

            name, value = found
            lines = describe(name, value, self.view)
            self.console.say(f"decode {name or hex(value)}", tuple(lines))
            self.bring_up("console", focus=False)

    def _value_here(self) -> tuple[str, int] | None:
        """(register's name or empty, value) under the cursor of the focused panel or of the source."""
        panel = self.focused_panel
        key = panel.current_key if panel is not None else None
        found: tuple[str, int] | None = None
        if key is not None:
            if key.kind == "register" and self.view is not None:
                found = self._register(str(key.value))
            elif key.address is not None:
                found = "", key.address
            elif key.kind != "line" and isinstance(key.value, int):
                found = "", key.value
        elif panel is None:
            found = self._word_here()
        if found is None:
            self.say("There is no register, label or number under the cursor", "bar_warn")
        return found

    def _register(self, name: str) -> tuple[str, int] | None:
        from kvmscope.x86.registers import KNOWN_NAMES, read_register

        if self.view is None or name.lower() not in KNOWN_NAMES:
            return None
        return name.lower(), read_register(self.view.snapshot.cpu, name.lower())

    def _word_here(self) -> tuple[str, int] | None:
        row, column = self.editor.cursor_location
        text = self.editor.document.get_line(row)
        image = self.controller.image
        for match in re.finditer(r"0[xX][0-9a-fA-F_]+|[\w.$]+", text):
            if match.start() <= column <= match.end():
                word = match.group().lstrip("$%")
                if word[:2].lower() == "0x":
                    return "", int(word, 16)
                known = self._register(word)
                if known is not None:
                    return known
                if image is not None and word in image.symbols:
                    return "", image.symbols[word]
                if word.isdigit():
                    return "", int(word)
        return None

    # Out of the terminal.

    def action_copy_it(self) -> None:
        """Copy the selection, the value under the cursor, or the line."""
        text = self.editor.selected_text
        panel = self.focused_panel
        if panel is not None:
            key = panel.current_key
            text = panel.current_text() if key is None or not key.text else key.text
        elif not text:
            text = self.editor.document.get_line(self.editor.cursor_location[0])
        self.say(f"{len(text)} characters {clipboard.copy(self.app, text)}", "bar_ok")

    def action_picture(self) -> None:
        """Write the screen as SVG into the working directory."""
        path = free_name(Path.cwd(), f"kvmscope-{Path(self.document.name).stem}", ".svg")
        svg = screen_svg(self.app, f"kvmscope: {self.document.name}")
        try:
            write_atomically(path, svg)
        except UsageError as error:
            self.complain(error)
            return
        self.say(f"Picture of the screen: {path}", "bar_ok")

    def action_next_theme(self) -> None:
        """Dark, light, 16 colours."""
        cycle = ["kvmscope-dark", "kvmscope-light", "ansi-dark", "ansi-light"]
        at = cycle.index(self.app.theme) if self.app.theme in cycle else 0
        self.app.theme = cycle[(at + 1) % len(cycle)]
        self.say(f"Theme: {self.app.theme}")
