"""The part of a header that says what machine to build: to a `MachineConfig`."""

from __future__ import annotations

import re
from typing import Final

from kvmscope.errors import UsageError
from kvmscope.expr import nearest
from kvmscope.reproducer.catalog import check_profile, msr_index, msr_names
from kvmscope.reproducer.fields import U64, Fields, memory_size
from kvmscope.vmm.boot.prepare import MAX_MEMORY, MIN_MEMORY
from kvmscope.vmm.config import (
    DEVICES,
    MAX_QUANTUM,
    MAX_VCPUS,
    Budget,
    DescriptorInit,
    HandlerInit,
    MachineConfig,
    MemoryInit,
    Mode,
    PageInit,
    Paging,
)
from kvmscope.x86.encode import FIELDS as DESCRIPTOR_KINDS
from kvmscope.x86.exceptions import EXCEPTIONS, vector_of
from kvmscope.x86.registers import KNOWN_NAMES, register_width

__all__ = ["PAGE_FLAGS", "machine_config"]

PAGE_FLAGS: Final = ("P", "RW", "US", "PWT", "PCD", "A", "D", "PAT", "G", "NX")

_PAGING: Final = {
    Mode.REAL16: (Paging.NONE,),
    Mode.PROT32: (Paging.NONE, Paging.BITS32, Paging.PAE),
    Mode.LONG64: (Paging.LEVEL4, Paging.LEVEL5),
}
_MAX_SECONDS: Final = 24 * 3600.0
_MAX_INSTRUCTIONS: Final = 10**13
_MAX_CONTENTS: Final = 16 << 20
_WORDS: Final = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


def machine_config(fields: Fields) -> MachineConfig:
    """The machine a header describes.  Raises ReproducerError at the key that is wrong."""
    mode = fields.choice("mode", {word.value: word for word in _PAGING}, Mode.LONG64)
    paging = _paging(fields, mode)
    ring = fields.one_of("ring", (0, 3))
    if ring == 3 and mode is Mode.REAL16:
        raise fields.error("real16 has no rings", "ring", "ring 3 needs mode prot32 or long64")
    memory = _memory(fields)
    config = MachineConfig(
        mode=mode,
        paging=paging,
        ring=ring,
        cpu=_cpu(fields),
        memory=memory,
        smp=fields.count("smp", 1, MAX_VCPUS),
        quantum=fields.count("quantum", MachineConfig().quantum, MAX_QUANTUM),
        devices=_devices(fields),
        entry=fields.label("entry", fields.values["entry"], "entry") if fields.has("entry") else None,
        args=_args(fields),
        registers=_registers(fields.table("registers")),
        msrs=_msrs(fields.table("msrs")),
        descriptors=tuple(map(_descriptor, fields.tables("descriptor"))),
        contents=_contents(fields),
        handlers=_handlers(fields.table("handlers")),
        io_permission=_ports(fields),
        budget=Budget(
            instructions=fields.count("max_instructions", Budget().instructions, _MAX_INSTRUCTIONS),
            seconds=fields.seconds("timeout", Budget().seconds, _MAX_SECONDS),
        ),
    )
    pages = fields.tables("page")
    if pages and config.effective_paging is Paging.NONE:
        hint = 'paging = "32bit" or "pae"' if mode is Mode.PROT32 else "mode prot32 or long64 has paging"
        raise pages[0].error("[[page]] needs paging, and this machine has none", hint=hint)
    return config.with_(pages=tuple(_page(page, ring) for page in pages))


def _paging(fields: Fields, mode: Mode) -> Paging | None:
    words = {word.value: word for word in Paging}
    if not fields.has("paging"):
        return None
    paging = fields.choice("paging", words, Paging.NONE)
    if paging not in _PAGING[mode]:
        possible = " or ".join(f'"{word.value}"' for word in _PAGING[mode])
        raise fields.error(f"{mode.value} cannot start with paging {paging.value!r}", "paging", f"possible: {possible}")
    return paging


def _cpu(fields: Fields) -> str:
    text = fields.text("cpu", MachineConfig().cpu)
    if fields.has("cpu"):
        try:
            check_profile(text)
        except UsageError as error:
            raise fields.error(error.title, "cpu", error.hint or error.detail) from None
    return text


