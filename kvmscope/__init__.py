"""kvmscope: a terminal IDE for KVM bug reproducers."""

from __future__ import annotations

__version__ = "0.1.0"
