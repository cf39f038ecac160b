from __future__ import annotations

import dataclasses

import pytest

from kvmscope.debug.explain import explain
from kvmscope.vmm.engine import Stop, StopReason
from kvmscope.vmm.events import ExceptionEvent, ExceptionSource
from tests.debug.support import boot, ended

LONG = 'mode = "long64"'
RING3 = 'mode = "long64"\nring = 3'
PROT = 'mode = "prot32"'
INVPCID = ".byte 0x66, 0x0f, 0x38, 0x82, 0x04, 0x25, 0, 0, 2, 0"
PAGE = '[[page]]\nlinear = 0x200000\nphysical = 0x200000\nflags = "{}"'

# (header, code, what the title must contain, what some line must contain)
ENDS = {
    "page not present": (
        PAGE.format(""),
        "mov eax, [0x200004]",
        "#PF(0x0) at 0x400000: read from 0x200004, PTE at 0x",
        "P = 0",
    ),
    "page read-only": (
        PAGE.format("P"),
        "mov ebx, 0x200000\nmov [rbx + 8], eax",
        "write to 0x200008, PTE at 0x",
        "[rbx + 0x8]: rbx = 0x200000 -> 0x200008, 4 bytes, write",
    ),
    "page read-only, WP": (
        PAGE.format("P"),
        "mov ebx, 0x200000\nmov [rbx], eax",
        "R/W = 0, CR0.WP = 1",
        "W/R = 1 (write)",
    ),
    "page no execute": (
        PAGE.format("P RW NX"),
        "mov eax, 0x200000\njmp rax",
        "instruction fetch from 0x200000",
        "XD = 1",
    ),
    "page reserved bit": (PAGE.format("P RW bit50"), "mov eax, [0x200000]", "reserved bit 50 set", "RSVD = 1"),
    "page of the supervisor": (RING3, "mov ebx, 0x1000\nmov eax, [rbx]", "U/S = 0", "U/S = 1 (user)"),
    "page crossing": (
        PAGE.format(""),
        "mov ebx, 0x1ffffe\nmov eax, [rbx]",
        "read from 0x200000 (operand of 4 bytes at 0x1ffffe crosses into its page)",
        "P = 0",
    ),
    "push": (LONG, "mov rsp, 0x7000000000\npush rax", "write to 0x6ffffffff8", "[rsp - 0x8]: rsp = 0x7000000000"),
    "non-canonical": (
        LONG,
        "mov rbx, 0x800000000000\nmov rax, [rbx + 8]",
        "#GP(0x0) at 0x40000a: the address 0x800000000008 is not canonical ([rbx + 0x8]: rbx = 0x800000000000)",
        "mov rax",
    ),
    "selector beyond": (
        LONG,
        "mov eax, 0x1f8\nmov ds, eax",
        "DS <- 0x1f8: the selector is beyond the GDT limit",
        "GDT[63]",
    ),
    "selector code in SS": (
        LONG,
        "mov eax, 8\nmov ss, eax",
        "SS <- 0x8: it is a code descriptor",
        "GDT[0x8] at 0x1008",
    ),
    "selector RPL": (LONG, "mov eax, 0x13\nmov ss, eax", "RPL = 3 differs from CPL = 0", "GDT[0x10]"),
    "selector privilege": (RING3, "mov eax, 0x10\nmov ds, eax", "CPL = 3, RPL = 0, DPL = 0", "GDT[0x10]"),
    "null SS": (PROT, "xor eax, eax\nmov ss, eax", "SS cannot be loaded with a null selector", "mov ss"),
    "LTR of a busy TSS": (LONG, "mov eax, 0x50\nltr ax", "TR <- 0x50: it is a tss descriptor", "busy"),
    "privileged": (RING3, "cli\nhlt", "CLI with CPL = 3 above IOPL = 0", "cli"),
    "hlt in ring 3": (RING3, "hlt", "HLT needs CPL 0, CPL = 3", "hlt"),
    "msr": (LONG, "mov ecx, 0x12345\nrdmsr", "MSR 0x12345 does not exist", "ECX = 0x12345"),
    "wrmsr reserved": (LONG, "mov ecx, 0xc0000080\nrdmsr\nor eax, 2\nwrmsr", "reserved bit 1 set", "EDX:EAX = 0xd03"),
    "EFER.LME": (LONG, "mov ecx, 0xc0000080\nrdmsr\nbtr eax, 8\nwrmsr", "LME cannot change while CR0.PG = 1", "ECX"),
    "cr4 reserved": (LONG, "mov rax, cr4\nbts rax, 40\nmov cr4, rax", "CR4 reserved bit 40 set", "CR4 <- 0x"),
    "cr3 high": (
        LONG,
        "mov rax, cr3\nbts rax, 63\nmov cr3, rax",
        "CR3 bit 63 set: physical addresses have 40 bits",
        "CR3 <- ",
    ),
    "cr3 with pcide": (
        LONG + "\n[registers]\ncr4 = 0x20620",
        "mov rax, cr3\nbts rax, 63\nbts rax, 50\nmov cr3, rax",
        "CR3 bit 50 set",
        "CR3 <- ",
    ),
    "cr4 pcide": (
        LONG,
        "mov rax, cr3\nor rax, 5\nmov cr3, rax\nmov rax, cr4\nbts rax, 17\nmov cr4, rax",
        "CR4.PCIDE cannot be set while CR3[11:0] = 0x5",
        "CR4 <- ",
    ),
    "invpcid type": (LONG, f"mov eax, 4\n{INVPCID}", "INVPCID type 0x4: types are 0 to 3", "PCID 0x0"),
    "invpcid pcid": (
        LONG,
        f"mov dword ptr [0x20000], 7\nmov eax, 1\n{INVPCID}",
        "INVPCID of PCID 0x7 with CR4.PCIDE = 0",
        "type 0x1, PCID 0x7",
    ),
    "invpcid reserved": (
        LONG,
        f"mov dword ptr [0x20000], 0x1000\nxor eax, eax\n{INVPCID}",
        "the INVPCID descriptor's reserved bit 12 set",
        "PCID 0x1000",
    ),
    "invpcid address": (
        LONG,
        f"mov byte ptr [0x2000f], 0x40\nxor eax, eax\n{INVPCID}",
        "address 0x4000000000000000 is not canonical",
        "type 0x0",
    ),
    "umip": (RING3 + "\n[registers]\ncr4 = 0xe20", "str eax", "STR at CPL 3 with CR4.UMIP = 1", "str"),
    "cr4 pae": (LONG, "mov rax, cr4\nbtr rax, 5\nmov cr4, rax", "CR4.PAE cannot be cleared", "CR4 <- 0x"),
    "cr0 pe": (LONG, "mov rax, cr0\nbtr rax, 0\nmov cr0, rax", "CR0.PG = 1 with PE = 0", "CR0 <- 0x"),
    "dr7 high": (LONG, "mov rax, -1\nmov dr7, rax", "DR7 bits 63:32 must be 0", "DR7 <- 0x"),
    "int gate dpl": (RING3, "int 0x80", "gate DPL = 0 is below CPL = 3 for a software interrupt", "IDT[0x80]"),
    "iret to a bad CS": (
        LONG,
        "push 0\npush 0\npush 2\npush 0x1f8\npush 0\niretq",
        "CS <- 0x1f8",
        "beyond the GDT limit",
    ),
    "ud2": (LONG, "ud2", "UD2 is defined to raise #UD", "bytes: 0f 0b"),
    "not in 64-bit mode": (LONG, ".byte 0x06", "PUSH ES does not exist in 64-bit mode", "06"),
    "lock": (LONG, ".byte 0xf0, 0x90", "LOCK", "f0 90"),
    "vmx": (LONG, "vmxoff", "CR4.VMXE = 0", "0f 01 c4"),
    "osxsave": (LONG, "xgetbv", "CR4.OSXSAVE = 0", "0f 01 d0"),
    "mov cs": (LONG, ".byte 0x8e, 0xc8", "#UD", "8e c8"),
    "divide by zero": (
        LONG,
        "xor ecx, ecx\nmov eax, 5\nxor edx, edx\ndiv ecx",
        "division by zero: ecx = 0",
        "EDX:EAX = 0x5",
    ),
    "quotient": (LONG, "mov edx, 2\nmov ecx, 1\ndiv ecx", "quotient 0x2", "dividend EDX:EAX"),
    "idiv": (
        LONG,
        "mov rax, 0x8000000000000000\ncqo\nmov rcx, -1\nidiv rcx",
        "does not fit 64 bits, signed",
        "divisor",
    ),
    "divide memory": (LONG, "xor edx, edx\ndiv dword ptr [rip + zero]\nzero: .long 0", "division by zero", "0x0"),
    "ts": (LONG, "mov rax, cr0\nor eax, 8\nmov cr0, rax\nfninit", "fninit with CR0.TS = 1", "TS = 1"),
    "bound": (PROT, "mov eax, 11\nbound eax, [x]\nx: .long 0, 10", "eax = 11 is outside of 0..10", "limits at"),
    "int3": (LONG, "int3", "#BP", "int3"),
    "single step": (LONG, "pushfq\nor qword ptr [rsp], 0x100\npopfq\nnop\nnop", "BS: single step", "DR6 = 0x"),
}


