from __future__ import annotations

import pytest

from kvmscope.debug.commands import COMMANDS, ActionKind, CommandContext, complete, execute, parse_line
from kvmscope.debug.debugger import Debugger
from kvmscope.errors import KvmscopeError, UsageError
from kvmscope.vmm.engine import StopReason
from tests.debug.support import boot

PROGRAM = """
        mov     ecx, 2
        mov     ebx, 0x8000
loop:   call    add
        dec     ecx
        jnz     loop
        hlt
add:    add     rax, 0x10
        ret
text:   .asciz  "hello"
"""


@pytest.fixture
def context():
    machine, _ = boot(PROGRAM)
    yield CommandContext(machine, Debugger(machine))
    machine.close()


def said(line: str, context: CommandContext) -> str:
    return "\n".join(execute(line, context).lines)


def test_names_and_aliases_are_unique():
    words = [word for command in COMMANDS for word in (command.name, *command.aliases)]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("word", "name"),
    [("s", "step"), ("si", "stepi"), ("n", "next"), ("c", "continue"), ("fin", "finish"), ("b", "break"), ("p", "print"),
     ("rsi", "reverse-stepi"), ("rc", "reverse-continue"), ("reverse-f", "reverse-finish"), ("tb", "tbreak"), ("q", "quit"),
     ("i", "info"), ("unti", "until"), ("dele", "delete"), ("x/4xg", "x"), ("p/x", "print"), (":c", "continue")],
)  # fmt: skip
def test_words(word, name):
    assert parse_line(word)[0].name == name


@pytest.mark.parametrize(
    ("line", "hint"),
    [("contniue", "continue"), ("brek", "break"), ("reverse-", "reverse-stepi"), ("prnt rax", "print"), ("!!", "help")],
)
def test_wrong_words_name_the_nearest(line, hint):
    with pytest.raises(UsageError) as caught:
        parse_line(line)
    assert hint in caught.value.hint


def test_stepping_moves_and_says_where(context):
    result = execute("si 2", context)
    assert result.stop is not None
    assert result.stop.reason is StopReason.STEP
    assert result.changed
    assert "tick 2: 0x40000a <loop>" in result.lines[-1]
    assert "<loop+" in said("next", context)
    assert "tick 2: 0x40000a <loop>" in said("rni", context)
    assert "tick 1" in said("rsi", context)
    assert "HLT" in said("c", context)
    assert "tick 0" in said("rc", context)
    assert "<add>" in said("until add", context)
    assert "<loop+" in said("finish", context)
    assert "tick 1:" in said("goto tick 1", context)


def test_reverse_finish(context):
    execute("until add", context)
    assert "<loop>" in said("reverse-finish", context)


def test_breakpoints(context):
    assert "Breakpoint 1 at" in said("break add if $rcx == 1", context)
    assert "Temporary breakpoint 2" in said("tbreak loop", context)
    assert "2 " in said("info breakpoints", context)
    assert execute("c", context).stop.breakpoint == context.machine.image.symbols["loop"]
    stop = execute("c", context).stop
    assert stop.reason is StopReason.BREAKPOINT
    assert said("p $ecx", context) == "$ecx = 1"
    assert "1    y   1" in said("info b", context)
    execute("disable 1", context)
    assert "1    n" in said("info b", context)
    execute("delete 1", context)
    assert said("info b", context) == "No breakpoints."


def test_break_on_lines_and_addresses(context):
    address = context.machine.image.symbols["loop"]
    line = context.machine.image.line_at(address)
    execute(f"b {line}", context)
    execute(f"b *{address:#x}", context)
    execute("b test.asm:" + str(line), context)
    assert [b.address for b in context.debugger.breakpoints] == [address] * 3


