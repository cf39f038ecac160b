"""Linear-address translation, one access at a time, with its reasons (SDM vol. 3A sections 4.3 to 4.7).

`walk` explains, `translate` is fast; both read the same tables by the same formats.  Neither sets accessed or dirty
bits: they look at memory as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvmscope.x86.paging.formats import (
    CR0_WP,
    CR4_PAE,
    CR4_PGE,
    CR4_PKE,
    CR4_PKS,
    CR4_SMAP,
    CR4_SMEP,
    DEFAULT_FEATURES,
    DEFAULT_MAXPHYADDR,
    EFER_NXE,
    Leaf,
    Level,
    PageMemory,
    PagingFeatures,
    PagingMode,
    entry_flags,
    is_canonical,
    make_format,
)

__all__ = [
    "PF_FETCH",
    "PF_PK",
    "PF_PRESENT",
    "PF_RSVD",
    "PF_USER",
    "PF_WRITE",
    "Access",
    "PageFault",
    "Step",
    "Walk",
    "load_pdptes",
    "translate",
    "walk",
]

PF_PRESENT: Final = 1 << 0
PF_WRITE: Final = 1 << 1
PF_USER: Final = 1 << 2
PF_RSVD: Final = 1 << 3
PF_FETCH: Final = 1 << 4
PF_PK: Final = 1 << 5


@dataclass(frozen=True, slots=True)
class Access:
    """An access as the rights rules see it (SDM vol. 3A section 4.6)."""

    write: bool = False
    fetch: bool = False
    user: bool = False
    """A user-mode access; False at CPL 3 means an implicit supervisor access (a descriptor-table or TSS read)."""
    implicit: bool = False
    """Implicit supervisor access: EFLAGS.AC does not lift SMAP."""
    ac: bool = False

    @property
    def words(self) -> str:
        """``user write``, ``supervisor fetch``, ..."""
        what = "fetch" if self.fetch else "write" if self.write else "read"
        return f"{'user' if self.user else 'implicit supervisor' if self.implicit else 'supervisor'} {what}"


@dataclass(frozen=True, slots=True)
class PageFault:
    """What the access raises: #PF, or #GP/#SS for a non-canonical address (``vector`` 14, 13 or 12)."""

    error_code: int
    reason: str
    """Which entry and which bit, as ``PTE at 0x3038 = 0x5025: R/W = 0, CR0.WP = 1``."""
    vector: int = 14
    level: str = ""
    """Name of the entry that stopped the translation; empty when the accumulated rights did."""


