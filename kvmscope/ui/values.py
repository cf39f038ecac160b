"""What a value is, said in every way that may help: bit by bit, as a number, as an address."""

from __future__ import annotations

from kvmscope.ui.view import View

__all__ = ["describe"]


def describe(name: str, value: int, view: View) -> list[str]:
    """Lines about ``value``; ``name`` is the register that holds it, or empty."""
    lines = [_as_number(value)]
    lines += _as_bits(name, value)
    place = view.image.symbol_at(value)
    if place is not None:
        label, offset = place
        lines.append(f"in the program: {label}{f'+{offset:#x}' if offset else ''}")
    lines += _as_address(value, view)
    return lines


def _as_number(value: int) -> str:
    parts = [f"{value:#x}", f"{value}"]
    for width in (8, 16, 32, 64):
        if value < 1 << width:
            if value >> width - 1:
                parts.append(f"{value - (1 << width)} as {width}-bit signed")
            break
    data = value.to_bytes(max(1, (value.bit_length() + 7) // 8), "little")
    if all(0x20 <= byte < 0x7F for byte in data):
        parts.append(f"'{data.decode('ascii')}' in memory order")
    return " = ".join(parts)


def _as_bits(name: str, value: int) -> list[str]:
    from kvmscope.x86.bitfields import BIT_TABLES, decode

    table = BIT_TABLES.get(name.lower()) or BIT_TABLES.get(name.upper())
    if table is None:
        return []
    return [f"{bit.name} = {bits:#x}: {bit.meaning}" for bit, bits in decode(table, value) if bits]


def _as_address(value: int, view: View) -> list[str]:
    from kvmscope.x86.paging import translate

    cpu = view.snapshot.cpu
    physical = translate(view.snapshot.memory, cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer, value)
    if physical is None:
        return ["as a linear address: not mapped"]
    data = view.snapshot.memory.read(physical, 8)
    content = f", holds {int.from_bytes(data, 'little'):#018x}" if data is not None else ", not RAM"
    return [f"as a linear address: physical {physical:#x}{content}"]
