import pytest

from kvmscope.errors import KvmscopeError
from kvmscope.suite.config import parse_config
from kvmscope.suite.qemu_params import DEFAULT_MEMORY, machine_params
from kvmscope.vmm.config import DEVICES
from kvmscope.x86.profiles import resolve

MAXIMUM = 2 << 30


def refusal(cpu):
    if "+svm" in cpu or "+vmx" in cpu:
        return "not here"
    try:
        resolve(cpu)
    except KvmscopeError as error:
        return error.title
    return ""


def params(qemu_params="", accepts=refusal, **keys):
    lines = [f"{key} = {value}" for key, value in {"qemu_params": qemu_params, **keys}.items()]
    (entry,) = parse_config("\n".join(["[a]", "file = a.flat", *lines])).entries
    return machine_params(entry, maximum=MAXIMUM, accepts=accepts, devices=DEVICES)


def test_defaults_are_qemu_s():
    out = params()
    assert (out.cpu, out.memory, out.smp, out.append) == ("minimal,+kvm_pv", DEFAULT_MEMORY, 1, None)
    assert out.devices == ("pci-testdev",)
    assert out.notes == []


@pytest.mark.parametrize(
    ("text", "cpu"),
    [
        ("-cpu max", "intel,+kvm_pv,+pks"),
        ("-cpu host,migratable=no", "intel,+kvm_pv,+pks"),
        ("-cpu max,host-phys-bits", "intel,+kvm_pv,+pks"),
        ("-cpu max,kvm=off", "intel,+pks"),
        ("-cpu qemu64,+pcid,-invpcid", "minimal,+kvm_pv,+pcid,-invpcid"),
        ("-cpu qemu64,-x2apic", "minimal,+kvm_pv,-x2apic"),
        ("-cpu max,pku=off", "intel,+kvm_pv,+pks,-pku"),
        ("-cpu max,vendor=AuthenticAMD", "amd,+kvm_pv,+pks"),
        ("-cpu qemu64,vendor=GenuineIntel", "minimal,+kvm_pv"),
        ("-cpu Opteron_G1,vendor=AuthenticAMD", "amd,+kvm_pv"),
        ("-cpu EPYC-Rome", "amd,+kvm_pv"),
        ("-cpu EPYC,vendor=GenuineIntel", "intel,+kvm_pv"),
        ("-cpu Haswell-noTSX", "intel,+kvm_pv"),
        ("-cpu max,xd=off", "intel,+kvm_pv,+pks,-nx"),
    ],
)
def test_processors(text, cpu):
    assert params(text).cpu == cpu
    resolve(cpu)


def test_what_nobody_asked_for_is_left_out_in_silence():
    out = params("-cpu max", accepts=lambda cpu: "not here" if "kvm_pv" in cpu or "pks" in cpu else "")
    assert (out.cpu, out.notes) == ("intel", [])


def test_models_that_mean_what_there_is_need_no_note():
    assert params("-cpu max,host-phys-bits").notes == []
    assert params("-cpu IvyBridge").notes == ["-cpu IvyBridge: taken as our intel, which has other features"]
    assert params("-cpu Foo").notes == ["-cpu Foo: an unknown model, taken as our intel"]


def test_a_feature_that_cannot_be_had_is_told_and_left_out():
    out = params("-cpu max,+svm,-pku")
    assert out.cpu == "amd,+kvm_pv,+pks,-pku"
    assert out.notes == ["-cpu +svm: not here"]
    assert params("-cpu qemu64,+vmx").cpu == "intel,+kvm_pv"
    assert params("-cpu max,+svm", accepts=lambda _cpu: "").cpu == "amd,+kvm_pv,+pks,+svm"


def test_properties_that_are_no_features():
    out = params("-cpu IvyBridge,phys-bits=36,host-phys-bits=off")
    assert "-cpu phys-bits=36 is not honoured" in out.notes
    assert any("hv_passthrough" in note for note in params("-cpu host,hv_passthrough").notes)
    assert params("-cpu max,vendor=CyrixInstead").notes == ["-cpu vendor=CyrixInstead is not honoured"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("-m 256", 256 << 20), ("-m 1g", 1 << 30), ("-m size=512M", 512 << 20), ("-m 4096K", 4 << 20), ("-m 1K", 1 << 20)],
)
def test_memory(text, size):
    out = params(text)
    assert out.memory == size
    assert out.notes == []


def test_memory_beyond_the_machine_is_clamped_with_a_note():
    out = params("-m 4g")
    assert out.memory == MAXIMUM
    assert out.notes == ["-m 4g: the machine has no more than 2048 MiB"]
    assert params("-m lots").notes


def test_devices():
    out = params("-device edu -device intel-iommu,intremap=on,eim=off -device pci-testdev")
    assert out.devices == ("edu", "intel-iommu", "pci-testdev")
    assert out.notes == []
    assert params("-device hyperv-testdev").notes == ["-device hyperv-testdev: there is no such device"]
    assert params("-device edu,dma_mask=1").notes == ["-device edu,dma_mask=1: this property is not honoured"]


def test_machine():
    assert params("-machine pit=off").notes == ["-machine pit=off is not honoured"]
    assert params("-M q35,kernel-irqchip=split").notes == ["-machine q35: the chipset is an i440FX"]
    assert params("-M q35 -device intel-iommu").notes == []
    assert params("-machine pc,accel=kvm,vmport=off").notes == []
    assert params("-machine vmport=on").notes


def test_older_command_lines():
    out = params("--append 'a b' -smp 3", smp=2)
    assert (out.append, out.smp) == ("a b", 3)
    assert params(test_args="'x y' -m 64").append == "x y"
    assert params("-smp 2,cores=2").notes == ["-smp 2,cores=2: the topology is not honoured"]


def test_nothing_is_passed_over_in_silence():
    assert params("-enable-kvm -cpu max").notes == ["-enable-kvm: the machine is kvmscope's own"]
    assert params("-netdev user,id=x -cpu max").notes == ["-netdev user,id=x is not honoured"]
    assert params("-flag -cpu max").notes == ["-flag is not honoured"]
    assert params("-overcommit cpu-pm=on").notes == []