@pytest.mark.parametrize("name", ENDS)
def test_ends_name_their_cause(name):
    header, code, title, line = ENDS[name]
    stop, found = ended(code + "\nhlt\n", header)
    assert stop.reason is StopReason.EXCEPTION, found
    assert title in found.title, found
    assert any(line in part for part in (found.title, *found.lines)), found
    assert "cause not determined" not in str(found)
    assert found.references


# Faults that not every engine raises: the state is real, the event is made by hand.
# (header, code of one instruction behind "here", vector, error code, what the title must contain)
MADE = {
    "segment limit": (
        'mode = "prot32"\n[[descriptor]]\ntable = "gdt"\nindex = 14\nvalue = 0x004092000000000f',
        "mov eax, 0x70\nmov ds, eax\nhere: mov eax, [0x10]",
        13,
        0,
        "offset 0x10 + 4 bytes exceeds DS's limit 0xf",
    ),
    "expand down": (
        'mode = "prot32"\n[[descriptor]]\ntable = "gdt"\nindex = 14\nvalue = 0x004096000000ffff',
        "mov eax, 0x70\nmov ds, eax\nhere: mov eax, [0x10]",
        13,
        0,
        "outside of DS's expand-down range 0x10000..0xffffffff",
    ),
    "write to code": (PROT, "here: mov cs:[0x8000], eax", 13, 0, "write through CS = 0x38, a code segment"),
    "null data segment": (PROT, "xor eax, eax\nmov ds, eax\nhere: mov eax, [ebx]", 13, 0, "DS holds a null selector"),
    "port": (RING3, "here: in al, 0x60", 13, 0, "port 0x60: its bit in the I/O permission bitmap is 1"),
    "port in dx": (RING3, "mov edx, 0xcfc\nhere: in eax, dx", 13, 0, "port 0xcfc"),
    "ports allowed but one": (
        RING3 + "\nio_permission = [[0x60, 0x62]]",
        "here: in eax, 0x60",
        13,
        0,
        "port 0x63",
    ),
    "ret non-canonical": (LONG, "mov rax, 0x800000000000\npush rax\nhere: ret", 13, 0, "return address at 0x7fff8"),
    "jmp non-canonical": (
        LONG,
        "mov rax, 0x800000000000\nhere: jmp rax",
        13,
        0,
        "rax = 0x800000000000 is not canonical",
    ),
    "sysret": (LONG, "mov rcx, 0x800000000000\nhere: sysretq", 13, 0, "SYSRET to RCX = 0x800000000000"),
    "movaps": (
        LONG,
        "mov ebx, 0x8008\nhere: movaps xmm0, [rbx]",
        13,
        0,
        "MOVAPS at 0x8008, which is not 16-byte aligned",
    ),
    "stack non-canonical": (LONG, "mov rsp, 0x800000001000\nhere: push rax", 12, 0, "is not canonical"),
    "alignment": (RING3, "mov ebx, 0x8001\nhere: mov eax, [rbx]", 17, 0, "4-byte read at 0x8001 is not aligned"),
    "iret NT": (LONG, "pushfq\nor qword ptr [rsp], 0x4000\npopfq\nhere: iretq", 13, 0, "RFLAGS.NT = 1"),
    "lgdt": (
        LONG,
        "here: lgdt [rip + bad]\nbad: .word 7\n.quad 0x800000000000",
        13,
        0,
        "LGDT with base 0x800000000000, which is not canonical",
    ),
    "xsetbv": (LONG, "xor eax, eax\nxor edx, edx\nxor ecx, ecx\nhere: xsetbv", 13, 0, "XCR0[0] (x87) must be 1"),
    "lldt": (LONG, "mov eax, 0x10\nhere: lldt ax", 13, 0x10, "LDTR <- 0x10: it is a data descriptor"),
    "far jump to data": (PROT, "here: ljmp 0x10, 0", 13, 0x10, "CS <- 0x10: it is a data descriptor"),
    "retf to a lower ring": (
        RING3,
        "push 0x8\npush 0\nhere: .byte 0x48, 0xcb",
        13,
        0x8,
        "a return cannot raise privilege",
    ),
    "no cause": (LONG, "here: mov eax, ebx", 13, 0, "cause not determined"),
    "wrong selector": (LONG, "mov eax, 0x10\nhere: mov ds, eax", 13, 0x18, "cause not determined"),
}


