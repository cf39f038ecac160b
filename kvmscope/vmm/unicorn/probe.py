"""The hook that runs at each instruction start: it counts, stops exactly, and traps chosen addresses.

Unicorn's own counter (``emu_start(count=)``) counts an instruction twice when its store invalidates the translated
block it is in, because the block is then left and the instruction started again.  This one recognizes the second
start: same address, same RCX and RSP (a REP iteration or a CALL to itself differs), and a block was invalidated in
between.  It also keeps the address of the last instruction started, which names the branch that left for a
non-canonical address, and calls back at the addresses in a table, without a hook of Unicorn's for each.

The hook is native code on x86-64 hosts; elsewhere the same algorithm runs in Python, some 40 times slower.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Callable
from typing import Final

from kvmscope.vmm.unicorn.layout import CPU, ENV, TB_INVALIDATIONS, UC, engine_address, env_address
from kvmscope.vmm.unicorn.native import CODE, HookKind, Native

__all__ = ["COUNTER", "LAST", "LIMIT", "NOWHERE", "PREVIOUS", "REPEATS", "Probe"]

COUNTER, LIMIT, LAST, PREVIOUS, SEEN, RCX, RSP, REPEATS = range(8)
_P_SEEN, _P_ENV, _P_STOP, _P_EXIT, _P_ICOUNT, _P_TCG_EXIT, _P_TABLE, _P_CALLBACK = range(8, 16)
_CC_DST, _CC_SRC, _CC_SRC2, _CC_OP, _P_FILTER = range(16, 21)
_P_STORES, _P_CLEAN = slice(21, 26), 26
"""For `stores`: what its native routines work on, and the one to call every 1,024 starts."""
_LAZY_SIZE: Final = 28
"""Bytes of cc_dst, cc_src, cc_src2 and cc_op, which follow each other in the state as in the fields."""

NOWHERE: Final = 0xFFFFFFFFFFFFFFFF
"""No instruction: as `LAST` it makes the next start count whatever its address."""

_SLOTS: Final = 1 << 16
_ANY: Final = 0xFFFFFFFFFFFFFFFE
"""Table entry where several addresses share a slot (and for address 0): trap all of the slot's."""