def _memory(fields: Fields) -> int:
    """``memory`` is the size, or as [[memory]] the contents; ``memory_size`` is the size when both are wanted."""
    key = "memory_size" if fields.has("memory_size") else "memory"
    value = fields.values.get(key, MachineConfig().memory)
    if key == "memory":
        if isinstance(value, list):
            return MachineConfig().memory
        if fields.has("memory_size"):
            raise fields.error("memory and memory_size say the same", "memory_size")
    size = memory_size(value) if isinstance(value, str) else value
    if isinstance(size, bool) or not isinstance(size, int):
        raise fields.error(f'{key} is a size as "16M", not {value!r}', key, "suffixes: K, M, G")
    if not MIN_MEMORY <= size <= MAX_MEMORY or size % 4096:
        raise fields.error(f"{key} is 1M to {MAX_MEMORY >> 20}M in whole pages of 4K, not {value!r}", key)
    return size


def _devices(fields: Fields) -> tuple[str, ...]:
    names = fields.texts("devices")
    for name in names:
        if name not in DEVICES:
            close = nearest(name, DEVICES)
            hint = f"did you mean {close!r}?" if close else f"known: {', '.join(DEVICES)}"
            raise fields.error(f"there is no device {name!r}", "devices", hint)
    return names


def _args(fields: Fields) -> tuple[str, ...]:
    if isinstance(fields.values.get("args"), str):
        return tuple(fields.text("args").split())
    return fields.texts("args")


def _registers(table: Fields) -> dict[str, int | str]:
    out: dict[str, int | str] = {}
    for key, value in table.values.items():
        if isinstance(value, dict):
            # `cs.base = 1` without quotes is a table to TOML.
            inner = Fields(value, table.origin, (*table.path, key))
            for part, item in value.items():
                out[f"{key}.{part}"] = _register(inner, part, f"{key}.{part}", item)
        else:
            out[key] = _register(table, key, key, value)
    return out


def _register(table: Fields, key: str, name: str, value: object) -> int | str:
    if name not in KNOWN_NAMES:
        raise table.unknown(key, sorted(KNOWN_NAMES), "register", name)
    if isinstance(value, str):
        return table.label(key, value, name)
    return table.wrapped(key, value, name, register_width(name))


def _msrs(table: Fields) -> dict[int, int]:
    out: dict[int, int] = {}
    for key, value in table.values.items():
        index = _number(key)
        if index is None:
            index = msr_index(key)
        if index is None:
            raise table.unknown(key, msr_names(), "MSR")
        if not 0 <= index <= 0xFFFFFFFF:
            raise table.error(f"an MSR index has 32 bits, not {key}", key)
        if index in out:
            raise table.error(f"MSR {index:#x} is set twice", key)
        out[index] = table.wrapped(key, value, key, 64)
    return out


def _number(text: str) -> int | None:
    """A key that is a number, as TOML's bare keys allow: 0x80."""
    try:
        return int(text, 0)
    except ValueError:
        return None


def _handlers(table: Fields) -> tuple[HandlerInit, ...]:
    out: list[HandlerInit] = []
    for key, value in table.values.items():
        vector = _number(key)
        if vector is None:
            vector = vector_of(key)
        if vector is None:
            raise table.unknown(key, [entry.mnemonic for entry in EXCEPTIONS], "exception")
        if not 0 <= vector <= 255:
            raise table.error(f"a vector is 0 to 255, not {key}", key)
        if any(other.vector == vector for other in out):
            raise table.error(f"vector {vector:#x} has two handlers", key)
        line = table.line(key)
        if not isinstance(value, dict):
            out.append(HandlerInit(vector, table.label(key, value, "the handler"), line=line))
            continue
        inner = table.table(key)
        inner.only(("entry", "dpl", "ist", "type"))
        kinds = {kind: kind for kind in ("interrupt", "trap", "task")}
        entry = inner.required("entry", lambda name, at=inner: at.label(name, at.values[name], "entry"))  # type: ignore[misc]
        out.append(
            HandlerInit(
                vector,
                entry,
                ist=inner.integer("ist", 0, 0, 7),
                dpl=inner.integer("dpl", 0, 0, 3),
                kind=inner.choice("type", kinds, "interrupt"),
                line=line,
            )
        )
    return tuple(out)