@pytest.mark.parametrize("name", MADE)
def test_causes_from_the_state(name):
    header, code, vector, error_code, title = MADE[name]
    machine, image = boot(code + "\nhlt\n", header)
    try:
        while machine.cpu.pc != image.symbols["here"]:
            assert not machine.step().reason.final
        cpu = machine.cpu
        event = ExceptionEvent(
            machine.tick, cpu.rip, 0, vector, ExceptionSource.FAULT, error_code, None, None, cpu, delivered=False
        )
        found = explain(event, machine.snapshot(), image)
        assert title in found.title, found
    finally:
        machine.close()


def test_triple_fault_is_a_chain():
    code = "lidt [rip + none]\nbang: ud2\nnone: .word 0\n.quad 0\n"
    stop, found = ended(code, LONG)
    assert stop.reason is StopReason.TRIPLE_FAULT
    assert found.title.startswith("#UD -> #GP(0x33) -> #DF(0x0) -> shutdown (triple fault)")
    text = str(found)
    for part in (
        "1. #UD",
        "2. #GP(0x33)",
        "3. #DF(0x0): #GP while delivering #UD",
        "IDTR limit is 0x0",
        "state: CPL 0",
    ):
        assert part in text, text


def test_double_fault_names_the_stack():
    code = "mov rsp, 0x7000000000\nmov rbx, 0x6000000000\nmov rax, [rbx]\nh: hlt\n"
    stop, found = ended(code, LONG + '\n[handlers]\n"#PF" = "h"')
    assert stop.reason is StopReason.EXCEPTION
    text = str(found)
    assert "#PF(0x0)" in text
    assert "#DF(0x0)" in text
    assert "pushing the frame of #PF below RSP = 0x7000000000" in text


