"""kvmscope.vmm.devices."""
