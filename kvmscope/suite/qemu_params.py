"""What QEMU's options in ``qemu_params`` and ``test_args`` mean for our machine.

Each is taken over, or known to mean nothing here, or there is a note that says what is not honoured.  Names of CPU
properties are QEMU's (target/i386/cpu.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from kvmscope.suite.config import Entry

__all__ = ["DEFAULT_MEMORY", "MODELS", "MachineParams", "machine_params"]

DEFAULT_MEMORY: Final = 128 << 20
"""Bytes that QEMU gives a machine without ``-m``."""

_GENERIC: Final = frozenset({"max", "host", "base"})
"""Models that mean "what there is": nothing is lost by taking a profile of ours."""

_INTEL: Final = """
    max host base 486 pentium pentium2 pentium3 coreduo core2duo n270 Conroe Penryn Nehalem Westmere SandyBridge IvyBridge
    Haswell Broadwell Skylake-Client Skylake-Server Cascadelake-Server Cooperlake Icelake-Server Denverton Snowridge
    KnightsMill SapphireRapids GraniteRapids SierraForest
"""
_AMD: Final = "athlon phenom Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5 EPYC Dhyana"
_MINIMAL: Final = "qemu64 qemu32 kvm64 kvm32"

MODELS: Final = {
    model: profile
    for profile, models in (("intel", _INTEL), ("amd", _AMD), ("minimal", _MINIMAL))
    for model in models.split()
}
"""QEMU's model, without what follows a family's name (``-v2``, ``-noTSX``), to our profile."""

_VENDORS: Final = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}

_FEATURE_NAMES: Final = {"i64": "lm", "xd": "nx", "ffxsr": "fxsr_opt"}
"""QEMU's name of a feature where neither we nor an alias of `kvmscope.x86.profiles` have it."""

_LIKE_KVM: Final = "kvm_pv"
"""What KVM gives to every model unless ``kvm=off`` says otherwise: its paravirtual interface."""
_MOST: Final = ("pks",)
"""What a generic model has beyond our full profiles."""
_NO_CHANGE: Final = {"host_phys_bits", "migratable", "enforce", "check", "pmu", "l3_cache"}
"""Properties that choose between ways of QEMU's which a guest cannot tell apart here."""

_ALWAYS: Final = ("pc-testdev", "isa-debug-exit", "testdev")
"""Devices that our machine has in any case."""
_IOMMU: Final = "intel-iommu"

_SIZE: Final = re.compile(r"(?:size=)?(\d+)([KMGkmg]?)(?:,.*)?")
_SHIFT: Final = {"": 20, "k": 10, "m": 20, "g": 30}
_FLAGS: Final = frozenset(
    {"-enable-kvm", "-nodefaults", "-no-reboot", "-no-shutdown", "-nographic", "-no-hpet", "-no-acpi", "-S"}
)


@dataclass(slots=True)
class MachineParams:
    """A machine of ours as an entry wants it."""

    cpu: str = "intel"
    """What ``MachineConfig.cpu`` takes: a profile with features added and taken away."""
    memory: int = DEFAULT_MEMORY
    smp: int = 1
    append: str | None = None
    devices: tuple[str, ...] = ()
    """What ``MachineConfig.devices`` takes, in the order of its table."""
    notes: list[str] = field(default_factory=list)
    """What is not honoured, or only nearly."""