def test_gate_not_present():
    header = LONG + '\n[[descriptor]]\ntable = "idt"\nindex = 6\nvalue = 0\nsize = 16'
    _, found = ended("ud2\n", header)
    assert "#UD" in found.title
    assert "is no gate" in str(found)


@pytest.mark.parametrize(
    ("code", "title", "line"),
    [
        ("xor eax, eax\nout 0xf4, eax\nhlt", "debug exit 0: success", "status 1"),
        ("mov eax, 3\nout 0xf4, eax\nhlt", "debug exit 0x3: failure", "status 7"),
        ("cli\nhlt", "HLT: nothing can wake the processor (RFLAGS.IF = 0", "next:"),
        ("sti\nhlt", "RFLAGS.IF = 1", "next:"),
    ],
)
def test_other_ends(code, title, line):
    _, found = ended(code, LONG)
    assert title in found.title
    assert any(line in part for part in found.lines)


def test_budget_says_which():
    stop, found = ended("top: jmp top\n", 'max_instructions = 100\nmode = "long64"')
    assert stop.reason is StopReason.BUDGET
    assert found.title.startswith("out of budget: instructions")


def test_a_fault_whose_tables_have_changed_is_not_guessed_at():
    code = """
        mov     ebx, 0x200000
        mov     [rbx], eax
        xor     eax, eax
        out     0xf4, eax
h:      mov     rax, cr0
        btr     rax, 16
        mov     cr0, rax
        mov     rcx, cr3
        mov     rcx, [rcx]
        and     rcx, -4096
        mov     rcx, [rcx]
        and     rcx, -4096
        mov     rcx, [rcx + 8]
        and     rcx, -4096
        or      qword ptr [rcx], 2
        add     rsp, 8
        iretq
"""
    machine, image = boot(code, LONG + "\n" + PAGE.format("P") + '\n[handlers]\n"#PF" = "h"')
    try:
        machine.run()
        event = next(e for e in machine.events if isinstance(e, ExceptionEvent))
        late = explain(event, machine.snapshot(), image)
        assert "cause not determined" in str(late)
        assert "R/W = 0" not in late.title
        machine.goto(event.tick - 1)
        then = dataclasses.replace(machine.snapshot(), events=(event,))
        assert "R/W = 0, CR0.WP = 1" in explain(event, then, image).title
    finally:
        machine.close()


