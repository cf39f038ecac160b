"""Actions on files: open, save, templates, recovery, export; nothing is overwritten unasked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from kvmscope.errors import KvmscopeError, UsageError
from kvmscope.ui import modals as dialogs
from kvmscope.ui.document import Document
from kvmscope.ui.files import free_name, write_atomically
from kvmscope.ui.look_actions import LookActions

if TYPE_CHECKING:
    from kvmscope.export import Export
    from kvmscope.ui.recovery import Recovered

__all__ = ["FileActions"]


class FileActions(LookActions):
    """What reads and writes files.  Each of these runs as a worker, so that it can wait for an answer."""

    def remember_file(self) -> None:
        if self.document.path is not None and not self.document.shipped:
            from kvmscope.ui.recent import RecentFiles

            RecentFiles().add(self.document.path)

    # Opening.

    def action_open(self) -> None:
        """Ask for a file and open it."""
        self.run_worker(self._open(), group="file", exclusive=True)

    async def _open(self) -> None:
        near = self.document.path.parent if self.document.path and not self.document.shipped else Path()
        start = "" if near in (Path(), Path.cwd()) else f"{near}/"
        path = await self.app.push_screen_wait(dialogs.AskPath("Open", start, must_exist=True))
        if path is not None:
            await self._open_path(path)

    def action_recent(self) -> None:
        """Choose among files of late."""
        self.run_worker(self._recent(), group="file", exclusive=True)

    async def _recent(self) -> None:
        from kvmscope.ui.recent import RecentFiles

        choices = [dialogs.Choice(path.name, str(path.parent), path) for path in RecentFiles().paths()]
        if not choices:
            self.say("No file has been opened yet")
            return
        path = await self.app.push_screen_wait(dialogs.Choose("Recent files", choices))
        if path is not None:
            await self._open_path(path)

    def action_lessons(self) -> None:
        """Choose among the shipped reproducers."""
        self.run_worker(self._lessons(), group="file", exclusive=True)

    async def _lessons(self) -> None:
        from kvmscope.reproducer import load
        from kvmscope.reproducer.shipped import shipped_dir

        home = shipped_dir()
        choices: list[dialogs.Choice[Path]] = []
        for lesson in sorted(home.iterdir()) if home else ():
            if lesson.suffix in (".asm", ".s", ".S"):
                try:
                    choices.append(dialogs.Choice(lesson.stem, load(lesson).title, lesson))
                except KvmscopeError:
                    choices.append(dialogs.Choice(lesson.stem, "", lesson))
        if not choices:
            self.say("The reproducers were not installed with kvmscope", "bar_warn")
            return
        path = await self.app.push_screen_wait(dialogs.Choose("Shipped reproducers", choices))
        if path is not None:
            await self._open_path(path)

    def action_new(self) -> None:
        """Begin from a template."""
        self.run_worker(self._new(), group="file", exclusive=True)

    async def _new(self) -> None:
        from kvmscope.reproducer import templates

        choices = [dialogs.Choice(template.name, template.title, template.text) for template in templates()]
        text = await self.app.push_screen_wait(dialogs.Choose("New from template", choices))
        if text is not None and await self._may_leave():
            self.take_document(Document.blank(text))

    async def _open_path(self, path: Path) -> None:
        try:
            document = Document.load(path)
        except KvmscopeError as error:
            self.complain(error)
            return
        if await self._may_leave():
            self.take_document(document)
            self.remember_file()

    def take_document(self, document: Document) -> None:
        """Work on another document from now on."""
        self.recovery.discard()
        self.controller.forget()
        self.document = document
        self._recovery = None
        self.view = None
        self.started_text = None
        self.assembled = None
        self.editing = False
        self._lines = document.text.split("\n")
        self.forget_source()
        self.editor.border_title = f" {document.name} "
        self.editor.load_text(document.text)
        self.editor.mark_position(None)
        self.editor.mark_breakpoints(())
        self.editor.mark_problems(())
        self.editor.focus()
        self.start_machine()
        self.refresh_bars()
        self.offer_recovery()

    # Saving.

    def action_save(self) -> None:
        """Write the file; one that came with kvmscope, or has no name yet, asks for one."""
        self.run_worker(self._save(), group="file", exclusive=True)

    def action_save_as(self) -> None:
        """Write to another file."""
        self.run_worker(self._save_as(), group="file", exclusive=True)

    async def _save(self) -> bool:
        document = self.document
        if document.program is not None:
            self.say(f"{document.name} is an image: there is nothing to save", "bar_warn")
            return False
        if document.path is None or document.shipped:
            return await self._save_as()
        try:
            changed = document.changed_on_disk()
        except KvmscopeError:
            changed = True
        if changed:
            answer = await self.app.push_screen_wait(
                dialogs.Confirm(
                    "The file has changed on disk",
                    f"{document.path} was written by another program since it was read here.",
                    {"cancel": "cancel", "overwrite": "overwrite it"},
                )
            )
            if answer != "overwrite":
                return False
        return self._write(document.path)

    async def _save_as(self) -> bool:
        if self.document.program is not None:
            self.say(f"{self.document.name} is an image: there is nothing to save", "bar_warn")
            return False
        start = str(self.document.path) if self.document.path and not self.document.shipped else self.document.name
        path = await self.app.push_screen_wait(dialogs.AskPath("Save as", start, must_exist=False))
        if path is None:
            return False
        if path.exists() and path != self.document.path:
            answer = await self.app.push_screen_wait(
                dialogs.Confirm("The file exists", f"{path}", {"cancel": "cancel", "overwrite": "overwrite it"})
            )
            if answer != "overwrite":
                return False
        return self._write(path)

    def _write(self, path: Path) -> bool:
        text = self.editor.text
        try:
            write_atomically(path, text)
        except KvmscopeError as error:
            self.complain(error)
            return False
        self.recovery.discard()
        self.document = Document(path, text, text)
        self._recovery = None
        self.editor.border_title = f" {self.document.name} "
        self.remember_file()
        self.say(f"Written: {path}", "bar_ok")
        return True

    async def _may_leave(self) -> bool:
        """Ask what to do with changes that are not saved; True to go on."""
        if not self.modified or (self.document.path is None and self.editor.text == self.document.text):
            return True
        answer = await self.app.push_screen_wait(
            dialogs.Confirm(
                "There are unsaved changes",
                self.document.filename,
                {"save": "save", "discard": "discard them", "cancel": "cancel"},
            )
        )
        if answer == "save":
            return await self._save()
        return answer == "discard"

    def action_leave(self) -> None:
        """Quit, once changes are saved or discarded."""
        self.run_worker(self._leave(), group="file", exclusive=True)

    async def _leave(self) -> None:
        if await self._may_leave():
            self.recovery.discard()
            self.app.exit(0)

    # Recovery.

    def offer_recovery(self) -> None:
        found = self.recovery.find(self.document.text)
        if found is not None:
            self.run_worker(self._ask_recovery(found), group="file", exclusive=True)

    async def _ask_recovery(self, found: Recovered) -> None:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.saved_at))
        answer = await self.app.push_screen_wait(
            dialogs.Confirm(
                "Unsaved changes were found",
                f"{self.document.name} was being edited on {when} and was not saved.",
                {"restore": "restore them", "later": "ask again next time", "discard": "discard them"},
            )
        )
        if answer == "restore":
            self.editor.replace_all(found.text)
            self.start_machine()
            self.say("Restored; the file itself is as it was until you save", "bar_ok")
        if answer in ("restore", "discard"):
            if answer == "restore":
                self._keep_recovery()
            found.forget()

    # Export.

    def action_export(self) -> None:
        """Write the reproducer as a test of another suite."""
        self.run_worker(self._export(), group="file", exclusive=True)

    async def _export(self) -> None:
        if self.document.program is not None:
            self.say("An image cannot be exported: it is a test already", "bar_warn")
            return
        from kvmscope.export import TARGETS, target

        choices = [dialogs.Choice(name, target(name).summary, name) for name in TARGETS]
        name = await self.app.push_screen_wait(dialogs.Choose("Export as", choices))
        if name is None:
            return
        try:
            from kvmscope.export import export
            from kvmscope.export.model import c_name
            from kvmscope.reproducer import parse

            reproducer = parse(self.editor.text, self.document.filename)
            result = export(reproducer, name)
            await self._place(result, name, c_name(reproducer.name))
        except KvmscopeError as error:
            self.complain(error)

    async def _place(self, result: Export, target_name: str, test: str) -> None:
        """Into a tree that is one, else as a file of its own."""
        from kvmscope.export import target
        from kvmscope.export.writing import place, shown

        first = Path(result.files[0].path)
        start = str(free_name(Path(), first.stem, first.suffix))
        title = f"Export {test} to a file" + (", or a tree's directory" if result.edits else "")
        path = await self.app.push_screen_wait(dialogs.AskPath(title, start, must_exist=False, either=True))
        if path is None:
            return
        if path.is_dir():
            wrong = target(target_name).is_tree(path)
            if wrong:
                raise UsageError(f"{path} is no tree for {target_name}", wrong)
            lines = place(result, path, force=False)
        else:
            if path.exists():
                raise UsageError(f"{path} exists", hint="choose another name; nothing was written")
            write_atomically(path, shown(result) if result.edits else result.files[0].text)
            lines = [f"{path}: written"]
        self.console.say(f"export {target_name}", (*lines, *result.notes))
        self.say(f"Exported: {lines[0]}", "bar_ok")

    def carry_out(self, kind: str, argument: str) -> None:
        if kind == "quit":
            self.action_leave()
        elif kind == "save" and not argument:
            self.action_save()
        elif kind == "save":
            self.run_worker(self._save_to(Path(argument).expanduser()), group="file", exclusive=True)
        elif kind == "open" and argument:
            self.run_worker(self._open_path(Path(argument).expanduser()), group="file", exclusive=True)
        elif kind == "open":
            self.action_open()
        else:
            super().carry_out(kind, argument)

    async def _save_to(self, path: Path) -> None:
        if self.document.program is not None:
            await self._save()
            return
        if path.exists() and path != self.document.path:
            self.complain(UsageError(f"{path} exists", hint="save as asks whether to overwrite it"))
            return
        self._write(path)
