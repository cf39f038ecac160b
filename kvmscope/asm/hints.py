"""From an assembler's message to its place in the line and a way out."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Final

from kvmscope.asm.gas_source import split_labels
from kvmscope.asm.image import Diagnostic, Severity, Syntax
from kvmscope.asm.mnemonics import intel_name, is_mnemonic, nearest, nearest_directive
from kvmscope.asm.names import GAS_DIRECTIVES, INTEL_OPERATORS, REGISTERS
from kvmscope.asm.source import Line, Source

__all__ = ["hint_for", "hint_for_symbol", "label_warnings", "nasm_hint", "place", "place_symbol"]

_QUOTED: Final = re.compile(r"[`'‘]([^`'’]+)['’]")
_WORD: Final = re.compile(r"[%.]?[A-Za-z_][\w.]*")
_LONGEST_NAME: Final = 64
_LONGEST_TEXT: Final = 200
_MOST_NAMES: Final = 2000
_PREFIXES: Final = frozenset({"rep", "repe", "repne", "repz", "repnz", "lock", "data16", "addr32", "data32", "addr16"})
_ATT_SIGNS: Final = re.compile(r"%[a-z]{2,}|\$-?\w|\w*\(%|\)\s*,|,\s*-?\w*\(")
_BARE_REGISTER: Final = re.compile(r"(?<![%\w.$])([a-z][a-z0-9]{1,3})\b")


def place(message: str, line: Line) -> tuple[int, int, str]:
    """(column, length, token) of what ``message`` quotes, else of the first statement's first word."""
    for quoted in _QUOTED.findall(message):
        for token in (quoted, quoted.split()[0] if quoted.split() else quoted, quoted.lstrip("%")):
            column = _find(line.text, token)
            if column:
                # `as` quotes the whole statement when it does not know the mnemonic; that word is the culprit.
                shown = token.split()[0] if "no such instruction" in message else token
                return column, len(shown), shown
    if not line.statements:
        return 1, 1, ""
    statement = line.statements[0]
    labels, rest = split_labels(statement.text)
    word = rest.split()[0] if rest.split() else statement.text
    return statement.column + len(labels), len(word), word


def place_symbol(name: str, line: Line) -> tuple[int, int, str]:
    """(column, length, token) of the symbol ``name`` in ``line``; of its first statement when it is not there."""
    column = _find(line.text, name)
    return (column, len(name), name) if column else place("", line)


def _find(text: str, token: str) -> int:
    """Column (from 1) of ``token`` as a whole word in ``text``; 0 when it is not there."""
    if not token:
        return 0
    before = r"(?<![\w.$])" if re.match(r"[\w.$]", token) else ""
    after = r"(?![\w.$])" if re.search(r"[\w.$]\Z", token) else ""
    match = re.search(before + re.escape(token) + after, text, re.IGNORECASE)
    return match.start() + 1 if match else 0


def hint_for(message: str, line: Line, syntax: Syntax, bits: int) -> str:
    """A way out of ``message``, from what stands in the line; empty when there is nothing to say."""
    # Some of the patterns below cost the square of the length.
    text = split_labels(line.statements[0].text)[1][:_LONGEST_TEXT] if line.statements else ""
    words = text.split()
    first = words[0].lower() if words else ""
    nasm = _nasm(first, words, syntax)
    if nasm:
        return nasm
    confusion = _other_syntax(text, first, syntax)
    lowered = message.lower()
    if "no such instruction" in lowered or "unknown mnemonic" in lowered:
        return confusion or _unknown_mnemonic(words, first, syntax)
    if "pseudo-op" in lowered or "unknown directive" in lowered:
        near = nearest_directive(first)
        return f"did you mean {near}?" if near else ""
    if confusion:
        return confusion
    if "bad register name" in lowered:
        return _bad_register(message, bits)
    if first in ("sysret", "sysexit"):
        small = "l" if syntax is Syntax.ATT else "d"
        return f"say how it returns: {first}{small} to 32-bit code, {first}q to 64-bit code"
    if bits == 64 and re.search(r"\b[cd]r\d", text) and "mismatch" in lowered:
        return "in 64-bit code control and debug registers move to and from 64-bit registers"
    if "too large for field" in lowered or "number of operands" in lowered:
        far = "the target is too far away for this instruction, or the value too large for its operand"
        return far if "too large" in lowered else "this instruction takes another number of operands"
    if "ambiguous operand size" in lowered or "no instruction mnemonic suffix" in lowered:
        if syntax is Syntax.INTEL:
            return "say the size: byte ptr, word ptr, dword ptr or qword ptr"
        return "add a suffix to the mnemonic: b, w, l or q"
    if "already defined" in lowered:
        return "rename one of them, or use a local label (1: with 1b or 1f)"
    if "too many memory references" in lowered:
        return "an instruction has at most one memory operand: go through a register"
    if "operand size mismatch" in lowered or "operand type mismatch" in lowered:
        return "the operands do not have the sizes or kinds that this instruction takes"
    if "only supported in 64-bit mode" in lowered or "is not supported in" in lowered:
        return f"this is {bits}-bit code; switch with .code16, .code32 or .code64, or set mode in the header"
    if "bfd_reloc_64" in lowered:
        return "an address has 32 bits here: write .long LABEL, 0"
    if "move .org backwards" in lowered:
        return ".org takes an address that lies ahead; .section NAME, ADDRESS places code anywhere"
    if "recursion" in lowered or "nested" in lowered:
        return "a macro calls itself without an end"
    if "with these operands" in lowered or "is not encoded" in lowered or "not expected" in lowered:
        return confusion
    return ""


