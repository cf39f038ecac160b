"""Images as reproducers: a file that is a program already, and the machine it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kvmscope.asm.image import ELF_MAGIC, IMAGE_SUFFIXES, Image
from kvmscope.errors import GuestImageError, UsageError
from kvmscope.reproducer.document import Reproducer
from kvmscope.vmm.boot.layout import CODE_ORIGIN
from kvmscope.vmm.config import Budget, MachineConfig, Mode

__all__ = ["IMAGE_BUDGET", "IMAGE_MEMORY", "ImageOptions", "image_reproducer", "is_image", "open_image"]

IMAGE_BUDGET: Final = Budget(instructions=10**10, seconds=90.0, output=16 << 20)
IMAGE_MEMORY: Final = 128 << 20
"""Bytes of RAM by default, as QEMU gives its PC."""
_DECLARED: Final = (Mode.REAL16, Mode.PROT32, Mode.LONG64)


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How to start an image that does not say it itself."""

    mode: Mode | None = None
    """Start in this mode with boot's own tables, as a source does; None: as the image asks for."""
    address: int | None = None
    """Where raw bytes go; None: the mode's usual origin."""
    entry: int | str | None = None
    rom: bool = False
    """The file is a ROM: it ends below 4 GiB, and the processor starts as after reset."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        """Anything at all was said."""
        return self != ImageOptions()


def is_image(path: Path) -> bool:
    """True for a file whose name or first bytes say that it is no source."""
    if path.suffix.lower() in (*IMAGE_SUFFIXES, ".o", ".efi"):
        return True
    if not path.is_file():
        # What is read from a pipe (/dev/stdin, <(...)) would be missing from the source.
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(ELF_MAGIC)) == ELF_MAGIC
    except OSError:
        return False


def open_image(path: Path, options: ImageOptions | None = None) -> Reproducer:
    """Load an image and say what machine it gets.

    Raises UsageError when it cannot be read or the options contradict each other, GuestImageError when it cannot be
    loaded or nothing says how it starts.
    """
    from kvmscope.asm.loading import load_image

    options = options or ImageOptions()
    if options.rom:
        return _rom(path, options)
    mode = options.mode
    if mode is not None and mode not in _DECLARED:
        raise UsageError(f"{mode.value} is not a mode to start raw bytes in", hint="real16, prot32 or long64")
    address = options.address
    if address is None:
        address = CODE_ORIGIN[(mode or Mode.PROT32).value]
    loaded = load_image(path, address=address, bits=mode.bits if mode else 32)
    if loaded.placed and options.address is not None:
        raise UsageError(
            f"{path} says itself where it goes", hint="--address is for raw bytes; leave it out, or link it elsewhere"
        )
    if mode is None and not loaded.multiboot:
        raise GuestImageError(
            "Nothing says how this image starts",
            f"{path}: no multiboot header in its first 8 KiB",
            "--mode real16, prot32 or long64 starts it in that mode"
            + ("" if loaded.placed else " at --address ADDRESS")
            + "; --rom starts it as after reset",
        )
    if mode is None and options.entry is not None:
        raise UsageError(
            f"{path} says itself where it starts", hint="--entry goes with --mode; leave it out, or start it in a mode"
        )
    config = MachineConfig(
        mode=mode or Mode.MULTIBOOT,
        memory=IMAGE_MEMORY,
        entry=options.entry,
        environment=dict(options.environment),
        budget=IMAGE_BUDGET,
    )
    if mode is not None:
        _only_multiboot(options)
        if options.entry is None and loaded.placed:
            config = config.with_(entry=loaded.image.entry)
    return image_reproducer(path, config, loaded.image)


def image_reproducer(path: Path, config: MachineConfig, image: Image) -> Reproducer:
    """The document that an image is: no source, its program loaded."""
    return Reproducer(source="", filename=str(path), config=config, image=image)


def _rom(path: Path, options: ImageOptions) -> Reproducer:
    from kvmscope.asm.loading import read_image
    from kvmscope.vmm.boot.rom import rom_image

    for name in ("mode", "address", "entry"):
        if getattr(options, name) is not None:
            raise UsageError(f"A ROM starts at its reset vector: --{name} says otherwise", hint="leave one of them out")
    _only_multiboot(options)
    config = MachineConfig(mode=Mode.ROM, memory=IMAGE_MEMORY, budget=IMAGE_BUDGET)
    return image_reproducer(path, config, rom_image(read_image(path), str(path)))


def _only_multiboot(options: ImageOptions) -> None:
    if options.environment:
        raise UsageError("Only a multiboot image is told an environment", hint="leave --env out")
