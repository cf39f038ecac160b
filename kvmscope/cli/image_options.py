"""What ``kvmscope run`` and ``kvmscope IMAGE`` let say about the machine and the start of an image."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Final

from kvmscope.cli.options import Parser, address, memory, positive, processors, seconds, variable

if TYPE_CHECKING:
    from kvmscope.reproducer.images import ImageOptions
    from kvmscope.reproducer.runner import Overrides

__all__ = ["add_machine_options", "image_options", "overrides"]

_MODES: Final = ("real16", "prot32", "long64")


def add_machine_options(parser: Parser) -> None:
    """Arguments, budgets, the machine, and how an image starts."""
    from kvmscope.vmm.config import DEVICES

    parser.add_argument("args", metavar="ARGS", nargs="*", help="the guest's arguments (after -- if one begins with -)")
    parser.add_argument("--args", metavar="TEXT", dest="line", help="the guest's arguments as one text, before ARGS")
    parser.add_argument("--max-instructions", type=positive, metavar="N", help="budget of instructions")
    parser.add_argument("--timeout", type=seconds, metavar="S", help="budget of wall-clock seconds")
    parser.add_argument("--smp", type=processors, metavar="N", help="number of processors")
    parser.add_argument(
        "--quantum", type=positive, metavar="N", help="ticks of a processor's turn, where there are several"
    )
    parser.add_argument(
        "--device", choices=DEVICES, action="append", dest="devices", help="plug this in; may be repeated"
    )
    parser.add_argument("--memory", type=memory, metavar="SIZE", help="size of memory: 64M")
    parser.add_argument("--cpu", metavar="PROFILE", help="CPU profile, and changes to it: intel,+pks,-pcid")
    images = parser.add_argument_group("images")
    images.add_argument(
        "--env",
        type=variable,
        action="append",
        metavar="K=V",
        help="a variable of a multiboot image's environment; may be repeated",
    )
    images.add_argument("--mode", choices=_MODES, help="start in this mode, with boot's own tables")
    images.add_argument("--address", type=address, metavar="A", help="where raw bytes go (default: the mode's origin)")
    images.add_argument("--entry", metavar="A", help="address or symbol of the first instruction, with --mode")
    images.add_argument("--rom", action="store_true", help="a ROM that ends below 4 GiB: start as after reset")


def image_options(options: Namespace) -> ImageOptions:
    """How an image starts."""
    from kvmscope.reproducer.images import ImageOptions
    from kvmscope.vmm.config import Mode

    return ImageOptions(
        mode=Mode(options.mode) if options.mode else None,
        address=options.address,
        entry=_entry(options.entry),
        rom=options.rom,
        environment=dict(options.env or ()),
    )


def _entry(text: str | None) -> int | str | None:
    if text is None:
        return None
    try:
        return int(text, 0)
    except ValueError:
        return text


def overrides(options: Namespace) -> Overrides:
    """What is said of the machine.  Raises UsageError for a CPU profile that does not exist."""
    from kvmscope.reproducer.runner import Overrides, check_cpu

    if options.cpu is not None:
        check_cpu(options.cpu)
    return Overrides(
        memory=options.memory,
        cpu=options.cpu,
        smp=options.smp,
        quantum=options.quantum,
        devices=tuple(options.devices) if options.devices else None,
        args=tuple(([options.line] if options.line else []) + options.args) or None,
        max_instructions=options.max_instructions,
        timeout=options.timeout,
    )