def hint_for_symbol(name: str, line: Line, symbols: list[str], syntax: Syntax, bits: int) -> str:
    """A way out of an undefined symbol."""
    lowered = name.lower()
    text = split_labels(line.statements[0].text)[1] if line.statements else ""
    register = REGISTERS.get(lowered.lstrip("$%"))
    if register is not None:
        if syntax is Syntax.ATT:
            return f"AT&T syntax: the register is %{lowered.lstrip('$%')}"
        return f"{lowered} is a register of 64-bit code; this is {bits}-bit code"
    if name.startswith("$") and syntax is Syntax.INTEL:
        return f"Intel syntax: an immediate has no '$'; write {name[1:]}"
    nasm = _nasm(text.split()[0].lower() if text else "", text.split(), syntax)
    near = get_close_matches(name, symbols[:_MOST_NAMES], n=1, cutoff=0.6) if len(name) <= _LONGEST_NAME else []
    return nasm or (f"did you mean '{near[0]}'?" if near else "define it as a label, or with .equ")


def label_warnings(source: Source, syntax: Syntax) -> list[Diagnostic]:
    """A warning for every label that Intel syntax reads as something else where it is used."""
    if syntax is not Syntax.INTEL:
        return []
    found = []
    for line in source.lines:
        for statement in line.statements:
            for name in split_labels(statement.text)[0].replace(" ", "").split(":"):
                kind = "a register" if name.lower() in REGISTERS else "an operator"
                if name.lower() not in REGISTERS and name.lower() not in INTEL_OPERATORS:
                    continue
                column = statement.column + max(statement.text.find(name), 0)
                message = f"label '{name}' is also {kind}: in an operand it does not mean the label"
                hint = "give it another name"
                found.append(Diagnostic(line.number, column, Severity.WARNING, message, hint, len(name), name))
    return found


def nasm_hint(line: Line, syntax: Syntax) -> str:
    """What to write for a NASM or MASM directive; empty when the line has none."""
    text = split_labels(line.statements[0].text)[1] if line.statements else ""
    words = text.split()
    return _nasm(words[0].lower(), words, syntax) if words else ""


def _nasm(first: str, words: list[str], syntax: Syntax) -> str:
    second = words[1].lower() if len(words) > 1 else ""
    for word in (first.strip("[]"), second):
        if word in GAS_DIRECTIVES and (word == first.strip("[]") or word.startswith(("d", "res", "equ"))):
            return f"'{word}' is NASM's; write {GAS_DIRECTIVES[word]}"
    if syntax is Syntax.INTEL and first in ("jmp", "call") and ":" in " ".join(words) and second in ("far", "dword"):
        return "a direct far branch is written SELECTOR:OFFSET without 'far' or a size"
    return ""


def _other_syntax(text: str, first: str, syntax: Syntax) -> str:
    if syntax is Syntax.INTEL:
        signs = _ATT_SIGNS.search(text) is not None
        suffixed = not is_mnemonic(first) or intel_name(first) is not None
        if signs or (suffixed and intel_name(first) is not None):
            intel = intel_name(first)
            example = f" ('{first}' is '{intel}')" if intel else ""
            return f"this looks like AT&T syntax{example}; choose syntax att, or write Intel: mov eax, [rbx+8]"
        return ""
    bare = [word for word in _BARE_REGISTER.findall(text.lower()[len(first) :]) if word in REGISTERS]
    if bare or "[" in text or re.search(r"\bptr\b", text.lower()):
        return "this looks like Intel syntax; choose syntax intel, or write AT&T: movl 8(%rbx), %eax"
    return ""


def _unknown_mnemonic(words: list[str], first: str, syntax: Syntax) -> str:
    at = 1 if first in _PREFIXES and len(words) > 1 else 0
    word = words[at].lower() if words else ""
    if word.startswith("."):
        near = nearest_directive(word)
    else:
        near = nearest(word)
    return f"did you mean '{near}'?" if near and near != word else ""


def _bad_register(message: str, bits: int) -> str:
    quoted = _QUOTED.search(message)
    name = quoted.group(1).lstrip("%").lower() if quoted else ""
    if name in REGISTERS:
        return f"%{name} does not exist in {bits}-bit code"
    near = get_close_matches(name, sorted(REGISTERS), n=1, cutoff=0.6) if len(name) <= _LONGEST_NAME else []
    return f"did you mean %{near[0]}?" if near else ""
