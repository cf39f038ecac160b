"""Guest images: ELF executables, multiboot images, raw bytes and ROMs -> `Image`.

>>> from kvmscope.asm.loading import load_image
>>> load_image(Path("x86/dummy.flat")).image.entry          # doctest: +SKIP
4194492
"""

from __future__ import annotations

from kvmscope.asm.loading.load import MAX_IMAGE, LoadedImage, load_image, read_image

__all__ = ["MAX_IMAGE", "LoadedImage", "load_image", "read_image"]
