"""The header's machine in kvm-unit-tests' words: pages, memory, descriptors, handlers, MSRs, I/O rights.

Addresses below the test image (4 MiB) are RAM that neither it nor its allocators use, so boot's stacks and declared
pages keep their addresses.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kvmscope.export.kut.conditions import msr_constant, register_part, vector_constant
from kvmscope.export.kut.observe import Observed, vendor_decides
from kvmscope.export.kut.program import TEST_IMAGE, Program
from kvmscope.export.model import refuse
from kvmscope.reproducer import Reproducer
from kvmscope.vmm.boot.layout import IST_TOPS, RSP0_STACK_TOP
from kvmscope.vmm.boot.tables import gdt_bytes
from kvmscope.vmm.config import DescriptorInit, HandlerInit, MemoryInit, Mode, PageInit, Paging
from kvmscope.x86.bitfields import BIT_TABLES
from kvmscope.x86.encode import encode

__all__ = ["Setup", "check_machine", "setup_of"]

_PTE_BITS: Final[Mapping[str, str]] = {
    "P": "PT_PRESENT_MASK", "RW": "PT_WRITABLE_MASK", "US": "PT_USER_MASK", "PWT": "BIT_ULL(3)", "PCD": "BIT_ULL(4)",
    "A": "PT_ACCESSED_MASK", "D": "PT_DIRTY_MASK", "PAT": "BIT_ULL(7)", "G": "PT_GLOBAL_MASK", "NX": "PT64_NX_MASK",
}  # fmt: skip
_ADDRESS_MSRS: Final = frozenset({0x176, 0xC0000082, 0xC0000083})
_GDT_WORDS: Final = frozenset(
    {"ljmp", "lcall", "lret", "lretq", "retf", "retfq", "sysret", "sysretq", "sysretl", "sysexit"}
)
_SELECTOR_WORDS: Final = frozenset({"lar", "lsl", "verr", "verw"})
_FIRST_OWN, _LAST_OWN = 3, 9
"""Slots of the GDT that boot lays out otherwise than kvm-unit-tests do."""
_TSS_SLOTS: Final = (16, 17)


@dataclass
class Setup:
    """Statements and declarations, by where they go."""

    data: list[str] = field(default_factory=list)
    """File-scope declarations."""
    lines: list[str] = field(default_factory=list)
    """Statements of ``setup_guest()``."""
    before: list[str] = field(default_factory=list)
    """Just before the guest is entered, without library calls in between."""
    restore: list[str] = field(default_factory=list)
    """Just after it has ended."""
    features: list[tuple[str, str]] = field(default_factory=list)
    """(condition that must hold, words)."""
    counted: list[HandlerInit] = field(default_factory=list)
    """Handlers entered through a stub that records the exception."""
    pages: bool = False
    takes_memory: bool = False
    """Physical memory behind the image is used."""


def check_machine(reproducer: Reproducer) -> None:
    """Refuse machines that an x86_64 test does not start as."""
    config = reproducer.config
    if config.mode is not Mode.LONG64:
        why = f'a test of the x86_64 build starts in 64-bit mode, this one with mode = "{config.mode.value}"'
        raise refuse(reproducer, reproducer.lines.get("mode"), "The mode cannot be exported", why)
    if config.effective_paging is not Paging.LEVEL4:
        why = f"the test's page tables have 4 levels, not {config.effective_paging.value}"
        raise refuse(reproducer, reproducer.lines.get("paging"), "The paging mode cannot be exported", why)
    if config.smp != 1:
        raise refuse(reproducer, reproducer.lines.get("smp"), "smp cannot be exported", "the guest runs on one CPU")
    if config.args:
        raise refuse(
            reproducer, reproducer.lines.get("args"), "args cannot be exported", "the program gets no arguments"
        )
    _check_registers(reproducer)
    if config.entry is not None and not isinstance(config.entry, str):
        raise refuse(reproducer, reproducer.lines.get("entry"), "entry cannot be exported", "the entry must be a label")


_REGISTERS: Final = frozenset(
    [
        "rip",
        "rflags",
        "cr0",
        "cr2",
        "cr4",
        "cr8",
        "efer",
        "dr0",
        "dr1",
        "dr2",
        "dr3",
        "dr6",
        "dr7",
        "cs",
        "ss",
        "ds",
        "es",
        "fs",
        "fs.base",
        "gs.base",
    ]
)
"""Names of ``[registers]``, beside general registers and flags, that a test sets."""
_FLAGS: Final = frozenset(bit.name.lower() for bit in BIT_TABLES["rflags"])


def _check_registers(reproducer: Reproducer) -> None:
    for name in reproducer.config.registers:
        stem = name.split(".")[0]
        general = register_part(name) is not None
        bit = name in _FLAGS or ("." in name and stem in ("cr0", "cr4", "efer", "dr6", "dr7", "rflags"))
        if not (general or bit or name in _REGISTERS):
            line = reproducer.lines.get(f"registers.{name}")
            raise refuse(reproducer, line, f"{name} cannot be exported", "a test does not set this register")


def setup_of(
    reproducer: Reproducer, observed: Observed, program: Program, renamed: Mapping[str, str], *, record: bool
) -> Setup:
    """Everything of the header but registers; ``record``: guest handlers are entered through recording stubs."""
    return _Builder(reproducer, observed, program, renamed, record).run()


class _Builder:
    def __init__(
        self, reproducer: Reproducer, observed: Observed, program: Program, renamed: Mapping[str, str], record: bool
    ) -> None:
        self.reproducer = reproducer
        self.config = reproducer.config
        self.observed = observed
        self.program = program
        self.renamed = renamed
        self.record = record
        self.out = Setup()

    def run(self) -> Setup:
        self._reserve()
        # Contents are at physical addresses: written while the identity map is whole.
        for content in self.config.contents:
            self._memory(content)
        for page in self.config.pages:
            self._page(page)
        if self.config.ring == 3:
            self._user_pages()
        self._descriptors()
        self._stacks()
        for handler in self.config.handlers:
            self._handler(handler)
        if self.config.ring == 3:
            self._ports()
        for index, value in self.config.msrs.items():
            self._msr(index, value)
        self._features()
        return self.out

    def label(self, name: str) -> str:
        """C expression of a label."""
        return f"(ulong){self.renamed.get(name, name)}"

    def value(self, value: int | str) -> str:
        """C expression of an integer or a label."""
        return self.label(value) if isinstance(value, str) else _hex(value)

    # memory

    def _outside_image(self, address: int, size: int, line: int, what: str) -> None:
        if address < TEST_IMAGE[1] and address + size > TEST_IMAGE[0]:
            why = f"{what} {address:#x} lies where the test image is ({TEST_IMAGE[0]:#x}-{TEST_IMAGE[1]:#x})"
            raise refuse(self.reproducer, line, f"{what} cannot be exported", why, "use an address below 4 MiB")

    def _reserve(self) -> None:
        """Take declared memory behind the image away from the page allocator, before anything is written there."""
        numbers: set[int] = set()
        for page in self.config.pages:
            numbers.update(range(page.physical >> 12, (page.physical >> 12) + page.count))
        for content in self.config.contents:
            if isinstance(content.address, int):
                size = len(content.data) + sum(width for width, _ in content.words)
                numbers.update(range(content.address >> 12, (content.address + max(size, 1) - 1 >> 12) + 1))
        left = sorted(number for number in numbers if number << 12 >= TEST_IMAGE[1])
        while left:
            count = 1
            while count < len(left) and left[count] == left[0] + count:
                count += 1
            address = left[0] << 12
            self.out.lines.append(f"take_pages({_hex(address)}, {count});")
            self.out.takes_memory = True
            left = left[count:]

    def _page(self, page: PageInit) -> None:
        size = page.count * 4096
        self._outside_image(page.linear, size, page.line, "linear address")
        self._outside_image(page.physical, size, page.line, "physical address")
        if page.pkey:
            raise refuse(
                self.reproducer, page.line, "pkey cannot be exported", "the test does not set protection keys up"
            )
        flags = " | ".join(_PTE_BITS.get(flag) or f"BIT_ULL({flag.removeprefix('bit')})" for flag in page.flags) or "0"
        self.out.pages = True
        call = f"map_page({_hex(page.linear)}, {_hex(page.physical)}, {flags});"
        if page.count == 1:
            self.out.lines.append(call)
        else:
            self.out.lines.append(
                f"for (i = 0; i < {page.count}; i++)\n"
                f"\tmap_page({_hex(page.linear)} + i * PAGE_SIZE, {_hex(page.physical)} + i * PAGE_SIZE,\n\t\t {flags});"
            )

    def _user_pages(self) -> None:
        self.out.pages = True
        stack = self.observed.initial.gpr[4]
        flags = "PT_PRESENT_MASK | PT_WRITABLE_MASK | PT_USER_MASK"
        self.out.lines.append("/* The program and its stack are all that ring 3 may touch. */")
        self.out.lines.append(
            "for (page = (ulong)guest_start; page < (ulong)guest_end; page += PAGE_SIZE)\n"
            f"\tmap_page(page, page, {flags});"
        )
        if stack and not TEST_IMAGE[0] <= stack <= TEST_IMAGE[1]:
            top = _hex(stack)
            self.out.lines.append(f"map_page({top} - PAGE_SIZE, {top} - PAGE_SIZE, {flags});")

    def _memory(self, content: MemoryInit) -> None:
        number = sum("static const" in line and "memory_" in line for line in self.out.data)
        size = len(content.data) or sum(width for width, _ in content.words)
        if isinstance(content.address, int):
            image = self.observed.image
            if any(s.address <= content.address < s.end for s in image.sections):
                why = f"{content.address:#x} is an address in the program, which is linked elsewhere in a test"
                raise refuse(self.reproducer, content.line, "[[memory]] cannot be exported", why, "use a label")
            self._outside_image(content.address, size, content.line, "address")
        target = f"(void *){self.value(content.address)}"
        if content.data and len(set(content.data)) == 1 and len(content.data) > 16:
            self.out.lines.append(f"memset({target}, {content.data[0]:#04x}, {len(content.data)});")
            return
        if content.data:
            rows = [content.data[i : i + 12] for i in range(0, len(content.data), 12)]
            body = "\n".join("\t" + " ".join(f"{byte:#04x}," for byte in row) for row in rows)
            self.out.data.append(f"static const u8 memory_{number}[] = {{\n{body}\n}};")
            self.out.lines.append(f"memcpy({target}, memory_{number}, sizeof(memory_{number}));")
        offset = len(content.data)
        for width, value in content.words:
            place = f"{self.value(content.address)} + {offset:#x}" if offset else self.value(content.address)
            pointer = f"({place})" if offset else place
            self.out.lines.append(f"*(u{8 * width} *){pointer} = {self.value(value)};")
            offset += width

    # tables

    def _uses_gdt(self) -> bool:
        if self.config.ring == 3 or self.config.descriptors:
            return True
        if self.program.mnemonics & (_GDT_WORDS | _SELECTOR_WORDS):
            return True
        return any(e.vector in (10, 11, 12, 13) and e.error_code for e in self.observed.exceptions)

    def _descriptors(self) -> None:
        if not self._uses_gdt():
            return
        gdt = self.observed.initial.gdtr
        rows = struct.unpack_from(f"<{_LAST_OWN - _FIRST_OWN + 1}Q", gdt_bytes(True), 8 * _FIRST_OWN)
        self.out.data.append(
            "/* Selectors 0x18 to 0x48: user code32, data, code64, data; kernel code32, code16, data16 */\n"
            "static const u64 guest_gdt[] = {\n" + "\n".join(f"\t{value:#018x}," for value in rows) + "\n};"
        )
        self.out.lines.append(f"memcpy(&gdt[{_FIRST_OWN}], guest_gdt, sizeof(guest_gdt));")
        for declared in self.config.descriptors:
            self._descriptor(declared)
        self.out.data.append("extern struct descriptor_table_ptr gdt_descr;")
        self.out.data.append("static struct descriptor_table_ptr guest_gdt_descr;")
        self.out.lines.append(f"guest_gdt_descr.base = (ulong)gdt;\nguest_gdt_descr.limit = {gdt.limit:#x};")
        self.out.before.append("lgdt(&guest_gdt_descr);")
        self.out.restore.append("lgdt(&gdt_descr);")

    def _descriptor(self, declared: DescriptorInit) -> None:
        what = f"descriptor {declared.index} of the {declared.table.upper()}"
        if declared.table == "ldt":
            raise refuse(self.reproducer, declared.line, f"The {what} cannot be exported", "kvm-unit-tests have no LDT")
        if declared.table == "gdt" and (declared.index in _TSS_SLOTS or declared.index < _FIRST_OWN):
            why = "kvm-unit-tests keep their own segments (0x08, 0x10) and TSS (0x80) there"
            raise refuse(self.reproducer, declared.line, f"The {what} cannot be exported", why, "use index 10 to 15")
        slot = f"boot_idt[{declared.index}]" if declared.table == "idt" else f"gdt[{declared.index}]"
        labels = {name: value for name, value in declared.fields.items() if isinstance(value, str)}
        if not labels:
            raw = declared.value
            size = declared.size
            if raw is None:
                data = encode(declared.kind, {n: int(v) for n, v in declared.fields.items()}, long=True)
                raw, size = int.from_bytes(data, "little"), len(data)
            self.out.lines.append(f"*(u64 *)&{slot} = {raw & (1 << 64) - 1:#018x};")
            if size == 16:
                self.out.lines.append(f"*((u64 *)&{slot} + 1) = {raw >> 64:#x};")
            return
        fields = {name: 0 if name in labels else int(value) for name, value in declared.fields.items()}
        data = encode(declared.kind, fields, long=True)
        raw = int.from_bytes(data, "little")
        if "offset" in labels and len(labels) == 1:
            selector, dpl, kind = raw >> 16 & 0xFFFF, raw >> 45 & 3, raw >> 40 & 0xF
            target = f"(void *){self.label(labels['offset'])}"
            entry = f"(idt_entry_t *)&{slot}" if declared.table == "gdt" else f"&{slot}"
            self.out.lines.append(
                f"set_desc_entry({entry}, sizeof(idt_entry_t), {target}, {selector:#x}, {kind}, {dpl});"
            )
            if raw >> 32 & 7 and declared.table == "idt":
                self.out.lines.append(f"{slot}.ist = {raw >> 32 & 7};")
        elif "base" in labels and len(labels) == 1:
            limit = raw & 0xFFFF | raw >> 32 & 0xF0000
            access, gran = raw >> 40 & 0xFF, raw >> 48 & 0xF0
            base = self.label(labels["base"])
            self.out.lines.append(
                f"set_gdt_entry({declared.index * 8:#x}, {base}, {limit:#x}, {access:#04x}, {gran:#04x});"
            )
        else:
            why = f"a label in {', '.join(labels)} cannot be put there"
            raise refuse(self.reproducer, declared.line, f"The {what} cannot be exported", why)

    def _stacks(self) -> None:
        """The TSS's stacks, where the guest can come to use them."""
        used = {handler.ist for handler in self.config.handlers if handler.ist}
        for number in sorted(used):
            if number > len(IST_TOPS):
                continue
            self.out.lines.append(f"tss[0].ist{number} = {IST_TOPS[number - 1]:#x};")
        if self.config.ring == 3 or self._uses_gdt():
            self.out.lines.append(f"tss[0].rsp0 = {RSP0_STACK_TOP:#x};")
            for number in range(1, len(IST_TOPS) + 1):
                if self.config.ring == 3 and number not in used and self.config.descriptors:
                    self.out.lines.append(f"tss[0].ist{number} = {IST_TOPS[number - 1]:#x};")

    def _handler(self, handler: HandlerInit) -> None:
        name = vector_constant(handler.vector)
        if handler.kind == "task":
            raise refuse(
                self.reproducer, handler.line, "A task gate cannot be exported", "64-bit mode has no task gates"
            )
        if self.record:
            self.out.counted.append(handler)
            target = f"record_{handler.vector:x}"
        else:
            target = (
                f"(void *){self.value(handler.target)}"
                if isinstance(handler.target, int)
                else self.renamed.get(handler.target, handler.target)
            )
        self.out.lines.append(f"set_idt_entry({name}, {target}, {handler.dpl});")
        if handler.kind == "trap":
            self.out.lines.append(f"boot_idt[{name}].type = 15;")
        if handler.ist:
            self.out.lines.append(f"boot_idt[{name}].ist = {handler.ist};")

    def _ports(self) -> None:
        self.out.lines.append(
            "/* The I/O permission bitmap goes behind the only TSS in use; a set bit denies. */\n"
            "tss[0].iomap_base = sizeof(tss64_t);\n"
            "memset(&tss[1], 0xff, 0x2001);"
        )
        for first, last in self.config.io_permission:
            if first == last:
                self.out.lines.append(f"((u8 *)&tss[1])[{first:#x} / 8] &= ~BIT({first:#x} % 8);")
            else:
                self.out.lines.append(
                    f"for (i = {first:#x}; i <= {last:#x}; i++)\n\t((u8 *)&tss[1])[i / 8] &= ~BIT(i % 8);"
                )

    # processor

    def _msr(self, index: int, value: int) -> None:
        name = msr_constant(index)
        text = _hex(value)
        image = self.observed.image
        if any(s.address <= value < s.end for s in image.sections):
            if index not in _ADDRESS_MSRS:
                line = self.reproducer.lines.get("msrs")
                why = f"{value:#x} is an address in the program, which is linked elsewhere in a test"
                raise refuse(self.reproducer, line, f"MSR {index:#x} cannot be exported", why)
            offset = value - image.sections[0].address
            text = "(ulong)guest_code" + (f" + {offset:#x}" if offset else "")
        if index == 0xC0000080:
            return
        self.out.data.append(f"static u64 host_msr_{index:x};")
        self.out.lines.append(f"host_msr_{index:x} = rdmsr({name});")
        self.out.before.append(f"wrmsr({name}, {text});")
        self.out.restore.append(f"wrmsr({name}, host_msr_{index:x});")

    def _features(self) -> None:
        if vendor_decides(self.reproducer):
            intel = self.config.cpu == "intel"
            self.out.features.append(("is_intel()" if intel else "!is_intel()", "Intel only" if intel else "AMD only"))
        cr4 = self.observed.final.cr4
        for event in self.observed.events:
            if getattr(event, "name", "") == "cr4":
                cr4 |= getattr(event, "new", 0)
        for bit, feature in ((20, "SMEP"), (21, "SMAP"), (11, "UMIP"), (12, "LA57"), (22, "PKU"), (17, "PCID")):
            if cr4 >> bit & 1:
                self.out.features.append((f"this_cpu_has(X86_FEATURE_{feature})", f"{feature} not supported"))


def _hex(value: int) -> str:
    """A C constant of 64 bits at need."""
    if value < 10:
        return str(value)
    return f"{value:#x}" + ("ul" if value > 0x7FFFFFFF else "")
