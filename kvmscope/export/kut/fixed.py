"""The parts of a test that do not depend on the program: entering and leaving it, mapping pages, recording exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvmscope.x86.exceptions import has_error_code

__all__ = ["ENTER", "MAP_PAGE", "TAKE_PAGES", "record_stub"]

ENTER: Final = """/* IRET to the program with the registers in guest; its end comes back to leave_guest. */
asm(".pushsection .text\\n"
    "enter_guest:\\n"
    "\\tpush %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\\n"
    "\\tmov %rsp, host_rsp(%rip)\\n"
    "\\tlea guest(%rip), %rsp\\n"
    "\\tpop %rax; pop %rcx; pop %rdx; pop %rbx\\n"
    "\\tadd $8, %rsp\\n"
    "\\tpop %rbp; pop %rsi; pop %rdi; pop %r8; pop %r9; pop %r10; pop %r11\\n"
    "\\tpop %r12; pop %r13; pop %r14; pop %r15\\n"
    "\\tadd $16, %rsp\\n"
    "\\tiretq\\n"
    "leave_guest:\\n"
    "\\tmov host_rsp(%rip), %rsp\\n"
    "\\tpop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\\n"
    "\\tret\\n"
    ".popsection\\n");

static ulong __attribute__((used)) host_rsp;
static ulong host_cr0, host_cr3, host_cr4, host_efer, host_gs_base;
static char stop_stack[4096] __attribute__((aligned(16)));"""

TAKE_PAGES: Final = """/* Take physical memory away from the page allocator. */
static void take_pages(phys_addr_t addr, int count)
{
	int i;

	if (reserve_pages(addr, count))
		report_abort("physical memory at %#lx is in use", (ulong)addr);
	/* A reserved page may still be in its free list; removing it twice does no harm. */
	for (i = 0; i < count; i++)
		list_remove(phys_to_virt(addr + i * PAGE_SIZE));
}"""

MAP_PAGE: Final = """/* Map one 4 KiB page; a user page needs U/S on the way to it as well. */
static void map_page(ulong virt, u64 phys, u64 flags)
{
	pgd_t *cr3 = current_page_table();
	int level;

	if (virt < 4ul << 30)
		force_4k_page((void *)virt);
	install_pte(cr3, 1, (void *)virt, phys | flags, NULL);
	for (level = PAGE_LEVEL; level > 1 && (flags & PT_USER_MASK); level--)
		*get_pte_level(cr3, (void *)virt, level) |= PT_USER_MASK;
	flush_tlb();
}"""


def record_stub(vector: int, target: str, last: Sequence[str], *, counts: bool, total: bool) -> str:
    """Note an exception in ``last``, ``count`` and ``exceptions``, and go on to the program's own handler."""
    name = f"record_{vector:x}"
    coded = has_error_code(vector)
    # MOV and LEA leave the flags alone, so the handler is entered exactly as by the processor.
    body = ["push %rax"]
    if vector < 32:
        reads = {
            "vector": [],
            "error_code": ["mov 8(%rsp), %rax" if coded else "mov $-1, %rax"],
            "fault_rip": [f"mov {16 if coded else 8}(%rsp), %rax"],
            "fault_address": ["mov %cr2, %rax"],
        }
        for number, field in enumerate(last):
            place = f"{8 * number} + last(%rip)" if number else "last(%rip)"
            body += [*reads[field], f"movq ${vector}, {place}" if field == "vector" else f"mov %rax, {place}"]
    places = [f"{8 * vector} + count(%rip)"] * counts + ["exceptions(%rip)"] * total
    for place in places:
        body += [f"mov {place}, %rax", "lea 1(%rax), %rax", f"mov %rax, {place}"]
    body += ["pop %rax", f"jmp {target}"]
    lines = "\n".join(f'    "\\t{line}\\n"' for line in body)
    return f'extern char {name}[];\nasm(".pushsection .text\\n"\n    "{name}:\\n"\n{lines}\n    ".popsection\\n");'
