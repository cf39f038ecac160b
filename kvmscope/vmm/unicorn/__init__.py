"""The embedded engine: Unicorn 2.1.4 run as the processor of a precise machine.

Unicorn executes instructions; everything that an operating system or a hypervisor can observe about exceptions,
privilege, descriptors, MSRs and time is done in Python from the manuals' rules, because Unicorn either leaves it out
or gets it wrong.  `kvmscope.vmm.unicorn.limits` lists what is left.
"""

from __future__ import annotations

from kvmscope.vmm.unicorn.engine import UnicornEngine

__all__ = ["UnicornEngine"]