# void hook(uc, address, size, fields)
_X86_64: Final = bytes.fromhex(
    "488b4140488b00"  # mov rax, [rcx+8*P_SEEN]; mov rax, [rax]     blocks invalidated so far
    "4c8b4148"  # mov r8, [rcx+8*P_ENV]
    "4d8b4808"  # mov r9, [r8+8]                                    guest RCX
    "4d8b5020"  # mov r10, [r8+32]                                  guest RSP
    "4c8b5910"  # mov r11, [rcx+8*LAST]
    "4c39de7553"  # cmp rsi, r11; jne new
    "483b4120744d"  # cmp rax, [rcx+8*SEEN]; je new
    "4c3b49287547"  # cmp r9, [rcx+8*RCX]; jne new
    "4c3b51307541"  # cmp r10, [rcx+8*RSP]; jne new
    "48ff4138"  # inc qword [rcx+8*REPEATS]                         the same start again
    "4c8b8980000000"  # mov r9, [rcx+8*CC_DST]
    "4d898890000000"  # mov [r8+cc_dst], r9
    "4c8b8988000000"  # mov r9, [rcx+8*CC_SRC]
    "4d898898000000"  # mov [r8+cc_src], r9
    "4c8b8990000000"  # mov r9, [rcx+8*CC_SRC2]
    "4d8988a0000000"  # mov [r8+cc_src2], r9
    "448b8998000000"  # mov r9d, [rcx+8*CC_OP]
    "458988a8000000"  # mov [r8+cc_op], r9d
    "48894120c3"  # mov [rcx+8*SEEN], rax; ret
    "4c895918"  # new: mov [rcx+8*PREVIOUS], r11
    "48897110"  # mov [rcx+8*LAST], rsi
    "48894120"  # mov [rcx+8*SEEN], rax
    "4c894928"  # mov [rcx+8*RCX], r9
    "4c895130"  # mov [rcx+8*RSP], r10
    "498b8090000000"  # mov rax, [r8+cc_dst]
    "48898180000000"  # mov [rcx+8*CC_DST], rax
    "498b8098000000"  # mov rax, [r8+cc_src]
    "48898188000000"  # mov [rcx+8*CC_SRC], rax
    "498b80a0000000"  # mov rax, [r8+cc_src2]
    "48898190000000"  # mov [rcx+8*CC_SRC2], rax
    "418b80a8000000"  # mov eax, [r8+cc_op]
    "48898198000000"  # mov [rcx+8*CC_OP], rax
    "488b0148ffc0488901"  # COUNTER += 1
    "483b41087763"  # cmp rax, [rcx+8*LIMIT]; ja stop
    "a9ff0300007444"  # test eax, 3ffh; jz periodic
    "0fb7c6"  # after: movzx eax, si
    "4c8b4970"  # mov r9, [rcx+8*P_TABLE]
    "4d8b0cc1"  # mov r9, [r9+8*rax]
    "4d85c97471"  # test r9, r9; jz done
    "4939f17409"  # cmp r9, rsi; je own
    "4983f9fe7566"  # cmp r9, ANY; jne done
    "ff6178"  # callback: jmp [rcx+8*P_CALLBACK]
    "4c8b89a0000000"  # own: mov r9, [rcx+8*P_FILTER]
    "410fb60401"  # movzx eax, byte [r9+rax]
    "85c074ed"  # test eax, eax; jz callback
    "4d8b44c0f8"  # mov r8, [r8+8*rax-8]                             the register that an indirect call goes to
    "4d89c149c1e11049c1f910"  # mov r9, r8; shl r9, 16; sar r9, 16
    "4d39c175d8c3"  # cmp r9, r8; jne callback; ret
    "4c8b89d0000000"  # periodic: mov r9, [rcx+8*P_CLEAN]
    "4d85c974b0"  # test r9, r9; jz after
    "41ffd1"  # call r9
    "4c8b4148488b01eba4"  # mov r8, [rcx+8*P_ENV]; mov rax, [rcx]; jmp after
    "4c8b415041c60001"  # stop: stop_request = 1, as uc_emu_stop does
    "4c8b415841c60001"  # exit_request = 1
    "4c8b416841c70001000000"  # tcg_exit_req = 1
    "4c8b41606641c700ffff"  # icount_decr.high = -1
    "c3"  # done: ret
)

_CODE: Final = {"x86_64": _X86_64, "amd64": _X86_64}


def _canonical48(value: int) -> bool:
    return value >> 47 in (0, 0x1FFFF)