def _page(page: Fields, ring: int) -> PageInit:
    page.only(("linear", "physical", "flags", "count", "pkey"))
    linear = page.required("linear", lambda key: page.integer(key, 0))
    physical = page.integer("physical", linear, 0, (1 << 52) - 1)
    for key, address in (("linear", linear), ("physical", physical)):
        if address % 4096:
            raise page.error(f"{key} {address:#x} is not the beginning of a 4 KiB page", key)
    flags = tuple(page.text("flags", "P RW US" if ring == 3 else "P RW").split())
    for flag in flags:
        if flag not in PAGE_FLAGS and not _is_bit(flag):
            raise page.error(f"unknown page flag {flag!r}", "flags", f"known: {' '.join(PAGE_FLAGS)} bit0 .. bit63")
    return PageInit(
        linear, physical, flags, page.count("count", 1, 1 << 20), page.integer("pkey", 0, 0, 15), page.line()
    )


def _is_bit(flag: str) -> bool:
    match = re.fullmatch(r"bit([0-9]{1,2})", flag)
    return match is not None and int(match.group(1)) < 64


def _descriptor(table: Fields) -> DescriptorInit:
    table.only(("table", "index", "value", "size", "kind", "fields"))
    where = table.required(
        "table", lambda key: table.choice(key, {name: name for name in ("gdt", "idt", "ldt")}, "gdt")
    )
    index = table.required("index", lambda key: table.integer(key, 0, 0, 8191))
    if table.has("value") == table.has("kind"):
        raise table.error("a descriptor has either a raw value or a kind with fields")
    if table.has("value"):
        value = table.integer("value", 0, 0, (1 << 128) - 1)
        if table.has("fields"):
            raise table.error("a raw value has no fields", "fields")
        size = table.one_of("size", (8, 16)) if table.has("size") else 16 if value > U64 else 8
        if value >> 8 * size:
            raise table.error(f"the value does not fit into {size} bytes", "value")
        return DescriptorInit(where, index, value, size, line=table.line())
    if table.has("size"):
        raise table.error("the size of a descriptor follows from its kind", "size")
    kind = table.choice("kind", {name: name for name in DESCRIPTOR_KINDS}, "")
    inner = table.table("fields")
    inner.only(tuple(DESCRIPTOR_KINDS[kind]), f"{kind} field")
    fields = {key: inner.label(key, item, key) for key, item in inner.values.items()}
    return DescriptorInit(where, index, kind=kind, fields=fields, line=table.line())


def _contents(fields: Fields) -> tuple[MemoryInit, ...]:
    if isinstance(fields.values.get("memory"), list):
        return tuple(map(_content, fields.tables("memory")))
    return ()


def _content(table: Fields) -> MemoryInit:
    forms = ("hex", "ascii", *_WORDS, "fill")
    table.only(("address", *forms))
    address = table.required("address", lambda key: table.label(key, table.values[key], "address"))
    given = [form for form in forms if table.has(form)]
    if len(given) != 1:
        raise table.error(f"memory contents are given as one of {', '.join(forms)}", given[1] if given else "")
    form, line = given[0], table.line()
    if form == "hex":
        try:
            return MemoryInit(address, bytes.fromhex(table.text("hex")), line=line)
        except ValueError:
            raise table.error("hex is pairs of hexadecimal digits", "hex") from None
    if form == "ascii":
        return MemoryInit(address, table.text("ascii").encode(), line=line)
    if form == "fill":
        inner = table.table("fill")
        inner.only(("value", "count"))
        count = inner.required("count", lambda key: inner.integer(key, 0, 0, _MAX_CONTENTS))
        return MemoryInit(address, bytes([inner.integer("value", 0, 0, 255)]) * count, line=line)
    values = table.values[form]
    if not isinstance(values, list):
        raise table.error(f"{form} is a list of integers or labels", form)
    size = _WORDS[form]
    words: list[tuple[int, int | str]] = []
    for value in values:
        if isinstance(value, str):
            words.append((size, table.label(form, value, form)))
        else:
            words.append((size, table.wrapped(form, value, form, 8 * size)))
    return MemoryInit(address, words=tuple(words), line=line)


def _ports(fields: Fields) -> tuple[tuple[int, int], ...]:
    ranges = fields.values.get("io_permission", [])
    if not isinstance(ranges, list):
        raise fields.error("io_permission is a list of port ranges, [[0xe0, 0xe3]]", "io_permission")
    out = []
    for item in ranges:
        if not isinstance(item, list) or len(item) != 2:
            raise fields.error("io_permission is a list of port ranges, [[0xe0, 0xe3]]", "io_permission")
        first, last = (fields.checked("io_permission", port, "a port", 0, 0xFFFF) for port in item)
        if first > last:
            raise fields.error(f"the port range {first:#x}, {last:#x} is empty", "io_permission")
        out.append((first, last))
    return tuple(out)