def machine_params(
    entry: Entry, *, maximum: int, accepts: Callable[[str], str], devices: Sequence[str]
) -> MachineParams:
    """The machine for ``entry``.

    ``maximum`` is the most memory a machine of ours can have.  ``accepts`` says why a CPU text is not possible, empty when
    it is; ``devices`` are those that can be asked for, of which run_tests.sh itself asks for pci-testdev.
    """
    reader = _Reader(MachineParams(smp=entry.smp, append=entry.append), maximum, accepts, devices)
    reader.read(entry.params)
    return reader.out


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, its argument), both as typed; ``--smp`` is ``-smp``."""
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        option = word.replace("--", "-", 1) if word.startswith("--") else word
        takes = option.startswith("-") and option not in _FLAGS and at < len(words)
        # What an unknown option takes is not known: its argument is what does not look like an option.
        if takes and (option in _HANDLERS or not words[at].startswith("-")):
            yield option, words[at]
            at += 1
        else:
            yield option, ""


class _Reader:
    def __init__(self, out: MachineParams, maximum: int, accepts: Callable[[str], str], devices: Sequence[str]) -> None:
        self.out = out
        self.maximum = maximum
        self.accepts = accepts
        self.devices = devices
        self.cpu = "qemu64"
        self.q35 = False
        if "pci-testdev" in devices:
            self._plug("pci-testdev")

    def note(self, text: str) -> None:
        if text not in self.out.notes:
            self.out.notes.append(text)

    def read(self, words: Sequence[str]) -> None:
        for option, argument in _options(words):
            handler = _HANDLERS.get(option)
            if handler is not None:
                handler(self, argument)
            elif option not in _FLAGS:
                self.note(f"{option} {argument}".rstrip() + " is not honoured")
            elif option == "-enable-kvm":
                self.note("-enable-kvm: the machine is kvmscope's own")
        self._chipset()
        self._processor()

    # options

    def _cpu(self, text: str) -> None:
        self.cpu = text

    def _memory(self, text: str) -> None:
        found = _SIZE.fullmatch(text)
        if found is None or int(found[1]) == 0:
            self.note(f"-m {text} is not a size: {DEFAULT_MEMORY >> 20} MiB")
            return
        wanted = int(found[1]) << _SHIFT[found[2].lower()]
        if wanted > self.maximum:
            self.note(f"-m {text}: the machine has no more than {self.maximum >> 20} MiB")
        self.out.memory = max(1 << 20, min(wanted, self.maximum) & ~0xFFF)

    def _smp(self, text: str) -> None:
        count = text.split(",")[0].removeprefix("cpus=")
        if count.isdecimal() and int(count):
            self.out.smp = int(count)
        if "," in text or not count.isdecimal():
            self.note(f"-smp {text}: the topology is not honoured")

    def _append(self, text: str) -> None:
        self.out.append = text

    def _machine(self, text: str) -> None:
        for part in text.split(","):
            name = part.partition("=")[0]
            if part in ("q35", "type=q35"):
                self.q35 = True
            elif name in ("accel", "kernel-irqchip", "kernel_irqchip"):
                # Where KVM would emulate the interrupt controllers: a guest sees the same ones.
                continue
            elif part not in ("pc", "type=pc", "vmport=off", "pit=on"):
                self.note(f"-machine {part} is not honoured")

    def _device(self, text: str) -> None:
        name, *properties = text.split(",")
        if name in _ALWAYS and not properties:
            return
        if name not in self.devices:
            self.note(f"-device {text}: there is no such device")
            return
        self._plug(name)
        for item in properties:
            if item not in _KNOWN_PROPERTIES:
                self.note(f"-device {name},{item}: this property is not honoured")

    def _plug(self, name: str) -> None:
        self.out.devices = tuple(item for item in self.devices if item in (*self.out.devices, name))

    def _chipset(self) -> None:
        """The IOMMU makes our machine a Q35, and nothing else does."""
        if self.q35 and _IOMMU not in self.out.devices:
            self.note("-machine q35: the chipset is an i440FX")

    def _overcommit(self, text: str) -> None:
        if text != "cpu-pm=on":
            # Our guest has its processor for itself: HLT, PAUSE and MWAIT never leave it.
            self.note(f"-overcommit {text} is not honoured")

    def _ignored(self, text: str) -> None:
        """What changes nothing that a guest could see."""

    # the processor

    def _processor(self) -> None:
        model, *properties = self.cpu.split(",")
        profile, known = _profile_of(model)
        if not known:
            self.note(f"-cpu {model}: an unknown model, taken as our {profile}")
        changes: list[tuple[str, str]] = []
        vendor = ""
        like_kvm = True
        for text in properties:
            name, sign, value = _property(text)
            if name == "vendor":
                vendor = _VENDORS.get(value, "")
                if not vendor:
                    self.note(f"-cpu vendor={value} is not honoured")
            elif name == "kvm":
                like_kvm = sign != "-"
            elif name not in _NO_CHANGE:
                self._feature(text, name, sign, changes)
        if vendor:
            profile = vendor if vendor == "amd" or profile == "amd" else profile
        elif ("+", "svm") in changes:
            profile = "amd"
        elif ("+", "vmx") in changes:
            profile = "intel"
        if known and model not in _GENERIC and profile != "minimal":
            self.note(f"-cpu {model}: taken as our {profile}, which has other features")
        text = profile
        for feature in (*((_LIKE_KVM,) if like_kvm else ()), *(_MOST if model in _GENERIC else ())):
            # Nobody asked for these: where they cannot be had there is nothing to tell.
            text = text if self.accepts(f"{text},+{feature}") else f"{text},+{feature}"
        self.out.cpu = self._accepted(text, changes)

    def _feature(self, text: str, name: str, sign: str, changes: list[tuple[str, str]]) -> None:
        feature = _FEATURE_NAMES.get(name, name)
        if not sign:
            self.note(f"-cpu {text} is not honoured")
        else:
            changes.append((sign, feature))

    def _accepted(self, text: str, changes: Sequence[tuple[str, str]]) -> str:
        """The processor with those changes that our machine can make."""
        for sign, feature in changes:
            wanted = f"{text},{sign}{feature}"
            why = self.accepts(wanted)
            if not why:
                text = wanted
            else:
                self.note(f"-cpu {sign}{feature}: {why}")
        return text


def _profile_of(model: str) -> tuple[str, bool]:
    """(our profile, whether the model is known)."""
    stem = model
    while stem not in MODELS and "-" in stem:
        stem = stem.rsplit("-", 1)[0]
    return MODELS.get(stem, "intel"), stem in MODELS


def _property(text: str) -> tuple[str, str, str]:
    """(name with ``_``, ``+`` ``-`` or nothing, value)."""
    if text[:1] in ("+", "-"):
        return text[1:].replace("-", "_"), text[0], ""
    name, equals, value = text.partition("=")
    sign = {"on": "+", "off": "-"}.get(value, "") if equals else "+"
    return name.replace("-", "_"), sign, value


_KNOWN_PROPERTIES: Final = frozenset({"intremap=on", "eim=off"})
_HANDLERS: Final[dict[str, Callable[[_Reader, str], None]]] = {
    "-cpu": _Reader._cpu,
    "-m": _Reader._memory,
    "-smp": _Reader._smp,
    "-append": _Reader._append,
    "-machine": _Reader._machine,
    "-M": _Reader._machine,
    "-device": _Reader._device,
    "-overcommit": _Reader._overcommit,
    "-accel": _Reader._ignored,
    "-display": _Reader._ignored,
    "-serial": _Reader._ignored,
}