@dataclass(frozen=True, slots=True)
class Step:
    """One entry read by the walk."""

    level: str
    """``PML5E``, ``PML4E``, ``PDPTE``, ``PDE`` or ``PTE``."""
    table: int
    """Physical base of the table."""
    index: int
    address: int
    """Physical address of the entry."""
    value: int | None
    """None when the memory there is not backed."""
    size: int
    """Bytes of the entry, 4 or 8."""
    flags: tuple[str, ...] = ()
    leaf: bool = False
    target: int | None = None
    """Physical address of the next table or of the page."""
    note: str = ""
    """What is wrong with or special about the entry."""

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.level} at {self.address:#x}"
        return f"{self.level} at {self.address:#x} = {self.value:#x}"


@dataclass(frozen=True, slots=True)
class Walk:
    """The outcome of one translation.

    ``physical`` is None exactly when ``fault`` is set or ``unbacked`` is.  Rights are those of the translation (all
    levels together), whatever the access was; they and ``mapped`` are given also when the access itself faults.
    """

    linear: int
    mode: PagingMode
    steps: tuple[Step, ...] = ()
    physical: int | None = None
    mapped: int | None = None
    """Physical address that the tables give, even if this access may not go there."""
    page_size: int = 0
    """Bytes; 0 when nothing is mapped or paging is off."""
    writable: bool = True
    user: bool = True
    executable: bool = True
    global_: bool = False
    accessed: bool = True
    """A is set in all entries used."""
    dirty: bool = True
    """D is set in the leaf."""
    pkey: int | None = None
    """Protection key, where CR4.PKE (user pages) or CR4.PKS (supervisor pages) applies it."""
    fault: PageFault | None = None
    unbacked: int | None = None
    """Physical address of an entry that lies outside of RAM: the translation is unknown, not faulting."""

    @property
    def reason(self) -> str:
        """Why there is no physical address; empty when there is."""
        if self.fault is not None:
            return self.fault.reason
        return f"{self.steps[-1]} is outside of RAM" if self.unbacked is not None else ""


def _bits_words(mask: int) -> str:
    """``bit 51`` or ``bits 51, 13``, highest first."""
    bits = [str(b) for b in range(63, -1, -1) if mask >> b & 1]
    return f"bit{'s' if len(bits) > 1 else ''} {', '.join(bits)}"


def _reserved_reason(step: Step, level: Level, bad: int, mode: PagingMode, efer: int) -> str:
    text = f"{step}: reserved {_bits_words(bad)} set"
    if not level.has_rights:
        text += " (a MOV to CR3 that loads this PDPTE raises #GP(0))"
    elif bad >> 63 and not efer & EFER_NXE:
        text += " (bit 63 is reserved while EFER.NXE = 0)"
    elif bad & 1 << 7 and level.name in ("PML5E", "PML4E", "PDPTE"):
        text += f" (a {level.name} cannot map a page here)"
    return text


def _denials(
    access: Access, steps: Sequence[Step], walk_: Walk, cr0: int, cr4: int, pkru: int, pkrs: int
) -> tuple[list[str], int]:
    """Every rule that forbids the access, in words, and the PK bit of the error code (section 4.6.1, 4.6.2, 4.7)."""
    wp = bool(cr0 & CR0_WP)
    reasons: list[str] = []
    leaf = steps[-1]

    def entries_with(bit: int, value: int, word: str) -> str:
        # The PDPTEs of PAE paging carry no rights; they are not in the accumulation.
        return "; ".join(
            f"{s}: {word}"
            for s in steps
            if s.value is not None
            and s.value >> bit & 1 == value
            and not (walk_.mode is PagingMode.PAE and s.level == "PDPTE")
        )

    if access.user and not walk_.user:
        reasons.append(entries_with(2, 0, "U/S = 0"))
    if access.fetch:
        if not walk_.executable:
            reasons.append(entries_with(63, 1, "XD = 1"))
        if not access.user and walk_.user and cr4 & CR4_SMEP:
            reasons.append(f"{leaf}: U/S = 1, CR4.SMEP = 1")
        return reasons, 0
    if access.write and not walk_.writable and (access.user or wp):
        reasons.append(entries_with(1, 0, "R/W = 0" if access.user else "R/W = 0, CR0.WP = 1"))
    if not access.user and walk_.user and cr4 & CR4_SMAP and (access.implicit or not access.ac):
        why = "implicit access" if access.implicit else "EFLAGS.AC = 0"
        reasons.append(f"{leaf}: U/S = 1, CR4.SMAP = 1, {why}")
    pk = 0
    if walk_.pkey is not None:
        rights, name = (pkru, "PKRU") if walk_.user else (pkrs, "IA32_PKRS")
        denied = rights >> 2 * walk_.pkey & 3
        if denied & 1:
            pk = PF_PK
            reasons.append(f"{leaf}: protection key {walk_.pkey}, {name} = {rights:#x}: AD{walk_.pkey} = 1")
        elif denied & 2 and access.write and (wp or access.user):
            pk = PF_PK
            reasons.append(f"{leaf}: protection key {walk_.pkey}, {name} = {rights:#x}: WD{walk_.pkey} = 1")
    return reasons, pk


def load_pdptes(
    memory: PageMemory, cr3: int, maxphyaddr: int = DEFAULT_MAXPHYADDR
) -> tuple[tuple[int, int, int, int] | None, str]:
    """The four PDPTE registers that a MOV to CR3 loads in PAE paging, or (None, why it raises #GP(0)).

    SDM vol. 3A section 4.4.1: a present PDPTE with a reserved bit (2:1, 8:5, 63:MAXPHYADDR) set raises #GP(0).
    """
    base = cr3 & 0xFFFFFFE0
    data = memory.read(base, 32)
    if data is None:
        return None, f"page-directory-pointer table at {base:#x} is outside of RAM"
    values = tuple(int.from_bytes(data[i : i + 8], "little") for i in range(0, 32, 8))
    reserved = 0x1E6 | (1 << 64) - (1 << maxphyaddr)
    for i, value in enumerate(values):
        if value & 1 and value & reserved:
            return None, f"PDPTE at {base + 8 * i:#x} = {value:#x}: reserved {_bits_words(value & reserved)} set"
    return (values[0], values[1], values[2], values[3]), ""


def walk(
    memory: PageMemory,
    cr0: int,
    cr3: int,
    cr4: int,
    efer: int,
    linear: int,
    *,
    cpl: int = 0,
    write: bool = False,
    fetch: bool = False,
    user: bool | None = None,
    implicit: bool | None = None,
    ac: bool = False,
    stack: bool = False,
    pkru: int = 0,
    pkrs: int = 0,
    maxphyaddr: int = DEFAULT_MAXPHYADDR,
    features: PagingFeatures = DEFAULT_FEATURES,
    pdptes: Sequence[int] | None = None,
) -> Walk:
    """Translate ``linear`` for one access and say why it cannot be done, if so.

    ``user`` None means by ``cpl``; False at CPL 3 is an implicit supervisor access.  ``stack`` makes a non-canonical
    address #SS(0) instead of #GP(0).  ``pdptes`` are the PDPTE registers of PAE paging where they are known; without
    them the PDPTEs are read from memory, as they would be loaded now.
    """
    by_user = cpl == 3 if user is None else user
    access = Access(write, fetch, by_user, (cpl == 3 and not by_user) if implicit is None else implicit, ac)
    fmt = make_format(cr0, cr4, efer, maxphyaddr, features)
    if fmt is None:
        physical = linear & 0xFFFFFFFF
        return Walk(linear, PagingMode.NONE, physical=physical, mapped=physical)
    mode = fmt.mode
    bits = fmt.canonical_bits
    if bits:
        if not is_canonical(linear, bits):
            reason = f"{linear:#x} is not canonical: bits 63:{bits} differ from bit {bits - 1}"
            return Walk(linear, mode, fault=PageFault(0, reason, 12 if stack else 13))
    else:
        linear &= 0xFFFFFFFF

    code = PF_WRITE if write and not fetch else 0
    if by_user:
        code |= PF_USER
    if fetch and (cr4 & CR4_SMEP or (cr4 & CR4_PAE and efer & EFER_NXE)):
        code |= PF_FETCH

    steps: list[Step] = []
    table = cr3 & fmt.root_mask
    writable = by_users = executable = accessed = True
    for number, level in enumerate(fmt.levels):
        index = linear >> level.shift & level.index_mask
        address = table + index * fmt.entry_size
        if number == 0 and mode is PagingMode.PAE and pdptes is not None:
            value = pdptes[index]
        else:
            raw = memory.read(address, fmt.entry_size)
            if raw is None:
                steps.append(Step(level.name, table, index, address, None, fmt.entry_size, note="outside of RAM"))
                return Walk(linear, mode, tuple(steps), unbacked=address)
            value = int.from_bytes(raw, "little")
        leaf = level.leaf is Leaf.ALWAYS or (level.leaf is Leaf.BY_PS and bool(value >> 7 & 1))
        target = fmt.leaf_target(level, value) if leaf else value & level.table_mask
        step = Step(
            level.name, table, index, address, value, fmt.entry_size, entry_flags(fmt, level, value, leaf), leaf, target
        )
        if not value & 1:
            return _stopped(linear, mode, steps, step, "P = 0", PageFault(code, f"{step}: P = 0", level=level.name))
        bad = value & (level.leaf_reserved if leaf else level.reserved)
        if bad:
            reason = _reserved_reason(step, level, bad, mode, efer)
            fault = PageFault(code | PF_PRESENT | PF_RSVD, reason, level=level.name)
            return _stopped(linear, mode, steps, step, f"reserved {_bits_words(bad)} set", fault)
        steps.append(step)
        if level.has_rights:
            writable &= bool(value >> 1 & 1)
            by_users &= bool(value >> 2 & 1)
            accessed &= bool(value >> 5 & 1)
            # Bit 63 is 0 here unless EFER.NXE = 1, else it would have been reserved.
            executable &= not (fmt.entry_size == 8 and value >> 63)
        if leaf:
            break
        table = target

    size = 1 << level.shift
    mapped = target | linear & size - 1
    keyed = bool(bits) and bool(cr4 & (CR4_PKE if by_users else CR4_PKS))
    result = Walk(
        linear,
        mode,
        tuple(steps),
        physical=mapped,
        mapped=mapped,
        page_size=size,
        writable=writable,
        user=by_users,
        executable=executable,
        global_=bool(value >> 8 & 1 and cr4 & CR4_PGE),
        accessed=accessed,
        dirty=bool(value >> 6 & 1),
        pkey=value >> 59 & 0xF if keyed else None,
    )
    reasons, pk = _denials(access, steps, result, cr0, cr4, pkru, pkrs)
    if not reasons:
        return result
    fault = PageFault(code | PF_PRESENT | pk, "; ".join(reasons))
    return _with_fault(result, fault)


def _stopped(linear: int, mode: PagingMode, steps: list[Step], step: Step, note: str, fault: PageFault) -> Walk:
    """The walk that ends at ``step``, which maps nothing."""
    last = Step(
        step.level, step.table, step.index, step.address, step.value, step.size, step.flags, step.leaf, None, note
    )
    return Walk(linear, mode, (*steps, last), fault=fault)


def _with_fault(done: Walk, fault: PageFault) -> Walk:
    return Walk(
        done.linear,
        done.mode,
        done.steps,
        None,
        done.mapped,
        done.page_size,
        done.writable,
        done.user,
        done.executable,
        done.global_,
        done.accessed,
        done.dirty,
        done.pkey,
        fault,
    )


def translate(
    memory: PageMemory,
    cr0: int,
    cr3: int,
    cr4: int,
    efer: int,
    linear: int,
    maxphyaddr: int = DEFAULT_MAXPHYADDR,
    features: PagingFeatures = DEFAULT_FEATURES,
    pdptes: Sequence[int] | None = None,
) -> int | None:
    """Physical address that ``linear`` maps to, rights aside; None when the tables do not give one.

    The same as ``walk(...).mapped`` without building its steps.
    """
    fmt = make_format(cr0, cr4, efer, maxphyaddr, features)
    if fmt is None:
        return linear & 0xFFFFFFFF
    bits = fmt.canonical_bits
    if not bits:
        linear &= 0xFFFFFFFF
    elif linear >> bits - 1 and not is_canonical(linear, bits):
        return None
    read, size = memory.read, fmt.entry_size
    table = cr3 & fmt.root_mask
    registers = pdptes if fmt.mode is PagingMode.PAE else None
    for number, (shift, mask, may_map, must_map, reserved, leaf_reserved, table_mask) in enumerate(fmt.plan):
        index = linear >> shift & mask
        if registers is not None:
            value = registers[index]
            registers = None
        else:
            raw = read(table + index * size, size)
            if raw is None:
                return None
            value = int.from_bytes(raw, "little")
        if not value & 1:
            return None
        if must_map or (may_map and value & 0x80):
            if value & leaf_reserved:
                return None
            return fmt.leaf_target(fmt.levels[number], value) | linear & (1 << shift) - 1
        if value & reserved:
            return None
        table = value & table_mask
    return None
