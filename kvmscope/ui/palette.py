"""The command palette: every action of the registry, found by any of its words."""

from __future__ import annotations

from functools import partial

from rich.text import Text
from textual.command import DiscoveryHit, Hit, Hits, Provider

from kvmscope.ui.actions import ACTIONS, ActionSpec
from kvmscope.ui.keymap import spelled
from kvmscope.ui.layouts import PANELS

__all__ = ["ActionProvider"]


class ActionProvider(Provider):
    """Actions with their keys, and the panels."""

    async def discover(self) -> Hits:
        """All of them, before anything is typed."""
        for action in ACTIONS:
            yield DiscoveryHit(_line(action), partial(self._do, action.method), text=action.title, help=action.help)

    async def search(self, query: str) -> Hits:
        """Those that match in title or help."""
        matcher = self.matcher(query)
        for action in ACTIONS:
            score = max(matcher.match(action.title), matcher.match(action.help) * 0.6)
            if score > 0:
                yield Hit(score, _line(action), partial(self._do, action.method), text=action.title, help=action.help)
        for name in PANELS:
            score = matcher.match(f"panel {name}")
            if score > 0:
                method = f"show_panel('{name}')"
                yield Hit(
                    score, f"Panel: {name}", partial(self._do, method), help="Bring it to the front and focus it."
                )

    async def _do(self, method: str) -> None:
        await self.screen.run_action(method)


def _line(action: ActionSpec) -> Text:
    keys = spelled(action.id, all_keys=True)
    return Text.assemble(action.title, (f"   {keys}" if keys else "", "dim"))