@pytest.mark.parametrize(
    ("line", "said_"),
    [
        ("p 1 + 2 * 3", "1 + 2 * 3 = 7"),
        ("p/x 255", "255 = 0x00000000000000ff"),
        ("p/d $al", "$al = 0"),
        ("p/t $al", "$al = 00000000"),
        ("p stop", "stop = 'ready'"),
        ("p rax == 0", "rax == 0 = true"),
        ("p {u8}text", "{u8}text = 0x68 (104)"),
        ("x/s text", '"hello"'),
        ("x/5xb text", "0x68  0x65  0x6c  0x6c  0x6f"),
        ("x/2c text", "104 'h'"),
        ("x/i loop", "call"),
        ("x/2xg 0x7000000000", "(not mapped)"),
        ("info registers rflags", "rflags"),
        ("info registers", "gdtr     base 0x1000"),
        ("info line loop", "call    add"),
        ("info symbols te", "text"),
        ("info idt 14", "#PF"),
        ("info gdt 8", "code 64-bit DPL 0"),
        ("info gdt", "GDTR base 0x1000"),
        ("info tss", "rsp0"),
        ("info", "info registers"),
        ("telescope $rsp - 8 1", "0x7fff8: 0x0"),
        ("walk write 0x1000", "PTE"),
        ("help", "reverse-continue"),
        ("help break", "break [LOC] [if EXPR]"),
        ("explain", "ready"),
    ],
)
def test_looking(context, line, said_):
    assert said_ in said(line, context)


def test_x_continues_where_it_ended(context):
    execute("x/4xb text", context)
    assert "0x6f" in said("x", context)


def test_set_registers_and_memory(context):
    execute("set $rax = 0x1234", context)
    assert said("p $rax", context).startswith("$rax = 0x1234")
    execute("set var $ecx = -1", context)
    assert said("p/d $ecx", context) == "$ecx = -1"
    execute("set {u32}0x9000 = 0x11223344", context)
    assert said("x/4xb 0x9000", context).endswith("0x44  0x33  0x22  0x11")
    execute("set u16(0x9000) = -2", context)
    assert said("x/1xh 0x9000", context).endswith("0xfffe")


def test_jump_sets_rip(context):
    execute("jump add", context)
    assert context.machine.cpu.rip == context.machine.image.symbols["add"]


def test_displays(context):
    assert said("display/x $rcx", context) == "1: $rcx = 0x0000000000000000"
    execute("si", context)
    assert said("display", context) == "1: $rcx = 0x0000000000000002"
    execute("undisplay 1", context)
    assert said("display", context) == ""


@pytest.mark.parametrize(
    ("line", "kind", "argument"),
    [
        ("quit", ActionKind.QUIT, ""),
        ("load a b.asm", ActionKind.OPEN, "a b.asm"),
        ("save", ActionKind.SAVE, ""),
        ("w out.asm", ActionKind.SAVE, "out.asm"),
        ("run", ActionKind.RUN, ""),
        ("view paging", ActionKind.SHOW, "paging"),
    ],
)
def test_actions_are_data(context, line, kind, argument):
    action = execute(line, context).action
    assert action is not None
    assert (action.kind, action.argument) == (kind, argument)


@pytest.mark.parametrize(
    "line",
    ["p", "p 1 +", "p nothere", "b nowhere", "b 99999", "x", "x/9z 0", "x/0xb 0", "delete 7", "delete x", "set rax", "set $nope = 1",
     "set $al = 0x100", "set {u8}0x7000000000 = 1", "set {u8}0x9000 = 0x1ff", "watch $rax", "load", "info nope", "goto 99999",
     "si 0", "info registers nope", "condition", "until nowhere", "p/q 1", "explain last", "p 'a'+1"],
)  # fmt: skip
def test_mistakes_are_errors_with_words(context, line):
    with pytest.raises(KvmscopeError) as caught:
        execute(line, context)
    assert caught.value.title


def test_explain_last_goes_to_its_tick_and_back():
    code = "xor ecx, ecx\nxor edx, edx\ndiv ecx\nnop\nhlt\nh: add qword ptr [rsp], 2\n iretq\n"
    machine, _ = boot(code, '[handlers]\n"#DE" = "h"')
    try:
        context = CommandContext(machine, Debugger(machine))
        execute("c", context)
        here = machine.tick
        lines = said("explain last", context)
        assert "division by zero" in lines
        assert "later than the exception" not in lines
        assert machine.tick == here
    finally:
        machine.close()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [("rever", "reverse-stepi"), ("break lo", "break loop"), ("info re", "info registers"), ("p $rf", "p $rflags"),
     ("help conti", "help continue"), ("p 1 + te", "p 1 + text")],
)  # fmt: skip
def test_completion(context, line, wanted):
    assert wanted in complete(line, context)


def test_completion_without_a_machine():
    assert complete("break x") == []
    assert "continue" in complete("c")
    assert complete("nonsense x") == []
