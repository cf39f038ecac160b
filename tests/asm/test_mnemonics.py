"""The table of mnemonics against the decoder that is installed."""

from __future__ import annotations

import subprocess
import sys

import capstone

from kvmscope.asm.decoded_names import DECODED_NAMES
from kvmscope.asm.mnemonics import mnemonics


def test_every_name_of_the_decoder_is_known() -> None:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    names = {name for number in range(1, 3000) if (name := decoder.insn_name(number))}
    assert len(names) > 1000
    assert names - DECODED_NAMES == set()
    assert names <= mnemonics()


def test_a_run_with_gnu_as_loads_neither_decoder_nor_keystone() -> None:
    code = "import sys, kvmscope.asm as a; a.assemble('nop ; ret', bits=64, cross_check=False, backend='auto')\n"
    code += "from kvmscope.asm.gas import find_gas; print(find_gas() is None or not {'capstone', 'keystone'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
