"""Unicorn's C interface, without the binding's overhead.

Callbacks are plain ctypes functions: the binding's wrappers cost another 0.5 us a call.  An exception in a callback
would be printed and lost by ctypes; each is caught, kept, and raised again by `Native.start` after the engine stopped.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmscope.errors import EngineError
from kvmscope.vmm.unicorn import layout

if TYPE_CHECKING:
    from unicorn import Uc

__all__ = ["UC_ERR_FETCH_PROT", "UC_ERR_FETCH_UNMAPPED", "UC_ERR_OK", "UC_ERR_WRITE_PROT", "HookKind", "Native"]

UC_ERR_OK: Final = 0
UC_ERR_FETCH_UNMAPPED: Final = 8
UC_ERR_WRITE_PROT: Final = 12
UC_ERR_FETCH_PROT: Final = 14

_P, _U64, _U32, _INT = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int

INTR: Final = ctypes.CFUNCTYPE(None, _P, _U32, _P)
INVALID: Final = ctypes.CFUNCTYPE(ctypes.c_bool, _P, _P)
CODE: Final = ctypes.CFUNCTYPE(None, _P, _U64, _U32, _P)
MEM: Final = ctypes.CFUNCTYPE(None, _P, _INT, _U64, _INT, ctypes.c_int64, _P)
EDGE: Final = ctypes.CFUNCTYPE(None, _P, _P, _P, _P)
IN: Final = ctypes.CFUNCTYPE(_U32, _P, _U32, _INT, _P)
OUT: Final = ctypes.CFUNCTYPE(None, _P, _U32, _INT, _U32, _P)
INSN: Final = ctypes.CFUNCTYPE(None, _P, _P)
MMIO_READ: Final = ctypes.CFUNCTYPE(_U64, _P, _U64, ctypes.c_uint, _P)
MMIO_WRITE: Final = ctypes.CFUNCTYPE(None, _P, _U64, ctypes.c_uint, _U64, _P)


class HookKind:
    """Unicorn's hook types that the engine uses."""

    INTR: Final = 1 << 0
    INSN: Final = 1 << 1
    CODE: Final = 1 << 2
    MEM_READ: Final = 1 << 10
    MEM_WRITE: Final = 1 << 11
    INVALID: Final = 1 << 14
    EDGE: Final = 1 << 15


_CTL_TB_REMOVE, _CTL_TB_FLUSH, _CTL_TLB_FLUSH = 9, 10, 11


def _ctl(number: int, arguments: int) -> int:
    write = 1
    return write << 30 | arguments << 26 | number


