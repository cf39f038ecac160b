"""What executing an instruction in Python can end in, besides completing."""

from __future__ import annotations

__all__ = ["Fault", "Unsupported"]


class Fault(Exception):
    """An x86 exception: ``vector``, its error code (None where it has none) and, for #PF, the linear address."""

    def __init__(self, vector: int, error_code: int | None = None, address: int | None = None) -> None:
        super().__init__(vector, error_code, address)
        self.vector = vector
        self.error_code = error_code
        self.address = address


class Unsupported(Exception):
    """The engine cannot do this exactly; the text says what."""
