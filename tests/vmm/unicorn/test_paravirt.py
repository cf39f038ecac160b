"""KVM's hypercalls and clock, and what CPUID says of several processors."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kvmscope.vmm.devices.interrupts import DeliveryMode, Message
from kvmscope.x86.profiles import resolve
from tests.vmm.unicorn.bench import CODE, board

VMCALL, VMMCALL = b"\x0f\x01\xc1", b"\x0f\x01\xd9"
SEND_IPI, POLL_IRQ, KICK_CPU, SCHED_YIELD = 10, 1, 5, 11
ENOSYS, EINVAL, EPERM = 1000, 22, 1


def call(
    number: int,
    arguments: Sequence[int] = (),
    *,
    mode: str = "long64",
    profile: str = "intel,+kvm_pv",
    code: bytes = VMCALL,
) -> tuple[int, list[Message]]:
    """RAX after a hypercall, and the messages it sent."""
    with board(code + b"\xf4", mode, resolve(profile)) as b:
        rbx, rcx, rdx, rsi = (*arguments, 0, 0, 0, 0)[:4]
        b.registers(rax=number, rbx=rbx, rcx=rcx, rdx=rdx, rsi=rsi)
        b.engine.step()
        assert not b.host.exceptions
        assert b.state.rip == CODE + 3
        return b.state.gpr[0], b.host.messages


@pytest.mark.parametrize(
    ("number", "profile", "mode", "expected"),
    [
        (POLL_IRQ, "intel,+kvm_pv", "long64", 0),
        (SCHED_YIELD, "intel,+kvm_pv", "long64", 0),
        (KICK_CPU, "intel,+kvm_pv", "long64", -ENOSYS),
        (1 << 40, "intel,+kvm_pv", "long64", -ENOSYS),
        (SEND_IPI, "intel,+kvm_pv,-kvm_pv_send_ipi", "long64", -ENOSYS),
        (POLL_IRQ, "intel,+kvm_pv", "user64", -EPERM),
    ],
)
def test_results(number: int, profile: str, mode: str, expected: int) -> None:
    assert call(number, profile=profile, mode=mode) == (expected & (1 << 64) - 1, [])


def test_both_instructions_call_on_both_vendors() -> None:
    for profile in ("intel,+kvm_pv", "amd,+kvm_pv"):
        for code in (VMCALL, VMMCALL):
            assert call(POLL_IRQ, profile=profile, code=code)[0] == 0


def test_an_ipi_goes_to_every_bit_and_is_counted() -> None:
    result, messages = call(SEND_IPI, (0b101, 1, 0, 0x4040))
    # The bench's APICs are 0 and 1; 2 and 64 are not there.
    assert result == 1
    assert messages == [Message(0x40, destination=i) for i in (0, 2, 64)]
    assert call(SEND_IPI, (1, 0, 1, 0x400))[1] == [Message(0, DeliveryMode.NMI, 1, assert_=False)]


def test_an_ipi_outside_of_64_bit_mode_has_32_bits_a_word() -> None:
    _, messages = call(SEND_IPI, (0, 1, 3, 0x4055), mode="prot32")
    assert messages == [Message(0x55, destination=35)]


@pytest.mark.parametrize("icr", [1 << 11, 1 << 18])
def test_an_ipi_with_a_shorthand_or_a_logical_destination_is_refused(icr: int) -> None:
    assert call(SEND_IPI, (1, 0, 0, icr)) == (-EINVAL & (1 << 64) - 1, [])


def test_an_ipi_to_nobody() -> None:
    """What kvm-unit-tests try: IDs beyond all that can be."""
    assert call(SEND_IPI, (0xFFFFFFFF, 0, 0xFFFFFFFF, 0)) == (0, [])


def test_without_the_option_there_is_no_hypercall() -> None:
    with board(VMCALL, "long64", resolve("intel,+hypervisor")) as b:
        b.engine.step()
        assert [event.vector for event in b.host.exceptions][:1] == [6]


def test_cpuid_counts_the_processors() -> None:
    with board(b"\x0f\xa2\xf4", "long64", resolve("intel"), vcpus=4) as b:
        b.registers(rax=1, rcx=0)
        b.engine.step()
        assert b.state.gpr[3] >> 16 == 4
        assert b.state.gpr[2] >> 28 & 1