class Native:
    """One Unicorn engine."""

    def __init__(self, uc: Uc) -> None:
        from unicorn.unicorn_py3.unicorn import uclib
        from unicorn.x86_const import UC_X86_REG_RIP

        self.uc = uc
        self._lib = uclib
        self._h = uc._uch
        self._keep: dict[int, object] = {}
        self._mmio: list[object] = []
        self.error: BaseException | None = None
        self._emu_start = uclib.uc_emu_start
        self._emu_stop = uclib.uc_emu_stop
        self._reg_write = uclib.uc_reg_write
        self._ctl = uclib.uc_ctl
        self._rip = ctypes.c_uint64(0)
        self._rip_pointer = ctypes.byref(self._rip)
        self._rip_id = UC_X86_REG_RIP
        self._flush_tlb_code = _ctl(_CTL_TLB_FLUSH, 0)

    def start(self, rip: int, count: int = 0) -> int:
        """Run; returns Unicorn's error number."""
        status: int = self._emu_start(self._h, rip, 0, 0, count)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return status

    def close(self) -> None:
        """Free the engine now, callbacks after it."""
        # The binding's finalizer closes exactly once, also at garbage collection.
        getattr(self.uc, "_Uc__finalizer")()  # noqa: B009 (a mangled name)
        self._keep.clear()
        self._mmio.clear()

    def stop(self) -> None:
        """Stop before the next instruction; only from a code or interrupt hook, where no instruction is half done."""
        self._emu_stop(self._h)

    def fail(self, error: BaseException) -> None:
        """From a callback: nothing can be raised through C, so the run ends and `start` raises it."""
        self.error = error
        self.stop()

    def redirect(self, rip: int) -> None:
        """From a code hook: do not execute this instruction, go on at ``rip``."""
        self._rip.value = rip
        self._reg_write(self._h, self._rip_id, self._rip_pointer)

    def write_register(self, register: int, value: int) -> None:
        """Write a register through the API, with its side effects inside Unicorn."""
        self.uc.reg_write(register, value)

    def flush_tlb(self) -> None:
        """Drop the software TLB (`Env.flush_tlb` pins its size first)."""
        self._ctl(self._h, self._flush_tlb_code)

    def flush_blocks(self) -> None:
        """Drop all translated code; not from inside a callback of running code."""
        self._ctl(self._h, _ctl(_CTL_TB_FLUSH, 0))

    def remove_blocks(self, start: int, end: int) -> None:
        """Drop translated code of the linear range [start, end)."""
        self._ctl(self._h, _ctl(_CTL_TB_REMOVE, 2), ctypes.c_uint64(start), ctypes.c_uint64(end))

    def _guard(self, callback: Callable[..., object], default: object) -> Callable[..., object]:
        def guarded(*arguments: object) -> object:
            try:
                return callback(*arguments)
            except BaseException as error:
                self.fail(error)
                return default

        return guarded

    def hook(
        self,
        kind: int,
        prototype: Callable[..., object],
        callback: Callable[..., object],
        begin: int = 1,
        end: int = 0,
        instruction: int | None = None,
        default: object = None,
    ) -> int:
        """Add a hook; ``begin > end`` means everywhere.  Returns its handle.

        Raises `EngineError` when Unicorn refuses it.
        """
        function = prototype(self._guard(callback, default))
        handle = self.hook_address(kind, ctypes.cast(function, ctypes.c_void_p).value or 0, 0, begin, end, instruction)  # type: ignore[arg-type]
        self._keep[handle] = function
        return handle

    def hook_address(
        self, kind: int, address: int, data: int, begin: int = 1, end: int = 0, instruction: int | None = None
    ) -> int:
        """Add a hook that is native code at ``address`` with user data ``data``."""
        handle = ctypes.c_size_t(0)
        extra = () if instruction is None else (ctypes.c_int(instruction),)
        status = self._lib.uc_hook_add(
            self._h,
            ctypes.byref(handle),
            kind,
            ctypes.c_void_p(address),
            ctypes.c_void_p(data),
            ctypes.c_uint64(begin),
            ctypes.c_uint64(end),
            *extra,
        )
        if status != UC_ERR_OK:
            raise EngineError("Unicorn refused a hook", f"type {kind:#x}, error {status}")
        return handle.value

    def unhook(self, handle: int) -> None:
        """Remove a hook; not from inside itself."""
        self._lib.uc_hook_del(self._h, ctypes.c_size_t(handle))
        self._keep.pop(handle, None)

    def map_ram(self, address: int, size: int, host: int, *, rights: int = 7) -> None:
        """Map host memory as guest-physical RAM; ``rights`` are read 1, write 2, execute 4."""
        status = self._lib.uc_mem_map_ptr(self._h, address, size, rights, ctypes.c_void_p(host))
        if status != UC_ERR_OK:
            raise EngineError("Unicorn refused the guest's memory", f"{size:#x} bytes at {address:#x}, error {status}")

    def map_device(
        self, address: int, size: int, read: Callable[[int, int], int], write: Callable[[int, int, int], None]
    ) -> None:
        """Map device space; ``read(offset, size)`` and ``write(offset, size, value)``."""

        def on_read(_uc: object, offset: int, length: int, _data: object) -> int:
            return read(offset, length)

        def on_write(_uc: object, offset: int, length: int, value: int, _data: object) -> None:
            write(offset, length, value)

        reader = MMIO_READ(self._guard(on_read, 0))
        writer = MMIO_WRITE(self._guard(on_write, None))
        self._mmio += [reader, writer]
        status = self._lib.uc_mmio_map(self._h, address, size, reader, None, writer, None)
        if status != UC_ERR_OK:
            raise EngineError("Unicorn refused device space", f"{size:#x} bytes at {address:#x}, error {status}")
        layout.widen_device(self.uc, address)