def test_every_reason_has_words():
    machine, image = boot("hlt\n", LONG)
    try:
        snapshot = machine.snapshot()
        for reason in StopReason:
            assert explain(Stop(reason), snapshot, image).title
            assert explain(Stop(reason, detail="because"), snapshot).title
    finally:
        machine.close()


ICR = "mov ebx, 0xfee00000\nmov dword ptr [rbx + 0x310], 0\n"


def test_external_interrupts_have_no_instruction_as_their_cause():
    code = f"{ICR}mov dword ptr [rbx + 0xf0], 0x1ff\nmov dword ptr [rbx + 0x300], 0x4055\nsti\nnop\nhlt\nh: hlt\n"
    machine, image = boot(code, '[handlers]\n0x55 = "h"')
    try:
        machine.run()
        (event,) = (e for e in machine.events if isinstance(e, ExceptionEvent))
        found = explain(event, machine.snapshot(), image)
        assert found.title == f"IRQ 0x55 at {event.rip:#x}: external interrupt"
        assert found.lines[0].startswith("taken before ")
        assert "RFLAGS.IF = 1" in found.lines
    finally:
        machine.close()


def test_an_nmi_is_one():
    machine, image = boot(f"{ICR}mov dword ptr [rbx + 0x300], 0x4400\nnop\nhlt\nh: hlt\n", '[handlers]\nNMI = "h"')
    try:
        machine.run()
        (event,) = (e for e in machine.events if isinstance(e, ExceptionEvent))
        found = explain(event, machine.snapshot(), image)
        assert found.title == f"NMI at {event.rip:#x}: non-maskable interrupt"
        assert found.lines[1] == "RFLAGS.IF = 0, which an NMI does not ask"
    finally:
        machine.close()


def test_an_interrupt_with_the_number_of_a_page_fault_is_none():
    state = boot("nop\n")[0]
    snapshot = state.snapshot()
    event = ExceptionEvent(1, 0x400000, 0, 14, ExceptionSource.EXTERNAL, None, None, None, snapshot.cpu)
    assert explain(event, snapshot).title == "IRQ 0xe at 0x400000: external interrupt"
    state.close()


def test_hlt_of_several_vcpus_says_what_each_waits_for():
    stop, found = ended("nop\nhlt\n", "smp = 2")
    assert stop.reason is StopReason.HLT
    assert found.title == "HLT: nothing can wake any processor"
    assert found.lines[0].startswith("vCPU 0: halted, next 0x400002: RFLAGS.IF = 0")
    assert found.lines[1] == "vCPU 1: waits for a start-up IPI"


def test_of_several_vcpus_the_title_names_the_one():
    _, found = ended("ud2\n", "smp = 2")
    assert found.title.startswith("vCPU 0: #UD at 0x400000")


def test_a_reset_says_how():
    stop, found = ended("mov al, 0xfe\nout 0x64, al\nhlt\n")
    assert stop.reason is StopReason.RESET
    assert "reset" in found.title
    assert "restart begins anew" in found.lines[-1]