class Probe:
    """Counter and traps of one engine.

    ``fields[COUNTER]`` counts starts; when it exceeds ``fields[LIMIT]`` the engine stops before the instruction that
    did it.  Lowering the limit from a hook or another thread therefore stops at the next instruction boundary.
    ``trap(address)`` is called at each instruction start whose linear address was given to `add`, after it was
    counted and before it executes.
    """

    def __init__(self, native: Native, trap: Callable[[int], None], *, force_python: bool = False) -> None:
        engine = engine_address(native.uc)
        cpu, env = env_address(native.uc)
        self.fields = (ctypes.c_uint64 * 27)()
        self._table = (ctypes.c_uint64 * _SLOTS)()
        self._filter = (ctypes.c_uint8 * _SLOTS)()
        self._native = native
        self._trap = trap
        fields = self.fields
        tcg = ctypes.c_uint64.from_address(engine + UC["tcg_ctx"]).value
        fields[LAST] = NOWHERE
        fields[_P_SEEN] = tcg + TB_INVALIDATIONS
        fields[_P_ENV] = env
        fields[_P_STOP] = engine + UC["stop_request"]
        fields[_P_EXIT] = cpu + CPU["exit_request"]
        fields[_P_ICOUNT] = ctypes.c_uint64.from_address(cpu + CPU["icount_decr_ptr"]).value + 2
        fields[_P_TCG_EXIT] = cpu + CPU["tcg_exit_req"]
        fields[_P_TABLE] = ctypes.addressof(self._table)
        fields[_P_FILTER] = ctypes.addressof(self._filter)
        self._callback = CODE(self._on_trap)
        fields[_P_CALLBACK] = ctypes.cast(self._callback, ctypes.c_void_p).value or 0
        self._lazy = env + ENV["cc_dst"]
        self._kept = ctypes.addressof(fields) + 8 * _CC_DST
        self._lazy_flags = (ctypes.c_uint64 * 3).from_address(env + ENV["cc_dst"])
        self._lazy_operation = ctypes.c_uint32.from_address(env + ENV["cc_op"])
        code = None if force_python else _CODE.get(platform.machine().lower())
        self.native = code is not None
        self._page: mmap.mmap | None = None
        if code is None:
            self._registers = (ctypes.c_uint64 * 16).from_address(env)
            self._seen = ctypes.c_uint64.from_address(fields[_P_SEEN])
            native.hook(HookKind.CODE, CODE, self._on_start)
            return
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page[: len(code)] = code
        self._anchor = ctypes.c_char.from_buffer(self._page)
        native.hook_address(HookKind.CODE, ctypes.addressof(self._anchor), ctypes.addressof(self.fields))

    def _on_trap(self, _uc: int, address: int, _size: int, _data: int) -> None:
        try:
            self._trap(address)
        except BaseException as error:
            self._native.fail(error)

    def _on_start(self, _uc: int, address: int, _size: int, _data: int) -> None:
        """The native hook's algorithm."""
        f = self.fields
        seen, rcx, rsp = self._seen.value, self._registers[1], self._registers[4]
        if address == f[LAST] and seen != f[SEEN] and rcx == f[RCX] and rsp == f[RSP]:
            f[REPEATS] += 1
            f[SEEN] = seen
            self.restore_flags()
            return
        f[PREVIOUS], f[LAST], f[SEEN], f[RCX], f[RSP] = f[LAST], address, seen, rcx, rsp
        f[_CC_DST], f[_CC_SRC], f[_CC_SRC2] = self._lazy_flags
        f[_CC_OP] = self._lazy_operation.value
        f[COUNTER] += 1
        if f[COUNTER] > f[LIMIT]:
            self._native.stop()
            return
        slot = address & _SLOTS - 1
        entry = self._table[slot]
        if entry and entry in (address, _ANY):
            register = self._filter[slot]
            if register and entry == address and _canonical48(self._registers[register - 1]):
                return
            self._trap(address)

    def add(self, address: int, call: int | None = None) -> None:
        """Trap the instruction at a linear address.

        ``call`` names the register that an indirect near call goes to: it is trapped only when that is not canonical by
        48 bits.
        """
        slot = address & _SLOTS - 1
        entry = self._table[slot]
        wanted = 0 if call is None else call + 1
        if not entry:
            self._table[slot] = address or _ANY
            self._filter[slot] = wanted
            return
        if entry != address:
            self._table[slot] = _ANY
        if self._filter[slot] != wanted:
            self._filter[slot] = 0

    def clean_with(self, routine: int, operands: tuple[int, ...]) -> None:
        """Have native code at ``routine`` called every 1,024 starts; it finds its operands in the fields."""
        self.fields[_P_STORES] = list(operands)
        self.fields[_P_CLEAN] = routine

    def clear(self) -> None:
        """Forget all traps."""
        ctypes.memset(self._table, 0, ctypes.sizeof(self._table))
        ctypes.memset(self._filter, 0, ctypes.sizeof(self._filter))

    def restore_flags(self) -> None:
        """Put the lazily kept status flags back to what they were when the last instruction started.

        Before a hooked instruction Unicorn computes the flags into ``cc_src``.  When the instruction then faults, is
        intercepted or is started again, ``cc_op`` goes back to what it was and ``cc_src`` does not: AF, CF and OF would
        come out wrong.
        """
        ctypes.memmove(self._lazy, self._kept, _LAZY_SIZE)

    def forget_last(self) -> None:
        """The next start counts, whatever its address."""
        self.fields[LAST] = NOWHERE

    def close(self) -> None:
        """Give the code page back; only after the engine is gone."""
        if self._page is not None:
            del self._anchor
            self._page.close()
            self._page = None
