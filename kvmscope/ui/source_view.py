"""The editor as a window on the sources of an image: read-only, one file at a time, following the machine."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from kvmscope.errors import UsageError

if TYPE_CHECKING:
    import threading

    from textual.screen import Screen

    from kvmscope.asm.image import Image
    from kvmscope.debug.debugger import Debugger
    from kvmscope.ui.controller import Controller
    from kvmscope.ui.document import Document
    from kvmscope.ui.editor import Editor
    from kvmscope.ui.view import View

    Base = Screen[None]
else:
    Base = object

__all__ = ["SourceView", "about_image"]


def about_image(image: Image) -> str:
    """What stands in the place of a source: where things are."""
    entry = image.symbol_at(image.entry)
    named = f" <{entry[0]}>" if entry is not None and not entry[1] else ""
    known = f"{len(image.symbols)} symbols" if image.symbols else "no symbols"
    lines = [
        f"// {PurePosixPath(image.name).name}: entry {image.entry:#x}{named}, {known}",
        *(f"// {section.address:#x}-{section.end - 1:#x} {section.name}" for section in image.sections),
    ]
    if image.places is None:
        lines.append("// No line table: the disassembly shows where the machine is.")
    return "\n".join(lines) + "\n"


class SourceView(Base):
    """The part of the workbench that shows sources of an image; mixed into the screen."""

    document: Document
    editor: Editor
    view: View | None
    source_file = ""
    """The file shown, as the image names it; empty: what is known of the image."""

    @property
    def controller(self) -> Controller:
        """The way to the machine."""
        raise NotImplementedError

    def bring_up(self, name: str, *, focus: bool = True) -> None:
        """Show a panel."""
        raise NotImplementedError

    def show_source(self, view: View, *, follow: bool) -> None:
        """Show the line of the next instruction; without one the disassembly takes over."""
        place = view.image.place_at(view.snapshot.cpu.pc)
        if place is not None and place.file != self.source_file and follow:
            self.open_source(view.image, place.file)
        line = place.line if place is not None and place.file == self.source_file else None
        self.editor.mark_position(line, in_past=view.in_past)
        if follow and line is not None:
            self.editor.go_to(line)
        elif follow:
            self.bring_up("disassembly", focus=False)
        self.mark_source_breakpoints(view)

    def open_source(self, image: Image, file: str) -> bool:
        """Put a file into the editor; False when it is not there."""
        text = image.places.text(file) if image.places is not None else None
        if text is None:
            return False
        from kvmscope.asm.c_lexer import c_spans
        from kvmscope.asm.image import Syntax
        from kvmscope.asm.lexer import spans

        assembly = file.endswith((".s", ".S", ".asm", ".inc"))
        self.source_file = file
        self.editor.mark_position(None)
        self.editor.mark_breakpoints(())
        self.editor.load_text(text)
        self.editor.set_syntax(Syntax.ATT)
        self.editor.set_lexer(spans if assembly else c_spans)
        self.editor.border_title = f" {PurePosixPath(file).name} "
        return True

    def forget_source(self) -> None:
        """Another document follows."""
        if self.source_file:
            from kvmscope.asm.lexer import spans

            self.source_file = ""
            self.editor.set_lexer(spans)

    def mark_source_breakpoints(self, view: View) -> None:
        """Show the breakpoints that lie in the file shown."""
        places = (view.image.place_at(address) for address in view.breakpoints)
        self.editor.mark_breakpoints(
            place.line for place in places if place is not None and place.file == self.source_file
        )

    def source_addresses(self, line: int) -> tuple[int, ...]:
        """Where the code of a line of the file shown begins, or that of the next line that has some."""
        image = self.controller.image
        if image is None or image.places is None or not self.source_file:
            return ()
        return image.places.addresses(self.source_file, line)

    def toggle_source_line(self, line: int) -> None:
        """Set or clear a breakpoint on a line, wherever its code went.  Raises UsageError where there is none."""
        addresses = self.source_addresses(line)
        if not addresses:
            raise UsageError(f"There is no code at or below line {line}", hint="a breakpoint needs an instruction")

        def work(debugger: Debugger, cancel: threading.Event) -> None:
            points = debugger.breakpoints
            set_already = [point.number for point in points if point.address in addresses]
            for number in set_already:
                points.delete(number)
            for address in () if set_already else addresses:
                place = debugger.machine.image.place_at(address)
                points.add(address, str(place) if place is not None else f"*{address:#x}")

        self.controller.submit("breakpoint", work)

    def show_code(self, address: int) -> bool:
        """Show the source of an address of an image; False when it is no code of it."""
        image = self.controller.image
        if image is None or not any(s.executable and s.address <= address < s.end for s in image.sections):
            return False
        place = image.place_at(address)
        if place is not None and (place.file == self.source_file or self.open_source(image, place.file)):
            self.editor.go_to(place.line)
        else:
            self.bring_up("disassembly", focus=False)
        return True
