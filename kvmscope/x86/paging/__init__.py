"""Paging: exact walks in every mode, a fast translation, and the tables as a tree (SDM vol. 3A chapter 4)."""

from __future__ import annotations

from kvmscope.x86.paging.formats import (
    DEFAULT_FEATURES,
    DEFAULT_MAXPHYADDR,
    ENTRY_BITS,
    PageMemory,
    PagingFeatures,
    PagingMode,
    is_canonical,
    paging_mode,
)
from kvmscope.x86.paging.tree import (
    Mapping,
    MappingScan,
    Table,
    TableEntry,
    iter_mappings,
    mapped_ranges,
    root_table,
    table_entries,
)
from kvmscope.x86.paging.walk import (
    PF_FETCH,
    PF_PK,
    PF_PRESENT,
    PF_RSVD,
    PF_USER,
    PF_WRITE,
    PageFault,
    Step,
    Walk,
    load_pdptes,
    translate,
    walk,
)

__all__ = [
    "DEFAULT_FEATURES",
    "DEFAULT_MAXPHYADDR",
    "ENTRY_BITS",
    "PF_FETCH",
    "PF_PK",
    "PF_PRESENT",
    "PF_RSVD",
    "PF_USER",
    "PF_WRITE",
    "Mapping",
    "MappingScan",
    "PageFault",
    "PageMemory",
    "PagingFeatures",
    "PagingMode",
    "Step",
    "Table",
    "TableEntry",
    "Walk",
    "is_canonical",
    "iter_mappings",
    "load_pdptes",
    "mapped_ranges",
    "paging_mode",
    "root_table",
    "table_entries",
    "translate",
    "walk",
]
