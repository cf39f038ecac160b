"""Explanations: what happened, from the guest's own state, never a guess.

>>> explain(stop, machine.snapshot(), image).title          # doctest: +SKIP
'#PF(0x3) at 0x400010: write to 0x7000, PTE at 0x92038 = 0x7001: R/W = 0, CR0.WP = 1'
"""

from __future__ import annotations

from dataclasses import replace

from kvmscope.asm.image import Image
from kvmscope.debug.explain.fault import explain_exception
from kvmscope.debug.explain.model import Explanation, Guest
from kvmscope.debug.explain.stops import chain_of, explain_chain, explain_stop
from kvmscope.vmm.engine import Stop
from kvmscope.vmm.events import ExceptionEvent
from kvmscope.vmm.snapshot import Snapshot

__all__ = ["Explanation", "explain"]


def explain(what: ExceptionEvent | Stop, snapshot: Snapshot, image: Image | None = None) -> Explanation:
    """Why an exception was raised, or why the machine stopped.

    ``snapshot`` gives memory (that of its tick: where the event is older, the lines say so) and the events that
    belong to a chain; ``image`` gives names to addresses.  Of several vCPUs the title says which one it was.
    """
    found = _explain(what, snapshot, image)
    event = what.exception if isinstance(what, Stop) else what
    if event is None or not snapshot.vcpus:
        return found
    return replace(found, title=f"vCPU {event.vcpu}: {found.title}")


def _explain(what: ExceptionEvent | Stop, snapshot: Snapshot, image: Image | None) -> Explanation:
    if isinstance(what, Stop):
        return explain_stop(what, snapshot, image)
    chain = chain_of(what, snapshot.events)
    if what.vector == 8 and len(chain) > 1:
        return explain_chain(chain, snapshot, image, shutdown=False)
    guest = Guest.of(snapshot, image, what.before)
    return explain_exception(guest, what, snapshot.events, stale=snapshot.tick > what.tick)
