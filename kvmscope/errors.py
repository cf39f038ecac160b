"""The one error tree of kvmscope.

A user's mistake becomes one readable message: what is wrong (``title``), where and why
(``detail``), and a way out (``hint``).  Front ends print these three and never a traceback;
foreign exceptions are wrapped at the boundary of the area that met them.
"""

from __future__ import annotations

__all__ = [
    "EngineError",
    "ExportError",
    "ExpressionError",
    "GuestImageError",
    "KvmscopeError",
    "ReproducerError",
    "SuiteError",
    "UsageError",
]


class KvmscopeError(Exception):
    """Base of everything kvmscope raises on purpose."""

    def __init__(self, title: str, detail: str = "", hint: str = "") -> None:
        super().__init__(title)
        self.title = title
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.title]
        if self.detail:
            parts.append(self.detail)
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)


class UsageError(KvmscopeError):
    """The command line or a `:` command cannot be taken as typed."""


class ReproducerError(KvmscopeError):
    """A reproducer's header is wrong; detail begins with ``file:line``."""


class ExpressionError(KvmscopeError):
    """An expression cannot be parsed or evaluated; detail points at the column."""


class GuestImageError(KvmscopeError):
    """An image (ELF, multiboot, raw) cannot be loaded."""


class EngineError(KvmscopeError):
    """An engine is missing, of the wrong version, or lacks a capability."""


class ExportError(KvmscopeError):
    """A reproducer cannot be exported to the target asked for."""


class SuiteError(KvmscopeError):
    """A tree of kvm-unit-tests or its configuration cannot be read; detail begins with ``file:line`` where there is one."""
